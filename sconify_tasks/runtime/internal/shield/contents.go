package shield

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/log"
	"sconify.local/runtime/internal/sys"
)

// Original reads the original program that the sconified binary carries; nil if it carries none.
type Original interface {
	io.ReaderAt
	Size() int64
}

// file identifies an inode.
type file struct{ device, inode uint64 }

// content is one verified file in memory. Its fields are written once, by whoever fills it, before done is closed.
type content struct {
	entry *fspf.Entry
	done  chan struct{}
	err   error
	fd    int
	id    file
	place *list.Element
}

// contents is the cache of verified files: least recently used first out, but never one that somebody has open, mapped
// or running, because a second copy would be another inode, and the loader would load the library twice.
type contents struct {
	*Supervisor
	mutex  sync.Mutex
	byPath map[string]*content
	byID   map[file]*content
	used   uint64
	order  *list.List
}

func newContents(s *Supervisor) *contents {
	return &contents{Supervisor: s, byPath: make(map[string]*content), byID: make(map[file]*content), order: list.New()}
}

// memoryDevice returns the device that memory files are on.
func memoryDevice() (uint64, error) {
	fd, _, err := sys.Memfd("probe", true)
	if errors.Is(err, syscall.EACCES) {
		return 0, errors.New("this kernel forbids running programs from memory (vm.memfd_noexec=2), which verified programs need; " +
			"set the sysctl vm.memfd_noexec of this container's PID namespace to 0 or 1")
	}
	if err != nil {
		return 0, fmt.Errorf("memfd_create: %w", err)
	}
	defer syscall.Close(fd)
	var details syscall.Stat_t
	if err := syscall.Fstat(fd, &details); err != nil {
		return 0, err
	}
	return uint64(details.Dev), nil
}

// ready returns the cached content of an entry if it is there.
func (c *contents) ready(entry *fspf.Entry) *content {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	found := c.byPath[entry.Path]
	if found == nil {
		return nil
	}
	select {
	case <-found.done:
		return found
	default:
		return nil
	}
}

// open returns a new descriptor on an entry's verified content, filling it first if need be.
func (c *contents) open(entry *fspf.Entry, flags int) (int, error) {
	for {
		c.mutex.Lock()
		found := c.byPath[entry.Path]
		if found == nil {
			found = &content{entry: entry, done: make(chan struct{}), fd: -1}
			c.byPath[entry.Path] = found
			c.mutex.Unlock()
			c.fill(found)
			continue
		}
		select {
		case <-found.done:
		default:
			c.mutex.Unlock()
			<-found.done
			if found.err != nil {
				return -1, found.err
			}
			continue
		}
		if found.err != nil {
			delete(c.byPath, entry.Path) // the next open tries again: a disk error may pass
			c.mutex.Unlock()
			return -1, found.err
		}
		// Under the lock: an eviction in between would close the handle that is being reopened.
		fd, err := c.reopen(found, flags)
		c.order.MoveToBack(found.place)
		c.mutex.Unlock()
		return fd, err
	}
}

func (c *contents) reopen(found *content, flags int) (int, error) {
	fd, err := sys.Reopen(found.fd, syscall.O_RDONLY|flags)
	if errors.Is(err, syscall.EACCES) && c.root {
		uid, gid := sys.SetFilesystemIDs(found.entry.UID, found.entry.GID)
		fd, err = sys.Reopen(found.fd, syscall.O_RDONLY|flags)
		sys.SetFilesystemIDs(uid, gid)
	}
	return fd, err
}

func (c *contents) fill(target *content) {
	fd, err := c.make(target.entry)
	var details syscall.Stat_t
	if err == nil {
		err = syscall.Fstat(fd, &details)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	defer close(target.done)
	if err != nil {
		target.err = err
		return
	}
	target.fd, target.id = fd, file{uint64(details.Dev), details.Ino}
	c.byID[target.id] = target
	c.used += target.entry.Size
	c.evict()
	target.place = c.order.PushBack(target)
}

// evict drops unused files until the budget is kept or only used ones are left. It looks at a few of the oldest only, so
// that its cost per fill is bounded.
func (c *contents) evict() {
	element := c.order.Front()
	for looked := 0; element != nil && c.used > c.Budget && looked < 64; looked++ {
		next := element.Next()
		old, _ := element.Value.(*content)
		if c.unused(old.fd, old.entry) {
			_ = syscall.Close(old.fd)
			delete(c.byPath, old.entry.Path)
			delete(c.byID, old.id)
			c.order.Remove(element)
			c.used -= old.entry.Size
		} else {
			c.order.MoveToBack(element)
		}
		element = next
	}
}

// unused says whether nobody has a memory file open, mapped or running. It asks as the file's owner: a lease is for the
// owner only.
func (s *Supervisor) unused(fd int, entry *fspf.Entry) bool {
	if !s.root {
		return sys.Unused(fd)
	}
	uid, gid := sys.SetFilesystemIDs(entry.UID, entry.GID)
	defer sys.SetFilesystemIDs(uid, gid)
	return sys.Unused(fd)
}

// served returns the entry behind an inode that we made, or nil.
func (c *contents) served(id file) *fspf.Entry {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if found := c.byID[id]; found != nil {
		return found.entry
	}
	return nil
}

// make creates the sealed memory file of an entry.
func (c *contents) make(entry *fspf.Entry) (int, error) {
	fd, executable, err := sys.Memfd(baseName(entry.Path), false)
	if err != nil {
		return -1, err
	}
	out := sys.File(fd, entry.Path)
	defer out.Close()
	if err := c.copy(out, entry); err != nil {
		return -1, err
	}
	mode := entry.Mode & 0o1777
	if !executable {
		mode &^= 0o111
	}
	return finish(fd, entry, mode)
}

// finish gives a memory file the entry's metadata, seals it and returns the read-only handle that is kept.
func finish(fd int, entry *fspf.Entry, mode uint32) (int, error) {
	if err := syscall.Fchmod(fd, mode|0o400); err != nil {
		return -1, err
	}
	if err := sys.SetTimes(fd, entry.Seconds, entry.Nanoseconds); err != nil {
		return -1, err
	}
	if err := sys.Seal(fd); err != nil {
		return -1, err
	}
	kept, err := sys.Reopen(fd, syscall.O_RDONLY)
	if err != nil {
		return -1, err
	}
	// Without the capability the file stays ours: stat tells the manifest's owner, fstat this process's.
	_ = syscall.Fchown(fd, int(entry.UID), int(entry.GID))
	return kept, nil
}

// copy writes an entry's content, verified.
func (c *contents) copy(out io.Writer, entry *fspf.Entry) error {
	if entry.Flags&fspf.FlagMain != 0 && entry.Class == fspf.ClassAuthenticated {
		if c.Original == nil {
			return fmt.Errorf("%w: the binary does not carry its original", fspf.ErrDamaged)
		}
		return fspf.Verify(out, c.Original, c.Original.Size(), entry.Content, entry.Size)
	}
	if entry.Embedded != nil {
		return c.Embedded.Copy(out, entry)
	}
	stored, size, err := openStored(c.storedPath(entry))
	if err != nil {
		return err
	}
	defer stored.Close()
	if entry.Class == fspf.ClassEncrypted {
		return fspf.Decrypt(out, stored, size, c.Key, entry.Content, entry.Size)
	}
	return fspf.Verify(out, stored, size, entry.Content, entry.Size)
}

func (s *Supervisor) storedPath(entry *fspf.Entry) string {
	if entry.Flags&fspf.FlagStoredX != 0 {
		return "/fspf/x/" + fspf.StoredName(s.Key, entry.Content)
	}
	return entry.Path
}

// openStored opens a stored file by its real path. O_NONBLOCK: a FIFO planted in its place must not hang the worker.
func openStored(name string) (*os.File, int64, error) {
	fd, errno := sys.OpenReal(name, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY)
	if errno == syscall.ELOOP || errno == syscall.ENOENT || errno == syscall.ENOTDIR || errno == syscall.ENXIO {
		return nil, 0, fmt.Errorf("%w: its stored form at %s is missing or no regular file", fspf.ErrDamaged, name)
	}
	if errno != 0 {
		return nil, 0, &os.PathError{Op: "open", Path: name, Err: errno}
	}
	stored := sys.File(fd, name)
	var details syscall.Stat_t
	if err := syscall.Fstat(fd, &details); err != nil {
		_ = stored.Close()
		return nil, 0, err
	}
	if details.Mode&syscall.S_IFMT != syscall.S_IFREG {
		_ = stored.Close()
		return nil, 0, fmt.Errorf("%w: its stored form at %s is no regular file", fspf.ErrDamaged, name)
	}
	return stored, details.Size, nil
}

// damaged logs why an entry can't be served and answers EIO.
func (s *Supervisor) damaged(name string, err error) answer {
	if errors.Is(err, fspf.ErrDamaged) {
		s.Log.Once(log.Error, "%s was changed after the image was built (%v): access refused; rebuild or pull the image again", name, err)
		return fail(syscall.EIO)
	}
	s.Log.Once(log.Error, "%s can't be served: %v", name, err)
	if errno := errnoOf(errors.Unwrap(err)); errno == syscall.EMFILE || errno == syscall.ENOMEM || errno == syscall.ENFILE {
		return fail(errno)
	}
	return fail(syscall.EIO)
}

package shield

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"

	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/resolve"
	"sconify.local/runtime/internal/sys"
)

// ephemeral holds what is written over an embedded file system: a folder in memory that nobody can reach by name.
//
// A directory of the index is made there when it is first stat'ed, and filled with its names when it is first listed or
// changed: from then on the folder, and so the kernel, says what the directory holds. A name that still means the embedded
// file is a placeholder, known by its inode, which a rename or a link keeps. A file that is written to gets its content
// first; its inode is then no placeholder any more.
type ephemeral struct {
	root     string
	manifest *fspf.Manifest
	mutex    sync.Mutex
	made     map[string]bool
	filled   map[string]bool
	standing map[file]*fspf.Entry
}

// memoryPlaces are where a container has a file system in memory.
var memoryPlaces = []string{"/dev/shm", "/run", "/tmp"}

const (
	magicTmpfs = 0x01021994
	privateDir = ".sconify-fs-"
)

func newEphemeral(manifest *fspf.Manifest) (*ephemeral, error) {
	for _, place := range memoryPlaces {
		var details syscall.Statfs_t
		if syscall.Statfs(place, &details) != nil || details.Type != magicTmpfs {
			continue
		}
		root, err := os.MkdirTemp(place, privateDir)
		if err != nil {
			continue
		}
		// Other users of the container must pass it for the kernel to open what was looked up for them.
		if err := os.Chmod(root, 0o755); err != nil {
			return nil, err
		}
		return &ephemeral{
			root: root, manifest: manifest, made: map[string]bool{"/": true}, filled: make(map[string]bool),
			standing: make(map[file]*fspf.Entry),
		}, nil
	}
	return nil, errors.New("an image with binary-fs keeps directories and what is written in memory, and finds no file system for " +
		"it at /dev/shm, /run or /tmp: start the container without --ipc=none, or with --tmpfs /run")
}

func (e *ephemeral) close() { _ = os.RemoveAll(e.root) }

// logical tells the path that a path inside of the folder stands for.
func (e *ephemeral) logical(name string) (string, bool) {
	rest, found := strings.CutPrefix(name, e.root)
	switch {
	case !found || rest != "" && rest[0] != '/':
		return name, false
	case rest == "":
		return "/", true
	}
	return rest, true
}

func (e *ephemeral) place(name string) string { return e.root + strings.TrimSuffix(name, "/") }

func (e *ephemeral) isDirectory(name string) bool {
	entry := e.manifest.Entry(name)
	return name == "/" || entry != nil && entry.Kind == fspf.KindDirectory
}

// Look tells what stands at a path now.
func (e *ephemeral) Look(name string) resolve.Seen {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if name == "/" {
		return resolve.Seen{Kind: resolve.SeenDirectory, Entry: e.rootEntry()}
	}
	if parent := path.Dir(name); e.isDirectory(parent) && !e.filled[parent] {
		return seenEntry(e.manifest.Entry(name))
	}
	var details syscall.Stat_t
	if err := syscall.Lstat(e.place(name), &details); err != nil {
		return resolve.Seen{}
	}
	if entry := e.standing[file{uint64(details.Dev), details.Ino}]; entry != nil {
		return seenEntry(entry)
	}
	switch details.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		seen := resolve.Seen{Kind: resolve.SeenDirectory}
		if e.isDirectory(name) {
			seen.Entry = e.manifest.Entry(name)
		}
		return seen
	case syscall.S_IFLNK:
		text, err := os.Readlink(e.place(name))
		if err != nil {
			return resolve.Seen{}
		}
		return resolve.Seen{Kind: resolve.SeenLink, Target: text}
	}
	return resolve.Seen{Kind: resolve.SeenOther}
}

func (e *ephemeral) rootEntry() *fspf.Entry {
	if entry := e.manifest.Entry("/"); entry != nil {
		return entry
	}
	return &fspf.Entry{Path: "/", Kind: fspf.KindDirectory, Class: fspf.ClassAuthenticated, Mode: 0o755}
}

func seenEntry(entry *fspf.Entry) resolve.Seen {
	switch {
	case entry == nil:
		return resolve.Seen{}
	case entry.Kind == fspf.KindDirectory:
		return resolve.Seen{Kind: resolve.SeenDirectory, Entry: entry}
	case entry.Kind == fspf.KindSymlink:
		return resolve.Seen{Kind: resolve.SeenLink, Entry: entry, Target: entry.Target}
	}
	return resolve.Seen{Kind: resolve.SeenOther, Entry: entry}
}

// ensure makes a directory of the index, and those above it.
func (e *ephemeral) ensure(name string) error {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	return e.makeDirectory(name)
}

func (e *ephemeral) makeDirectory(name string) error {
	if e.made[name] || !e.isDirectory(name) {
		return nil
	}
	if err := e.makeDirectory(path.Dir(name)); err != nil {
		return err
	}
	entry, at := e.manifest.Entry(name), e.place(name)
	if err := syscall.Mkdir(at, 0o700); err != nil && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("no directory can be made in memory: %w", err)
	}
	_ = syscall.Chown(at, int(entry.UID), int(entry.GID)) // only root can
	if err := syscall.Chmod(at, entry.Mode&0o7777|0o700); err != nil {
		return err
	}
	e.made[name] = true
	return setTimes(at, entry)
}

func setTimes(at string, entry *fspf.Entry) error {
	when := syscall.Timespec{Sec: entry.Seconds, Nsec: int64(entry.Nanoseconds)}
	return syscall.UtimesNano(at, []syscall.Timespec{when, when})
}

// fill gives a directory of the index its names; one that was made at run time has them already.
func (e *ephemeral) fill(name string) error {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	if !e.isDirectory(name) || e.filled[name] {
		return nil
	}
	if err := e.makeDirectory(name); err != nil {
		return err
	}
	required, optional := e.manifest.Children(name)
	for _, child := range required {
		if err := e.stand(e.manifest.Entry(join(name, child))); err != nil {
			return fmt.Errorf("%s can't be listed in memory: %w", name, err)
		}
	}
	for _, child := range optional {
		if err := e.border(join(name, child)); err != nil {
			return err
		}
	}
	e.filled[name] = true
	return setTimes(e.place(name), e.entryOf(name))
}

func (e *ephemeral) entryOf(name string) *fspf.Entry {
	if name == "/" {
		return e.rootEntry()
	}
	return e.manifest.Entry(name)
}

// stand makes a placeholder.
func (e *ephemeral) stand(entry *fspf.Entry) error {
	at := e.place(entry.Path)
	var err error
	switch entry.Kind {
	case fspf.KindDirectory:
		return e.makeDirectory(entry.Path)
	case fspf.KindSymlink:
		err = os.Symlink(entry.Target, at)
	default:
		err = syscall.Mknod(at, syscall.S_IFREG|0o600, 0)
	}
	if err != nil {
		return err
	}
	var details syscall.Stat_t
	if err := syscall.Lstat(at, &details); err != nil {
		return err
	}
	e.standing[file{uint64(details.Dev), details.Ino}] = entry
	return nil
}

// border makes the name of what is not ours but is seen: a host path, /proc and the like.
func (e *ephemeral) border(name string) error {
	var details syscall.Stat_t
	if e.manifest.Entry(name) != nil || syscall.Stat(name, &details) != nil {
		return nil
	}
	var err error
	if details.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		err = syscall.Mkdir(e.place(name), 0o755)
	} else {
		err = syscall.Mknod(e.place(name), syscall.S_IFREG|0o644, 0)
	}
	if errors.Is(err, syscall.EEXIST) {
		return nil
	}
	return err
}

// settle ends what a placeholder's inode stood for.
func (e *ephemeral) settle(id file) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	delete(e.standing, id)
}

// identity returns the inode at a path, and whether this is its only name.
func (e *ephemeral) identity(name string) (id file, only bool) {
	var details syscall.Stat_t
	if syscall.Lstat(e.place(name), &details) != nil {
		return file{}, false
	}
	return file{uint64(details.Dev), details.Ino}, details.Nlink == 1
}

// parent opens the directory of a path in the folder, through no symlink, and returns the name in it.
func (e *ephemeral) parent(name string) (int, string, syscall.Errno) {
	fd, errno := sys.OpenReal(e.place(path.Dir(name)), sys.OPath|syscall.O_DIRECTORY)
	return fd, path.Base(name), errno
}

func join(parent, name string) string { return strings.TrimSuffix(parent, "/") + "/" + name }

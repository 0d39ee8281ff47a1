package shield

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"sconify.local/runtime/internal/elfsec"
	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/log"
	"sconify.local/runtime/internal/measure"
	"sconify.local/runtime/internal/sys"
)

const maxVerdicts = 1024

// identification is what must be unchanged for a file on the disk to be the one that was hashed.
type identification struct {
	file
	size     int64
	changed  syscall.Timespec
	modified syscall.Timespec
}

type digestKey struct {
	identification
	program bool
}

// trust decides which processes may read encrypted content.
//
// Why no bookkeeping of exec: while a thread waits for our answer, its process can't exec (that would kill the thread,
// and the answer with it), so the executable behind /proc/TID/exe at that moment is what runs. Programs can't set that
// link: PR_SET_MM is refused by the filter. A vfork child shares its parent's program until it execs, and its worth.
// A program on the disk is as good as its digest and its interpreter's, both remembered by inode, size and change time.
type trust struct {
	*Supervisor
	mutex   sync.Mutex
	digests map[digestKey][32]byte
	runtime func() ([32]byte, error)
	own     identification
}

func newTrust(s *Supervisor) (*trust, error) {
	var details syscall.Stat_t
	if err := syscall.Stat("/proc/self/exe", &details); err != nil {
		return nil, err
	}
	return &trust{
		Supervisor: s, digests: make(map[digestKey][32]byte), runtime: sync.OnceValues(s.Runtime), own: identify(details),
	}, nil
}

// executable returns the inode that a process runs.
func (t *target) executable(process int) (file, syscall.Errno) {
	details, errno := t.executableDetails(process)
	return file{uint64(details.Dev), details.Ino}, errno
}

func (t *target) executableDetails(process int) (syscall.Stat_t, syscall.Errno) {
	var details syscall.Stat_t
	name := "/proc/" + strconv.Itoa(process) + "/exe"
	return details, t.as(func() error { return syscall.Stat(name, &details) })
}

// trusted returns nil if the caller runs a verified program, else why not.
func (t *target) trusted() error {
	details, errno := t.executableDetails(int(t.pid))
	if errno != 0 {
		if kept := t.retained.get(t.tgid()); kept != nil && kept.trusted {
			return nil
		}
		return fmt.Errorf("its program can't be determined (%w)", errno)
	}
	id := file{uint64(details.Dev), details.Ino}
	if t.programs.entry(id) != nil {
		return nil
	}
	if entry := t.contents.served(id); entry != nil && entry.Mode&0o111 != 0 {
		// Started from a descriptor on a verified file, but with the interpreter that the kernel found on the disk.
		return t.trust.interpreterOnDisk(entry)
	}
	name, errno := t.readlink("exe")
	if errno != 0 {
		return fmt.Errorf("its program can't be determined (%w)", errno)
	}
	entry := t.Manifest.Entry(name)
	if entry == nil || entry.Kind != fspf.KindFile || entry.Class != fspf.ClassAuthenticated {
		return fmt.Errorf("its program %s is not in the manifest", strings.TrimSuffix(name, " (deleted)"))
	}
	return t.trust.onDisk(entry, t, details)
}

// onDisk verifies a program of the manifest that lies on the disk, and its interpreter.
func (v *trust) onDisk(entry *fspf.Entry, t *target, details syscall.Stat_t) error {
	digest, err := v.digest(t, t.proc("exe"), identify(details), false)
	if err != nil {
		return err
	}
	if digest != entry.Content {
		return fmt.Errorf("its program %s is not the manifest's", entry.Path)
	}
	return v.interpreterOnDisk(entry)
}

// interpreterOnDisk verifies the file that the kernel opens for a program's PT_INTERP.
func (v *trust) interpreterOnDisk(entry *fspf.Entry) error {
	interpreter, name, err := v.programs.interpreter(entry)
	if err != nil {
		return err
	}
	if interpreter == nil {
		if name != "" {
			return fmt.Errorf("its interpreter %s is not in the manifest", name)
		}
		return nil
	}
	if err := v.agree(name); err != nil {
		return err
	}
	return v.fileOnDisk(interpreter)
}

// agree holds that the kernel's walk ends where ours does.
func (v *trust) agree(name string) error {
	var details, real syscall.Stat_t
	entry, err := v.verifiedPath(name)
	if err != nil {
		return err
	}
	if err := syscall.Stat(name, &details); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := syscall.Lstat(entry.Path, &real); err != nil || real.Ino != details.Ino || real.Dev != details.Dev {
		return fmt.Errorf("on the disk %s leads elsewhere than in the manifest", name)
	}
	return nil
}

// fileOnDisk verifies the stored bytes of an authenticated file.
func (v *trust) fileOnDisk(entry *fspf.Entry) error {
	var details syscall.Stat_t
	if err := syscall.Lstat(entry.Path, &details); err != nil {
		return fmt.Errorf("%s: %w", entry.Path, err)
	}
	digest, err := v.digest(nil, entry.Path, identify(details), false)
	if err != nil {
		return err
	}
	if digest != entry.Content {
		return fmt.Errorf("%w: %s is not the manifest's", fspf.ErrDamaged, entry.Path)
	}
	return nil
}

// isRuntime says whether a file on the disk is this very runtime, with or without sections.
func (v *trust) isRuntime(t *target, name string) error {
	var details syscall.Stat_t
	stat := func() error { return syscall.Stat(name, &details) }
	if t != nil {
		if errno := t.as(stat); errno != 0 {
			return errno
		}
	} else if err := stat(); err != nil {
		return err
	}
	if identify(details) == v.own {
		return nil
	}
	digest, err := v.digest(t, name, identify(details), true)
	if err != nil {
		return err
	}
	expected, err := v.runtime()
	if err != nil {
		return err
	}
	if digest != expected {
		return fmt.Errorf("%w: the runtime at %s was replaced", fspf.ErrDamaged, name)
	}
	return nil
}

func identify(details syscall.Stat_t) identification {
	return identification{file{uint64(details.Dev), details.Ino}, details.Size, details.Ctim, details.Mtim}
}

// digest hashes a file once per identification; program means its segments only.
func (v *trust) digest(t *target, name string, id identification, program bool) ([32]byte, error) {
	key := digestKey{id, program}
	v.mutex.Lock()
	known, found := v.digests[key]
	v.mutex.Unlock()
	if found {
		return known, nil
	}
	opened, size, err := v.openForDigest(t, name, id)
	if err != nil {
		return known, err
	}
	defer opened.Close()
	if program {
		decoded, err := elfsec.Open(opened, size)
		if err != nil {
			return known, fmt.Errorf("%w: %s: %w", fspf.ErrDamaged, name, err)
		}
		if err := decoded.CheckTable(); err != nil {
			return known, fmt.Errorf("%w: %s: %w", fspf.ErrDamaged, name, err)
		}
		known, err = measure.Program(decoded)
		if err != nil {
			return known, err
		}
	} else if known, err = hashFile(opened); err != nil {
		return known, err
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if len(v.digests) >= maxVerdicts {
		clear(v.digests)
	}
	v.digests[key] = known
	return known, nil
}

func (v *trust) openForDigest(t *target, name string, id identification) (*os.File, int64, error) {
	fd := -1
	open := func() (err error) {
		fd, err = syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
		return err
	}
	var err error
	if t != nil {
		if errno := t.as(open); errno != 0 {
			err = errno
		}
	} else {
		err = open()
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s can't be read to verify it: %w", name, err)
	}
	opened := sys.File(fd, name)
	var details syscall.Stat_t
	if err := syscall.Fstat(fd, &details); err != nil || identify(details) != id || details.Mode&syscall.S_IFMT != syscall.S_IFREG {
		_ = opened.Close()
		return nil, 0, fmt.Errorf("%s changed while it was verified", name)
	}
	return opened, details.Size, nil
}

// mayRead decides whether the caller sees an entry's content.
func (t *target) mayRead(entry *fspf.Entry) syscall.Errno {
	if entry.Class != fspf.ClassEncrypted {
		return 0
	}
	if err := t.trusted(); err != nil {
		t.Log.Once(log.Error, "%s is encrypted and refused to process %d (%s): %v; add the program's directory to the protected ones "+
			"(--dir) if it must read the file", entry.Path, t.tgid(), t.command(), err)
		return syscall.EACCES
	}
	return 0
}

func (t *target) command() string {
	name, err := os.ReadFile(t.proc("comm"))
	if err != nil {
		return "?"
	}
	return string(bytes.TrimSpace(name))
}

package shield

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"

	"sconify.local/runtime/internal/sys"
)

const maxString = 4096

// target is the thread that waits for an answer. Everything about it is read anew for every call: it may share its
// memory with another process until it exec()s (vfork, posix_spawn), and its number may belong to another thread
// tomorrow; a cache keyed by the number would go stale in silence.
type target struct {
	*Supervisor
	*notification
	mem     int
	process int
	known   *identity
	buffer  *[maxString]byte
	// image is the /proc/PID/exe that the walk went through, if any.
	image string
}

func (t *target) proc(leaf string) string {
	return "/proc/" + strconv.Itoa(int(t.pid)) + "/" + leaf
}

// open opens the caller's memory. After that and a look at the id, the descriptor is the caller's, whatever happens to
// its number.
func (t *target) open() syscall.Errno {
	if t.mem >= 0 {
		return 0
	}
	errno := t.as(func() error {
		fd, err := syscall.Open(t.proc("mem"), syscall.O_RDWR|syscall.O_CLOEXEC, 0)
		t.mem = fd
		return err
	})
	if errno != 0 {
		t.mem = -1
		if errno = t.retainedMemory(); errno != 0 {
			return errno
		}
	}
	if !t.listener.valid(t.id) {
		return syscall.ESRCH
	}
	return 0
}

// retainedMemory takes the descriptor that was opened before the process changed its user: since then the kernel
// counts it as not dumpable, and its memory can't be opened again.
func (t *target) retainedMemory() syscall.Errno {
	kept := t.retained.get(t.tgid())
	if kept == nil {
		return syscall.EACCES
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(kept.mem), syscall.F_DUPFD_CLOEXEC, 0)
	if errno == 0 {
		t.mem = int(fd)
	}
	return errno
}

func (t *target) close() {
	if t.mem >= 0 {
		_ = syscall.Close(t.mem)
		t.mem = -1
	}
}

// as tries an access to the caller's /proc entries with our identity, then with the caller's: after a change of user and
// an exec the kernel lets only that user look.
func (t *target) as(access func() error) syscall.Errno {
	err := access()
	if err == nil {
		return 0
	}
	if errno := errnoOf(err); (errno != syscall.EACCES && errno != syscall.EPERM) || !t.root {
		return errno
	}
	who := t.identity()
	oldUID, oldGID := sys.SetFilesystemIDs(who.euid, who.egid)
	err = access()
	sys.SetFilesystemIDs(oldUID, oldGID)
	if err == nil {
		return 0
	}
	return errnoOf(err)
}

// string reads a NUL-terminated string.
func (t *target) string(address uint64) (string, syscall.Errno) {
	if errno := t.open(); errno != 0 {
		return "", errno
	}
	have := 0
	for want := 256; have < maxString; want = maxString {
		count, err := syscall.Pread(t.mem, t.buffer[have:want], int64(address)+int64(have))
		if err != nil || count == 0 {
			return "", syscall.EFAULT
		}
		if end := bytes.IndexByte(t.buffer[have:have+count], 0); end >= 0 {
			return string(t.buffer[:have+end]), 0
		}
		have += count
	}
	return "", syscall.ENAMETOOLONG
}

func (t *target) read(address uint64, into []byte) syscall.Errno {
	if errno := t.open(); errno != 0 {
		return errno
	}
	if count, err := syscall.Pread(t.mem, into, int64(address)); err != nil || count != len(into) {
		return syscall.EFAULT
	}
	return 0
}

func (t *target) write(address uint64, content []byte) syscall.Errno {
	if errno := t.open(); errno != 0 {
		return errno
	}
	if count, err := syscall.Pwrite(t.mem, content, int64(address)); err != nil || count != len(content) {
		return syscall.EFAULT
	}
	return 0
}

func (t *target) readlink(leaf string) (string, syscall.Errno) { return t.readlinkOf(t.proc(leaf)) }

func (t *target) readlinkOf(name string) (string, syscall.Errno) {
	var text string
	errno := t.as(func() error {
		var err error
		text, err = os.Readlink(name)
		return err
	})
	return text, errno
}

// readProc reads a file of the caller's /proc entries.
func (t *target) readProc(leaf string) ([]byte, syscall.Errno) {
	var content []byte
	errno := t.as(func() (err error) {
		content, err = os.ReadFile(t.proc(leaf))
		return err
	})
	return content, errno
}

// base returns where a relative path starts. native means that the kernel gives the right error by itself.
func (t *target) base(dir int32) (text string, native bool, errno syscall.Errno) {
	leaf := "cwd"
	if dir != sys.AtFdcwd {
		if dir < 0 {
			return "", true, 0
		}
		leaf = "fd/" + strconv.Itoa(int(dir))
	}
	text, errno = t.readlink(leaf)
	if errno == syscall.ENOENT && dir != sys.AtFdcwd {
		return "", true, 0
	}
	if errno != 0 {
		if kept := t.retained.get(t.tgid()); kept != nil && leaf == "cwd" && kept.directory != "" {
			return kept.directory, false, 0
		}
		return "", false, errno
	}
	if t.ephemeral != nil {
		text, _ = t.ephemeral.logical(text)
	}
	// A pipe, a memory file, a removed directory: no name can be found below it.
	if text == "" || text[0] != '/' || strings.HasSuffix(text, " (deleted)") {
		return "", true, 0
	}
	return text, false, 0
}

// identity is whom the kernel sees in the caller.
type identity struct {
	uid, euid, gid, egid uint32
	groups               []uint32
	umask                uint32
	override             bool // CAP_DAC_OVERRIDE or CAP_DAC_READ_SEARCH
}

// tgid returns the process that the calling thread belongs to.
func (t *target) tgid() int {
	if t.process == 0 {
		t.identity()
	}
	return t.process
}

func (t *target) identity() *identity {
	if t.known == nil || t.process == 0 {
		t.known, t.process = readIdentity(t.proc("status"), int(t.pid))
	}
	return t.known
}

func readIdentity(name string, tid int) (*identity, int) {
	// Whom we can't identify is nobody in particular.
	who, process := &identity{uid: 65534, euid: 65534, gid: 65534, egid: 65534}, tid
	content, err := os.ReadFile(name)
	if err != nil {
		return who, process
	}
	for line := range strings.Lines(string(content)) {
		key, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		fields := strings.Fields(rest)
		switch {
		case key == "Tgid" && len(fields) == 1:
			process, _ = strconv.Atoi(fields[0])
		case key == "Uid" && len(fields) == 4:
			who.uid, who.euid = number(fields[0]), number(fields[3])
		case key == "Gid" && len(fields) == 4:
			who.gid, who.egid = number(fields[0]), number(fields[3])
		case key == "Umask" && len(fields) == 1:
			mask, _ := strconv.ParseUint(fields[0], 8, 32)
			who.umask = uint32(mask)
		case key == "Groups":
			for _, field := range fields {
				who.groups = append(who.groups, number(field))
			}
		case key == "CapEff" && len(fields) == 1:
			bits, _ := strconv.ParseUint(fields[0], 16, 64)
			who.override = bits&(1<<1|1<<2) != 0
		}
	}
	return who, process
}

func number(text string) uint32 {
	value, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 65534
	}
	return uint32(value)
}

func errnoOf(err error) syscall.Errno {
	for {
		switch typed := err.(type) {
		case nil:
			return 0
		case syscall.Errno:
			return typed
		case *os.PathError:
			err = typed.Err
		case *os.SyscallError:
			err = typed.Err
		default:
			return syscall.EIO
		}
	}
}

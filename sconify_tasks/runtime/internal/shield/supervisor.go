// Package shield answers the path system calls of the program and its children: what the manifest protects is served as
// sealed memory files whose content was verified, everything else continues in the kernel.
//
// Invariants: a worker thread is locked and has every signal blocked; nothing is served before the caller's id was seen
// valid after its memory was opened; an error inside is an error for the caller, never a native call.
package shield

import (
	"os"
	"runtime"
	"strings"
	"syscall"

	"sconify.local/runtime/internal/binaryfs"
	"sconify.local/runtime/internal/entry"
	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/log"
	"sconify.local/runtime/internal/resolve"
	"sconify.local/runtime/internal/sys"
)

const (
	slowWorkers = 2
	// slowSize is how large a file may be to be filled by the hot worker.
	slowSize = 1 << 20
)

// Settings are the supervisor's inputs.
type Settings struct {
	Manifest *fspf.Manifest
	Key      fspf.Key
	// Dlopen is the measured option: 0, 1 or 2.
	Dlopen int
	// Original reads the bytes of the original program when the binary carries them.
	Original Original
	// Ahead is the original program in memory already; nil if it was not copied ahead.
	Ahead *Ahead
	// Embedded reads the files that the binary carries; nil without binary-fs.
	Embedded *binaryfs.Files
	// Runtime returns the digest of the running runtime's segments: who has it may ask for programs.
	Runtime func() ([32]byte, error)
	// Unprotected means that the session protects nothing: libraries can't be verified then.
	Unprotected bool
	Budget      uint64
	Log         *log.Logger
}

// Supervisor holds the state of one shield.
type Supervisor struct {
	Settings
	listener listener
	contents *contents
	programs *programs
	trust    *trust
	retained retained
	links    links
	// ephemeral is nil unless the binary carries its files.
	ephemeral *ephemeral
	root      bool
	self      int
	device    uint64
	slow      chan notification
}

// New returns a supervisor that is ready to serve.
func New(settings Settings) (*Supervisor, error) {
	s := &Supervisor{
		Settings: settings,
		retained: retained{byPID: make(map[int]*memory)},
		root:     os.Geteuid() == 0,
		self:     os.Getpid(),
		slow:     make(chan notification, 64),
	}
	device, err := memoryDevice()
	if err != nil {
		return nil, err
	}
	s.device = device
	s.contents = newContents(s)
	s.programs = newPrograms(s)
	if s.trust, err = newTrust(s); err != nil {
		return nil, err
	}
	if s.Embedded != nil {
		s.ephemeral, err = newEphemeral(s.Manifest)
	}
	return s, err
}

// Serve starts the workers on a filter's descriptor.
func (s *Supervisor) Serve(fd int) {
	s.listener = listener(fd)
	s.listener.wakeSynchronously()
	if s.ephemeral != nil {
		syscall.Umask(0) // files in memory are made with the caller's
	}
	go s.hot()
	for range slowWorkers {
		go s.patient()
	}
}

// Close removes what the supervisor left outside its own memory.
func (s *Supervisor) Close() {
	s.links.remove()
	if s.ephemeral != nil {
		s.ephemeral.close()
	}
}

// hot answers what can be answered at once.
func (s *Supervisor) hot() {
	runtime.LockOSThread()
	sys.BlockSignals()
	var buffer [maxString]byte
	var note notification
	for {
		switch errno := s.listener.receive(&note); errno {
		case 0:
			s.dispatch(note, &buffer, true)
		case syscall.ENOENT, syscall.EINTR: // the caller was killed before it was received
		default:
			return // no process is left under the filter
		}
	}
}

// patient answers what needs a large file to be decrypted first.
func (s *Supervisor) patient() {
	runtime.LockOSThread()
	sys.BlockSignals()
	var buffer [maxString]byte
	for note := range s.slow {
		s.dispatch(note, &buffer, false)
	}
}

func (s *Supervisor) dispatch(note notification, buffer *[maxString]byte, hurried bool) {
	t := &target{Supervisor: s, notification: &note, mem: -1, buffer: buffer}
	what := byNumber[uint32(note.number)]
	result := fail(syscall.ENOSYS)
	if what != nil && note.pid != 0 {
		result = t.guardedHandle(what, hurried)
	}
	t.close()
	if result.kind == answerLater {
		select {
		case s.slow <- note:
		default: // the patient ones are busy: better late here than a queue without end
			s.dispatch(note, buffer, false)
		}
		return
	}
	s.listener.reply(note.id, result)
}

// guardedHandle turns a mistake of ours into an error for one call: a supervisor that dies takes the container with it.
func (t *target) guardedHandle(what *call, hurried bool) (result answer) {
	defer func() {
		if problem := recover(); problem != nil {
			t.Log.Once(log.Error, "a system call (%d) was refused because of a fault in the runtime: %v; please report it", t.number, problem)
			result = fail(syscall.EIO)
		}
	}()
	return t.handle(what, hurried)
}

func (t *target) handle(what *call, hurried bool) answer {
	switch what.op {
	case opOpen, opOpenat2, opCreat:
		return t.handleOpen(what, hurried)
	case opStat, opStatx:
		return t.handleStat(what)
	case opAccess:
		return t.handleAccess(what)
	case opReadlink:
		return t.handleReadlink(what)
	case opChdir:
		return t.handleChdir(what)
	case opExec:
		return t.handleExec(what)
	case opChange, opCreate, opMove:
		return t.handleChange(what)
	case opGetxattr, opListxattr:
		return t.handleXattr(what)
	case opMmap:
		return t.handleMmap()
	case opSetid:
		return t.handleSetid()
	case opBind:
		return t.handleBind(what)
	case opGetcwd:
		return t.handleGetcwd()
	}
	return fail(syscall.ENOSYS)
}

// place is a resolved argument.
type place struct {
	resolve.Result
}

// locate reads and resolves a path argument. done means that the answer is already known.
func (t *target) locate(dir, path int, options resolve.Options) (found place, done bool, result answer) {
	address := t.args[path]
	if address == 0 { // futimens and friends: the descriptor itself is meant
		return found, true, proceed
	}
	name, errno := t.string(address)
	if errno != 0 {
		return found, true, t.unreadable(errno)
	}
	if name == "" { // ENOENT, or AT_EMPTY_PATH
		return found, true, proceed
	}
	if name == entry.Name {
		found.Path, found.Native = name, true
		return found, false, proceed
	}
	options.Base = "/"
	if name[0] != '/' || options.InRoot || options.Beneath {
		directory := int32(sys.AtFdcwd)
		if dir != none {
			directory = int32(t.args[dir])
		}
		base, native, errno := t.base(directory)
		if native {
			return found, true, proceed
		}
		if errno != 0 {
			return found, true, t.unreadable(errno)
		}
		options.Base = base
	}
	if plain, ok := t.unprotected(name, options); ok {
		found.Path, found.Native = plain, true
		return found, false, proceed
	}
	found.Result, errno = t.view().Walk(name, options)
	if errno == 0 && found.Native && t.hidden(found.Path) {
		errno = syscall.ENOENT
	}
	if errno != 0 {
		return found, true, fail(errno)
	}
	return found, false, proceed
}

// unreadable answers a caller whose memory can't be read. Letting the call through would show it the stored bytes in
// place of the content, so it is refused.
func (t *target) unreadable(errno syscall.Errno) answer {
	if errno == syscall.EFAULT || errno == syscall.ESRCH || errno == syscall.ENAMETOOLONG {
		return fail(errno)
	}
	t.Log.Once(log.Error, "process %d can't be watched (it changed its user and forked without exec): its file access is "+
		"refused; start the container with --user, let the program exec after the change, or add --cap-add SYS_PTRACE", t.tgid())
	return fail(syscall.EACCES)
}

// unprotected is the fast way for the many paths that have nothing to do with the manifest: no component is an entry
// that could lead elsewhere, and the kernel finds no symlink on the way.
func (t *target) unprotected(name string, options resolve.Options) (string, bool) {
	if options.InRoot || options.Beneath || options.NoSymlinks || strings.Contains(name, "..") {
		return "", false
	}
	if name[0] != '/' {
		name = strings.TrimSuffix(options.Base, "/") + "/" + name
	}
	if len(name) >= maxString || strings.HasPrefix(name, "/proc") {
		return "", false
	}
	plain := resolveClean(name)
	for end := 1; end <= len(plain); end++ {
		if end < len(plain) && plain[end] != '/' {
			continue
		}
		if entry := t.Manifest.Entry(plain[:end]); entry != nil && (entry.Kind == fspf.KindSymlink || end == len(plain)) {
			return "", false
		}
	}
	if t.Manifest.Class(plain) != fspf.ClassNone || t.hidden(plain) {
		return "", false
	}
	flags := sys.OPath | syscall.O_CLOEXEC
	if !options.Follow {
		flags |= syscall.O_NOFOLLOW
	}
	fd, errno := sys.Openat2(sys.AtFdcwd, name, flags, sys.ResolveNoSymlinks)
	if errno == 0 {
		_ = syscall.Close(fd)
	}
	return plain, errno == 0 || errno == syscall.ENOENT || errno == syscall.ENOTDIR
}

// resolveClean removes empty and "." components; there are no others to remove here.
func resolveClean(name string) string {
	if !strings.Contains(name, "//") && !strings.Contains(name, "/./") && !strings.HasSuffix(name, "/") && !strings.HasSuffix(name, "/.") {
		return name
	}
	var out strings.Builder
	for component := range strings.SplitSeq(name, "/") {
		if component != "" && component != "." {
			out.WriteByte('/')
			out.WriteString(component)
		}
	}
	if out.Len() == 0 {
		return "/"
	}
	return out.String()
}

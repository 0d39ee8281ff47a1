package shield

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"

	"sconify.local/runtime/internal/elfsec"
	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/resolve"
	"sconify.local/runtime/internal/sys"
)

// maxPrograms bounds the programs that are kept: the descriptor's number is the caller's choice.
const maxPrograms = 4096

// programs are executables in memory whose PT_INTERP was rewritten to the descriptor of a verified interpreter: the
// kernel itself would open the interpreter's path, and run whatever lies there.
type programs struct {
	*Supervisor
	mutex sync.Mutex
	byKey map[string]*patched
	byID  map[file]*patched
	used  uint64
	// names holds each program's PT_INTERP, so that starting it again does not need its content again.
	names map[string]string
}

// errScript says that a file is no ELF program.
var errScript = errors.New("no ELF file")

// patched is one program in memory.
type patched struct {
	entry *fspf.Entry
	fd    int
	// slot is the descriptor at which its interpreter is expected.
	slot int
	id   file
}

func newPrograms(s *Supervisor) *programs {
	return &programs{Supervisor: s, byKey: make(map[string]*patched), byID: make(map[file]*patched), names: make(map[string]string)}
}

// entry returns what a running or mapped inode is a program of, or nil.
func (p *programs) entry(id file) *fspf.Entry {
	if found := p.running(id); found != nil {
		return found.entry
	}
	return nil
}

func (p *programs) running(id file) *patched {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.byID[id]
}

// logical returns the path of a process's program if it runs from one of our memory files.
func (p *programs) logical(t *target, process int) string {
	id, errno := t.executable(process)
	if errno != 0 {
		return ""
	}
	if entry := p.entry(id); entry != nil {
		return entry.Path
	}
	if entry := p.contents.served(id); entry != nil {
		return entry.Path
	}
	return ""
}

// interpreter returns the entry of an entry's PT_INTERP; nil for a static program, or when nothing is protected.
func (p *programs) interpreter(entry *fspf.Entry) (*fspf.Entry, string, error) {
	name, err := p.interpreterName(entry)
	if err != nil || name == "" {
		return nil, "", err
	}
	found, err := p.verifiedPath(name)
	if err != nil && !p.Unprotected {
		return nil, name, err
	}
	return found, name, nil
}

func (p *programs) interpreterName(entry *fspf.Entry) (string, error) {
	p.mutex.Lock()
	name, known := p.names[entry.Path]
	p.mutex.Unlock()
	if known {
		return name, nil
	}
	image, err := p.image(entry)
	if err != nil {
		return "", err
	}
	defer image.Close()
	if isELF(image) {
		decoded, err := elfsec.Open(image, int64(entry.Size))
		if err != nil {
			return "", err
		}
		if name, err = decoded.Interpreter(); err != nil {
			return "", err
		}
	}
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.names[entry.Path] = name
	return name, nil
}

// verifiedPath resolves a path to a file of the manifest.
func (s *Supervisor) verifiedPath(name string) (*fspf.Entry, error) {
	t := &target{Supervisor: s, notification: &notification{pid: uint32(s.self)}, mem: -1}
	result, errno := resolve.View{Manifest: s.Manifest, Disk: disk{t}}.Walk(name, resolve.Options{Follow: true, Base: "/"})
	if errno != 0 {
		return nil, fmt.Errorf("%s: %w", name, errno)
	}
	if result.Entry == nil || result.Entry.Kind != fspf.KindFile {
		return nil, fmt.Errorf("%s is not in the manifest, so it can't be verified", name)
	}
	return result.Entry, nil
}

// image opens an entry's content for the supervisor itself.
func (p *programs) image(entry *fspf.Entry) (*os.File, error) {
	fd, err := p.contents.open(entry, 0)
	if err != nil {
		return nil, err
	}
	return sys.File(fd, entry.Path), nil
}

func isELF(image io.ReaderAt) bool {
	var magic [4]byte
	_, err := image.ReadAt(magic[:], 0)
	return err == nil && string(magic[:]) == elf.ELFMAG
}

// openInterpreter opens the interpreter of a program for the caller; ENOENT if it has none.
func (p *programs) openInterpreter(entry *fspf.Entry) (int, error) {
	found, _, err := p.interpreter(entry)
	if err != nil {
		return -1, err
	}
	if found == nil {
		return -1, syscall.ENOENT
	}
	fd, err := p.contents.open(found, 0)
	if err != nil {
		return -1, fmt.Errorf("its interpreter %s: %w", found.Path, err)
	}
	return fd, nil
}

// openProgram opens a program whose interpreter will be at the given descriptor. A script is opened as it is.
func (p *programs) openProgram(entry *fspf.Entry, descriptor int) (int, error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	key := entry.Path + "\x00" + strconv.Itoa(descriptor)
	if kept, found := p.byKey[key]; found {
		return sys.Reopen(kept.fd, syscall.O_RDONLY)
	}
	p.evict(entry.Size)
	if len(p.byKey) >= maxPrograms {
		return -1, syscall.ENOMEM
	}
	kept, err := p.patch(entry, descriptor)
	if errors.Is(err, errScript) {
		return p.contents.open(entry, 0)
	}
	if err != nil {
		return -1, err
	}
	var details syscall.Stat_t
	if err := syscall.Fstat(kept, &details); err != nil {
		return -1, err
	}
	made := &patched{entry: entry, fd: kept, slot: descriptor, id: file{uint64(details.Dev), details.Ino}}
	p.byKey[key], p.byID[made.id] = made, made
	p.used += entry.Size
	return sys.Reopen(kept, syscall.O_RDONLY)
}

// evict drops programs that do not run until a new one fits the budget.
func (p *programs) evict(size uint64) {
	for key, old := range p.byKey {
		if p.used+size <= p.Budget {
			return
		}
		if p.unused(old.fd, old.entry) {
			_ = syscall.Close(old.fd)
			delete(p.byKey, key)
			delete(p.byID, old.id)
			p.used -= old.entry.Size
		}
	}
}

// patch makes a memory file of a program and lets its PT_INTERP header point at a new string behind the file. The string in
// the mapped segment stays: the loader compares it with the names of libraries. The program is copied once, and not kept
// among the contents: hardly anybody opens it to read.
func (p *programs) patch(entry *fspf.Entry, descriptor int) (int, error) {
	out, err := p.copied(entry)
	if err != nil {
		return -1, err
	}
	defer out.Close()
	if !isELF(out) {
		return -1, errScript
	}
	decoded, err := elfsec.Open(out, int64(entry.Size))
	if err != nil {
		return -1, err
	}
	header := decoded.InterpreterHeader()
	name, err := decoded.Interpreter()
	if err != nil {
		return -1, err
	}
	p.names[entry.Path] = name
	if name != "" && p.Unprotected {
		header = -1 // nothing to verify the interpreter against
	}
	if header >= 0 {
		text := append([]byte("/proc/self/fd/"+strconv.Itoa(descriptor)), 0)
		offset := (entry.Size + 15) &^ 15
		var fields [8]byte
		binary.LittleEndian.PutUint64(fields[:], offset)
		_, err1 := out.WriteAt(fields[:], header+8) // p_offset
		binary.LittleEndian.PutUint64(fields[:], uint64(len(text)))
		_, err2 := out.WriteAt(fields[:], header+32) // p_filesz
		_, err3 := out.WriteAt(text, int64(offset))
		if err := errors.Join(err1, err2, err3); err != nil {
			return -1, err
		}
	}
	return finish(int(out.Fd()), entry, entry.Mode&0o777|0o555)
}

// copied returns a memory file with a program's verified content.
func (p *programs) copied(entry *fspf.Entry) (*os.File, error) {
	if ahead := p.Ahead.take(entry); ahead != nil {
		return ahead, nil
	}
	fd, _, err := sys.Memfd(baseName(entry.Path), true)
	if err != nil {
		return nil, err
	}
	out := sys.File(fd, entry.Path)
	if err := p.contents.copy(out, entry); err != nil {
		_ = out.Close()
		return nil, err
	}
	return out, nil
}

package shield

import (
	"os"
	"syscall"

	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/sys"
)

// Ahead is the original program, copied into memory and verified while the session is on its way: that takes as long as
// attesting, and needs no key.
type Ahead struct {
	entry *fspf.Entry
	copy  chan *os.File
}

// CopyAhead starts the copy. The entry is the measured configuration's.
func CopyAhead(entry *fspf.Entry, original Original) *Ahead {
	ahead := &Ahead{entry: entry, copy: make(chan *os.File, 1)}
	go func() {
		defer close(ahead.copy)
		fd, _, err := sys.Memfd(baseName(entry.Path), true)
		if err != nil {
			return
		}
		out := sys.File(fd, entry.Path)
		if fspf.Verify(out, original, original.Size(), entry.Content, entry.Size) == nil {
			ahead.copy <- out
			return
		}
		_ = out.Close()
	}()
	return ahead
}

// take hands the copy over, once; nil if it is of another program or could not be made: trying again then tells why.
func (a *Ahead) take(entry *fspf.Entry) *os.File {
	if a == nil || entry.Flags&fspf.FlagMain == 0 || entry.Class != fspf.ClassAuthenticated || entry.Content != a.entry.Content {
		return nil
	}
	return <-a.copy
}

// Fetch verifies what the program's start will open, the program and its interpreter, while the launcher gets
// its order. What can't be had is told where it is asked for.
func (s *Supervisor) Fetch(program string) {
	entry := s.Manifest.Entry(program)
	if entry == nil {
		return
	}
	drop := func(fd int, err error) {
		if err == nil {
			_ = syscall.Close(fd)
		}
	}
	drop(s.programs.openProgram(entry, slots[0]))
	drop(s.programs.openInterpreter(entry))
}

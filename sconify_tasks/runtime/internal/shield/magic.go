package shield

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"sconify.local/runtime/internal/log"
)

// The runtime that stands at an executable's path asks its supervisor through names that no disk has. Without a supervisor
// the kernel says ENOENT.
//
//	open     /fspf/.interp:N/PATH  the program's interpreter (ENOENT for a static program)
//	open     /fspf/.exec:N/PATH    the program, whose interpreter will be at descriptor N
//	readlink /fspf/.link:N/NAME    a symlink to /proc/self/fd/N with this name, so that the process is called so
const magicPrefix = "/fspf/."

func parseMagic(name string) (verb string, descriptor int, rest string, ok bool) {
	head, rest, found := strings.Cut(strings.TrimPrefix(name, magicPrefix), "/")
	verb, digits, numbered := strings.Cut(head, ":")
	descriptor, err := strconv.Atoi(digits)
	return verb, descriptor, "/" + rest, found && numbered && err == nil && descriptor >= 0
}

func (t *target) handleMagicOpen(name string) answer {
	verb, descriptor, wanted, ok := parseMagic(name)
	if !ok {
		return fail(syscall.ENOENT)
	}
	// Only the runtime itself may have programs: another could start one with an interpreter of its own choice.
	if err := t.trust.isRuntime(t, t.proc("exe")); err != nil {
		t.Log.Once(log.Error, "process %d (%s) asked for a program and is not the runtime: %v", t.tgid(), t.command(), err)
		return fail(syscall.EACCES)
	}
	entry, err := t.verifiedPath(wanted)
	if err != nil {
		t.Log.Once(log.Error, "no program for %s: %v", wanted, err)
		return fail(syscall.EACCES)
	}
	if errno := t.permitted(entry, wantExec); errno != 0 {
		return fail(errno)
	}
	var fd int
	switch verb {
	case "interp":
		fd, err = t.programs.openInterpreter(entry)
	case "exec":
		fd, err = t.programs.openProgram(entry, descriptor)
	default:
		return fail(syscall.ENOENT)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && errno == syscall.ENOENT {
		return fail(errno)
	}
	if err != nil {
		return t.damaged(entry.Path, fmt.Errorf("it can't be started: %w", err))
	}
	return hand(fd, syscall.O_CLOEXEC)
}

func (t *target) handleMagicLink(what *call, name string) answer {
	verb, descriptor, wanted, ok := parseMagic(name)
	if !ok || verb != "link" || t.trust.isRuntime(t, t.proc("exe")) != nil {
		return fail(syscall.ENOENT)
	}
	link, err := t.links.make(descriptor, path.Base(wanted))
	if err != nil {
		return fail(syscall.ENOENT)
	}
	return t.giveText(what, link)
}

// links are the symlinks with good names: the kernel calls a process by the last component of what was started, which
// would be a descriptor's number.
type links struct {
	mutex sync.Mutex
	root  string
	made  map[string]bool
}

func (l *links) make(descriptor int, name string) (string, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.root == "" {
		for _, place := range []string{"/dev/shm", "/tmp"} {
			root, err := os.MkdirTemp(place, ".sconify-")
			if err == nil && os.Chmod(root, 0o711) == nil {
				l.root, l.made = root, make(map[string]bool)
				break
			}
		}
	}
	if l.root == "" {
		return "", syscall.EROFS
	}
	folder := l.root + "/" + strconv.Itoa(descriptor)
	link := folder + "/" + name
	if l.made[link] {
		return link, nil
	}
	if len(l.made) >= 256 {
		return "", syscall.ENOSPC
	}
	if err := os.MkdirAll(folder, 0o711); err != nil {
		return "", err
	}
	if err := os.Symlink("/proc/self/fd/"+strconv.Itoa(descriptor), link); err != nil {
		return "", err
	}
	l.made[link] = true
	return link, nil
}

// ours says whether a path is one of the links.
func (l *links) ours(name string) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.made[name]
}

func (l *links) remove() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.root != "" {
		_ = os.RemoveAll(l.root)
	}
}

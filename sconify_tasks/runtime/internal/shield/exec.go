package shield

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/log"
	"sconify.local/runtime/internal/resolve"
	"sconify.local/runtime/internal/sys"
)

// handleExec keeps a changed program from starting at all. It is the first of two lines: what decides over content is the
// program that runs when content is asked for (see trust), because between our look and the kernel's the disk may change.
// The supervisor itself never waits for an answer here: the program is started by a process of its own (see launch).
func (t *target) handleExec(what *call) answer {
	if !t.retained.empty() {
		t.retained.distrust(t.tgid())
	}
	if what.flags != none && t.args[what.flags]&sys.AtEmptyPath != 0 && int32(t.args[0]) >= 0 {
		if name, errno := t.string(t.args[what.path]); errno == 0 && name == "" {
			return t.execInode(t.proc("fd/" + strconv.Itoa(int(t.args[0]))))
		}
	}
	if link, errno := t.string(t.args[what.path]); errno == 0 && t.links.ours(link) {
		return t.execInode(link)
	}
	found, done, result := t.locate(what.dir, what.path, resolve.Options{Follow: true})
	if done {
		if result.kind == answerErrno && result.errno == syscall.EACCES && t.mem < 0 {
			// An unreadable caller may still exec: the new program is looked at by itself, and is readable again.
			return proceed
		}
		return result
	}
	switch {
	case found.Missing:
		return fail(syscall.ENOENT)
	case found.Made:
		t.Log.Once(log.Error, "%s was made or changed at run time, so it is no verified program: not started", found.Path)
		return fail(syscall.EACCES)
	case found.Native && strings.HasPrefix(found.Path, "/proc/"):
		return t.execInode(found.Path)
	case found.Native:
		return proceed
	case found.Entry.Kind != fspf.KindFile:
		return fail(syscall.EACCES)
	}
	if t.image != "" { // the walk went through a process's exe: the kernel starts what runs there, not the path
		return t.execInode(t.image)
	}
	return t.execEntry(found)
}

// execInode answers the start of a file by descriptor, or by a process's exe. A program whose interpreter is a descriptor's
// number starts once the verified interpreter is there. Between our look and the kernel's the caller could put another one
// in its place, so only the runtime, and a program that may read everything anyway, is let start one.
func (t *target) execInode(name string) answer {
	var details syscall.Stat_t
	if t.links.ours(name) {
		name = "/proc/self/fd/" + path.Base(path.Dir(name))
	}
	name = strings.Replace(name, "/proc/self/", "/proc/"+strconv.Itoa(t.tgid())+"/", 1)
	if errno := t.as(func() error { return syscall.Stat(name, &details) }); errno != 0 {
		return fail(errno)
	}
	running := t.programs.running(file{uint64(details.Dev), details.Ino})
	if running == nil || t.trust.isRuntime(t, t.proc("exe")) == nil {
		return proceed
	}
	if err := t.again(running); err != nil {
		t.Log.Once(log.Error, "process %d can't start the running program %s by its descriptor: %v; use the program's path",
			t.tgid(), running.entry.Path, err)
		return fail(syscall.EACCES)
	}
	return proceed
}

// again lets the caller exec a program that runs.
func (t *target) again(running *patched) error {
	if errno := t.permitted(running.entry, wantExec); errno != 0 {
		return errno
	}
	interpreter, err := t.programs.openInterpreter(running.entry)
	if errors.Is(err, syscall.ENOENT) || t.Unprotected {
		return nil
	}
	if err != nil {
		return err
	}
	if err := t.trusted(); err != nil {
		_ = syscall.Close(interpreter)
		return err
	}
	if _, errno := t.readlink("fd/" + strconv.Itoa(running.slot)); errno != syscall.ENOENT {
		_ = syscall.Close(interpreter)
		return fmt.Errorf("the descriptor %d, where its interpreter belongs, is in use", running.slot)
	}
	return t.put(interpreter, running.slot)
}

func (t *target) execEntry(found place) answer {
	entry := found.Entry
	if errno := t.permitted(entry, wantExec); errno != 0 {
		return fail(errno)
	}
	var err error
	if entry.Flags&(fspf.FlagStoredX|fspf.FlagMain) != 0 || entry.Embedded != nil {
		err = t.trust.isRuntime(nil, entry.Path)
	} else if entry.Class == fspf.ClassAuthenticated {
		if err = t.trust.fileOnDisk(entry); err == nil {
			err = t.trust.willBeTrusted(entry)
		}
	}
	if err != nil {
		t.Log.Once(log.Error, "%s was not started: %v; pull the image again", entry.Path, err)
		if errors.Is(err, fspf.ErrDamaged) {
			return fail(syscall.EIO)
		}
		return fail(syscall.EACCES)
	}
	return t.agreed(found.Links)
}

// willBeTrusted verifies the interpreter of a program; a script's is a program that is looked at by itself.
func (v *trust) willBeTrusted(entry *fspf.Entry) error {
	err := v.interpreterOnDisk(entry)
	if err != nil && !errors.Is(err, fspf.ErrDamaged) {
		// It will run, but read nothing encrypted.
		v.Log.Once(log.Info, "%s will not be trusted: %v", entry.Path, err)
		return nil
	}
	return err
}

// handleMmap lets a verified program execute verified libraries only, so that a library named by /etc/ld.so.preload,
// LD_LIBRARY_PATH or found by a search on the disk does not run in it.
func (t *target) handleMmap() answer {
	if t.Dlopen == 2 || t.Unprotected {
		return proceed
	}
	descriptor := strconv.Itoa(int(int32(t.args[4])))
	entry := t.servedDescriptor(int(t.pid), descriptor)
	if entry != nil && (t.Dlopen == 1 || entry.Flags&(fspf.FlagClosure|fspf.FlagMain) != 0) {
		return proceed
	}
	if t.trusted() != nil {
		return proceed
	}
	name, _ := os.Readlink(t.proc("fd/" + descriptor))
	if entry != nil {
		t.Log.Once(log.Error, "the library %s was not loaded: dlopen is off; rebuild with --dlopen=1 to allow verified libraries", entry.Path)
	} else {
		t.Log.Once(log.Error, "the library %s was not loaded: it is not in the manifest; rebuild with its directory protected (--dir), "+
			"or with --dlopen=2 to allow every library", name)
	}
	return fail(syscall.EACCES)
}

// handleSetid opens the caller's memory before the change of user makes that impossible.
func (t *target) handleSetid() answer {
	if errno := t.open(); errno != 0 {
		return proceed
	}
	fd, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(t.mem), syscall.F_DUPFD_CLOEXEC, 0)
	if errno != 0 {
		return fail(syscall.EAGAIN)
	}
	trusted := t.trusted() == nil
	directory, _ := t.readlink("cwd")
	t.retained.put(t.tgid(), &memory{mem: int(fd), started: startTime(t.tgid()), directory: directory, trusted: trusted})
	return proceed
}

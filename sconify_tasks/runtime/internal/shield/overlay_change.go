package shield

import (
	"path"
	"strconv"
	"syscall"
	"unsafe"

	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/log"
	"sconify.local/runtime/internal/resolve"
	"sconify.local/runtime/internal/sys"
)

const (
	renameNoReplace = 1
	atRemoveDir     = 0x200
)

// changeOverlaid does in memory what a call asks for. Each call is made anew relative to a directory that was opened
// through no symlink, with the caller's rights.
func (t *target) changeOverlaid(what *call, found place) answer {
	switch what.op {
	case opCreate:
		if !found.Missing {
			return fail(syscall.EEXIST)
		}
		return t.makeName(what, found.Path)
	case opChange:
		if found.Missing {
			return fail(syscall.ENOENT)
		}
	}
	switch int32(t.number) {
	case sysUnlink, sysRmdir, syscall.SYS_UNLINKAT:
		return t.removeName(found)
	case syscall.SYS_SETXATTR, syscall.SYS_LSETXATTR, syscall.SYS_REMOVEXATTR, syscall.SYS_LREMOVEXATTR:
		return fail(syscall.EOPNOTSUPP)
	}
	return t.changeMetadata(what, found)
}

// in runs a call on a name in its directory.
func (t *target) in(name string, do func(dir int, base string) error) answer {
	dir, base, errno := t.ephemeral.parent(name)
	if errno != 0 {
		return fail(errno)
	}
	defer syscall.Close(dir)
	if errno := t.asCaller(func() error { return do(dir, base) }); errno != 0 {
		return fail(errno)
	}
	return give(0)
}

func (t *target) makeName(what *call, name string) answer {
	if result := t.changeable(path.Dir(name)); result.kind != answerContinue {
		return result
	}
	mode := func(index int) uint32 { return uint32(t.args[index]) &^ t.umask() }
	second := what.path + 1
	switch int32(t.number) {
	case sysMkdir, syscall.SYS_MKDIRAT:
		allowed := mode(second)
		return t.in(name, func(dir int, base string) error { return syscall.Mkdirat(dir, base, allowed) })
	case sysMknod, syscall.SYS_MKNODAT:
		allowed := mode(second)
		if kind := allowed & syscall.S_IFMT; kind != 0 && kind != syscall.S_IFREG {
			t.Log.Once(log.Info, "%s: only files, directories and symlinks can be made with binary-fs", name)
			return fail(syscall.EPERM)
		}
		return t.in(name, func(dir int, base string) error { return syscall.Mknodat(dir, base, allowed, 0) })
	case sysSymlink, syscall.SYS_SYMLINKAT:
		text, errno := t.string(t.args[0])
		if errno != 0 {
			return t.unreadable(errno)
		}
		return t.in(name, func(dir int, base string) error { return sys.Symlinkat(text, dir, base) })
	}
	return fail(syscall.EPERM)
}

func (t *target) removeName(found place) answer {
	if result := t.changeable(path.Dir(found.Path)); result.kind != answerContinue {
		return result
	}
	flags := 0
	if int32(t.number) == sysRmdir || int32(t.number) == syscall.SYS_UNLINKAT && t.args[2]&atRemoveDir != 0 {
		flags = atRemoveDir
		if err := t.ephemeral.fill(found.Path); err != nil {
			return t.noMemory(found.Path, err)
		}
	}
	id, only := t.ephemeral.identity(found.Path)
	result := t.in(found.Path, func(dir int, base string) error { return sys.Unlinkat(dir, base, flags) })
	if result.kind == answerValue && only {
		t.ephemeral.settle(id)
	}
	return result
}

func (t *target) changeMetadata(what *call, found place) answer {
	entry, name := found.Entry, found.Path
	switch {
	case entry == nil:
	case entry.Kind == fspf.KindDirectory:
		if err := t.ephemeral.ensure(name); err != nil {
			return t.noMemory(name, err)
		}
	case entry.Kind == fspf.KindFile:
		want := uint32(0)
		if int32(t.number) == syscall.SYS_TRUNCATE {
			want = wantWrite
		}
		if errno := t.permitted(entry, want); errno != 0 {
			return fail(errno)
		}
		if result := t.copyUp(name, entry, true); result.kind != answerContinue {
			return result
		}
	default:
		return give(0) // owner and times of a symlink: nobody can tell
	}
	if name == "/" {
		return fail(syscall.EPERM)
	}
	switch int32(t.number) {
	case sysChmod, syscall.SYS_FCHMODAT, sysFchmodat2:
		mode := uint32(t.args[what.path+1]) & 0o7777
		return t.in(name, func(dir int, base string) error {
			fd, err := syscall.Openat(dir, base, sys.OPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer syscall.Close(fd)
			return syscall.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
		})
	case sysChown, sysLchown, syscall.SYS_FCHOWNAT:
		uid, gid := int(int32(t.args[what.path+1])), int(int32(t.args[what.path+2]))
		return t.in(name, func(dir int, base string) error { return syscall.Fchownat(dir, base, uid, gid, sys.AtSymlinkNofollow) })
	case syscall.SYS_TRUNCATE:
		size := int64(t.args[1])
		return t.in(name, func(dir int, base string) error {
			fd, err := syscall.Openat(dir, base, syscall.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer syscall.Close(fd)
			return syscall.Ftruncate(fd, size)
		})
	}
	return t.changeTimes(what, name)
}

func (t *target) changeTimes(what *call, name string) answer {
	times, errno := t.newTimes(what)
	if errno != 0 {
		return t.unreadable(errno)
	}
	return t.in(name, func(dir int, base string) error { return sys.Utimensat(dir, base, times, sys.AtSymlinkNofollow) })
}

// newTimes reads what utime, utimes, futimesat and utimensat take, as what utimensat takes; nil is now.
func (t *target) newTimes(what *call) (*[2]syscall.Timespec, syscall.Errno) {
	address := t.args[what.path+1]
	if address == 0 {
		return nil, 0
	}
	var raw [4]int64
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&raw)), unsafe.Sizeof(raw))
	factor := int64(1)
	switch int32(t.number) {
	case sysUtime:
		if errno := t.read(address, bytes[:16]); errno != 0 {
			return nil, errno
		}
		return &[2]syscall.Timespec{{Sec: raw[0]}, {Sec: raw[1]}}, 0
	case sysUtimes, sysFutimesat:
		factor = 1000
	}
	if errno := t.read(address, bytes); errno != 0 {
		return nil, errno
	}
	return &[2]syscall.Timespec{{Sec: raw[0], Nsec: raw[1] * factor}, {Sec: raw[2], Nsec: raw[3] * factor}}, 0
}

// moveOverlaid renames or links inside of the memory. A directory of the index can't be moved: EXDEV, on which mv(1) copies.
func (t *target) moveOverlaid(what *call) answer {
	first, done, result := t.locate(what.dir, what.path, resolve.Options{Follow: !t.nofollow(what)})
	if done {
		return result
	}
	second, done, result := t.locate(what.dir2, what.path2, resolve.Options{})
	switch {
	case done:
		return result
	case first.Native && second.Native:
		return proceed
	case first.Native || second.Native:
		return fail(syscall.EXDEV)
	case first.Missing:
		return fail(syscall.ENOENT)
	case first.Entry != nil && first.Entry.Kind == fspf.KindDirectory:
		return fail(syscall.EXDEV)
	}
	for _, place := range []place{first, second} {
		if result := t.changeable(path.Dir(place.Path)); result.kind != answerContinue {
			return result
		}
	}
	if err := t.ephemeral.fill(second.Path); err != nil {
		return t.noMemory(second.Path, err)
	}
	replaced, only := t.ephemeral.identity(second.Path)
	dir, base, errno := t.ephemeral.parent(first.Path)
	if errno != 0 {
		return fail(errno)
	}
	defer syscall.Close(dir)
	result = t.in(second.Path, func(dir2 int, base2 string) error {
		switch int32(t.number) {
		case sysLink, syscall.SYS_LINKAT:
			return sys.Linkat(dir, base, dir2, base2)
		case sysRenameat2:
			return sys.Renameat2(dir, base, dir2, base2, uint32(t.args[4]))
		}
		return sys.Renameat2(dir, base, dir2, base2, 0)
	})
	moved, _ := t.ephemeral.identity(second.Path)
	if result.kind == answerValue && only && moved != replaced {
		exchanged := int32(t.number) == sysRenameat2 && t.args[4]&^renameNoReplace != 0
		if !exchanged {
			t.ephemeral.settle(replaced)
		}
	}
	return result
}

package shield

import (
	"encoding/binary"
	"strconv"
	"syscall"

	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/log"
	"sconify.local/runtime/internal/resolve"
	"sconify.local/runtime/internal/sys"
)

const knownResolve = sys.ResolveNoXdev | sys.ResolveNoMagiclinks | sys.ResolveNoSymlinks | sys.ResolveBeneath | sys.ResolveInRoot | sys.ResolveCached

// request is what an open asks for.
type request struct {
	flags   int
	mode    uint32
	resolve uint64
}

func (r request) creates() bool { return r.flags&syscall.O_CREAT != 0 }
func (r request) writes() bool {
	return r.flags&syscall.O_ACCMODE != syscall.O_RDONLY || r.flags&syscall.O_TRUNC != 0
}
func (r request) path() bool { return r.flags&sys.OPath != 0 }

func (t *target) openRequest(what *call) (request, answer, bool) {
	switch what.op {
	case opCreat:
		return request{flags: syscall.O_CREAT | syscall.O_WRONLY | syscall.O_TRUNC, mode: uint32(t.args[1])}, proceed, true
	case opOpenat2:
		var how [24]byte
		if t.args[what.mode] < uint64(len(how)) {
			return request{}, proceed, false // the kernel's EINVAL
		}
		if errno := t.read(t.args[what.data], how[:]); errno != 0 {
			return request{}, t.unreadable(errno), false
		}
		asked := request{
			flags: int(binary.LittleEndian.Uint64(how[:])), mode: uint32(binary.LittleEndian.Uint64(how[8:])), resolve: binary.LittleEndian.Uint64(how[16:]),
		}
		if asked.resolve&^uint64(knownResolve) != 0 {
			return request{}, fail(syscall.EINVAL), false
		}
		return asked, proceed, true
	}
	return request{flags: int(int32(t.args[what.flags])), mode: uint32(t.args[what.flags+1])}, proceed, true
}

func (t *target) handleOpen(what *call, hurried bool) answer {
	asked, early, ok := t.openRequest(what)
	if !ok {
		return early
	}
	exclusive := asked.creates() && asked.flags&syscall.O_EXCL != 0
	found, done, result := t.locate(what.dir, what.path, resolve.Options{
		Follow:     asked.flags&syscall.O_NOFOLLOW == 0 && !exclusive,
		NoSymlinks: asked.resolve&sys.ResolveNoSymlinks != 0,
		NoMagic:    asked.resolve&sys.ResolveNoMagiclinks != 0,
		Beneath:    asked.resolve&sys.ResolveBeneath != 0,
		InRoot:     asked.resolve&sys.ResolveInRoot != 0,
	})
	if done {
		return result
	}
	switch {
	case found.Native:
		return t.native(found)
	case asked.resolve&sys.ResolveNoXdev != 0 && t.crosses(what, asked):
		return fail(syscall.EXDEV)
	case t.overlaid(found):
		return t.openOverlaid(found, asked, hurried)
	case found.Missing && (asked.creates() || asked.flags&sys.OTmpfile == sys.OTmpfile):
		return t.readOnly(found)
	case found.Missing:
		return fail(syscall.ENOENT)
	case asked.resolve&sys.ResolveCached != 0:
		return fail(syscall.EAGAIN)
	case exclusive:
		return fail(syscall.EEXIST)
	}
	return t.openEntry(found, asked, hurried)
}

// crosses asks the kernel whether the way to a protected file leads over a mount point: the disk has the same names.
func (t *target) crosses(what *call, asked request) bool {
	leaf := "cwd"
	if directory := int32(t.args[what.dir]); directory != sys.AtFdcwd {
		leaf = "fd/" + strconv.Itoa(int(directory))
	}
	name, errno := t.string(t.args[what.path])
	if errno != 0 {
		return false
	}
	base := sys.AtFdcwd
	if err := t.as(func() (err error) {
		base, err = syscall.Open(t.proc(leaf), sys.OPath|syscall.O_CLOEXEC, 0)
		return err
	}); err == 0 {
		defer syscall.Close(base)
	} else if name[0] != '/' {
		return true
	}
	fd, errno := sys.Openat2(base, name, sys.OPath|syscall.O_CLOEXEC|asked.flags&syscall.O_NOFOLLOW, asked.resolve&^sys.ResolveCached)
	if errno == 0 {
		_ = syscall.Close(fd)
	}
	return errno == syscall.EXDEV
}

func (t *target) openEntry(found place, asked request, hurried bool) answer {
	entry := found.Entry
	switch entry.Kind {
	case fspf.KindDirectory:
		return t.openDirectory(found, asked)
	case fspf.KindSymlink:
		if asked.path() {
			return t.agreed(append(found.Links, entry))
		}
		return fail(syscall.ELOOP)
	case fspf.KindFile:
		return t.openFile(found, asked, hurried)
	}
	return t.openSpecial(found)
}

// openFile serves a file. O_PATH gets a readable descriptor as well: a descriptor on the stored file would show its
// size, and could be opened again past us.
func (t *target) openFile(found place, asked request, hurried bool) answer {
	entry := found.Entry
	switch {
	case asked.flags&syscall.O_DIRECTORY != 0:
		return fail(syscall.ENOTDIR)
	case asked.writes() && !asked.path():
		return t.readOnly(found)
	}
	if errno := t.permitted(entry, wantRead); errno != 0 && !asked.path() {
		return fail(errno)
	}
	if errno := t.mayRead(entry); errno != 0 {
		return fail(errno)
	}
	if hurried && entry.Size > slowSize && t.contents.ready(entry) == nil {
		return answer{kind: answerLater}
	}
	fd, err := t.contents.open(entry, asked.flags&syscall.O_NONBLOCK)
	if err != nil {
		return t.damaged(entry.Path, err)
	}
	return hand(fd, uint32(asked.flags&syscall.O_CLOEXEC))
}

// openSpecial lets the kernel open a device or a FIFO if the disk has the manifest's.
func (t *target) openSpecial(found place) answer {
	var details syscall.Stat_t
	entry := found.Entry
	err := syscall.Lstat(entry.Path, &details)
	if err != nil || details.Mode&syscall.S_IFMT != kindBits(entry.Kind) ||
		(entry.Kind != fspf.KindFIFO && uint64(details.Rdev) != deviceNumber(entry.Major, entry.Minor)) {
		t.Log.Once(log.Error, "%s is not on the disk what the manifest says: access refused; pull the image again", entry.Path)
		return fail(syscall.EIO)
	}
	return t.agreed(found.Links)
}

// native lets the kernel go on, except into another process's memory on behalf of a program that is not verified.
func (t *target) native(found place) answer {
	process, sensitive := guarded(found.Path)
	if !sensitive || process == t.tgid() || process == int(t.pid) {
		return proceed
	}
	if process == t.self {
		return fail(syscall.EACCES)
	}
	if err := t.trusted(); err != nil {
		t.Log.Once(log.Warning, "%s is refused to process %d: %v", found.Path, t.tgid(), err)
		return fail(syscall.EACCES)
	}
	return proceed
}

// agreed lets the kernel walk if the symlinks that it will meet are the manifest's.
func (t *target) agreed(links []*fspf.Entry) answer {
	for _, link := range links {
		text, err := disk{t}.Readlink(link.Path)
		if err != nil || text != link.Target {
			t.Log.Once(log.Error, "the symlink %s does not lead to %s on the disk: access refused; pull the image again", link.Path, link.Target)
			return fail(syscall.EIO)
		}
	}
	return proceed
}

func (t *target) readOnly(found place) answer {
	t.Log.Once(log.Info, "%s is protected, so it can't be written; declare a volume or a path that is not protected for data that changes",
		found.Path)
	return fail(syscall.EROFS)
}

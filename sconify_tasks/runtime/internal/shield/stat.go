package shield

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"sconify.local/runtime/internal/entry"
	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/resolve"
	"sconify.local/runtime/internal/sys"
)

// syntheticInode keeps inode numbers of files that are not in memory away from those that are.
const syntheticInode = 1 << 40

func (t *target) nofollow(what *call) bool {
	if what.nofollow {
		return what.op != opMove || what.flags == none || t.args[what.flags]&sys.AtSymlinkFollow == 0
	}
	return what.flags != none && t.args[what.flags]&sys.AtSymlinkNofollow != 0
}

// protected resolves the path of a call; done unless it leads into the manifest.
func (t *target) protected(what *call) (found place, done bool, result answer) {
	found, done, result = t.locate(what.dir, what.path, resolve.Options{Follow: !t.nofollow(what)})
	if !done && found.Native {
		return found, true, proceed
	}
	return found, done, result
}

func (t *target) handleStat(what *call) answer {
	found, done, result := t.protected(what)
	if done {
		return result
	}
	if t.overlaid(found) {
		if result, decided := t.statOverlaid(what, found); decided {
			return result
		}
	}
	if found.Missing {
		return fail(syscall.ENOENT)
	}
	entry := found.Entry
	if errno := t.permitted(entry, 0); errno != 0 {
		return fail(errno)
	}
	if entry.Kind == fspf.KindDirectory && t.Manifest.Class(entry.Path) == fspf.ClassNone {
		return t.agreed(found.Links) // a pinned directory's contents, and so its times, are the disk's
	}
	details, errno := t.describe(entry)
	if errno != 0 {
		return fail(errno)
	}
	return t.giveStat(what, &details)
}

func (t *target) giveStat(what *call, details *syscall.Stat_t) answer {
	if what.op == opStatx {
		return t.wrote(what, statx(details))
	}
	return t.wrote(what, unsafe.Slice((*byte)(unsafe.Pointer(details)), unsafe.Sizeof(*details)))
}

func (t *target) wrote(what *call, content []byte) answer {
	if errno := t.write(t.args[what.data], content); errno != 0 {
		return fail(errno)
	}
	return give(0)
}

// describe makes the stat of an entry: of a file in memory what fstat would say, else the same as far as it is known.
func (t *target) describe(entry *fspf.Entry) (details syscall.Stat_t, errno syscall.Errno) {
	details.Dev = t.device
	details.Ino = syntheticInode + entry.Number
	details.Nlink = 1
	details.Blksize = 4096
	details.Atim = syscall.Timespec{Sec: entry.Seconds, Nsec: int64(entry.Nanoseconds)}
	details.Ctim = details.Atim
	switch entry.Kind {
	case fspf.KindFile:
		if cached := t.contents.ready(entry); cached != nil && cached.err == nil {
			// The handle may have been evicted since: then its number may be another file's.
			var real syscall.Stat_t
			if syscall.Fstat(cached.fd, &real) == nil && real.Ino == cached.id.inode && uint64(real.Dev) == cached.id.device {
				details = real
			}
		}
		details.Size = int64(entry.Size)
		details.Blocks = int64(entry.Size+4095) / 4096 * 8
	case fspf.KindDirectory:
		if err := syscall.Lstat(entry.Path, &details); err != nil || details.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			return details, t.strange(entry.Path, errnoOf(err)).errno
		}
	case fspf.KindSymlink:
		details.Size = int64(len(entry.Target))
	case fspf.KindCharacter, fspf.KindBlock:
		details.Rdev = deviceNumber(entry.Major, entry.Minor)
	}
	if entry.Kind != fspf.KindDirectory {
		details.Nlink = 1 // a memory file has none
	}
	details.Mode = kindBits(entry.Kind) | entry.Mode
	if entry.Kind == fspf.KindSymlink {
		details.Mode = kindBits(entry.Kind) | 0o777
	}
	details.Uid, details.Gid = entry.UID, entry.GID
	details.Mtim = syscall.Timespec{Sec: entry.Seconds, Nsec: int64(entry.Nanoseconds)}
	return details, 0
}

func kindBits(kind fspf.Kind) uint32 {
	return [...]uint32{
		syscall.S_IFREG, syscall.S_IFDIR, syscall.S_IFLNK, syscall.S_IFCHR, syscall.S_IFBLK, syscall.S_IFIFO,
	}[kind]
}

// deviceNumber is the kernel's new_encode_dev as user space sees it.
func deviceNumber(major, minor uint32) uint64 {
	return uint64(minor)&0xff | uint64(major&0xfff)<<8 | uint64(minor&^0xff)<<12 | uint64(major&^0xfff)<<32
}

func splitDevice(device uint64) (major, minor uint32) {
	return uint32(device>>8)&0xfff | uint32(device>>32)&^0xfff, uint32(device)&0xff | uint32(device>>12)&^0xff
}

type statxTime struct {
	seconds     int64
	nanoseconds uint32
	_           int32
}

// statxBuffer is struct statx up to the fields that every kernel fills.
type statxBuffer struct {
	mask, blockSize                        uint32
	attributes                             uint64
	links, uid, gid                        uint32
	mode, _                                uint16
	inode, size, blocks, attributesMask    uint64
	accessed, born, changed, modified      statxTime
	rdevMajor, rdevMinor, devMajor, devMin uint32
	_                                      [14]uint64
}

const statxBasic = 0x7ff

func statx(details *syscall.Stat_t) []byte {
	at := func(t syscall.Timespec) statxTime { return statxTime{seconds: t.Sec, nanoseconds: uint32(t.Nsec)} }
	out := &statxBuffer{
		mask: statxBasic, blockSize: uint32(details.Blksize), links: uint32(details.Nlink), uid: details.Uid, gid: details.Gid,
		mode: uint16(details.Mode), inode: details.Ino, size: uint64(details.Size), blocks: uint64(details.Blocks),
		accessed: at(details.Atim), changed: at(details.Ctim), modified: at(details.Mtim),
	}
	out.rdevMajor, out.rdevMinor = splitDevice(uint64(details.Rdev))
	out.devMajor, out.devMin = splitDevice(uint64(details.Dev))
	return unsafe.Slice((*byte)(unsafe.Pointer(out)), unsafe.Sizeof(*out))
}

func (t *target) handleAccess(what *call) answer {
	found, done, result := t.protected(what)
	switch {
	case done:
		return result
	case t.overlaid(found):
		return t.accessOverlaid(found, uint32(t.args[what.mode])&7)
	case found.Missing:
		return fail(syscall.ENOENT)
	}
	entry, want := found.Entry, uint32(t.args[what.mode])&7
	if entry.Kind == fspf.KindDirectory && t.Manifest.Class(entry.Path) == fspf.ClassNone {
		return t.agreed(found.Links)
	}
	if want&wantWrite != 0 {
		return fail(syscall.EROFS)
	}
	if errno := t.permitted(entry, want); errno != 0 {
		return fail(errno)
	}
	return give(0)
}

func (t *target) handleReadlink(what *call) answer {
	found, done, result := t.locate(what.dir, what.path, resolve.Options{})
	if done {
		return result
	}
	switch {
	case found.Path == entry.Name:
		return t.handleStart()
	case found.Native:
		if text := t.logicalLink(found.Path); text != "" {
			return t.giveText(what, text)
		}
		return proceed
	case found.Missing:
		return fail(syscall.ENOENT)
	case found.Made:
		text, err := os.Readlink(t.ephemeral.place(found.Path))
		if err != nil {
			return fail(errnoOf(err))
		}
		return t.giveText(what, text)
	case found.Entry.Kind != fspf.KindSymlink:
		return fail(syscall.EINVAL)
	}
	if errno := t.permitted(found.Entry, 0); errno != 0 {
		return fail(errno)
	}
	return t.giveText(what, found.Entry.Target)
}

// giveText writes a link's text, cut to the caller's buffer as the kernel cuts it.
func (t *target) giveText(what *call, text string) answer {
	size := int64(int32(t.args[what.mode]))
	if size <= 0 {
		return fail(syscall.EINVAL)
	}
	text = text[:min(size, int64(len(text)))]
	if errno := t.write(t.args[what.data], []byte(text)); errno != 0 {
		return fail(errno)
	}
	return give(int64(len(text)))
}

// logicalLink tells what a link of /proc to one of our memory files stands for.
func (t *target) logicalLink(name string) string {
	process, leaf, ok := procLeaf(name)
	if !ok {
		return ""
	}
	if t.ephemeral != nil && (leaf == "cwd" || strings.HasPrefix(leaf, "fd/")) {
		if text, errno := t.readlinkOf(name); errno == 0 {
			if logical, ours := t.ephemeral.logical(text); ours {
				return logical
			}
		}
	}
	if leaf == "exe" {
		return t.programs.logical(t, process)
	}
	if len(leaf) > 3 && leaf[:3] == "fd/" {
		if entry := t.servedDescriptor(process, leaf[3:]); entry != nil {
			return entry.Path
		}
	}
	return ""
}

// servedDescriptor returns the entry behind a descriptor of a process, or nil.
func (t *target) servedDescriptor(process int, descriptor string) *fspf.Entry {
	var details syscall.Stat_t
	name := "/proc/" + strconv.Itoa(process) + "/fd/" + descriptor
	if errno := t.as(func() error { return syscall.Stat(name, &details) }); errno != 0 {
		return nil
	}
	return t.contents.served(file{uint64(details.Dev), details.Ino})
}

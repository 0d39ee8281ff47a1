package shield

import (
	"path"
	"slices"
	"syscall"

	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/log"
	"sconify.local/runtime/internal/resolve"
	"sconify.local/runtime/internal/sys"
)

// overlaid says whether a resolved path lies in an embedded file system, where changes go to memory.
func (t *target) overlaid(found place) bool { return t.ephemeral != nil && !found.Native }

// view is how this process walks paths.
func (t *target) view() resolve.View {
	view := resolve.View{Manifest: t.Manifest, Disk: disk{t}}
	if t.ephemeral != nil {
		view.Overlay = t.ephemeral
	}
	return view
}

// as the caller: a file that is made is the caller's, and the kernel checks the caller's rights, those of its
// supplementary groups among them, and none of our own.
func (t *target) asCaller(access func() error) syscall.Errno {
	if who := t.credentials(); t.root {
		if own := ownIdentity().groups; !slices.Equal(who.groups, own) {
			if errno := sys.SetGroups(who.groups); errno != 0 {
				return errno
			}
			defer sys.SetGroups(own)
		}
		if who.euid != 0 || who.egid != 0 {
			uid, gid := sys.SetFilesystemIDs(who.euid, who.egid)
			defer sys.SetFilesystemIDs(uid, gid)
		}
	}
	if err := access(); err != nil {
		return errnoOf(err)
	}
	return 0
}

func (t *target) openOverlaid(found place, asked request, hurried bool) answer {
	entry := found.Entry
	exclusive := asked.creates() && asked.flags&syscall.O_EXCL != 0
	temporary := asked.flags&sys.OTmpfile == sys.OTmpfile
	switch {
	case asked.resolve&sys.ResolveCached != 0:
		return fail(syscall.EAGAIN)
	case found.Missing && (!asked.creates() || temporary || asked.path()):
		return fail(syscall.ENOENT)
	case !found.Missing && exclusive && !temporary:
		return fail(syscall.EEXIST)
	case found.Missing:
		return t.createOverlaid(found.Path, asked)
	case entry == nil && !t.madeDirectory(found.Path):
		return t.handOver(found.Path, asked)
	case entry == nil || entry.Kind == fspf.KindDirectory:
		return t.openOverlaidDirectory(found.Path, asked, temporary)
	case entry.Kind == fspf.KindSymlink:
		return t.openEntry(found, asked, hurried)
	case !asked.writes() || asked.path() || entry.Kind != fspf.KindFile:
		return t.openEntry(found, asked, hurried)
	case asked.flags&syscall.O_DIRECTORY != 0:
		return fail(syscall.ENOTDIR)
	}
	if errno := t.permitted(entry, wantWrite); errno != 0 {
		return fail(errno)
	}
	if hurried && entry.Size > slowSize && asked.flags&syscall.O_TRUNC == 0 {
		return answer{kind: answerLater}
	}
	if result := t.copyUp(found.Path, entry, asked.flags&syscall.O_TRUNC == 0); result.kind != answerContinue {
		return result
	}
	return t.handOver(found.Path, asked)
}

func (t *target) madeDirectory(name string) bool {
	var details syscall.Stat_t
	return syscall.Lstat(t.ephemeral.place(name), &details) == nil && details.Mode&syscall.S_IFMT == syscall.S_IFDIR
}

func (t *target) openOverlaidDirectory(name string, asked request, temporary bool) answer {
	switch {
	case (asked.creates() || asked.writes()) && !temporary:
		return fail(syscall.EISDIR)
	case !asked.path():
		if errno := t.listable(name, wantRead); errno != 0 {
			return fail(errno)
		}
		if err := t.ephemeral.fill(name); err != nil {
			return t.noMemory(name, err)
		}
	}
	if err := t.ephemeral.ensure(name); err != nil {
		return t.noMemory(name, err)
	}
	if temporary {
		if errno := t.listable(name, wantWrite|wantExec); errno != 0 {
			return fail(errno)
		}
		asked.mode &^= t.umask()
	}
	return t.handOver(name, asked)
}

// listable checks the rights that the index gives on a directory of its own; those of others the kernel knows.
func (t *target) listable(name string, want uint32) syscall.Errno {
	if entry := t.Manifest.Entry(name); entry != nil && entry.Kind == fspf.KindDirectory {
		return t.permitted(entry, want)
	}
	return 0
}

func (t *target) createOverlaid(name string, asked request) answer {
	if result := t.changeable(path.Dir(name)); result.kind != answerContinue {
		return result
	}
	asked.mode &^= t.umask()
	return t.handOver(name, asked)
}

// changeable makes a directory ready for names to come and go.
func (t *target) changeable(directory string) answer {
	if errno := t.listable(directory, wantWrite|wantExec); errno != 0 {
		return fail(errno)
	}
	if err := t.ephemeral.fill(directory); err != nil {
		return t.noMemory(directory, err)
	}
	return proceed
}

// handOver opens a path of the folder for the caller.
func (t *target) handOver(name string, asked request) answer {
	dir, base, errno := t.ephemeral.parent(name)
	if name == "/" {
		dir, errno = sys.OpenReal(t.ephemeral.root, sys.OPath|syscall.O_DIRECTORY)
		base = "."
	}
	if errno != 0 {
		return fail(errno)
	}
	defer syscall.Close(dir)
	fd := -1
	// Not blocking: nothing in the folder is a FIFO, but a worker must never wait for a stranger.
	errno = t.asCaller(func() (err error) {
		fd, err = syscall.Openat(dir, base, asked.flags|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, asked.mode&0o7777)
		return err
	})
	if errno != 0 {
		return fail(errno)
	}
	return hand(fd, uint32(asked.flags&syscall.O_CLOEXEC))
}

// copyUp gives a placeholder the content of its file, so that it can be written to.
func (t *target) copyUp(name string, entry *fspf.Entry, whole bool) answer {
	if err := t.ephemeral.fill(path.Dir(name)); err != nil {
		return t.noMemory(name, err)
	}
	id, _ := t.ephemeral.identity(name)
	fd, errno := sys.OpenReal(t.ephemeral.place(name), syscall.O_WRONLY)
	if errno != 0 {
		return fail(errno)
	}
	out := sys.File(fd, name)
	defer out.Close()
	if whole {
		if err := t.contents.copy(out, entry); err != nil {
			_ = out.Truncate(0)
			if errnoOf(err) == syscall.ENOSPC {
				return t.noMemory(name, err)
			}
			return t.damaged(name, err)
		}
	}
	_ = syscall.Fchown(fd, int(entry.UID), int(entry.GID))
	if err := syscall.Fchmod(fd, entry.Mode&0o7777); err != nil {
		return fail(errnoOf(err))
	}
	if err := sys.SetTimes(fd, entry.Seconds, entry.Nanoseconds); err != nil {
		return fail(errnoOf(err))
	}
	t.ephemeral.settle(id)
	return proceed
}

func (t *target) noMemory(name string, err error) answer {
	t.Log.Once(log.Error, "%s can't be kept in memory: %v; files that are written with binary-fs lie under %s: give the container more "+
		"of it (--shm-size)", name, err, path.Dir(t.ephemeral.root))
	if errno := errnoOf(err); errno != syscall.EIO {
		return fail(errno)
	}
	return fail(syscall.ENOSPC)
}

// statOverlaid answers for what is in memory; decided is false for embedded files and links.
func (t *target) statOverlaid(what *call, found place) (result answer, decided bool) {
	if found.Missing {
		return fail(syscall.ENOENT), true
	}
	if found.Entry != nil && found.Entry.Kind != fspf.KindDirectory {
		return proceed, false
	}
	details, errno := t.memoryStat(found.Path)
	if errno != 0 {
		return fail(errno), true
	}
	return t.giveStat(what, &details), true
}

func (t *target) memoryStat(name string) (details syscall.Stat_t, errno syscall.Errno) {
	if err := t.ephemeral.ensure(name); err != nil {
		return details, t.noMemory(name, err).errno
	}
	errno = t.asCaller(func() error { return syscall.Lstat(t.ephemeral.place(name), &details) })
	if entry := t.Manifest.Entry(name); errno == 0 && entry != nil && !t.root {
		details.Uid, details.Gid = entry.UID, entry.GID // an ordinary user can't give files away
	}
	return details, errno
}

func (t *target) accessOverlaid(found place, want uint32) answer {
	if found.Missing {
		return fail(syscall.ENOENT)
	}
	entry := found.Entry
	if entry == nil {
		details, errno := t.memoryStat(found.Path)
		if errno != 0 {
			return fail(errno)
		}
		entry = &fspf.Entry{Path: found.Path, Mode: details.Mode & 0o7777, UID: details.Uid, GID: details.Gid}
		if details.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			entry.Kind = fspf.KindDirectory
		}
	}
	if errno := t.permitted(entry, want); errno != 0 {
		return fail(errno)
	}
	return give(0)
}

func (t *target) umask() uint32 { return t.identity().umask }

// handleGetcwd translates a working directory that was reached by its descriptor.
func (t *target) handleGetcwd() answer {
	if t.ephemeral == nil {
		return proceed
	}
	text, errno := t.readlink("cwd")
	if errno != 0 {
		return proceed
	}
	logical, ours := t.ephemeral.logical(text)
	if !ours {
		return proceed
	}
	content := append([]byte(logical), 0)
	if uint64(len(content)) > t.args[1] {
		return fail(syscall.ERANGE)
	}
	if errno := t.write(t.args[0], content); errno != 0 {
		return fail(errno)
	}
	return give(int64(len(content)))
}

// hidden keeps programs out of the folder and of what others left of theirs.
func (s *Supervisor) hidden(name string) bool {
	return s.ephemeral != nil && slices.ContainsFunc(memoryPlaces, func(place string) bool {
		return len(name) > len(place) && name[:len(place)] == place && hasFolder(name[len(place):])
	})
}

func hasFolder(rest string) bool {
	return len(rest) > len(privateDir) && rest[:len(privateDir)+1] == "/"+privateDir
}

package shield

import (
	"encoding/binary"
	"syscall"

	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/resolve"
	"sconify.local/runtime/internal/sys"
)

// handleChange refuses what would change a protected name or file. A rename or link across the border is EROFS as well,
// not EXDEV: on EXDEV mv(1) copies and then removes, and a copy out of a protected directory is not what it was asked for.
func (t *target) handleChange(what *call) answer {
	if what.op != opMove {
		return t.change(what, what.dir, what.path)
	}
	if t.ephemeral != nil {
		return t.moveOverlaid(what)
	}
	first := t.change(what, what.dir, what.path)
	if first.kind != answerContinue {
		return first
	}
	second := *what
	second.flags = none
	return t.change(&second, what.dir2, what.path2)
}

func (t *target) change(what *call, dir, path int) answer {
	found, done, result := t.locate(dir, path, resolve.Options{Follow: !t.nofollow(what)})
	switch {
	case done:
		return result
	case found.Native && what.nofollow && t.Manifest.Implied(found.Path):
		return fail(syscall.EROFS) // moving an ancestor would move what lies below it
	case found.Native:
		return proceed
	case t.overlaid(found):
		return t.changeOverlaid(what, found)
	case found.Missing && what.op == opChange:
		return fail(syscall.ENOENT)
	case what.op == opCreate && !found.Missing:
		return fail(syscall.EEXIST)
	}
	return t.readOnly(found)
}

// handleBind keeps sockets from being made in protected directories.
func (t *target) handleBind(what *call) answer {
	var address [110]byte
	size := min(t.args[what.mode], uint64(len(address)))
	if size < 3 {
		return proceed
	}
	if errno := t.read(t.args[what.data], address[:size]); errno != 0 {
		return t.unreadable(errno)
	}
	if binary.LittleEndian.Uint16(address[:]) != syscall.AF_UNIX || address[2] == 0 {
		return proceed
	}
	name := address[2:size]
	for end, character := range name {
		if character == 0 {
			name = name[:end]
			break
		}
	}
	base, native, errno := t.base(sys.AtFdcwd)
	if native || errno != 0 {
		base = "/"
	}
	found, errno := t.view().Walk(string(name), resolve.Options{Base: base})
	switch {
	case errno != 0:
		return fail(errno)
	case found.Native:
		return proceed
	case !found.Missing:
		return fail(syscall.EADDRINUSE)
	}
	return t.readOnly(place{Result: found})
}

// handleXattr answers from the manifest.
func (t *target) handleXattr(what *call) answer {
	found, done, result := t.protected(what)
	switch {
	case done:
		return result
	case found.Missing:
		return fail(syscall.ENOENT)
	}
	if found.Made {
		if what.op == opListxattr {
			return give(0)
		}
		return fail(syscall.ENODATA)
	}
	if errno := t.permitted(found.Entry, 0); errno != 0 {
		return fail(errno)
	}
	if what.op == opListxattr {
		var names []byte
		for _, attribute := range found.Entry.Xattrs {
			names = append(append(names, attribute.Name...), 0)
		}
		return t.giveAttribute(what, names)
	}
	name, errno := t.string(t.args[1])
	if errno != 0 {
		return t.unreadable(errno)
	}
	return t.attribute(what, found.Entry, name)
}

func (t *target) attribute(what *call, entry *fspf.Entry, name string) answer {
	for _, attribute := range entry.Xattrs {
		if attribute.Name == name {
			return t.giveAttribute(what, []byte(attribute.Value))
		}
	}
	return fail(syscall.ENODATA)
}

func (t *target) giveAttribute(what *call, content []byte) answer {
	size := t.args[what.mode]
	switch {
	case size == 0:
		return give(int64(len(content)))
	case size < uint64(len(content)):
		return fail(syscall.ERANGE)
	}
	if len(content) > 0 {
		if errno := t.write(t.args[what.data], content); errno != 0 {
			return fail(errno)
		}
	}
	return give(int64(len(content)))
}

// Package resolve walks a path through the logical view: what the manifest says where it speaks, and the disk elsewhere.
//
// The kernel's own walk can't be used, because on the disk a planted or swapped symlink could lead a protected name to
// another file. The package asks the disk through an interface and holds no state, so it is tested without a kernel.
package resolve

import (
	"path"
	"strings"
	"syscall"

	"sconify.local/runtime/internal/fspf"
)

const (
	maxLinks = 40
	maxPath  = 4096
)

// Disk answers for the parts of the tree that the manifest does not speak of.
type Disk interface {
	// Readlink returns a symlink's target; EINVAL if the path is something else.
	Readlink(name string) (string, error)
	// Magic returns where a magic link of /proc leads as seen by the process on whose behalf the walk is made:
	// a path, or native when only the kernel can follow it. Also /proc/self and /proc/thread-self.
	Magic(name string) (target string, native, found bool)
}

// Overlay answers for paths that were changed in memory (binary-fs): everything that is neither the engine's nor in a
// not-protected region.
type Overlay interface {
	Look(name string) Seen
}

// Seen is what stands at a path of an overlay.
type Seen struct {
	Kind SeenKind
	// Entry is the manifest's, nil for what was made at run time.
	Entry *fspf.Entry
	// Target is a symlink's text.
	Target string
}

// SeenKind is as much as a walk needs to know.
type SeenKind uint8

// The kinds.
const (
	SeenMissing SeenKind = iota
	SeenDirectory
	SeenLink
	SeenOther
)

// Options of one walk.
type Options struct {
	Follow     bool   // follow a symlink that is the last component
	NoSymlinks bool   // ELOOP for any symlink (openat2)
	NoMagic    bool   // ELOOP for the links of /proc that are not text (openat2)
	Beneath    bool   // EXDEV for leaving the base (openat2)
	InRoot     bool   // the base is the root (openat2)
	Base       string // where a relative path starts: clean and absolute
}

// Result of a walk that met no error.
type Result struct {
	// Path is the logical path.
	Path string
	// Entry is the manifest's entry at it, nil outside.
	Entry *fspf.Entry
	// Native means that the kernel decides: the path is neither an entry nor in a protected region.
	Native bool
	// Links are the manifest's symlinks that the walk went through: before the kernel is let walk the same way, the disk
	// must agree on them.
	Links []*fspf.Entry
	// Directory means that the path demands a directory (trailing slash).
	Directory bool
	// Made means that the path was made, or its content changed, at run time: it lies in the overlay and has no entry.
	Made bool
	// Missing is the error for a name in a protected region that has no entry: ENOENT to look, EROFS to create.
	Missing bool
}

// View is the manifest together with the disk.
type View struct {
	Manifest *fspf.Manifest
	Disk     Disk
	// Overlay is nil where nothing can be changed.
	Overlay Overlay
}

type walk struct {
	View
	Options
	root    string
	current string
	pending []string
	links   int
	result  Result
}

// Walk resolves a path. Errors are those that the kernel would give for the same logical tree.
func (v View) Walk(name string, options Options) (Result, syscall.Errno) {
	if name == "" {
		return Result{}, syscall.ENOENT
	}
	if len(name) >= maxPath {
		return Result{}, syscall.ENAMETOOLONG
	}
	w := &walk{View: v, Options: options, root: "/", current: options.Base}
	if options.InRoot || options.Beneath {
		w.root = options.Base
	}
	if errno := w.push(name); errno != 0 {
		return Result{}, errno
	}
	return w.run()
}

// push puts the components of a path before those that are still to be walked.
func (w *walk) push(name string) syscall.Errno {
	if name[0] == '/' {
		if w.Beneath {
			return syscall.EXDEV
		}
		w.current = w.root
		if !w.InRoot {
			w.current = "/"
		}
	}
	components := strings.Split(name, "/")
	kept := components[:0]
	for _, component := range components {
		if component != "" && component != "." {
			kept = append(kept, component)
		}
	}
	last := components[len(components)-1]
	if len(w.pending) == 0 && (last == "" || last == "." || strings.HasSuffix(name, "/.") || last == "..") {
		w.result.Directory = true
	}
	w.pending = append(append(make([]string, 0, len(kept)+len(w.pending)), kept...), w.pending...)
	return 0
}

func (w *walk) run() (Result, syscall.Errno) {
	for len(w.pending) > 0 {
		component := w.pending[0]
		w.pending = w.pending[1:]
		if component == ".." {
			if w.Beneath && w.current == w.root {
				return Result{}, syscall.EXDEV
			}
			if w.current != w.root {
				w.current = path.Dir(w.current)
			}
			continue
		}
		if len(component) > 255 {
			return Result{}, syscall.ENAMETOOLONG
		}
		done, errno := w.step(join(w.current, component))
		if done || errno != 0 {
			return w.result, errno
		}
	}
	return w.finish()
}

// step moves to the next name, or follows it.
func (w *walk) step(next string) (bool, syscall.Errno) {
	last := len(w.pending) == 0
	if w.overlaid(next) {
		return w.look(next, last)
	}
	entry := w.Manifest.Entry(next)
	switch {
	case entry != nil && entry.Kind == fspf.KindSymlink:
		if last && !w.Follow && !w.result.Directory {
			w.current = next
			return false, 0
		}
		w.result.Links = append(w.result.Links, entry)
		return false, w.follow(entry.Target)
	case entry != nil:
		if !last && entry.Kind != fspf.KindDirectory {
			return false, syscall.ENOTDIR
		}
		w.current = next
		return false, 0
	case w.Manifest.Implied(next):
		w.current = next
		return false, 0
	case w.Manifest.Class(next) != fspf.ClassNone && !EngineOwned(next):
		if !last {
			return false, syscall.ENOENT
		}
		w.result.Path, w.result.Missing = next, true
		return true, 0
	}
	return w.outside(next, last)
}

func (w *walk) overlaid(name string) bool {
	return w.Overlay != nil && w.Manifest.Class(name) != fspf.ClassNone && !EngineOwned(name)
}

// look steps to a name of the overlay.
func (w *walk) look(next string, last bool) (bool, syscall.Errno) {
	seen := w.Overlay.Look(next)
	switch {
	case seen.Kind == SeenMissing && !last:
		return false, syscall.ENOENT
	case seen.Kind == SeenMissing:
		w.result.Path, w.result.Missing = next, true
		return true, 0
	case seen.Kind == SeenLink && (!last || w.Follow || w.result.Directory):
		if seen.Entry != nil {
			w.result.Links = append(w.result.Links, seen.Entry)
		}
		return false, w.follow(seen.Target)
	case seen.Kind != SeenDirectory && !last:
		return false, syscall.ENOTDIR
	}
	w.current = next
	return false, 0
}

// outside steps to a name that only the disk knows.
func (w *walk) outside(next string, last bool) (bool, syscall.Errno) {
	if target, native, found := w.Disk.Magic(next); found {
		if last && !w.Follow && !w.result.Directory {
			w.current = next
			return false, 0
		}
		if w.NoMagic && next != "/proc/self" && next != "/proc/thread-self" { // those two are text
			return false, syscall.ELOOP
		}
		if native {
			w.result.Path, w.result.Native = next, true
			return true, 0
		}
		return false, w.follow(target)
	}
	if last && !w.Follow && !w.result.Directory {
		w.current = next
		return false, 0
	}
	target, err := w.Disk.Readlink(next)
	switch {
	case err == nil && target == "":
		return false, syscall.ENOENT
	case err == nil:
		return false, w.follow(target)
	case err == syscall.EINVAL: // not a symlink
		w.current = next
		return false, 0
	}
	// Missing, or not searchable: nothing of the manifest lies below it, so the kernel finds the right error.
	w.result.Path, w.result.Native = next, true
	return true, 0
}

func (w *walk) follow(target string) syscall.Errno {
	if w.links++; w.links > maxLinks || w.NoSymlinks {
		return syscall.ELOOP
	}
	return w.push(target)
}

func (w *walk) finish() (Result, syscall.Errno) {
	w.result.Path = w.current
	if w.overlaid(w.current) {
		seen := w.Overlay.Look(w.current)
		switch {
		case seen.Kind == SeenMissing:
			return Result{}, syscall.ENOENT
		case w.result.Directory && seen.Kind != SeenDirectory:
			return Result{}, syscall.ENOTDIR
		}
		w.result.Entry, w.result.Made = seen.Entry, seen.Entry == nil
		return w.result, 0
	}
	w.result.Entry = w.Manifest.Entry(w.current)
	if w.result.Entry == nil {
		w.result.Native = true
	} else if w.result.Directory && w.result.Entry.Kind != fspf.KindDirectory {
		return Result{}, syscall.ENOTDIR
	}
	return w.result, 0
}

func join(parent, name string) string {
	if parent == "/" {
		return "/" + name
	}
	return parent + "/" + name
}

// EngineOwned says whether a path belongs to the container engine, which makes it in every container: it is never
// protected, even inside a protected region.
func EngineOwned(name string) bool {
	switch name {
	case "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/.dockerenv", "/proc", "/sys", "/dev", "/fspf":
		return true
	}
	return strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "/sys/") || strings.HasPrefix(name, "/dev/") ||
		strings.HasPrefix(name, "/fspf/")
}

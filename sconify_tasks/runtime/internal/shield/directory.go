package shield

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/log"
	"sconify.local/runtime/internal/resolve"
	"sconify.local/runtime/internal/sys"
)

func (t *target) openDirectory(found place, asked request) answer {
	protected := t.Manifest.Class(found.Entry.Path) != fspf.ClassNone
	switch {
	case asked.flags&sys.OTmpfile == sys.OTmpfile && protected:
		return t.readOnly(found)
	case asked.flags&sys.OTmpfile == sys.OTmpfile:
		return t.agreed(found.Links)
	case asked.creates() || asked.writes():
		return fail(syscall.EISDIR)
	}
	if !protected {
		return t.agreed(found.Links)
	}
	if errno := t.permitted(found.Entry, 0); errno != 0 {
		return fail(errno)
	}
	if err := t.checkDirectory(found.Entry.Path, !asked.path()); err != nil {
		return t.strange(found.Entry.Path, err)
	}
	return t.agreed(found.Links)
}

func (t *target) handleChdir(what *call) answer {
	found, done, result := t.locate(what.dir, what.path, resolve.Options{Follow: true})
	switch {
	case done:
		return result
	case found.Missing:
		return fail(syscall.ENOENT)
	case found.Native:
		t.follow(found.Path)
		return proceed
	case found.Made && t.madeDirectory(found.Path):
		t.Log.Once(log.Error, "%s was made at run time: with binary-fs it can't be a working directory by its path; fchdir can", found.Path)
		return fail(syscall.EACCES)
	case found.Made || found.Entry.Kind != fspf.KindDirectory:
		return fail(syscall.ENOTDIR)
	}
	if errno := t.permitted(found.Entry, wantExec); errno != 0 && t.Manifest.Class(found.Entry.Path) != fspf.ClassNone {
		return fail(errno)
	}
	if err := t.checkDirectory(found.Entry.Path, false); err != nil {
		return t.strange(found.Entry.Path, err)
	}
	t.follow(found.Entry.Path)
	return t.agreed(found.Links)
}

// follow keeps the working directory of a process that we can't look at any more.
func (t *target) follow(name string) {
	if t.retained.empty() {
		return
	}
	var details syscall.Stat_t
	if kept := t.retained.get(t.tgid()); kept != nil && syscall.Stat(name, &details) == nil && details.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		kept.directory = name
	}
}

func (t *target) strange(name string, err error) answer {
	t.Log.Once(log.Error, "the directory %s is not the manifest's (%v): access refused; pull the image again, and keep volumes and "+
		"writable paths out of protected directories", name, err)
	return fail(syscall.EIO)
}

// checkDirectory holds that the disk has a real directory where the kernel is about to go, and that it lists exactly what
// the manifest does: the kernel will list it.
func (t *target) checkDirectory(name string, listing bool) error {
	flags := sys.OPath
	if listing {
		flags = syscall.O_RDONLY
	}
	fd, errno := sys.OpenReal(name, flags|syscall.O_DIRECTORY)
	if errno == syscall.EACCES && t.root { // root without CAP_DAC_OVERRIDE: the kernel decides for the caller as well
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("no real directory on the disk: %w", errno)
	}
	opened := os.NewFile(uintptr(fd), name)
	defer opened.Close()
	if !listing {
		return nil
	}
	present, err := opened.ReadDir(-1)
	if err != nil {
		return err
	}
	required, optional := t.Manifest.Children(name)
	missing := len(required)
	for _, item := range present {
		at := strings.TrimSuffix(name, "/") + "/" + item.Name()
		entry := t.Manifest.Entry(at)
		switch {
		case entry != nil && sameKind(entry.Kind, item.Type()):
			missing--
		case entry != nil:
			return fmt.Errorf("%q is another kind of file", item.Name())
		case !resolve.EngineOwned(at) && !slices.Contains(optional, item.Name()):
			return fmt.Errorf("%q was added", item.Name())
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of its names are missing", missing)
	}
	return nil
}

func sameKind(kind fspf.Kind, mode os.FileMode) bool {
	switch kind {
	case fspf.KindFile:
		return mode.IsRegular()
	case fspf.KindDirectory:
		return mode.IsDir()
	case fspf.KindSymlink:
		return mode&os.ModeSymlink != 0
	case fspf.KindCharacter:
		return mode&os.ModeCharDevice != 0
	case fspf.KindBlock:
		return mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0
	}
	return mode&os.ModeNamedPipe != 0
}

package resolve

import (
	"syscall"
	"testing"

	"sconify.local/runtime/internal/fspf"
)

// changes is an overlay in memory: what is not in it is as in the manifest.
type changes struct {
	manifest *fspf.Manifest
	seen     map[string]Seen
}

func (c changes) Look(name string) Seen {
	if seen, changed := c.seen[name]; changed {
		return seen
	}
	entry := c.manifest.Entry(name)
	switch {
	case name == "/":
		return Seen{Kind: SeenDirectory}
	case entry == nil:
		return Seen{}
	case entry.Kind == fspf.KindDirectory:
		return Seen{Kind: SeenDirectory, Entry: entry}
	case entry.Kind == fspf.KindSymlink:
		return Seen{Kind: SeenLink, Entry: entry, Target: entry.Target}
	}
	return Seen{Kind: SeenOther, Entry: entry}
}

func TestAWalkSeesWhatWasChangedInMemory(t *testing.T) {
	embedded := manifest(t, map[string]fspf.Class{"/": fspf.ClassAuthenticated, "/host": fspf.ClassNone}, []string{"/", "/host"}, []item{
		{path: "/app", kind: fspf.KindDirectory, class: fspf.ClassAuthenticated},
		{path: "/app/file", kind: fspf.KindFile, class: fspf.ClassAuthenticated},
		{path: "/app/gone", kind: fspf.KindFile, class: fspf.ClassAuthenticated},
		{path: "/app/link", kind: fspf.KindSymlink, target: "file", class: fspf.ClassAuthenticated},
	})
	view := View{Manifest: embedded, Disk: tree{"/host": "", "/host/x": "", "/proc": "", "/proc/1": "", "/proc/1/maps": ""}, Overlay: changes{embedded, map[string]Seen{
		"/app/gone":     {},
		"/app/made":     {Kind: SeenDirectory},
		"/app/made/new": {Kind: SeenOther},
		"/app/new-link": {Kind: SeenLink, Target: "made/new"},
		"/app/out":      {Kind: SeenLink, Target: "/host/x"},
	}}}
	for _, test := range []struct {
		name, path            string
		made, native, missing bool
		errno                 syscall.Errno
	}{
		{name: "/app/file", path: "/app/file"},
		{name: "/app/link", path: "/app/file"},
		{name: "/app/made/new", path: "/app/made/new", made: true},
		{name: "/app/new-link", path: "/app/made/new", made: true},
		{name: "/app/made/../file", path: "/app/file"},
		{name: "/app/gone", path: "/app/gone", missing: true},
		{name: "/app/gone/below", errno: syscall.ENOENT},
		{name: "/app/made/new/below", errno: syscall.ENOTDIR},
		{name: "/app/made/new/", errno: syscall.ENOTDIR},
		{name: "/nothing", path: "/nothing", missing: true},
		{name: "/app/out", path: "/host/x", native: true},
		{name: "/proc/1/maps", path: "/proc/1/maps", native: true},
	} {
		result, errno := view.Walk(test.name, Options{Follow: true, Base: "/"})
		if errno != test.errno {
			t.Errorf("%s: %v", test.name, errno)
			continue
		}
		if errno == 0 && (result.Path != test.path || result.Made != test.made || result.Native != test.native || result.Missing != test.missing) {
			t.Errorf("%s: %+v", test.name, result)
		}
	}
}

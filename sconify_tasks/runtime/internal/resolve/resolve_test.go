package resolve

import (
	"encoding/binary"
	"strings"
	"syscall"
	"testing"

	"sconify.local/runtime/internal/fspf"
)

// tree is a disk in memory: a symlink's target, or "" for anything else.
type tree map[string]string

func (t tree) Readlink(name string) (string, error) {
	target, found := t[name]
	switch {
	case !found:
		return "", syscall.ENOENT
	case target == "":
		return "", syscall.EINVAL
	}
	return target, nil
}

func (t tree) Magic(name string) (string, bool, bool) {
	switch name {
	case "/proc/self":
		return "42", false, true
	case "/proc/42/fd/3":
		return "/app/sub", false, true
	case "/proc/42/fd/4":
		return "", true, true
	case "/proc/42/exe":
		return "/app/tool", false, true
	}
	return "", false, false
}

type item struct {
	path   string
	kind   fspf.Kind
	target string
	class  fspf.Class
	flags  uint16
}

// manifest encodes and parses, so that the tests hold for what can really be in one.
func manifest(t *testing.T, regions map[string]fspf.Class, order []string, items []item) *fspf.Manifest {
	t.Helper()
	little := binary.LittleEndian
	body := little.AppendUint32(nil, uint32(len(order)))
	text := func(value string) {
		body = append(little.AppendUint16(body, uint16(len(value))), value...)
	}
	for _, path := range order {
		text(path)
		body = append(body, byte(regions[path]), 0)
	}
	body = little.AppendUint32(body, uint32(len(items)))
	for _, item := range items {
		text(item.path)
		body = append(body, byte(item.kind), byte(item.class))
		body = little.AppendUint16(body, item.flags)
		body = append(body, make([]byte, 4*3+8+4)...)
		switch item.kind {
		case fspf.KindFile:
			body = append(body, make([]byte, 8+32)...)
		case fspf.KindSymlink:
			text(item.target)
		}
		body = little.AppendUint16(body, 0)
	}
	parsed, err := fspf.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func view(t *testing.T) View {
	const file, directory, link = fspf.KindFile, fspf.KindDirectory, fspf.KindSymlink
	return View{
		Manifest: manifest(t,
			map[string]fspf.Class{"/": 0, "/app": 2, "/app/open": 0, "/srv/data": 1},
			[]string{"/", "/app", "/app/open", "/srv/data"},
			[]item{
				{path: "/app", kind: directory, class: 2},
				{path: "/app/absolute", kind: link, target: "/usr/lib/x.so", class: 2},
				{path: "/app/loop", kind: link, target: "loop", class: 2},
				{path: "/app/out", kind: link, target: "/tmp/free", class: 2},
				{path: "/app/secret", kind: file, class: 2},
				{path: "/app/sub", kind: directory, class: 2},
				{path: "/app/sub/up", kind: link, target: "../secret", class: 2},
				{path: "/app/tool", kind: file, class: 2},
				{path: "/lib", kind: link, target: "usr/lib", flags: fspf.FlagPinned},
				{path: "/srv", kind: directory, flags: fspf.FlagPinned},
				{path: "/srv/data", kind: directory, class: 1},
				{path: "/usr", kind: directory, flags: fspf.FlagPinned},
				{path: "/usr/lib", kind: directory, flags: fspf.FlagPinned},
				{path: "/usr/lib/x.so", kind: file, class: 1},
			}),
		Disk: tree{
			"/tmp": "", "/tmp/free": "", "/tmp/to-app": "/app", "/tmp/to-secret": "../app/secret", "/proc": "", "/proc/42": "", "/proc/42/fd": "",
			"/evil": "", "/evil/x.so": "", "/app/open": "", "/etc": "",
			// Planted: the manifest says otherwise, and wins.
			"/app": "/evil", "/srv": "/evil", "/usr": "/evil", "/lib": "/evil", "/app/sub": "/evil", "/app/planted": "/evil",
		},
	}
}

func TestPathsLeadWhereTheManifestSays(t *testing.T) {
	v := view(t)
	for _, test := range []struct {
		path, expected string
		errno          syscall.Errno
	}{
		{path: "/app/secret", expected: "entry /app/secret"},
		{path: "//app/./sub/../secret", expected: "entry /app/secret"},
		{path: "/app/sub/up", expected: "entry /app/secret"},
		{path: "/app/absolute", expected: "entry /usr/lib/x.so"},
		{path: "/lib/x.so", expected: "entry /usr/lib/x.so"},
		{path: "/lib/other.so", expected: "native /usr/lib/other.so"},
		{path: "/tmp/to-app/secret", expected: "entry /app/secret"},
		{path: "/tmp/to-secret", expected: "entry /app/secret"},
		{path: "/tmp/free", expected: "native /tmp/free"},
		{path: "/tmp/none/deeper", expected: "native /tmp/none"},
		{path: "/app/out", expected: "native /tmp/free"},
		{path: "/app/planted", expected: "missing /app/planted"},
		{path: "/app/planted/x", errno: syscall.ENOENT},
		{path: "/app/open/any", expected: "native /app/open/any"},
		{path: "/srv/data/none", expected: "missing /srv/data/none"},
		{path: "/srv/none", expected: "native /srv/none"},
		{path: "/app/secret/", errno: syscall.ENOTDIR},
		{path: "/app/secret/x", errno: syscall.ENOTDIR},
		{path: "/app/loop", errno: syscall.ELOOP},
		{path: "/app/" + strings.Repeat("x", 256), errno: syscall.ENAMETOOLONG},
		{path: "/" + strings.Repeat("x/", 2100), errno: syscall.ENAMETOOLONG},
		{path: "", errno: syscall.ENOENT},
		{path: "/../../app/secret", expected: "entry /app/secret"},
		{path: "secret", expected: "entry /app/secret"},
		{path: "..", expected: "native /"},
		{path: "/proc/self/exe", expected: "entry /app/tool"},
		{path: "/proc/self/fd/3/up", expected: "entry /app/secret"},
		{path: "/proc/self/fd/4", expected: "native /proc/42/fd/4"},
		{path: "/proc/42/status", expected: "native /proc/42/status"},
		{path: "/etc/hosts", expected: "native /etc/hosts"},
	} {
		check(t, v, test.path, Options{Follow: true, Base: "/app"}, test.expected, test.errno)
	}
}

func TestALastSymlinkIsFollowedOnlyOnDemand(t *testing.T) {
	v := view(t)
	options := Options{Base: "/"}
	check(t, v, "/app/sub/up", options, "entry /app/sub/up", 0)
	check(t, v, "/lib", options, "entry /lib", 0)
	check(t, v, "/lib/", options, "entry /usr/lib", 0)
	check(t, v, "/tmp/to-app", options, "native /tmp/to-app", 0)
	check(t, v, "/tmp/to-app/", options, "entry /app", 0)
	check(t, v, "/proc/self/exe", options, "native /proc/42/exe", 0)
}

func TestRestrictedWalksStayInTheirBase(t *testing.T) {
	v := view(t)
	check(t, v, "up", Options{Follow: true, Base: "/app/sub", Beneath: true}, "", syscall.EXDEV)
	check(t, v, "/app/secret", Options{Follow: true, Base: "/app", Beneath: true}, "", syscall.EXDEV)
	check(t, v, "sub/up", Options{Follow: true, Base: "/app", Beneath: true}, "entry /app/secret", 0)
	check(t, v, "/../secret", Options{Follow: true, Base: "/app", InRoot: true}, "entry /app/secret", 0)
	check(t, v, "sub/up", Options{Follow: true, Base: "/app", NoSymlinks: true}, "", syscall.ELOOP)
}

func TestTheLinksOnTheWayAreTold(t *testing.T) {
	result, errno := view(t).Walk("/lib/x.so", Options{Follow: true, Base: "/"})
	if errno != 0 || len(result.Links) != 1 || result.Links[0].Path != "/lib" {
		t.Errorf("%+v, %v", result, errno)
	}
}

func check(t *testing.T, v View, path string, options Options, expected string, errno syscall.Errno) {
	t.Helper()
	result, got := v.Walk(path, options)
	what := "entry "
	switch {
	case result.Missing:
		what = "missing "
	case result.Native:
		what = "native "
	}
	if got != errno || (errno == 0 && what+result.Path != expected) {
		t.Errorf("%.60q: %s%s, %v; expected %s, %v", path, what, result.Path, got, expected, errno)
	}
}

func FuzzAWalkNeverLeavesAProtectedNameToTheKernel(f *testing.F) {
	f.Add("/tmp/to-app/../app/sub/up")
	f.Fuzz(func(t *testing.T, path string) {
		v := view(t)
		result, errno := v.Walk(path, Options{Follow: true, Base: "/app"})
		if errno == 0 && result.Native && v.Manifest.Class(result.Path) != fspf.ClassNone && !EngineOwned(result.Path) {
			t.Errorf("%q: %+v", path, result)
		}
	})
}

package shield

import (
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// disk answers the walk for one caller: /proc/self is the caller's, not ours.
type disk struct{ *target }

// Readlink reads a symlink of the disk.
func (d disk) Readlink(name string) (string, error) {
	var buffer [maxString]byte
	count, err := syscall.Readlink(name, buffer[:])
	if err != nil {
		return "", errnoOf(err)
	}
	return string(buffer[:count]), nil
}

// Magic follows the links of /proc that are not text.
func (d disk) Magic(name string) (text string, native, found bool) {
	if !strings.HasPrefix(name, "/proc/") {
		return "", false, false
	}
	switch name {
	case "/proc/self":
		return strconv.Itoa(d.tgid()), false, true
	case "/proc/thread-self":
		return strconv.Itoa(d.tgid()) + "/task/" + strconv.Itoa(int(d.pid)), false, true
	}
	process, leaf, ok := procLeaf(name)
	if !ok {
		return "", false, false
	}
	switch leaf {
	case "exe":
		if logical := d.programs.logical(d.target, process); logical != "" {
			d.image = name
			return logical, false, true
		}
		return "", true, true
	case "cwd", "root":
		return d.directory(name, process)
	}
	if strings.HasPrefix(leaf, "fd/") {
		return d.directory(name, process)
	}
	return "", strings.HasPrefix(leaf, "map_files/") || strings.HasPrefix(leaf, "ns/"), strings.HasPrefix(leaf, "map_files/") || strings.HasPrefix(leaf, "ns/")
}

// directory follows a magic link to a directory by its path, so that the walk goes on below it; any other file is
// opened again by the kernel, which needs no path.
func (d disk) directory(name string, process int) (text string, native, found bool) {
	var details syscall.Stat_t
	errno := d.as(func() error {
		var err error
		if text, err = os.Readlink(name); err != nil {
			return err
		}
		return syscall.Stat(name, &details)
	})
	if errno != 0 || details.Mode&syscall.S_IFMT != syscall.S_IFDIR || text == "" || text[0] != '/' {
		return "", true, true
	}
	if d.ephemeral != nil {
		text, _ = d.ephemeral.logical(text)
	}
	return text, false, true
}

// procLeaf splits /proc/PID[/task/TID]/LEAF.
func procLeaf(name string) (process int, leaf string, ok bool) {
	first, rest, found := strings.Cut(strings.TrimPrefix(name, "/proc/"), "/")
	process, err := strconv.Atoi(first)
	if !found || err != nil {
		return 0, "", false
	}
	if below, isTask := strings.CutPrefix(rest, "task/"); isTask {
		first, rest, found = strings.Cut(below, "/")
		if process, err = strconv.Atoi(first); !found || err != nil {
			return 0, "", false
		}
	}
	return process, rest, true
}

// guarded says whether a native path shows another process's memory or descriptors.
func guarded(name string) (process int, found bool) {
	if !strings.HasPrefix(name, "/proc/") {
		return 0, false
	}
	process, leaf, ok := procLeaf(name)
	if !ok {
		return 0, false
	}
	switch first, _, _ := strings.Cut(leaf, "/"); first {
	case "mem", "fd", "fdinfo", "map_files", "environ", "auxv", "stack", "syscall", "pagemap":
		return process, true
	}
	return 0, false
}

func baseName(name string) string {
	base := path.Base(name)
	if len(base) > 200 { // memfd_create's limit is 249
		base = base[:200]
	}
	return base
}

package shield

import (
	"os"
	"strconv"
	"sync"
	"syscall"
)

// links are symlinks with good names to the descriptors that programs are started from: the kernel calls a process by the
// last component of what was started, which would be a descriptor's number.
type links struct {
	mutex sync.Mutex
	root  string
	made  map[string]bool
}

// named returns a path that leads the caller to one of its descriptors, with a name if that can be had.
func (l *links) named(descriptor int, name string) string {
	if link, err := l.make(descriptor, name); err == nil {
		return link
	}
	return "/proc/self/fd/" + strconv.Itoa(descriptor)
}

func (l *links) make(descriptor int, name string) (string, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.root == "" {
		for _, place := range []string{"/dev/shm", "/tmp"} {
			root, err := os.MkdirTemp(place, ".sconify-")
			if err == nil && os.Chmod(root, 0o711) == nil {
				l.root, l.made = root, make(map[string]bool)
				break
			}
		}
	}
	if l.root == "" {
		return "", syscall.EROFS
	}
	folder := l.root + "/" + strconv.Itoa(descriptor)
	link := folder + "/" + name
	if l.made[link] {
		return link, nil
	}
	if len(l.made) >= 256 {
		return "", syscall.ENOSPC
	}
	if err := os.MkdirAll(folder, 0o711); err != nil {
		return "", err
	}
	if err := os.Symlink("/proc/self/fd/"+strconv.Itoa(descriptor), link); err != nil {
		return "", err
	}
	l.made[link] = true
	return link, nil
}

// ours says whether a path is one of the links.
func (l *links) ours(name string) bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.made[name]
}

func (l *links) remove() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.root != "" {
		_ = os.RemoveAll(l.root)
	}
}

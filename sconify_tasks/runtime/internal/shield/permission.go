package shield

import (
	"os"
	"path"
	"slices"
	"sync"
	"syscall"

	"sconify.local/runtime/internal/fspf"
)

const (
	wantExec  = 1
	wantWrite = 2
	wantRead  = 4
)

// ownIdentity is everybody's when the supervisor is not root: nobody can change user then.
var ownIdentity = sync.OnceValue(func() *identity {
	who, _ := readIdentity("/proc/self/status", os.Getpid())
	return who
})

func (t *target) credentials() *identity {
	if !t.root {
		return ownIdentity()
	}
	return t.identity()
}

// permitted checks the classic permission bits of an entry and of the directories above it, as the kernel would: a
// memory file opened by us would otherwise give root's view to everybody.
func (t *target) permitted(entry *fspf.Entry, want uint32) syscall.Errno {
	for above := entry.Path; above != "/"; {
		above = path.Dir(above)
		if parent := t.Manifest.Entry(above); parent != nil && parent.Mode&0o111 != 0o111 && !t.allowed(parent, wantExec) {
			return syscall.EACCES
		}
	}
	if all := want | want<<3 | want<<6; entry.Mode&all == all || t.allowed(entry, want) {
		return 0
	}
	return syscall.EACCES
}

func (t *target) allowed(entry *fspf.Entry, want uint32) bool {
	who := t.credentials()
	if who.override && (want&wantExec == 0 || entry.Kind == fspf.KindDirectory || entry.Mode&0o111 != 0) {
		return true
	}
	switch {
	case who.euid == entry.UID:
		return entry.Mode>>6&want == want
	case who.egid == entry.GID || slices.Contains(who.groups, entry.GID):
		return entry.Mode>>3&want == want
	}
	return entry.Mode&want == want
}

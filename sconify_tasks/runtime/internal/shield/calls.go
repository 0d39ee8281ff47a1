package shield

// op is what a notified system call wants.
type op uint8

const (
	opNone op = iota
	opOpen
	opOpenat2
	opCreat
	opStat
	opStatx
	opAccess
	opReadlink
	opChdir
	opExec
	opChange // changes what a path names: content, metadata, or the name itself
	opCreate // makes a new name
	opMove   // two names: rename and link
	opGetxattr
	opListxattr
	opMmap
	opSetid
	opBind
	opGetcwd
)

// verdict is what the filter does with a call before the supervisor sees it.
type verdict uint8

const (
	notify       verdict = iota
	notifyMmap           // only file mappings that are executable
	notifyStat           // not fstat in its newfstatat form
	notifyPrctl          // only PR_SET_DUMPABLE
	refuse               // EPERM
	absent               // ENOSYS
	refuseSpaces         // EPERM when a mount or user namespace is asked for
)

// sysFchmodat2 is fchmodat with flags, since 6.6.
const sysFchmodat2 = 452

// none marks an argument that a call does not have.
const none = -1

// call says where the arguments of a system call are. A directory argument of none is the working directory.
type call struct {
	number            uint32
	verdict           verdict
	op                op
	dir, path         int
	dir2, path2       int
	flags, data, mode int
	// nofollow: a symlink that is the last component is itself meant, whatever flags say.
	nofollow bool
}

func at(number uint32, what op, dir, path int) call {
	return call{number: number, op: what, dir: dir, path: path, dir2: none, path2: none, flags: none, data: none, mode: none}
}

func (c call) withFlags(index int) call { c.flags = index; return c }
func (c call) withData(index int) call  { c.data = index; return c }
func (c call) withMode(index int) call  { c.mode = index; return c }
func (c call) second(dir, path int) call {
	c.dir2, c.path2 = dir, path
	return c
}
func (c call) noFollow() call { c.nofollow = true; return c }
func (c call) when(filter verdict) call {
	c.verdict = filter
	return c
}

func fixed(filter verdict, numbers ...uint32) []call {
	calls := make([]call, 0, len(numbers))
	for _, number := range numbers {
		calls = append(calls, call{number: number, verdict: filter})
	}
	return calls
}

// modern are the calls whose numbers are the same on every architecture since 5.1.
var modern = append([]call{
	at(437, opOpenat2, 0, 1).withData(2).withMode(3),
	at(439, opAccess, 0, 1).withMode(2).withFlags(3),
	at(452, opChange, 0, 1).withFlags(3),
},
	append(
		// io_uring would open files past the filter. clone3's flags lie in memory where the filter can't see them; libc
		// falls back to clone. The new mount interface, and attributes relative to a directory, have no users yet.
		fixed(absent, 425, 426, 427, 435, 463, 464, 465, 466, 467, 468, 469),
		fixed(refuse, 428, 429, 430, 431, 432, 433, 438, 442)...)...)

var byNumber = index()

func index() map[uint32]*call {
	table := make(map[uint32]*call)
	for _, list := range [][]call{legacy, common, modern} {
		for position := range list {
			table[list[position].number] = &list[position]
		}
	}
	return table
}

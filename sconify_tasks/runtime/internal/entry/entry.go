// Package entry is where the kernel enters the runtime, before Go starts. There is nothing to call.
//
// Under a supervisor this process is to become the program of its path. Go's start would change what that program inherits:
// it unblocks signals (SIGINT and SIGTERM then end a process whose parent had blocked them), forgets which were ignored, and
// opens /dev/null where descriptor 0, 1 or 2 is closed. So a few instructions ask the supervisor and exec, and Go starts
// only where nobody answers: in the supervisor itself, and in the launcher.
//
// The call is readlinkat of a name that no disk has. A readlinkat that the kernel answers gives at most the size of the
// buffer, the supervisor gives Answer; so a symlink that somebody planted there does not pass for an answer.
package entry

const (
	// Name is what is asked for: a fifth argument holds the address of the process's first stack words (argc), a sixth the
	// errno of an exec that failed after an answer, or 0.
	Name = "/fspf/.start"
	// Answer says that the descriptors are in place, and the three words of the buffer are the arguments of execve.
	Answer = 0x7c0de000
	// Size is the buffer's: three words, and the text that they point at.
	Size = 8192
)

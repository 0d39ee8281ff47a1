package shield

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"sconify.local/runtime/internal/sys"
)

const (
	returnAllow  = 0x7fff0000
	returnErrno  = 0x00050000
	returnNotify = 0x7fc00000

	loadWord  = 0x20 // BPF_LD | BPF_W | BPF_ABS
	jumpEqual = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	jumpSet   = 0x45 // BPF_JMP | BPF_JSET | BPF_K
	giveBack  = 0x06 // BPF_RET | BPF_K

	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16

	modeFilter       = 1
	flagNewListener  = 1 << 3
	flagWaitKillable = 1 << 5

	prNoNewPrivs = 38
	prSetMM      = 35
	prSetDump    = 4
	cloneSpaces  = 0x00020000 | 0x10000000 // CLONE_NEWNS, CLONE_NEWUSER
)

type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

type program struct {
	length uint16
	filter *instruction
}

func argument(index int) uint32 { return offsetArgs + 8*uint32(index) }

// assemble writes the filter. The calls are in the order of their frequency, the most frequent first.
func assemble() []instruction {
	out := []instruction{
		{loadWord, 0, 0, offsetArch},
		// A call under another ABI has other numbers: none of them may come through.
		{jumpEqual, 1, 0, auditArch},
		{giveBack, 0, 0, returnErrno | uint32(syscall.ENOSYS)},
		{loadWord, 0, 0, offsetNumber},
	}
	if x32Bit != 0 {
		out = append(out, instruction{jumpSet, 0, 1, x32Bit}, instruction{giveBack, 0, 0, returnErrno | uint32(syscall.ENOSYS)})
	}
	for _, list := range [][]call{common, legacy, modern} {
		for _, item := range list {
			body := decide(item.verdict, item)
			out = append(out, instruction{jumpEqual, 0, uint8(len(body)), item.number})
			out = append(out, body...)
		}
	}
	return append(out, instruction{giveBack, 0, 0, returnAllow})
}

func decide(filter verdict, item call) []instruction {
	give := func(value uint32) instruction { return instruction{giveBack, 0, 0, value} }
	switch filter {
	case notifyMmap: // PROT_EXEC and not MAP_ANONYMOUS
		return []instruction{
			{loadWord, 0, 0, argument(2)}, {jumpSet, 0, 2, syscall.PROT_EXEC},
			{loadWord, 0, 0, argument(3)}, {jumpSet, 0, 1, syscall.MAP_ANONYMOUS},
			give(returnAllow), give(returnNotify),
		}
	case notifyStat: // AT_EMPTY_PATH with a descriptor is fstat, which sees the memory file: let it run at native speed
		return []instruction{
			{loadWord, 0, 0, argument(item.flags)}, {jumpSet, 0, 3, sys.AtEmptyPath},
			{loadWord, 0, 0, argument(0)}, {jumpSet, 1, 0, 0x80000000},
			give(returnAllow), give(returnNotify),
		}
	case notifyPrctl:
		return []instruction{
			{loadWord, 0, 0, argument(0)}, {jumpEqual, 2, 0, prSetMM}, {jumpEqual, 2, 0, prSetDump},
			give(returnAllow), give(returnErrno | uint32(syscall.EPERM)), give(returnNotify),
		}
	case refuseSpaces:
		return []instruction{
			{loadWord, 0, 0, argument(0)}, {jumpSet, 0, 1, cloneSpaces},
			give(returnErrno | uint32(syscall.EPERM)), give(returnAllow),
		}
	case refuse:
		return []instruction{give(returnErrno | uint32(syscall.EPERM))}
	case absent:
		return []instruction{give(returnErrno | uint32(syscall.ENOSYS))}
	default:
		return []instruction{give(returnNotify)}
	}
}

// Install puts the filter on the calling thread, which must be locked, and returns the supervisor's descriptor. From
// here on every program the thread becomes, and every child it makes, is under the shield.
func Install() (int, error) {
	code := assemble()
	prog := program{length: uint16(len(code)), filter: &code[0]}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
		return -1, fmt.Errorf("prctl(PR_SET_NO_NEW_PRIVS): %w", errno)
	}
	attempt := func(flags uintptr) (int, syscall.Errno) {
		fd, _, errno := syscall.RawSyscall(sys.SeccompCall, modeFilter, flags, uintptr(unsafe.Pointer(&prog)))
		return int(fd), errno
	}
	fd, errno := attempt(flagNewListener | flagWaitKillable)
	if errno == syscall.EINVAL { // before Linux 5.19
		fd, errno = attempt(flagNewListener)
	}
	runtime.KeepAlive(code)
	if errno != 0 {
		return -1, fmt.Errorf("seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER): %w", errno)
	}
	return fd, nil
}

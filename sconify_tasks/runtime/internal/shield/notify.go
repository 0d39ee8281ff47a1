package shield

import (
	"syscall"
	"unsafe"
)

const (
	ioctlReceive  = 0xc0502100
	ioctlSend     = 0xc0182101
	ioctlValid    = 0x40082102
	ioctlAddFD    = 0x40182103
	ioctlSetFlags = 0x40082104

	flagContinue   = 1
	flagAddFDSet   = 1
	flagAddFDSend  = 2
	flagSyncWakeUp = 1
)

// notification is struct seccomp_notif.
type notification struct {
	id     uint64
	pid    uint32
	flags  uint32
	number int32
	arch   uint32
	ip     uint64
	args   [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// addFD is struct seccomp_notif_addfd.
type addFD struct {
	id     uint64
	flags  uint32
	source uint32
	target uint32
	how    uint32
}

// listener is the supervisor's end of the filter.
type listener int

func (l listener) control(request uintptr, argument unsafe.Pointer) (uintptr, syscall.Errno) {
	value, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(l), request, uintptr(argument))
	return value, errno
}

// raw is for calls that never wait: without telling the scheduler they cost half.
func (l listener) raw(request uintptr, argument unsafe.Pointer) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(l), request, uintptr(argument))
	return errno
}

func (l listener) receive(into *notification) syscall.Errno {
	*into = notification{}
	_, errno := l.control(ioctlReceive, unsafe.Pointer(into))
	return errno
}

// valid says whether the caller still waits: what was opened under its number before is then really its own.
func (l listener) valid(id uint64) bool {
	return l.raw(ioctlValid, unsafe.Pointer(&id)) == 0
}

func (l listener) wakeSynchronously() {
	_, _, _ = syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(l), ioctlSetFlags, flagSyncWakeUp)
}

// answer is what a handler decided.
type answer struct {
	kind  answerKind
	errno syscall.Errno
	value int64
	fd    int
	flags uint32
}

type answerKind uint8

const (
	answerContinue answerKind = iota
	answerErrno
	answerValue
	answerFD
	answerLater // another worker answers
)

var proceed = answer{kind: answerContinue}

func fail(errno syscall.Errno) answer  { return answer{kind: answerErrno, errno: errno} }
func give(value int64) answer          { return answer{kind: answerValue, value: value} }
func hand(fd int, flags uint32) answer { return answer{kind: answerFD, fd: fd, flags: flags} }

// add gives the waiting caller a descriptor of ours at a number of our choice; EBADF if its limit does not allow that.
func (l listener) add(id uint64, fd, number int) syscall.Errno {
	request := addFD{id: id, flags: flagAddFDSet, source: uint32(fd), target: uint32(number), how: syscall.O_CLOEXEC}
	return l.raw(ioctlAddFD, unsafe.Pointer(&request))
}

func (l listener) reply(id uint64, what answer) {
	switch what.kind {
	case answerLater:
		return
	case answerFD:
		// Adding the descriptor and answering are one step: a program that is killed in between gets neither.
		request := addFD{id: id, flags: flagAddFDSend, source: uint32(what.fd), how: what.flags}
		errno := l.raw(ioctlAddFD, unsafe.Pointer(&request))
		_ = syscall.Close(what.fd)
		if errno == 0 || errno == syscall.ENOENT {
			return
		}
		what = fail(errno) // the program's table of descriptors is full
	}
	reply := response{id: id}
	switch what.kind {
	case answerContinue:
		reply.flags = flagContinue
	case answerErrno:
		reply.errno = -int32(what.errno)
	case answerValue:
		reply.value = what.value
	}
	_ = l.raw(ioctlSend, unsafe.Pointer(&reply)) // ENOENT: the program was killed meanwhile
}

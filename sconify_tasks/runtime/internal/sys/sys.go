// Package sys holds the few kernel interfaces that the standard library has no name for. Numbers that differ between
// architectures are in files of their own.
package sys

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// Flags that the standard library lacks.
const (
	OPath             = 0o10000000
	OTmpfile          = 0o20000000
	AtFdcwd           = -100
	AtSymlinkNofollow = 0x100
	AtSymlinkFollow   = 0x400
	AtEmptyPath       = 0x1000

	ResolveNoXdev       = 0x01
	ResolveNoMagiclinks = 0x02
	ResolveNoSymlinks   = 0x04
	ResolveBeneath      = 0x08
	ResolveInRoot       = 0x10
	ResolveCached       = 0x20

	sysOpenat2 = 437

	memfdCloexec      = 1
	memfdAllowSealing = 2
	memfdNoexecSeal   = 8
	memfdExec         = 16

	addSeals   = 1033
	sealAll    = 1 | 2 | 4 | 8 // SEAL, SHRINK, GROW, WRITE
	setLease   = 1024
	prDumpable = 4
	prReaper   = 36
)

type openHow struct{ flags, mode, resolve uint64 }

// Openat2 opens relative to a directory with resolve flags.
func Openat2(dir int, name string, flags int, resolve uint64) (int, syscall.Errno) {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return -1, syscall.EINVAL
	}
	how := openHow{flags: uint64(flags), resolve: resolve}
	for {
		fd, _, errno := syscall.Syscall6(sysOpenat2, uintptr(dir), uintptr(unsafe.Pointer(pointer)),
			uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
		if errno != syscall.EINTR && errno != syscall.EAGAIN {
			return int(fd), errno
		}
	}
}

// OpenReal opens a path without following any symlink: what the manifest calls a directory must be one on the disk.
func OpenReal(name string, flags int) (int, syscall.Errno) {
	fd, errno := Openat2(AtFdcwd, name, flags|syscall.O_CLOEXEC, ResolveNoSymlinks)
	if errno == syscall.ENOSYS || errno == syscall.EPERM {
		// Kernels before 5.6, and engines whose profile does not know the call: component by component.
		return openSteps(name, flags)
	}
	return fd, errno
}

func openSteps(name string, flags int) (int, syscall.Errno) {
	dir, err := syscall.Open("/", OPath|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	for start := 1; err == nil && start < len(name); {
		end := start
		for end < len(name) && name[end] != '/' {
			end++
		}
		how := OPath | syscall.O_DIRECTORY
		if end == len(name) {
			how = flags
		}
		var next int
		next, err = syscall.Openat(dir, name[start:end], how|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
		_ = syscall.Close(dir)
		dir, start = next, end+1
	}
	if err != nil {
		return -1, errnoOf(err)
	}
	return dir, 0
}

func errnoOf(err error) syscall.Errno {
	if errno, ok := err.(syscall.Errno); ok {
		return errno
	}
	return syscall.EIO
}

// Memfd makes a memory file. Where the kernel forbids executable ones (vm.memfd_noexec=2) and exec is not needed, the
// file is made without; executable says which it became.
func Memfd(name string, needExec bool) (fd int, executable bool, err error) {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return -1, false, err
	}
	attempt := func(flags uintptr) (int, syscall.Errno) {
		fd, _, errno := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(pointer)), memfdCloexec|memfdAllowSealing|flags, 0)
		return int(fd), errno
	}
	made, errno := attempt(memfdExec)
	if errno == syscall.EINVAL { // before Linux 6.3 every memory file is executable
		made, errno = attempt(0)
	}
	if errno == syscall.EACCES && !needExec {
		made, errno = attempt(memfdNoexecSeal)
		if errno == 0 {
			return made, false, nil
		}
	}
	if errno != 0 {
		return -1, false, errno
	}
	return made, true, nil
}

// Seal makes a memory file's content final.
func Seal(fd int) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), addSeals, sealAll); errno != 0 {
		return errno
	}
	return nil
}

// Unused says whether a read-only handle is the only one on its file anywhere (open, mapped or running). A write lease
// is granted only then; it is given back at once.
func Unused(fd int) bool {
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), setLease, syscall.F_WRLCK); errno != 0 {
		return false
	}
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), setLease, syscall.F_UNLCK)
	return true
}

// Reopen opens the file behind a descriptor again: an own description, so that offsets are not shared.
func Reopen(fd, flags int) (int, error) {
	return syscall.Open("/proc/self/fd/"+strconv.Itoa(fd), flags|syscall.O_CLOEXEC, 0)
}

// SetTimes sets the modification and access time of an open file.
func SetTimes(fd int, seconds int64, nanoseconds uint32) error {
	times := [2]syscall.Timespec{{Sec: seconds, Nsec: int64(nanoseconds)}, {Sec: seconds, Nsec: int64(nanoseconds)}}
	if _, _, errno := syscall.Syscall6(syscall.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// Symlinkat makes a symlink in a directory.
func Symlinkat(target string, dir int, name string) error {
	first, err := syscall.BytePtrFromString(target)
	if err != nil {
		return err
	}
	second, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	return result(syscall.Syscall(syscall.SYS_SYMLINKAT, uintptr(unsafe.Pointer(first)), uintptr(dir), uintptr(unsafe.Pointer(second))))
}

// Unlinkat removes a name from a directory.
func Unlinkat(dir int, name string, flags int) error {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	return result(syscall.Syscall(syscall.SYS_UNLINKAT, uintptr(dir), uintptr(unsafe.Pointer(pointer)), uintptr(flags)))
}

// Linkat gives a file, or a symlink itself, another name.
func Linkat(dir int, name string, dir2 int, name2 string) error {
	return twoNames(syscall.SYS_LINKAT, dir, name, dir2, name2, 0)
}

// Renameat2 moves a name.
func Renameat2(dir int, name string, dir2 int, name2 string, flags uint32) error {
	return twoNames(sysRenameat2, dir, name, dir2, name2, flags)
}

func twoNames(number uintptr, dir int, name string, dir2 int, name2 string, flags uint32) error {
	first, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	second, err := syscall.BytePtrFromString(name2)
	if err != nil {
		return err
	}
	return result(syscall.Syscall6(number, uintptr(dir), uintptr(unsafe.Pointer(first)), uintptr(dir2), uintptr(unsafe.Pointer(second)),
		uintptr(flags), 0))
}

// Utimensat sets access and modification time; nil is now, and the special nanoseconds of the kernel mean what they do there.
func Utimensat(dir int, name string, times *[2]syscall.Timespec, flags int) error {
	pointer, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	return result(syscall.Syscall6(syscall.SYS_UTIMENSAT, uintptr(dir), uintptr(unsafe.Pointer(pointer)), uintptr(unsafe.Pointer(times)),
		uintptr(flags), 0, 0))
}

func result(_, _ uintptr, errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// BlockSignals blocks every signal on the calling thread, which must be locked. Go's preemption signal would otherwise
// interrupt ADDFD_SEND: the program then sees open() return 0.
func BlockSignals() {
	mask := ^uint64(0)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 0, uintptr(unsafe.Pointer(&mask)), 0, 8, 0, 0)
}

// Foreground gives a terminal to a process group. The calling thread must be locked; it may be of another group in the
// background, which SIGTTOU would stop.
func Foreground(terminal, group int) {
	mask, old, number := uint64(1)<<(syscall.SIGTTOU-1), uint64(0), int32(group)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 0, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(terminal), syscall.TIOCSPGRP, uintptr(unsafe.Pointer(&number)))
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, 2, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
}

// SetFilesystemIDs switches the identity that the calling thread uses for access checks, and tells the previous one.
func SetFilesystemIDs(uid, gid uint32) (oldUID, oldGID uint32) {
	g, _, _ := syscall.RawSyscall(syscall.SYS_SETFSGID, uintptr(gid), 0, 0)
	u, _, _ := syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uid), 0, 0)
	return uint32(u), uint32(g)
}

// SetGroups sets the supplementary groups of the calling thread alone, which must be locked.
func SetGroups(groups []uint32) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	return errno
}

// Undumpable keeps same-user processes from reading this one's memory through /proc.
func Undumpable() { _, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prDumpable, 0, 0) }

// Reaper makes orphans of the program children of this process, also when it is not PID 1.
func Reaper() { _, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prReaper, 1, 0) }

// File wraps a descriptor for reading at offsets.
func File(fd int, name string) *os.File { return os.NewFile(uintptr(fd), name) }

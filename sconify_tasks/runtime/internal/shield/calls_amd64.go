package shield

import "syscall"

const auditArch = 0xC000003E

// x32Bit marks calls of the x32 ABI, which would come past a filter on numbers.
const x32Bit = 0x40000000

var legacy = append([]call{
	at(syscall.SYS_OPEN, opOpen, none, 0).withFlags(1),
	at(syscall.SYS_STAT, opStat, none, 0).withData(1),
	at(syscall.SYS_LSTAT, opStat, none, 0).withData(1).noFollow(),
	at(syscall.SYS_ACCESS, opAccess, none, 0).withMode(1),
	at(syscall.SYS_READLINK, opReadlink, none, 0).withData(1).withMode(2).noFollow(),
	at(syscall.SYS_CREAT, opCreat, none, 0),
	at(syscall.SYS_RENAME, opMove, none, 0).second(none, 1).noFollow(),
	at(syscall.SYS_LINK, opMove, none, 0).second(none, 1).noFollow(),
	at(syscall.SYS_UNLINK, opChange, none, 0).noFollow(),
	at(syscall.SYS_RMDIR, opChange, none, 0).noFollow(),
	at(syscall.SYS_MKDIR, opCreate, none, 0).noFollow(),
	at(syscall.SYS_MKNOD, opCreate, none, 0).noFollow(),
	at(syscall.SYS_SYMLINK, opCreate, none, 1).noFollow(),
	at(syscall.SYS_CHMOD, opChange, none, 0),
	at(syscall.SYS_CHOWN, opChange, none, 0),
	at(syscall.SYS_LCHOWN, opChange, none, 0).noFollow(),
	at(syscall.SYS_UTIME, opChange, none, 0),
	at(syscall.SYS_UTIMES, opChange, none, 0),
	at(syscall.SYS_FUTIMESAT, opChange, 0, 1),
	at(316, opMove, 0, 1).second(2, 3).noFollow(), // renameat2
	at(332, opStatx, 0, 1).withFlags(2).withData(4).when(notifyStat),
	at(322, opExec, 0, 1).withFlags(4), // execveat
},
	append(fixed(absent, syscall.SYS_USELIB),
		fixed(refuse, 310, 311, 298, 321, 303, 304, 308)...)...) // process_vm_*, perf_event_open, bpf, *_handle_*, setns

const sysNewfstatat = syscall.SYS_NEWFSTATAT

// Calls that newer architectures only have with a directory.
const (
	sysUnlink    = syscall.SYS_UNLINK
	sysRmdir     = syscall.SYS_RMDIR
	sysMkdir     = syscall.SYS_MKDIR
	sysMknod     = syscall.SYS_MKNOD
	sysSymlink   = syscall.SYS_SYMLINK
	sysLink      = syscall.SYS_LINK
	sysChmod     = syscall.SYS_CHMOD
	sysChown     = syscall.SYS_CHOWN
	sysLchown    = syscall.SYS_LCHOWN
	sysUtime     = syscall.SYS_UTIME
	sysUtimes    = syscall.SYS_UTIMES
	sysFutimesat = syscall.SYS_FUTIMESAT
	sysRenameat2 = 316
)

package shield

import "syscall"

const auditArch = 0xC00000B7

const x32Bit = 0

var legacy = append([]call{
	at(276, opMove, 0, 1).second(2, 3).noFollow(), // renameat2
	at(291, opStatx, 0, 1).withFlags(2).withData(4).when(notifyStat),
	at(281, opExec, 0, 1).withFlags(4), // execveat
},
	fixed(refuse, 270, 271, 241, 280, 264, 265, 268)...) // process_vm_*, perf_event_open, bpf, *_handle_*, setns

const sysNewfstatat = syscall.SYS_FSTATAT

// Calls that only older architectures have without a directory: no call has these numbers.
const (
	sysUnlink = -2 - iota
	sysRmdir
	sysMkdir
	sysMknod
	sysSymlink
	sysLink
	sysChmod
	sysChown
	sysLchown
	sysUtime
	sysUtimes
	sysFutimesat
)

const sysRenameat2 = 276

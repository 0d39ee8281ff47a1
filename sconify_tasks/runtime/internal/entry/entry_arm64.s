#include "textflag.h"

DATA startName<>+0(SB)/8, $"/fspf/.s"
DATA startName<>+8(SB)/5, $"tart\x00"
GLOBL startName<>(SB), RODATA|NOPTR, $13
GLOBL startArea<>(SB), NOPTR, $8192

TEXT _sconify_start(SB),NOSPLIT|NOFRAME,$0
	MOVD	$0, R5
ask:
	MOVD	$78, R8				// readlinkat
	MOVD	$-100, R0			// AT_FDCWD
	MOVD	$startName<>(SB), R1
	MOVD	$startArea<>(SB), R2
	MOVD	$8192, R3
	MOVD	RSP, R4
	SVC
	CMP	$-38, R0			// ENOSYS: an engine's profile, not a supervisor
	BEQ	alone
	CMP	$-2, R0				// ENOENT
	BEQ	alone
	CMP	$-20, R0			// ENOTDIR
	BEQ	alone
	MOVD	$0x7c0de000, R6
	CMP	R6, R0
	BNE	refused
	MOVD	$startArea<>(SB), R6
	MOVD	0(R6), R0
	MOVD	8(R6), R1
	MOVD	16(R6), R2
	MOVD	$221, R8			// execve
	SVC
	MOVD	R0, R5
	B	ask				// the supervisor tells why, and refuses
refused:
	MOVD	$1, R0
	MOVD	$94, R8				// exit_group
	SVC
alone:
	B	_rt0_arm64_linux(SB)

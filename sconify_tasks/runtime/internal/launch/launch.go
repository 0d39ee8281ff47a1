// Package launch starts the program under the shield.
//
// The program is first a process of the runtime itself (the launcher): it puts the filter on its thread, hands the
// supervisor the filter's descriptor, and execs. The supervisor thus never makes a call that waits for its own answer, as a
// vfork of its own would: the Go scheduler can't run the workers while a thread sits in vfork.
package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"sconify.local/runtime/internal/shield"
	"sconify.local/runtime/internal/sys"
)

// Marker is the launcher's argv[0]; a host that starts the runtime so gains nothing, since nobody answers at the socket.
const Marker = "[sconify-launcher]"

const (
	socketFD  = 3
	maxOrder  = 16 << 20
	goAhead   = 'g'
	listening = 'l'
)

// Program is what to start.
type Program struct {
	// Path leads to the binary, by the symlinks that the command names: it is the runtime's own, which becomes the program.
	Path        string
	Arguments   []string
	Environment []string
	Directory   string
}

// Start starts the program and gives the filter's descriptor to serve before the program's first system call. It
// must run on a locked thread that lives as long as the process: the child dies with it.
func Start(program Program, serve func(fd int)) (pid int, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	ours := os.NewFile(uintptr(pair[0]), "launcher")
	defer ours.Close()
	attributes := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if terminal(0) {
		attributes.Foreground, attributes.Ctty = true, 0
	}
	pid, err = syscall.ForkExec("/proc/self/exe", []string{Marker}, &syscall.ProcAttr{
		Env: []string{"GOGC=off", "GOMAXPROCS=1"}, Files: []uintptr{0, 1, 2, uintptr(pair[1])}, Sys: attributes,
	})
	_ = syscall.Close(pair[1])
	if err != nil {
		return 0, fmt.Errorf("start: %w", err)
	}
	order, err := json.Marshal(program)
	if err != nil {
		return 0, err
	}
	if _, err := ours.Write(append(order, '\n')); err != nil {
		return 0, fmt.Errorf("start: %w", err)
	}
	fd, err := receiveListener(pair[0])
	if err != nil {
		return 0, err
	}
	serve(fd)
	if _, err := ours.Write([]byte{goAhead}); err != nil {
		return 0, fmt.Errorf("start: %w", err)
	}
	// The socket closes with the exec; what comes instead is the reason why there was none.
	if reason, _ := io.ReadAll(io.LimitReader(ours, 4096)); len(reason) > 0 {
		return 0, errors.New(string(reason))
	}
	return pid, nil
}

func receiveListener(socket int) (int, error) {
	text, control := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4))
	count, controlCount, _, _, err := syscall.Recvmsg(socket, text, control, syscall.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("start: %w", err)
	}
	if count == 0 || text[0] != listening {
		return -1, errors.New(string(text[:count]))
	}
	messages, err := syscall.ParseSocketControlMessage(control[:controlCount])
	if err != nil || len(messages) != 1 {
		return -1, errors.New("the launcher sent no descriptor")
	}
	descriptors, err := syscall.ParseUnixRights(&messages[0])
	if err != nil || len(descriptors) != 1 {
		return -1, errors.New("the launcher sent no descriptor")
	}
	return descriptors[0], nil
}

func terminal(fd int) bool {
	var group int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&group)))
	return errno == 0
}

// Child is the launcher: it never returns.
func Child() {
	runtime.LockOSThread()
	err := child()
	_, _ = syscall.Write(socketFD, []byte(err.Error()))
	os.Exit(1)
}

func child() error {
	syscall.CloseOnExec(socketFD)
	program, err := receiveOrder()
	if err != nil {
		return err
	}
	fd, err := shield.Install()
	if err != nil {
		return explain(err)
	}
	if err := syscall.Sendmsg(socketFD, []byte{listening}, syscall.UnixRights(fd), nil, 0); err != nil {
		return err
	}
	if err := syscall.Close(fd); err != nil {
		return err
	}
	var signal [1]byte
	if count, err := syscall.Read(socketFD, signal[:]); err != nil || count != 1 || signal[0] != goAhead {
		return errors.New("the supervisor did not start")
	}
	if err := syscall.Chdir(program.Directory); err != nil {
		return fmt.Errorf("the session's working directory %s: %w; set pwd to a directory of the image", program.Directory, err)
	}
	return fmt.Errorf("%s was not started: %w", program.Path, syscall.Exec(program.Path, program.Arguments, program.Environment))
}

// receiveOrder reads byte by byte up to the newline: what follows is for later.
func receiveOrder() (*Program, error) {
	var order []byte
	buffer := make([]byte, 65536)
	for len(order) < maxOrder {
		count, err := syscall.Read(socketFD, buffer)
		if err != nil || count == 0 {
			return nil, errors.New("no order from the supervisor")
		}
		order = append(order, buffer[:count]...)
		if order[len(order)-1] == '\n' {
			program := new(Program)
			return program, json.Unmarshal(order, program)
		}
	}
	return nil, errors.New("the order is too long")
}

func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%w: another supervisor (of a container tool, or another sconified program) watches this process already", err)
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: files can't be protected without seccomp user notification; it needs Linux 5.14 or newer and a seccomp "+
			"profile that allows seccomp(2), as Docker's default one does (gVisor and some older engines do not)", err)
	}
	return err
}

// Prepare is what the supervisor does before it holds a secret.
func Prepare() {
	sys.Undumpable()
	sys.Reaper()
}

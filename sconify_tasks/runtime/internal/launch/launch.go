// Package launch starts the program under the shield.
//
// The program is first a process of the runtime itself (the launcher): it puts the filter on its thread, hands the
// supervisor the filter's descriptor, waits for the session's order, and execs. The supervisor thus never makes a call that waits for its own answer, as a
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

// Launcher is the process that becomes the program. It is started while the session is on its way, and holds no secret
// before its order.
type Launcher struct {
	pid    int
	socket *os.File
}

// Ready starts the launcher. It must run on a locked thread that lives as long as the process: the child dies with it.
func Ready() (*Launcher, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{Marker}, &syscall.ProcAttr{
		Env: []string{"GOGC=off", "GOMAXPROCS=1"}, Files: []uintptr{0, 1, 2, uintptr(pair[1])},
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	_ = syscall.Close(pair[1])
	socket := os.NewFile(uintptr(pair[0]), "launcher")
	if err != nil {
		_ = socket.Close()
		return nil, fmt.Errorf("start: %w", err)
	}
	return &Launcher{pid: pid, socket: socket}, nil
}

// Start lets the launcher become the program, and gives the filter's descriptor to serve before that.
func (l *Launcher) Start(program Program, serve func(fd int)) (pid int, err error) {
	defer l.socket.Close()
	order, err := json.Marshal(program)
	if err != nil {
		return 0, err
	}
	fd, err := receiveListener(int(l.socket.Fd()))
	if err != nil {
		return 0, err
	}
	serve(fd)
	if terminal(0) { // only now: until here Ctrl-C is for the supervisor
		sys.Foreground(0, l.pid)
	}
	if _, err := l.socket.Write(append(order, '\n')); err != nil {
		return 0, fmt.Errorf("start: %w", err)
	}
	// The socket closes with the exec; what comes instead is the reason why there was none.
	if reason, _ := io.ReadAll(io.LimitReader(l.socket, 4096)); len(reason) > 0 {
		return 0, errors.New(string(reason))
	}
	return l.pid, nil
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
	program, err := receiveOrder() // by then the supervisor answers
	if err != nil {
		return err
	}
	if err := syscall.Chdir(program.Directory); err != nil {
		return fmt.Errorf("the session's working directory %s: %w; set pwd to a directory of the image", program.Directory, err)
	}
	return fmt.Errorf("%s was not started: %w", program.Path, syscall.Exec(program.Path, program.Arguments, program.Environment))
}

// receiveOrder reads up to the newline.
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

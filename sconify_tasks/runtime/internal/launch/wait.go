package launch

import (
	"os"
	"os/signal"
	"syscall"
)

// Wait forwards signals to the program, reaps every process that becomes ours, and returns the program's exit status as a
// shell tells it: 128 + signal for one that was killed.
func Wait(pid int, signals <-chan os.Signal) int {
	go forward(pid, signals)
	for {
		var status syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 1
		case ended == pid && status.Signaled():
			return 128 + int(status.Signal())
		case ended == pid && status.Exited():
			return status.ExitStatus()
		}
	}
}

// Signals starts to catch what is to be forwarded.
func Signals() <-chan os.Signal {
	caught := make(chan os.Signal, 64)
	signal.Notify(caught)
	return caught
}

func forward(pid int, signals <-chan os.Signal) {
	for caught := range signals {
		number, ok := caught.(syscall.Signal)
		if !ok {
			continue
		}
		switch number {
		case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE, syscall.SIGTTIN, syscall.SIGTTOU:
			// Ours: children, the Go scheduler, our own stderr, job control of a supervisor in the background.
		default:
			_ = syscall.Kill(pid, number)
		}
	}
}

// End ends what is left of the program, as the kernel does when PID 1 goes. It must be done while the supervisor still
// answers: a process that outlived it by a moment would see its calls fail with ENOSYS, and say so.
func End() {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGKILL)
	}
}

// Package stub starts a verified program in place of the calling process. It is what the runtime does when it is exec'd
// under a supervisor: at an encrypted executable's path, at the binary's own path, and as the first process of the program.
package stub

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

const (
	// highest is the descriptor that the interpreter is put at when the limit allows: out of the way of programs that
	// expect theirs from 3 on. Both descriptors are closed by the exec.
	highest    = 1000
	atExecfn   = 31
	maxLine    = 256
	textFileIs = "#!"
)

// ErrAlone means that no supervisor answers: this process is the first.
var ErrAlone = errors.New("no supervisor")

// Path returns the absolute path that this process was started as.
func Path() (string, error) {
	name, err := startedAs()
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(name, "/dev/fd/") || strings.HasPrefix(name, "/proc/self/fd/") {
		return os.Readlink("/proc/self/exe") // started from a descriptor
	}
	if !path.IsAbs(name) {
		directory, err := os.Getwd()
		if err != nil {
			return "", err
		}
		name = directory + "/" + name
	}
	return name, nil
}

// startedAs reads AT_EXECFN of the auxiliary vector; argv[0] is whatever the caller liked.
func startedAs() (string, error) {
	vector, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return "", err
	}
	for ; len(vector) >= 16; vector = vector[16:] {
		if binary.LittleEndian.Uint64(vector) != atExecfn {
			continue
		}
		memory, err := os.Open("/proc/self/mem")
		if err != nil {
			return "", err
		}
		defer memory.Close()
		text := make([]byte, 4096)
		count, _ := memory.ReadAt(text, int64(binary.LittleEndian.Uint64(vector[8:])))
		if end := bytes.IndexByte(text[:count], 0); end > 0 {
			return string(text[:end]), nil
		}
		break
	}
	return "", errors.New("the kernel does not tell the path of this program")
}

// Exec replaces the process by the verified program at a path. It returns only with an error: ErrAlone if there is no
// supervisor to ask. name is the path as scripts are to see it.
func Exec(logical, name string, arguments, environment []string) error {
	slot, err := freeSlot()
	if err != nil {
		return err
	}
	if err := fetch("interp", logical, slot, slot); err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("%s was not started: its interpreter: %w", logical, err)
	}
	if err := fetch("exec", logical, slot, slot-1); errors.Is(err, syscall.ENOENT) {
		return ErrAlone
	} else if err != nil {
		return fmt.Errorf("%s was not started: %w", logical, err)
	}
	var start [maxLine]byte
	count, err := syscall.Pread(slot-1, start[:], 0)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(start[:count], []byte(textFileIs)) {
		return execScript(start[:count], name, arguments, environment)
	}
	direct := "/proc/self/fd/" + strconv.Itoa(slot-1)
	if link := linkName(slot-1, path.Base(logical)); link != "" {
		if err := syscall.Exec(link, arguments, environment); err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("%s: %w", logical, err)
		}
	}
	return fmt.Errorf("%s: %w", logical, syscall.Exec(direct, arguments, environment))
}

// freeSlot returns a descriptor number below the limit.
func freeSlot() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	slot := int(min(limit.Cur-1, highest))
	if slot < 16 {
		return 0, errors.New("the limit of open files (ulimit -n) is too low: allow 64 or more")
	}
	return slot, nil
}

func fetch(verb, logical string, slot, target int) error {
	fd, err := syscall.Open("/fspf/."+verb+":"+strconv.Itoa(slot)+path.Clean(logical), syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Dup3(fd, target, syscall.O_CLOEXEC); err != nil {
		return err
	}
	return syscall.Close(fd)
}

func linkName(slot int, base string) string {
	buffer := make([]byte, 4096)
	count, err := syscall.Readlink("/fspf/.link:"+strconv.Itoa(slot)+"/"+base, buffer)
	if err != nil {
		return ""
	}
	return string(buffer[:count])
}

// execScript does what the kernel does with a `#!` line: the rest of the line, trimmed, is one argument.
func execScript(start []byte, name string, arguments, environment []string) error {
	line, _, whole := bytes.Cut(start[len(textFileIs):], []byte{'\n'})
	if !whole && len(start) == maxLine {
		return fmt.Errorf("%s: its first line is too long", name)
	}
	text := strings.Trim(string(line), " \t\r")
	interpreter, argument, _ := strings.Cut(text, " ")
	if tab, rest, found := strings.Cut(interpreter, "\t"); found {
		interpreter, argument = tab, rest+" "+argument
	}
	if interpreter == "" {
		return fmt.Errorf("%s: %w", name, syscall.ENOEXEC)
	}
	words := []string{interpreter}
	if argument = strings.Trim(argument, " \t"); argument != "" {
		words = append(words, argument)
	}
	words = append(words, name)
	if len(arguments) > 1 {
		words = append(words, arguments[1:]...)
	}
	return fmt.Errorf("%s: its interpreter %s: %w", name, interpreter, syscall.Exec(interpreter, words, environment))
}

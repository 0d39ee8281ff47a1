package shield

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"sconify.local/runtime/internal/entry"
	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/log"
	"sconify.local/runtime/internal/sys"
)

// slots are where the interpreter is put, the first that the process's limit allows and that holds no descriptor which its
// parent handed on. The program comes right below. Both are closed by the exec.
var slots = []int{1000, 500, 250, 120, 60, 30, 24, 16, 10, 5}

const (
	atExecfn = 31
	maxLine  = 256
	wordSize = 8
)

// started is the process that asks to become a program.
type started struct {
	// as is what was given to exec, at is where it lies in the process's memory.
	as string
	at uint64
	// stack is the address of its argc.
	stack, arguments uint64
}

// handleStart answers the runtime's entry (see package entry): it puts the program and its interpreter into the process,
// and writes the arguments of the execve that starts them. An error ends the process.
func (t *target) handleStart() answer {
	// Only the runtime itself may have programs: another could start one with an interpreter of its own choice.
	if err := t.trust.isRuntime(t, t.proc("exe")); err != nil {
		t.Log.Once(log.Error, "process %d (%s) asked for a program and is not the runtime: %v", t.tgid(), t.command(), err)
		return fail(syscall.EACCES)
	}
	asked, err := t.startedAs()
	if err == nil {
		if refused := -int64(t.args[5]); refused != 0 {
			err = syscall.Errno(refused)
		} else {
			err = t.start(asked)
		}
	}
	if err == nil {
		return give(entry.Answer)
	}
	if t.listener.valid(t.id) { // else it was killed meanwhile: that is no error
		t.Log.Once(log.Error, "%s was not started: %v", asked.as, err)
	}
	return fail(syscall.EACCES)
}

// startedAs reads AT_EXECFN of the auxiliary vector; argv[0] is whatever the caller liked.
func (t *target) startedAs() (started, error) {
	asked := started{as: "a program", stack: t.args[4]}
	vector, errno := t.readProc("auxv")
	if errno != 0 {
		return asked, errno
	}
	for ; len(vector) >= 2*wordSize; vector = vector[2*wordSize:] {
		if binary.LittleEndian.Uint64(vector) == atExecfn {
			asked.at = binary.LittleEndian.Uint64(vector[wordSize:])
		}
	}
	name, errno := t.string(asked.at)
	if errno != 0 {
		return asked, errno
	}
	asked.as = name
	var count [wordSize]byte
	if errno := t.read(asked.stack, count[:]); errno != 0 {
		return asked, errno
	}
	asked.arguments = binary.LittleEndian.Uint64(count[:])
	return asked, nil
}

// logicalName is the absolute path of what was started: of a link of /proc, what it led to.
func (t *target) logicalName(name string) (string, error) {
	if strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "/dev/fd/") {
		text, errno := t.readlink("exe")
		return text, asError(errno)
	}
	if name[0] == '/' {
		return name, nil
	}
	base, native, errno := t.base(sys.AtFdcwd)
	if native {
		errno = syscall.ENOENT
	}
	return base + "/" + name, asError(errno)
}

func (t *target) start(asked started) error {
	if asked.as == "" {
		return syscall.ENOENT
	}
	name, err := t.logicalName(asked.as)
	if err != nil {
		return err
	}
	program, err := t.verifiedPath(name)
	if running := t.standsAt(); running != nil && running != program {
		program, err = running, nil // the kernel has read a script's first line: what was started is its interpreter
	}
	if err != nil {
		return err
	}
	if errno := t.permitted(program, wantExec); errno != 0 {
		return errno
	}
	for _, slot := range slots {
		if t.occupied(slot) || t.occupied(slot-1) {
			continue
		}
		line, err := t.bring(program, slot)
		switch {
		case errors.Is(err, syscall.EBADF):
			continue
		case errors.Is(err, fspf.ErrDamaged):
			return fmt.Errorf("%w; pull the image again", err)
		case err != nil:
			return err
		case line != nil:
			return t.startScript(asked, line)
		}
		return t.startAt(asked, t.links.named(slot-1, baseName(name)))
	}
	return errors.New("there is no room for two descriptors: the limit of open files (ulimit -n) is too low; allow 64 or more")
}

func (t *target) occupied(descriptor int) bool {
	_, errno := t.readlink("fd/" + strconv.Itoa(descriptor))
	return errno != syscall.ENOENT
}

// standsAt returns the program in whose place the caller's runtime stands; nil where it is none of the manifest's paths.
func (t *target) standsAt() *fspf.Entry {
	text, errno := t.readlink("exe")
	if entry := t.Manifest.Entry(text); errno == 0 && entry != nil && entry.Kind == fspf.KindFile {
		return entry
	}
	return nil
}

// bring puts a program and its interpreter into the process. Of a script it returns the first line, and brings nothing.
func (t *target) bring(program *fspf.Entry, slot int) (line []byte, err error) {
	fd, err := t.programs.openProgram(program, slot)
	if errors.Is(err, fspf.ErrDamaged) {
		return nil, fmt.Errorf("%s was changed after the image was built (%w)", program.Path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("its content: %w", err)
	}
	var start [maxLine]byte
	count, err := syscall.Pread(fd, start[:], 0)
	if err == nil && bytes.HasPrefix(start[:count], []byte("#!")) {
		return start[:count], syscall.Close(fd)
	}
	if err := t.put(fd, slot-1); err != nil {
		return nil, err
	}
	fd, err = t.programs.openInterpreter(program)
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return nil, t.put(fd, slot)
}

// put gives the process a descriptor of ours at a number of our choice, closed at the exec.
func (t *target) put(fd, number int) error {
	defer syscall.Close(fd)
	return asError(t.listener.add(t.id, fd, number))
}

// startScript does what the kernel does with a `#!` line: the rest of the line, trimmed, is one argument. The new words
// take the place of argc and argv[0] on the stack, right before the arguments that stay.
func (t *target) startScript(asked started, start []byte) error {
	words, err := scriptWords(start)
	if err != nil {
		return err
	}
	var text []byte
	var pointers []uint64
	for _, word := range words {
		pointers = append(pointers, t.args[2]+3*wordSize+uint64(len(text)))
		text = append(append(text, word...), 0)
	}
	pointers = append(pointers, asked.at)
	vector := asked.stack + 2*wordSize - uint64(len(pointers))*wordSize
	var content []byte
	for _, pointer := range pointers {
		content = binary.LittleEndian.AppendUint64(content, pointer)
	}
	if errno := t.write(vector, content); errno != 0 {
		return errno
	}
	return t.writeStart(asked, vector, text)
}

func scriptWords(start []byte) ([]string, error) {
	line, _, whole := bytes.Cut(start[2:], []byte{'\n'})
	if !whole && len(start) == maxLine {
		return nil, errors.New("its first line is too long")
	}
	text := strings.Trim(string(line), " \t\r")
	end := strings.IndexAny(text, " \t")
	if end < 0 {
		end = len(text)
	}
	if end == 0 {
		return nil, fmt.Errorf("its first line names no interpreter (%w)", syscall.ENOEXEC)
	}
	words := []string{text[:end]}
	if argument := strings.Trim(text[end:], " \t"); argument != "" {
		words = append(words, argument)
	}
	return words, nil
}

func (t *target) startAt(asked started, place string) error {
	return t.writeStart(asked, asked.stack+wordSize, append([]byte(place), 0))
}

// writeStart writes path, argv and envp, and the text of the path behind them.
func (t *target) writeStart(asked started, vector uint64, text []byte) error {
	var content []byte
	for _, word := range []uint64{t.args[2] + 3*wordSize, vector, asked.stack + (asked.arguments+2)*wordSize} {
		content = binary.LittleEndian.AppendUint64(content, word)
	}
	content = append(content, text...)
	if len(content) > entry.Size || t.args[3] != entry.Size {
		return syscall.E2BIG
	}
	return asError(t.write(t.args[2], content))
}

func asError(errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

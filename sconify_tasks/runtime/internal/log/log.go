// Package log writes the runtime's diagnostics: single lines on stderr, in the shape users of the platform know
// ("[SCONE|FATAL] what went wrong: why; next move"). It holds no state of a run except the level and what was said once.
package log

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Level is how much is said; each level includes those before it.
type Level int

// The levels, with the numbers older images use for them in reverse (7 is trace, 0 and 1 are fatal).
const (
	Fatal Level = iota
	Error
	Warning
	Info
	Debug
	Trace
)

var names = [...]string{"FATAL", "ERROR", "WARNING", "INFO", "DEBUG", "TRACE"}

// maxOnce bounds the memory that a program can make the runtime use by provoking different lines.
const maxOnce = 4096

// Logger writes lines up to a level. It is safe for use by several goroutines.
type Logger struct {
	level Level
	mutex sync.Mutex
	said  map[string]bool
}

// New returns a logger for a level.
func New(level Level) *Logger {
	return &Logger{level: level, said: make(map[string]bool)}
}

// Parse reads SCONE_LOG: a name, or a number from 7 (trace) to 0 (fatal). Empty means error.
func Parse(text string) (Level, error) {
	if text == "" {
		return Error, nil
	}
	for level, name := range names {
		if strings.EqualFold(text, name) {
			return Level(level), nil
		}
	}
	number, err := strconv.Atoi(text)
	if err != nil || number < 0 || number > 7 {
		return Error, fmt.Errorf("SCONE_LOG is %q: use trace, debug, info, warning, error or fatal, or a number from 7 to 0", text)
	}
	return [...]Level{Fatal, Fatal, Fatal, Error, Warning, Info, Debug, Trace}[number], nil
}

// Enabled says whether lines of a level are written, so that hot paths need not format what nobody reads.
func (l *Logger) Enabled(level Level) bool { return level <= l.level }

// Print writes one line.
func (l *Logger) Print(level Level, format string, arguments ...any) {
	if !l.Enabled(level) {
		return
	}
	text := oneLine(fmt.Sprintf(format, arguments...))
	// One write per line: lines of the program and of the runtime interleave on the same descriptor.
	_, _ = os.Stderr.WriteString("[SCONE|" + names[level] + "] " + text + "\n")
}

// Once writes a line the first time it is said: a program that retries a refused call must not flood the log.
func (l *Logger) Once(level Level, format string, arguments ...any) {
	if !l.Enabled(level) {
		return
	}
	text := fmt.Sprintf(format, arguments...)
	l.mutex.Lock()
	known := l.said[text] || len(l.said) >= maxOnce
	if !known {
		l.said[text] = true
	}
	l.mutex.Unlock()
	if !known {
		l.Print(level, "%s", text)
	}
}

// oneLine keeps names of files, which may hold anything, from forging lines or driving the terminal.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, text)
}

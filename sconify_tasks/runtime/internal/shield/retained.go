package shield

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const maxRetained = 256

// memory is what is kept of a process from before it changed its user.
type memory struct {
	mem       int
	started   string
	directory string
	// trusted is what the process's program was worth; an exec ends it.
	trusted bool
}

// retained keeps the memory descriptors of processes that changed their user.
type retained struct {
	mutex sync.Mutex
	byPID map[int]*memory
	order []int
}

func (r *retained) put(process int, kept *memory) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if old := r.byPID[process]; old != nil {
		_ = syscall.Close(old.mem)
	} else {
		r.order = append(r.order, process)
	}
	r.byPID[process] = kept
	if len(r.order) > maxRetained {
		oldest := r.order[0]
		r.order = r.order[1:]
		_ = syscall.Close(r.byPID[oldest].mem)
		delete(r.byPID, oldest)
	}
}

// get returns what was kept of a process, if it is still the same process and not a later one of the same number.
func (r *retained) get(process int) *memory {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	kept := r.byPID[process]
	if kept == nil || kept.started != startTime(process) {
		return nil
	}
	return kept
}

// distrust ends the trust in a process that is about to exec.
func (r *retained) distrust(process int) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if kept := r.byPID[process]; kept != nil {
		kept.trusted = false
	}
}

func (r *retained) empty() bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return len(r.byPID) == 0
}

// startTime is field 22 of /proc/PID/stat, counted behind the name, which may hold anything.
func startTime(process int) string {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(process) + "/stat")
	if err != nil {
		return "gone"
	}
	fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
	if len(fields) < 20 {
		return "gone"
	}
	return fields[19]
}

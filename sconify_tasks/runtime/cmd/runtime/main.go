// Command runtime stands in a sconified image at the path of the original binary and of every encrypted executable.
//
// Started first (PID 1 of the container) it measures itself, attests, and runs the program under the shield; started again
// under its own supervisor it becomes the program of its path, before Go starts (see package entry).
package main

import (
	"os"
	"runtime/debug"

	_ "sconify.local/runtime/internal/entry" // where the kernel enters
	"sconify.local/runtime/internal/launch"
	"sconify.local/runtime/internal/log"
)

func main() {
	if len(os.Args) > 0 && os.Args[0] == launch.Marker {
		launch.Child()
	}
	level, err := log.Parse(os.Getenv("SCONE_LOG"))
	logger := log.New(level)
	if err != nil {
		stop(logger, err)
	}
	// Nothing is collected while the program is started: little is dropped until then, and the two processors are busy.
	debug.SetGCPercent(-1)
	status, err := run(logger)
	if err != nil {
		stop(logger, err)
	}
	os.Exit(status)
}

func stop(logger *log.Logger, err error) {
	logger.Print(log.Fatal, "%v", err)
	os.Exit(1)
}

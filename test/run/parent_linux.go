package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// makeInterrupted says whether this process, or its parent, is a make that got
// a SIGINT: it waits for its children in the handler, where the signal is
// blocked, and would wait for ever.
func makeInterrupted(pid int) bool {
	for range 2 { // between make and this process there may be `go run`
		status := readStatus(pid)
		blocked, err := strconv.ParseUint(status["SigBlk"], 16, 64)
		if err == nil && strings.HasSuffix(status["Name"], "make") && blocked&(1<<(uint(syscall.SIGINT)-1)) != 0 {
			return true
		}
		if pid, err = strconv.Atoi(status["PPid"]); err != nil {
			return false
		}
	}
	return false
}

// readStatus reads /proc/<pid>/status, see proc(5); it is empty for a process
// that is gone.
func readStatus(pid int) map[string]string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	status := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.TrimSpace(value)
	}
	return status
}

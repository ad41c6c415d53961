package lab

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// monitor gives cmd, a QEMU, a monitor on its first extra file, on which it is
// told to pull cables before the machine runs: there is no option for that. The
// caller closes theirs once QEMU has started, and ours when it has ended.
func (v *VM) monitor(cmd *exec.Cmd) (ours, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a monitor: %w", err)
	}
	unix.CloseOnExec(pair[0])
	unix.CloseOnExec(pair[1]) // exec.Cmd passes on a copy
	ours, theirs = os.NewFile(uintptr(pair[0]), "monitor"), os.NewFile(uintptr(pair[1]), "monitor")
	cmd.ExtraFiles = []*os.File{theirs}
	var commands strings.Builder
	for _, i := range v.options.Unplugged {
		fmt.Fprintf(&commands, "set_link nic%d off\n", i)
	}
	commands.WriteString("cont\n")
	_, err = io.WriteString(ours, commands.String())
	return ours, theirs, err
}

// monitorArguments are QEMU's: it waits for the monitor's "cont".
func (v *VM) monitorArguments() []string {
	if len(v.options.Unplugged) == 0 {
		return nil
	}
	return []string{"-S", "-chardev", "socket,id=monitor,fd=3", "-mon", "chardev=monitor"}
}

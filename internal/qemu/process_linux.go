package qemu

import (
	"os/exec"
	"syscall"
)

// bindToParent makes the kernel kill the command when its parent thread dies,
// and keeps a terminal's interrupt from it: we end it in order.
func bindToParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// run is the process: its exit code, standard output and standard error.
func run(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = execute(t.Context(), args, &environment{In: strings.NewReader(""), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func TestTheExitCodeTellsMisuseFromFailure(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no verb":            {nil, exitUsage, "a verb is missing"},
		"unknown verb":       {[]string{"remove"}, exitUsage, `unknown command "remove"`},
		"unknown flag":       {[]string{"--colour"}, exitUsage, "unknown flag: --colour"},
		"unknown verb's":     {[]string{"move", "--colour"}, exitUsage, "see bootctl move --help"},
		"argument too many":  {[]string{"move", "here"}, exitUsage, `"here"`},
		"no target":          {[]string{"move"}, exitUsage, "--target-kubeconfig is missing"},
		"one or all":         {[]string{"move", "--target-kubeconfig", "x", "-A", "-n", "y"}, exitUsage, "exclude each other"},
		"an empty namespace": {[]string{"move", "--target-kubeconfig", "x", "--namespace="}, exitUsage, "--namespace"},
		"a negative time":    {[]string{"move", "--target-kubeconfig", "x", "--pause-timeout=-1s"}, exitUsage, "must not be negative"},
		"no such file":       {[]string{"move", "--source-kubeconfig", "/nowhere/a", "--target-kubeconfig", "/nowhere/b"}, exitFailure, "connecting to the source: stat /nowhere/a"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := run(t, c.args...)
			require.Equal(t, c.code, code, errs)
			require.Contains(t, errs, c.says)
			require.True(t, strings.HasPrefix(errs, "bootctl: "), errs)
			require.Equal(t, c.code == exitUsage, strings.Contains(errs, "--help"), errs)
		})
	}
}

func TestHelpAndVersionAreNoErrors(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"help", "move"}, {"move", "-h"}} {
		code, out, errs := run(t, args...)
		require.Zero(t, code, errs)
		require.Contains(t, out, "Usage:")
		require.Empty(t, errs)
	}
	code, out, _ := run(t, "--version")
	require.Zero(t, code)
	require.True(t, strings.HasPrefix(out, "bootctl development"), out)
}

// What compatibility promises.
func TestMoveHasTheFlagsThatItsUsersKnow(t *testing.T) {
	_, help, _ := run(t, "move", "--help")
	for _, flag := range []string{"--source-kubeconfig", "--target-kubeconfig", "--namespace", "--require-owners", "--dry-run", "--verbose"} {
		require.Contains(t, help, flag+" ")
	}
}

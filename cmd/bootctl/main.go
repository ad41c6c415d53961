// Command bootctl is for those who run a boot-operator: each verb does one job
// beside it and ends. A verb has a file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set when a release is built.
var version = "development"

// What the process says with its exit code.
const (
	exitFailure = 1 // what was asked for was understood and did not come about
	exitUsage   = 2 // it was not understood; nothing was done
	exitTimeout = 3 // what was waited for has not come about in time
)

// environment is what a verb reads and writes beside its flags.
type environment struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// verbs makes the commands, in the order of the help.
var verbs = []func(*environment) *cobra.Command{
	newBMCCommand,
	newBootCommand,
	newDHCPCommand,
	newDoctorCommand,
	newExplainCommand,
	newHostCommand,
	newImageCommand,
	newMoveCommand,
	newStatusCommand,
	newUKICommand,
	newWatchCommand,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once: the first is being obeyed.
	context.AfterFunc(ctx, stop)
	code := execute(ctx, os.Args[1:], &environment{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}

// execute is main without the process around it; it returns the exit code.
func execute(ctx context.Context, args []string, env *environment) int {
	root, started := newRootCommand(env)
	root.SetArgs(args)
	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(env.Err, "bootctl:", err)
	var coded codedError
	if errors.As(err, &coded) {
		return coded.code
	}
	var usage usageError
	if *started && !errors.As(err, &usage) {
		return exitFailure
	}
	fmt.Fprintf(env.Err, "see %s --help\n", ran.CommandPath())
	return exitUsage
}

// newRootCommand makes bootctl with all its verbs. The bool is set when a verb
// begins its work: errors before that are about how it was called.
func newRootCommand(env *environment) (*cobra.Command, *bool) {
	started := new(bool)
	root := &cobra.Command{
		Use:           "bootctl",
		Short:         "Work beside a boot-operator: see what boots, publish images, move its objects, configure what is around it",
		Version:       versionText(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return usageError{errors.New("a verb is missing")}
		},
	}
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	root.SetVersionTemplate("bootctl {{.Version}}\n")
	for _, newVerb := range verbs {
		verb := newVerb(env)
		begins(verb, started)
		root.AddCommand(verb)
	}
	return root, started
}

// begins makes a verb, and those below it, say that they begin.
func begins(verb *cobra.Command, started *bool) {
	if run := verb.RunE; run != nil {
		verb.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return run(cmd, args)
		}
	}
	for _, below := range verb.Commands() {
		begins(below, started)
	}
}

// usageError is an error of how bootctl was called that a verb finds itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// codedError is an error with an exit code of its own.
type codedError struct {
	error
	code int
}

func (e codedError) Unwrap() error { return e.error }

// versionText is the version of a release, or the revision of another build.
func versionText() string {
	info, ok := debug.ReadBuildInfo()
	if version != "development" || !ok {
		return version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return version + " " + s.Value
		}
	}
	return version
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/move"
)

// moveFlags are those of the verb move.
type moveFlags struct {
	source, target clusterFlags
	namespaces     []string
	allNamespaces  bool
	requireOwners  bool
	dryRun         bool
	verbose        bool
	acknowledge    time.Duration
}

// clusterFlags say how to reach a cluster.
type clusterFlags struct{ kubeconfig, context string }

const moveLong = `Move takes every HTTPBootConfig and IPXEBootConfig of a namespace, and the Secrets
that they name, from one cluster to another. While it runs they are paused: no
operator serves them. What is known of each machine's boots goes along, so that a
bootPolicy of Once that is spent stays spent. Nothing is deleted from the source
before it has been read back from the target.

A move that was interrupted, however that happened, is finished by running the
same command again.`

// newMoveCommand makes the verb move.
func newMoveCommand(env *environment) *cobra.Command {
	var o moveFlags
	cmd := &cobra.Command{
		Use:     "move --target-kubeconfig FILE [flags]",
		Short:   "Move configs and their Secrets to another cluster",
		Long:    moveLong,
		Example: "  bootctl move --source-kubeconfig old --target-kubeconfig new --namespace machines --dry-run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("namespace") && len(o.namespaces) == 0 {
				return usageError{errors.New("--namespace is empty; leave it out, or use --all-namespaces")}
			}
			return o.run(cmd.Context(), env)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.source.kubeconfig, "source-kubeconfig", "", "kubeconfig of the cluster to move from (default: as kubectl finds its own)")
	f.StringVar(&o.source.context, "source-context", "", "context in it (default: its current one)")
	f.StringVar(&o.target.kubeconfig, "target-kubeconfig", "", "kubeconfig of the cluster to move to; required")
	f.StringVar(&o.target.context, "target-context", "", "context in it (default: its current one)")
	f.StringSliceVarP(&o.namespaces, "namespace", "n", nil, "namespace to move, may be repeated (default: that of the source's context)")
	f.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "move the configs of all namespaces")
	f.BoolVar(&o.requireOwners, "require-owners", false, "refuse objects whose owners the target does not have, instead of moving them without")
	f.BoolVar(&o.dryRun, "dry-run", false, "check everything and say what would be moved; write nothing")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "tell each step")
	f.DurationVar(&o.acknowledge, "pause-timeout", 15*time.Second, "how long to wait for the source's operator to confirm the pause; 0 does not wait")
	return cmd
}

// check finds what is wrong with the flags.
func (o *moveFlags) check() error {
	switch {
	case o.target.kubeconfig == "":
		return errors.New("--target-kubeconfig is missing: it names the cluster to move to")
	case o.allNamespaces && len(o.namespaces) > 0:
		return errors.New("--namespace and --all-namespaces exclude each other")
	case o.acknowledge < 0:
		return fmt.Errorf("--pause-timeout is %s; it must not be negative", o.acknowledge)
	}
	if slices.Contains(o.namespaces, "") {
		return errors.New("--namespace has an empty name in it")
	}
	return nil
}

// run moves, and prints what was done even if it is not all.
func (o *moveFlags) run(ctx context.Context, env *environment) error {
	if err := o.check(); err != nil {
		return usageError{err}
	}
	options := move.Options{RequireOwners: o.requireOwners, DryRun: o.dryRun, Acknowledge: o.acknowledge, Namespaces: o.namespaces}
	if o.verbose {
		options.Log = func(format string, args ...any) { fmt.Fprintf(env.Err, format+"\n", args...) }
	}
	var namespace string
	var err error
	if options.Source, namespace, err = o.source.connect(); err != nil {
		return fmt.Errorf("connecting to the source: %w", err)
	}
	if options.Target, _, err = o.target.connect(); err != nil {
		return fmt.Errorf("connecting to the target: %w", err)
	}
	if !o.allNamespaces && len(o.namespaces) == 0 {
		options.Namespaces = []string{namespace}
	}
	report, err := move.Run(ctx, options)
	return errors.Join(o.conclude(env, report, err), report.Print(env.Out))
}

// conclude says in a line what happened, or returns the error with what to do.
func (o *moveFlags) conclude(env *environment, report *move.Report, err error) error {
	var refused *move.Refused
	switch {
	case errors.As(err, &refused):
		return err
	case err != nil && report.Move != "" && !o.dryRun && len(report.Rows) > 0:
		return fmt.Errorf("%w\nThe move %s is not complete, and what it paused stays paused; nothing is lost. Run the same command again to finish it", err, report.Move)
	case err != nil:
		return err
	case len(report.Rows) == 0:
		fmt.Fprintln(env.Err, "There is nothing to move.")
	case o.dryRun:
		fmt.Fprintln(env.Err, "Nothing was changed. The move would do this:")
	default:
		fmt.Fprintf(env.Err, "The move %s is complete:\n", report.Move)
	}
	return nil
}

// load reads the kubeconfig: how to reach the cluster, and the namespace that the
// context names.
func (c clusterFlags) load() (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, "", err
	}
	namespace, _, err := loader.Namespace()
	return config, namespace, err
}

// connect returns a client, and the namespace that the kubeconfig's context names.
func (c clusterFlags) connect() (client.Client, string, error) {
	config, namespace, err := c.load()
	if err != nil {
		return nil, "", err
	}
	out, err := move.Connect(config)
	return out, namespace, err
}

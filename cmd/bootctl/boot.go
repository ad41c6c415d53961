package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/timeline"
)

// obeyed is how long an operator that runs may take to do what an annotation asks.
const obeyed = 20 * time.Second

// attemptFlags are those of the verbs boot retry and boot abort.
type attemptFlags struct {
	machineFlags
	yes     bool
	wait    bool
	timeout time.Duration
}

// newBootCommand makes the verb boot, whose own verbs are about one machine's boot.
func newBootCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "boot",
		Short: "Have a machine boot once more, or end the boot that goes on",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return usageError{errors.New("a verb of boot is missing")}
		},
	}
	cmd.AddCommand(newBootRetryCommand(env), newBootAbortCommand(env))
	return cmd
}

func (o *attemptFlags) add(cmd *cobra.Command, wait string) {
	o.machineFlags.add(cmd)
	f := cmd.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.wait, "wait", false, wait)
	f.DurationVar(&o.timeout, "timeout", time.Hour, "how long to wait with --wait")
}

const bootRetryLong = `Retry opens a new boot attempt: tokens of the last one are void, and its secret is served
again to the machine when that is proven. A machine behind a BMC that the operator drives
is switched off and booted from the network, as bootctl host boot does; another boots when
somebody switches it on.

Where bootPolicy is Once and what the machine boots was delivered, another boot installs
it again. That needs a confirmation, or --yes.`

func newBootRetryCommand(env *environment) *cobra.Command {
	var o attemptFlags
	cmd := &cobra.Command{
		Use:     "retry MACHINE [flags]",
		Short:   "Open a new boot attempt for a machine, and boot it where a BMC allows it",
		Long:    bootRetryLong,
		Example: "  bootctl boot retry machine-8 -n machines --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0], o.retry)
		},
	}
	o.add(cmd, "wait until the machine has booted, and say how far it is")
	return cmd
}

const bootAbortLong = `Abort ends the present boot attempt of a machine: nothing is delivered in it any more, its
tokens are void, its BMC is not armed again, and no boot of the machine opens another
attempt. bootctl boot retry does, and a change of spec.

What the machine has, it has: one that is running is not switched off by this.`

func newBootAbortCommand(env *environment) *cobra.Command {
	var o attemptFlags
	cmd := &cobra.Command{
		Use:     "abort MACHINE [flags]",
		Short:   "End the present boot attempt of a machine",
		Long:    bootAbortLong,
		Example: "  bootctl boot abort machine-8 -n machines --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0], o.abort)
		},
	}
	o.add(cmd, "wait, as long as --timeout says, until the operator has done it")
	return cmd
}

func (o *attemptFlags) run(ctx context.Context, env *environment, name string, do func(context.Context, *fleet, *timeline.Machine) error) error {
	if o.timeout <= 0 {
		return usageError{fmt.Errorf("--timeout is %s; it must be positive", o.timeout)}
	}
	f, err := o.connect(env)
	if err != nil {
		return err
	}
	m, err := f.find(ctx, name)
	if err != nil {
		return err
	}
	f.namespace = m.Namespace
	return do(ctx, f, m)
}

// retry opens a new attempt.
func (o *attemptFlags) retry(ctx context.Context, f *fleet, m *timeline.Machine) error {
	if h := m.Host; h != nil && meta.IsStatusConditionTrue(h.Status.Conditions, conditionDriven) {
		host := bootFlags{hostFlags: hostFlags{cluster: o.cluster, namespace: m.Namespace, wait: o.wait, timeout: o.timeout}, yes: o.yes}
		if err := host.run(ctx, f.env, h.Name); err != nil {
			return err
		}
		if !o.wait {
			fmt.Fprintf(f.env.Out, "The operator boots host %s/%s once more; to follow it: bootctl watch %s -n %s\n", m.Namespace, h.Name, h.Name, m.Namespace)
		}
		return nil
	}
	configs, err := active(m)
	if err != nil {
		return err
	}
	if spent := spentConfig(configs); spent != nil {
		if err := confirm(f.env, o.yes, fmt.Sprintf("%s %s/%s has bootPolicy Once, and what it boots was delivered: another boot from the network installs the machine again.", spent.Kind(), m.Namespace, spent.GetName())); err != nil {
			return err
		}
	}
	request := "bootctl-" + strconv.FormatInt(f.now().UnixMilli(), 36)
	for _, c := range configs {
		if err := f.annotate(ctx, c, v1alpha1.RequestBootAnnotation, request); err != nil {
			return err
		}
	}
	if err := f.await(ctx, configs, obeyed, "open the attempt", func(b *v1alpha1.BootStatus) bool { return b.Request == request }); err != nil {
		return err
	}
	for _, c := range configs {
		fmt.Fprintf(f.env.Out, "Attempt %d of %s %s/%s is open: the machine gets what it boots when it boots from the network.\n", c.ConfigStatus().Boot.Attempt, c.Kind(), m.Namespace, c.GetName())
	}
	if !o.wait {
		return nil
	}
	watch := watchFlags{machineFlags: machineFlags{cluster: o.cluster, namespace: m.Namespace}, output: "lines", until: "booted", timeout: o.timeout}
	return watch.run(ctx, &environment{In: f.env.In, Out: f.env.Err, Err: f.env.Err}, []string{m.Name})
}

// abort ends the present attempt of each of the machine's configs.
func (o *attemptFlags) abort(ctx context.Context, f *fleet, m *timeline.Machine) error {
	configs, err := active(m)
	if err != nil {
		return err
	}
	var open []v1alpha1.Config
	for _, c := range configs {
		switch b := c.ConfigStatus().Boot; {
		case b == nil || b.Attempt == 0:
		case b.Aborted == b.Attempt:
			fmt.Fprintf(f.env.Out, "Attempt %d of %s %s/%s was aborted before.\n", b.Attempt, c.Kind(), m.Namespace, c.GetName())
		default:
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		fmt.Fprintf(f.env.Err, "Machine %s/%s has no boot attempt that could be aborted.\n", m.Namespace, m.Name)
		return nil
	}
	state := m.State(f.now())
	if err := confirm(f.env, o.yes, fmt.Sprintf("Machine %s/%s is %s. Nothing more is delivered to it after this, until bootctl boot retry.", m.Namespace, m.Name, state.Stage)); err != nil {
		return err
	}
	for _, c := range open {
		if err := f.annotate(ctx, c, v1alpha1.AbortBootAnnotation, strconv.FormatInt(c.ConfigStatus().Boot.Attempt, 10)); err != nil {
			return err
		}
	}
	patience := obeyed
	if o.wait {
		patience = o.timeout
	}
	if err := f.await(ctx, open, patience, "abort the attempt", func(b *v1alpha1.BootStatus) bool { return b.Aborted > 0 && b.Aborted == b.Attempt }); err != nil {
		return err
	}
	for _, c := range open {
		fmt.Fprintf(f.env.Out, "Attempt %d of %s %s/%s is aborted. To boot it again: bootctl boot retry %s -n %s\n", c.ConfigStatus().Boot.Attempt, c.Kind(), m.Namespace, c.GetName(), m.Name, m.Namespace)
	}
	return nil
}

// active are the machine's configs that are not paused.
func active(m *timeline.Machine) ([]v1alpha1.Config, error) {
	var configs []v1alpha1.Config
	for _, c := range m.Configs {
		if _, paused := c.GetAnnotations()[v1alpha1.PausedAnnotation]; !paused {
			configs = append(configs, c)
		}
	}
	switch {
	case len(m.Configs) == 0:
		return nil, fmt.Errorf("machine %s/%s has no HTTPBootConfig or IPXEBootConfig, so that it boots nothing", m.Namespace, m.Name)
	case len(configs) == 0:
		return nil, fmt.Errorf("machine %s/%s is paused: nothing is done for it until the annotation %s is removed from its %s", m.Namespace, m.Name, v1alpha1.PausedAnnotation, strings.Join(kindsOf(*m), " and "))
	}
	return configs, nil
}

// spentConfig returns a config whose one delivery was made, or nil.
func spentConfig(configs []v1alpha1.Config) v1alpha1.Config {
	for _, c := range configs {
		b := c.ConfigStatus().Boot
		if c.Common().BootPolicy == v1alpha1.BootPolicyOnce && b != nil && b.Served != nil && b.Served.Attempt == b.Attempt {
			return c
		}
	}
	return nil
}

// annotate sets one annotation of a config, and nothing else.
func (f *fleet) annotate(ctx context.Context, c v1alpha1.Config, name, value string) error {
	before := c.DeepCopyObject().(client.Object) //nolint:forcetypeassert // a config is one
	all := map[string]string{}
	for k, v := range c.GetAnnotations() {
		all[k] = v
	}
	all[name] = value
	c.SetAnnotations(all)
	if err := f.Patch(ctx, c, client.MergeFrom(before), client.FieldOwner("bootctl")); err != nil {
		return f.kindly(err, "patch", c.Kind()+"s")
	}
	return nil
}

// await reads configs until their boot status says that an operator has done what it
// was asked for.
func (f *fleet) await(ctx context.Context, configs []v1alpha1.Config, patience time.Duration, what string, done func(*v1alpha1.BootStatus) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(lookEvery / 2)
	defer tick.Stop()
	for _, c := range configs {
		for b := c.ConfigStatus().Boot; b == nil || !done(b); b = c.ConfigStatus().Boot {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("no operator came to %s within %s; it stays asked for. See whether one runs: bootctl doctor", what, patience)
			}
			if err := f.Get(ctx, client.ObjectKeyFromObject(c), c); err != nil && !isOver(ctx) {
				return f.kindly(err, "get", c.Kind()+"s")
			}
		}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/translate"
)

// bootFlags are those of the verb host boot.
type bootFlags struct {
	hostFlags
	yes bool
}

const bootLong = `Boot asks the operator for one more boot of the machine from the network: it is switched
off, its BMC is told once to boot from the network, it is switched on, and it fetches
what the host names. Each step is told, and what it waits for.

A provisioned host whose boot policy is Once boots its installer again: what is on the
machine's disks is replaced. That needs a confirmation, or --yes.`

// newHostBootCommand makes the verb host boot.
func newHostBootCommand(env *environment) *cobra.Command {
	var o bootFlags
	cmd := &cobra.Command{
		Use:     "boot NAME [flags]",
		Short:   "Boot a machine from the network once more, and follow it",
		Long:    bootLong,
		Example: "  bootctl host boot machine-8 -n machines --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0])
		},
	}
	o.add(cmd, time.Hour)
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask before a machine is installed again")
	return cmd
}

func (o *bootFlags) run(ctx context.Context, env *environment, name string) error {
	c, err := o.connect(env, name)
	if err != nil {
		return err
	}
	h, err := c.get(ctx)
	if err != nil {
		return err
	}
	if err := o.mayBoot(c, h); err != nil {
		return err
	}
	before, err := c.networkBoot(ctx)
	if err != nil {
		return err
	}
	request := "bootctl-" + strconv.FormatInt(time.Now().UnixMilli(), 36)
	err = c.change(ctx, h, func(h *metal3.BareMetalHost) { h.Annotations[v1alpha1.HostRequestBootAnnotation] = request })
	if err != nil || !o.wait {
		return err
	}
	f := bootFollower{hosts: c}
	if before != nil {
		f.before = before.Request
	}
	if _, err := c.follow(ctx, o.timeout, f.done); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "host %s booted from the network\n", c.key)
	return nil
}

// mayBoot says why a host cannot be booted, and asks where that replaces an
// installation.
func (o *bootFlags) mayBoot(c *hosts, h *metal3.BareMetalHost) error {
	if err := c.drivable(h); err != nil {
		return err
	}
	if h.Spec.Image == nil && h.Spec.CustomDeploy == nil {
		return fmt.Errorf("host %s names nothing to boot: set spec.image.url", c.key)
	}
	b, err := translate.ReadHostBoot(h)
	if err != nil {
		return err
	}
	switch {
	case h.Spec.ExternallyProvisioned:
		return fmt.Errorf("host %s is externally provisioned: the operator only switches it on and off", c.key)
	case !h.Spec.Online:
		return fmt.Errorf("host %s is to be off (spec.online is false), and boots when it is switched on: bootctl host power %s on -n %s", c.key, c.key.Name, c.key.Namespace)
	case b.Policy == v1alpha1.BootPolicyOnce && h.Status.Provisioning.State == metal3.StateProvisioned:
		return confirm(c.env, o.yes, fmt.Sprintf("Host %s is provisioned and its boot policy is Once: another boot from the network installs it again.", c.key))
	}
	return nil
}

// networkBoot is the last boot that was asked for through the host's BMC; nil where
// there was none.
func (c *hosts) networkBoot(ctx context.Context) (*v1alpha1.NetworkBoot, error) {
	var last *v1alpha1.NetworkBoot
	var http v1alpha1.HTTPBootConfig
	var ipxe v1alpha1.IPXEBootConfig
	for _, o := range []client.Object{&http, &ipxe} {
		if err := client.IgnoreNotFound(c.Get(ctx, c.key, o)); err != nil {
			return nil, fmt.Errorf("reading the boot config of host %s: %w", c.key, err)
		}
	}
	for _, status := range []*v1alpha1.BootStatus{http.Status.Boot, ipxe.Status.Boot} {
		if status != nil && status.NetworkBoot != nil && (last == nil || status.NetworkBoot.Since.After(last.Since.Time)) {
			last = status.NetworkBoot
		}
	}
	return last, nil
}

// bootFollower tells the steps of one boot.
type bootFollower struct {
	*hosts
	// before is the request of the boot before; said what was told last.
	before, said string
}

// done says whether the boot that was asked for is over.
func (f *bootFollower) done(ctx context.Context, h *metal3.BareMetalHost) (bool, error) {
	boot, err := f.networkBoot(ctx)
	if err != nil {
		return true, err
	}
	switch state := h.Status.Provisioning.State; state {
	case metal3.StateDeprovisioning, metal3.StateDeleting, metal3.StatePoweringOffBeforeDelete:
		return true, fmt.Errorf("the host is %s now: somebody took its image away", state)
	}
	if boot == nil || boot.Request == f.before {
		return false, nil
	}
	if now := describeBoot(boot); now != f.said {
		f.tell("%s", now)
		f.said = now
	}
	switch {
	case boot.Step == v1alpha1.NetworkBootFailed:
		return true, errors.New("the boot failed: " + dash(boot.Message))
	case boot.Step == v1alpha1.NetworkBootDelivered && boot.Disarmed:
		return h.Status.Provisioning.State == metal3.StateProvisioned, nil
	}
	return false, nil
}

// steps say what a step is, for people.
var steps = map[v1alpha1.NetworkBootStep]string{
	v1alpha1.NetworkBootPowerOff:   "switching the machine off",
	v1alpha1.NetworkBootArm:        "telling the BMC to boot from the network once",
	v1alpha1.NetworkBootPowerOn:    "switching the machine on",
	v1alpha1.NetworkBootAwaitFetch: "waiting for the machine to fetch what it boots",
	v1alpha1.NetworkBootDelivered:  "the machine has fetched what it boots",
	v1alpha1.NetworkBootFailed:     "the boot failed",
}

// describeBoot says in a line how far a boot is.
func describeBoot(b *v1alpha1.NetworkBoot) string {
	text := string(b.Step) + ": " + steps[b.Step]
	if b.Tactic != "" {
		text += " (" + b.Tactic
		if b.PinnedBy != "" {
			text += ", the URL in " + b.PinnedBy
		}
		if b.Try > 1 {
			text += fmt.Sprintf(", try %d", b.Try)
		}
		text += ")"
	}
	if b.Message != "" {
		text += "; " + oneLine(b.Message)
	}
	return text
}

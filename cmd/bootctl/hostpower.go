package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// cycleSettles is after how long a machine that is on is believed to have been off,
// where that was not seen: it may have been quicker than we look.
const cycleSettles = 15 * time.Second

// powerFlags are those of the verb host power.
type powerFlags struct {
	hostFlags
	hard bool
}

const powerLong = `Power switches a machine: on and off set spec.online, cycle asks for a reboot by the
annotation reboot.metal3.io. The operating system is asked to shut down first and has
its time; --hard pulls the plug.

A diskless machine (boot policy Always) boots from the network whenever it is switched
on; another boots what is on its disks.`

// newHostPowerCommand makes the verb host power.
func newHostPowerCommand(env *environment) *cobra.Command {
	var o powerFlags
	cmd := &cobra.Command{
		Use:       "power NAME on|off|cycle [flags]",
		Short:     "Switch a machine on or off, or reboot it",
		Long:      powerLong,
		Example:   "  bootctl host power machine-8 off -n machines\n  bootctl host power machine-8 cycle --hard",
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{"on", "off", "cycle"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0], args[1])
		},
	}
	o.add(cmd, 15*time.Minute)
	cmd.Flags().BoolVar(&o.hard, "hard", false, "do not ask the operating system; pull the plug")
	return cmd
}

func (o *powerFlags) run(ctx context.Context, env *environment, name, to string) error {
	switch {
	case !slices.Contains([]string{"on", "off", "cycle"}, to):
		return usageError{fmt.Errorf("%q is not on, off or cycle", to)}
	case o.hard && to == "on":
		return usageError{fmt.Errorf("--hard is for off and cycle")}
	}
	c, err := o.connect(env, name)
	if err != nil {
		return err
	}
	h, err := c.get(ctx)
	if err != nil {
		return err
	}
	if err := o.maySwitch(c, h, to); err != nil {
		return err
	}
	if err := c.change(ctx, h, func(h *metal3.BareMetalHost) { o.ask(h, to) }); err != nil || !o.wait {
		return err
	}
	done := switched(to == "on")
	if to == "cycle" {
		done = cycled(time.Now)
	}
	if _, err := c.follow(ctx, o.timeout, done); err != nil {
		return err
	}
	fmt.Fprintf(env.Out, "host %s is %s\n", c.key, map[bool]string{true: "off", false: "on"}[to == "off"])
	return nil
}

// maySwitch says why a host cannot be switched.
func (o *powerFlags) maySwitch(c *hosts, h *metal3.BareMetalHost, to string) error {
	if err := c.drivable(h); err != nil {
		return err
	}
	switch {
	case to == "off" && h.Spec.DisablePowerOff:
		return fmt.Errorf("host %s must not be switched off (spec.disablePowerOff); it can be rebooted: bootctl host power %s cycle -n %s", c.key, c.key.Name, c.key.Namespace)
	case to == "cycle" && !h.Spec.Online:
		return fmt.Errorf("host %s is to be off (spec.online is false), so there is nothing to reboot: bootctl host power %s on -n %s", c.key, c.key.Name, c.key.Namespace)
	}
	return nil
}

// ask writes what is wanted into a host.
func (o *powerFlags) ask(h *metal3.BareMetalHost, to string) {
	if to == "on" || to == "off" {
		h.Spec.Online = to == "on"
	}
	switch {
	case o.hard:
		h.Annotations[metal3.RebootAnnotationPrefix] = `{"mode":"hard"}`
	case to == "cycle":
		h.Annotations[metal3.RebootAnnotationPrefix] = `{"mode":"soft"}`
	}
}

type condition = func(context.Context, *metal3.BareMetalHost) (bool, error)

// switched says whether the machine is on, or off.
func switched(on bool) condition {
	return func(_ context.Context, h *metal3.BareMetalHost) (bool, error) {
		return h.Status.PoweredOn == on, nil
	}
}

// cycled says whether the machine was rebooted, and is on again.
func cycled(now func() time.Time) condition {
	wasOff, gone := false, time.Time{}
	return func(_ context.Context, h *metal3.BareMetalHost) (bool, error) {
		_, asked := h.Annotations[metal3.RebootAnnotationPrefix]
		_, restarting := h.Annotations[v1alpha1.HostRestartAnnotation]
		wasOff = wasOff || !h.Status.PoweredOn
		if asked || restarting {
			return false, nil
		}
		if gone.IsZero() {
			gone = now()
		}
		return h.Status.PoweredOn && (wasOff || h.Spec.DisablePowerOff || now().Sub(gone) >= cycleSettles), nil
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// inspectFlags are those of the verb host inspect.
type inspectFlags struct {
	hostFlags
	show   bool
	output string
}

const inspectLong = `Inspect asks the operator to find out anew what a machine is made of, waits for it, and
prints that. Only a host that is available is inspected; --show prints what is known
of any.`

// newHostInspectCommand makes the verb host inspect.
func newHostInspectCommand(env *environment) *cobra.Command {
	var o inspectFlags
	cmd := &cobra.Command{
		Use:     "inspect NAME [flags]",
		Short:   "Find out anew what a machine is made of, and print it",
		Long:    inspectLong,
		Example: "  bootctl host inspect machine-8 -n machines\n  bootctl host inspect machine-8 --show -o yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0])
		},
	}
	o.add(cmd, 10*time.Minute)
	cmd.Flags().BoolVar(&o.show, "show", false, "print what is known, and ask for nothing")
	cmd.Flags().StringVarP(&o.output, "output", "o", "table", "how to print: table, json or yaml")
	return cmd
}

func (o *inspectFlags) run(ctx context.Context, env *environment, name string) error {
	switch o.output {
	case "table", "json", "yaml":
	default:
		return usageError{fmt.Errorf("--output is %q; it must be table, json or yaml", o.output)}
	}
	c, err := o.connect(env, name)
	if err != nil {
		return err
	}
	h, err := c.get(ctx)
	if err != nil {
		return err
	}
	if !o.show {
		if h, err = o.inspect(ctx, c, h); err != nil || h == nil {
			return err
		}
	}
	if h.Status.HardwareDetails == nil {
		return fmt.Errorf("nothing is known of the hardware of host %s yet; the host is %s", c.key, describeHost(h))
	}
	return o.print(env.Out, h)
}

// inspect asks for an inspection and waits for it; nil: it was only asked for.
func (o *inspectFlags) inspect(ctx context.Context, c *hosts, h *metal3.BareMetalHost) (*metal3.BareMetalHost, error) {
	if err := c.drivable(h); err != nil {
		return nil, err
	}
	if h.InspectionDisabled() {
		return nil, fmt.Errorf("inspection of host %s is disabled, by spec.inspectionMode or the annotation %s; --show prints what is known", c.key, metal3.InspectAnnotationPrefix)
	}
	switch state := h.Status.Provisioning.State; state {
	case metal3.StateAvailable, metal3.StateReady, metal3.StateNone, metal3.StateRegistering, metal3.StateInspecting, metal3.StatePreparing:
	default:
		return nil, fmt.Errorf("host %s is %s, and only one that is available is inspected; --show prints what is known", c.key, state)
	}
	err := c.change(ctx, h, func(h *metal3.BareMetalHost) { h.Annotations[metal3.InspectAnnotationPrefix] = "" })
	if err != nil || !o.wait {
		return nil, err
	}
	return c.follow(ctx, o.timeout, func(_ context.Context, h *metal3.BareMetalHost) (bool, error) {
		_, asked := h.Annotations[metal3.InspectAnnotationPrefix]
		switch h.Status.Provisioning.State {
		case metal3.StateAvailable, metal3.StateReady:
			return !asked && h.Status.HardwareDetails != nil, nil
		case metal3.StateProvisioning, metal3.StateProvisioned, metal3.StateExternallyProvisioned:
			return true, errors.New("the host was taken into use before it was inspected; --show prints what is known")
		}
		return false, nil
	})
}

func (o *inspectFlags) print(out io.Writer, h *metal3.BareMetalHost) error {
	var text []byte
	var err error
	switch o.output {
	case "json":
		text, err = json.MarshalIndent(h.Status.HardwareDetails, "", "  ")
		text = append(text, '\n')
	case "yaml":
		text, err = yaml.Marshal(h.Status.HardwareDetails)
	default:
		return printHardware(out, h.Status.HardwareDetails)
	}
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// printHardware prints hardware for people.
func printHardware(out io.Writer, d *metal3.HardwareDetails) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(w, strings.Join(cells, "\t")) }
	row("machine", dash(joined(" ", d.SystemVendor.Manufacturer, d.SystemVendor.ProductName)))
	row("serial number", dash(d.SystemVendor.SerialNumber))
	row("firmware", dash(d.Firmware.BIOS.Version))
	row("CPU", dash(joined(", ", d.CPU.Model, d.CPU.Arch, fmt.Sprintf("%d threads", d.CPU.Count))))
	row("memory", fmt.Sprintf("%d MiB", d.RAMMebibytes))
	if len(d.NIC) > 0 {
		row("")
		row("NIC", "MAC", "IP", "SPEED", "BOOTS")
	}
	for _, n := range d.NIC {
		speed := "-"
		if n.SpeedGbps > 0 {
			speed = fmt.Sprintf("%d Gbit/s", n.SpeedGbps)
		}
		row(dash(n.Name), dash(n.MAC), dash(n.IP), speed, yes(n.PXE))
	}
	if len(d.Storage) > 0 {
		row("")
		row("DISK", "TYPE", "SIZE", "MODEL", "SERIAL NUMBER")
	}
	for _, s := range d.Storage {
		row(dash(s.Name), dash(string(s.Type)), size(int64(s.SizeBytes)), dash(s.Model), dash(s.SerialNumber))
	}
	return w.Flush()
}

// size is a number of bytes as disks are sold, in powers of 1000.
func size(bytes int64) string {
	const gigabyte = 1_000_000_000
	switch {
	case bytes >= 1000*gigabyte:
		return fmt.Sprintf("%.1f TB", float64(bytes)/(1000*gigabyte))
	case bytes > 0:
		return fmt.Sprintf("%.1f GB", float64(bytes)/gigabyte)
	}
	return "-"
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/boot-operator/boot-operator/internal/redfish"
)

const (
	// passwordVariable is the environment variable that may hold a BMC's password.
	passwordVariable = "BOOTCTL_BMC_PASSWORD"
	// maxPasswordFile bounds a password file in bytes.
	maxPasswordFile = 4096
)

// probeFlags are those of the verb bmc probe.
type probeFlags struct {
	username, passwordFile string
	caFile                 string
	insecure               bool
	session                bool
	output                 string
	timeout                time.Duration
}

const probeLong = `Probe asks a BMC what it is and what it can be told, and prints that with the quirks
that are known of such BMCs, and what the operator would send it for a boot from the
network. It reads only: nothing is written, nothing is switched.

The address is as in spec.bmc.address of a BareMetalHost; without a scheme it is one
for Redfish over HTTPS. With several systems behind one BMC it ends with the path of one.

The password comes from --password-file, from the environment variable
` + passwordVariable + `, or is asked for on a terminal.`

const probeExample = `  bootctl bmc probe redfish://10.0.1.12/redfish/v1/Systems/1 --username operator
  bootctl bmc probe 10.0.1.12 --username operator --password-file bmc.password --ca-file bmc.crt -o json`

// newBMCProbeCommand makes the verb bmc probe.
func newBMCProbeCommand(env *environment) *cobra.Command {
	var o probeFlags
	cmd := &cobra.Command{
		Use:     "probe ADDRESS --username NAME [flags]",
		Short:   "Ask a BMC what it can do, and what it would be sent; nothing is written",
		Long:    probeLong,
		Example: probeExample,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0])
		},
	}
	o.add(cmd)
	return cmd
}

func (o *probeFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.username, "username", "u", "", "user name at the BMC; required with its address")
	f.StringVar(&o.passwordFile, "password-file", "", "file whose first line is the password; - is the standard input")
	f.StringVar(&o.caFile, "ca-file", "", "PEM file with authorities that are trusted beside the system's")
	f.BoolVar(&o.insecure, "insecure-skip-verify", false, "take any certificate: whoever answers gets the password")
	f.BoolVar(&o.session, "session", false, "log in and out, in place of basic authentication")
	f.StringVarP(&o.output, "output", "o", "text", "how to print: text or json")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long it may take")
}

// clients speak to a BMC within the timeout.
func (o *probeFlags) clients() *redfish.Clients {
	return redfish.New(redfish.Options{Limits: redfish.Limits{Operation: o.timeout, Timeout: min(o.timeout, time.Minute)}})
}

// run probes and prints.
func (o *probeFlags) run(ctx context.Context, env *environment, address string) error {
	con, err := o.connection(env, address)
	if err != nil {
		return err
	}
	probe, err := o.clients().Probe(ctx, con)
	if err != nil {
		return advise(err)
	}
	if o.output == "json" {
		e := json.NewEncoder(env.Out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(newProbeReport(con, probe))
	}
	return printProbe(env.Out, con, probe)
}

// connection reads the flags; what is wrong with them is told before anybody is
// asked for a password.
func (o *probeFlags) connection(env *environment, address string) (redfish.Connection, error) {
	c := redfish.Connection{Username: o.username, InsecureSkipVerify: o.insecure, Session: o.session}
	var err error
	if !strings.Contains(address, "://") {
		address = "redfish://" + address
	}
	if c.Address, err = redfish.ParseAddress(address); err != nil {
		return c, usageError{err}
	}
	if o.username == "" {
		return c, usageError{errors.New("--username is missing: a BMC tells nothing to strangers")}
	}
	if err := o.check(); err != nil {
		return c, err
	}
	if c.CA, err = readOptional(o.caFile); err != nil {
		return c, fmt.Errorf("reading --ca-file: %w", err)
	}
	if c.Password, err = o.password(env); err != nil {
		return c, err
	}
	return c, nil
}

// check tells what is wrong with the flags that need no BMC.
func (o *probeFlags) check() error {
	switch {
	case o.output != "text" && o.output != "json":
		return usageError{fmt.Errorf("--output is %q; it must be text or json", o.output)}
	case o.timeout <= 0:
		return usageError{fmt.Errorf("--timeout is %s; it must be positive", o.timeout)}
	case o.insecure && o.caFile != "":
		return usageError{errors.New("--ca-file and --insecure-skip-verify exclude each other")}
	}
	return nil
}

// password finds the password: in a file, in the environment, or on a terminal.
func (o *probeFlags) password(env *environment) (string, error) {
	if o.passwordFile != "" {
		return readPassword(env.In, o.passwordFile)
	}
	if password := os.Getenv(passwordVariable); password != "" {
		return password, nil
	}
	terminal, is := env.In.(*os.File)
	if !is || !term.IsTerminal(int(terminal.Fd())) { //nolint:gosec // a file descriptor fits
		return "", usageError{fmt.Errorf("there is no password, and no terminal to ask for it on: use --password-file or the environment variable %s", passwordVariable)}
	}
	fmt.Fprintf(env.Err, "Password of %s: ", o.username)
	password, err := term.ReadPassword(int(terminal.Fd())) //nolint:gosec // a file descriptor fits
	fmt.Fprintln(env.Err)
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	return string(password), nil
}

// readPassword is the first line of a file.
func readPassword(in io.Reader, path string) (string, error) {
	return readFirstLine(in, "password-file", "the password", path)
}

// readFirstLine is the first line of the file that a flag names; - is in.
func readFirstLine(in io.Reader, flag, what, path string) (string, error) {
	if path != "-" {
		f, err := os.Open(path) //nolint:gosec // the user names it
		if err != nil {
			return "", fmt.Errorf("reading --%s: %w", flag, err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPasswordFile))
	if err != nil {
		return "", fmt.Errorf("reading --%s: %w", flag, err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("the first line of --%s %s is empty; it must be %s", flag, path, what)
	}
	return line, nil
}

// advise adds what to do to an error of a BMC.
func advise(err error) error {
	for _, a := range []struct {
		is  error
		say string
	}{
		{redfish.ErrUnauthorized, "Check --username and the password. They were sent once: many BMCs lock an account after a few wrong ones"},
		{redfish.ErrCertificate, "Give its authority, or the certificate itself, by --ca-file; or, in a network that you trust, use --insecure-skip-verify"},
		{redfish.ErrUnreachable, "Check the address, and that it can be reached from here"},
		{redfish.ErrNotBMC, "Check the address: what answers there does not speak Redfish as a BMC does"},
		{redfish.ErrBusy, "Ask again later"},
	} {
		if errors.Is(err, a.is) {
			return fmt.Errorf("%w\n%s", err, a.say)
		}
	}
	return err
}

// printProbe prints a probe for people.
func printProbe(out io.Writer, con redfish.Connection, p redfish.Probe) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	id := p.Identity
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("BMC", "%s", joined(" ", id.Vendor, id.BMCModel, id.BMCFirmware, "Redfish "+id.RedfishVersion))
	row("connection", "%s", connectionText(con))
	row("system", "%s", id.SystemPath)
	if len(p.Systems) > 1 {
		row("other systems", "%s", strings.Join(without(p.Systems, id.SystemPath), ", "))
	}
	row("machine", "%s", joined(" ", id.Manufacturer, id.Model))
	row("UUID", "%s", dash(id.UUID))
	row("serial number", "%s", dash(id.Serial))
	row("power", "%s", dash(string(p.Power.State)))
	row("reset types", "%s", dash(strings.Join(p.ResetTypes, ", ")))
	row("override now", "%s", dash(joined(", ", p.Override.Enabled, p.Override.Target, p.Override.Mode)))
	row("override targets", "%s", dash(strings.Join(p.Override.Targets, ", ")))
	row("HTTP boot", "%s", yes(p.Paths.HTTP))
	row("PXE boot", "%s", yes(p.Paths.PXE))
	row("boot URL", "%s", pinText(p.Paths.PinsURL))
	row("boot order", "%s", map[bool]string{true: "can be written", false: "cannot be written: a diskless machine does not come back by itself"}[p.Paths.Order])
	if p.Paths.IgnoresOnce {
		row("once", "is ignored: the machine boots the network again until that is cleared")
	}
	if s := p.SecureBoot; s != nil {
		row("Secure Boot", "%s", joined(", ", map[bool]string{true: "on", false: "off"}[s.Enabled], s.Mode))
		row("its databases", "%s", dash(strings.Join(p.Databases, ", ")))
	}
	for _, missing := range p.Missing {
		row("not known", "%s", missing)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return printPlans(out, p)
}

// printPlans prints the quirks, and what would be sent.
func printPlans(out io.Writer, p redfish.Probe) error {
	var b strings.Builder
	b.WriteString("\nQuirks that apply:\n")
	if len(p.Quirks) == 0 {
		b.WriteString("  none that is known\n")
	}
	for _, q := range p.Quirks {
		fmt.Fprintf(&b, "  %s: %s\n", q.Name, q.Reason)
	}
	b.WriteString("\nFor a boot from the network it would be sent, after power-off and before power-on\n(of several requests for the same thing, the later only if the one before is refused):\n")
	for _, plan := range p.Plans {
		fmt.Fprintf(&b, "  %s\n", plan.Tactic)
		if plan.Error != "" {
			fmt.Fprintf(&b, "    cannot work: %s\n", plan.Error)
		}
		for _, r := range plan.Requests {
			fmt.Fprintf(&b, "    %s %s", r.Method, r.Path)
			if r.IfMatch != "" {
				fmt.Fprintf(&b, "  If-Match: %s", r.IfMatch)
			}
			fmt.Fprintf(&b, "\n      %s\n", r.Body)
		}
	}
	b.WriteString("Nothing was written.\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func connectionText(con redfish.Connection) string {
	switch {
	case !con.Address.TLS:
		return "plain HTTP: the password crosses the network readable"
	case con.InsecureSkipVerify:
		return "TLS, and the certificate was not verified"
	}
	return "TLS, verified"
}

func pinText(property string) string {
	if property == "" {
		return "only DHCP can say it"
	}
	return "can be set through the BMC, in " + property
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// joined joins what is not empty.
func joined(by string, parts ...string) string { return strings.Join(without(parts, ""), by) }

func without(list []string, what string) []string {
	var left []string
	for _, s := range list {
		if s != what {
			left = append(left, s)
		}
	}
	return left
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/boot-operator/boot-operator/internal/timeline"
)

// doctorFlags are those of the verb doctor.
type doctorFlags struct {
	machineFlags
	operator  string
	url       string
	caFile    string
	bmcCAFile string
	nic       string
	checks    []string
	output    string
}

const doctorLong = `Doctor looks at everything between a machine and what it boots, and says of each thing
whether it is as it should be, and if not, what to do. Nothing is changed: no attempt is
opened, no lease is taken, and a BMC is only asked whether its machine is on.

  cluster  an operator runs and leads, the CRDs are of this version, Services keep the
           addresses of clients
  proof    by what each machine would be known
  bmc      the BMC of each BareMetalHost answers to the credentials of its Secret
  url      with --url, or where the operator's arguments tell it: the boot server answers
           to firmware, its certificate and ciphers are such as firmware takes, and the
           address of this computer arrives there as it is
  dhcp     with --interface, as root: who offers which boot on that network; two DISCOVERs
           are sent, as firmware for HTTP boot and for PXE sends them, and no REQUEST

Run it where machines are: what is asked over the network is asked from here.`

const doctorExample = `  bootctl doctor
  bootctl doctor --url http://10.0.0.2:8082 --interface eth1
  bootctl doctor --checks=bmc --bmc-ca-file bmc.crt -n machines -o json`

// doctorCheck is a part of a diagnosis.
type doctorCheck struct {
	name string
	run  func(ctx context.Context, d *doctor) []finding
}

// doctorChecks are all of them, in order.
var doctorChecks = []doctorCheck{
	{"cluster", checkCluster}, {"proof", checkProofs}, {"bmc", checkBMCs}, {"url", checkURL}, {"dhcp", checkDHCP},
}

// newDoctorCommand makes the verb doctor.
func newDoctorCommand(env *environment) *cobra.Command {
	var o doctorFlags
	cmd := &cobra.Command{
		Use:     "doctor [flags]",
		Short:   "Look for what keeps machines from booting, and say what to do",
		Long:    doctorLong,
		Example: doctorExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), env)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.cluster.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: as kubectl finds its own)")
	f.StringVar(&o.cluster.context, "context", "", "context in it (default: its current one)")
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace of the machines (default: all, or, where those may not be read, that of the context)")
	f.StringVar(&o.operator, "operator-namespace", "", "namespace of the operator (default: all are looked through)")
	f.StringVar(&o.url, "url", "", "URL of the boot server, as machines have it, such as http://10.0.0.2:8082")
	f.StringVar(&o.caFile, "ca-file", "", "PEM file with the authority that firmware trusts for boot servers (default: the system's)")
	f.StringVar(&o.bmcCAFile, "bmc-ca-file", "", "PEM file with authorities of BMCs that are trusted beside the system's")
	f.StringVarP(&o.nic, "interface", "i", "", "network interface in the machines' network, to look for DHCP servers on")
	f.StringSliceVar(&o.checks, "checks", nil, "only these: cluster, proof, bmc, url, dhcp (default: all)")
	f.StringVarP(&o.output, "output", "o", "text", "how to print: text or json")
	return cmd
}

// check tells what is wrong with how it was called.
func (o *doctorFlags) check() error {
	if o.output != "text" && o.output != "json" {
		return usageError{fmt.Errorf("--output is %q; it must be text or json", o.output)}
	}
	for _, name := range o.checks {
		if !slices.ContainsFunc(doctorChecks, func(c doctorCheck) bool { return c.name == name }) {
			return usageError{fmt.Errorf("--checks has %q; they are cluster, proof, bmc, url and dhcp", name)}
		}
	}
	if o.url == "" {
		return nil
	}
	_, err := bootURL(o.url)
	if err != nil {
		return usageError{fmt.Errorf("--url: %w", err)}
	}
	return nil
}

// bootURL reads the URL of a boot server.
func bootURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Host == "", u.Scheme != "http" && u.Scheme != "https", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("it must be the URL of a boot server, such as http://10.0.0.2:8082, without credentials or a query")
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/httpboot")
	return u, nil
}

// level says how a finding is.
type level string

const (
	levelOK   level = "ok"
	levelWarn level = "warn"
	levelFail level = "fail"
	levelSkip level = "skip" // it could not be looked at
)

// finding is one thing that was looked at.
type finding struct {
	Check string `json:"check"`
	Level level  `json:"level"`
	// Says what was found, and Do what helps; Do is empty where all is well.
	Says string `json:"says"`
	Do   string `json:"do,omitempty"`
}

func ok(format string, args ...any) finding {
	return finding{Level: levelOK, Says: fmt.Sprintf(format, args...)}
}

func skip(format string, args ...any) finding {
	return finding{Level: levelSkip, Says: fmt.Sprintf(format, args...)}
}

func warn(do, format string, args ...any) finding {
	return finding{Level: levelWarn, Says: fmt.Sprintf(format, args...), Do: do}
}

func fail(do, format string, args ...any) finding {
	return finding{Level: levelFail, Says: fmt.Sprintf(format, args...), Do: do}
}

// doctor is what the checks work with.
type doctor struct {
	flags *doctorFlags
	env   *environment
	// fleet is nil where there is no cluster, and noCluster says why.
	fleet     *fleet
	noCluster error
	machines  []timeline.Machine
	// operators are the processes of the operator that the cluster shows.
	operators []operatorProcess
	now       func() time.Time
}

func (o *doctorFlags) run(ctx context.Context, env *environment) error {
	if err := o.check(); err != nil {
		return err
	}
	d := &doctor{flags: o, env: env, now: time.Now}
	d.connect(ctx)
	var all []finding
	for _, c := range doctorChecks {
		if len(o.checks) > 0 && !slices.Contains(o.checks, c.name) {
			continue
		}
		for _, f := range c.run(ctx, d) {
			f.Check, f.Says, f.Do = c.name, plain(f.Says), plain(f.Do)
			all = append(all, f)
		}
		if ctx.Err() != nil {
			return errors.New("it was interrupted")
		}
	}
	if err := printDiagnosis(env.Out, all, o.output, d.now()); err != nil {
		return err
	}
	if n := count(all, levelFail); n > 0 {
		return fmt.Errorf("%d of %d checks failed", n, len(all))
	}
	return nil
}

// connect reads the machines; without a cluster, the network can be looked at all the
// same.
func (d *doctor) connect(ctx context.Context) {
	flags := d.flags.machineFlags
	flags.all = flags.namespace == ""
	f, err := flags.connect(d.env)
	if err != nil {
		d.noCluster = err
		return
	}
	d.machines, err = f.list(ctx)
	if err != nil && flags.all && apierrors.IsForbidden(err) {
		flags.all = false
		if f, err = flags.connect(d.env); err == nil {
			d.machines, err = f.list(ctx)
		}
	}
	if err != nil {
		d.noCluster = err
	}
	d.fleet = f
	d.operators, _ = f.operators(ctx, d.flags.operator) // the check of the cluster says what is wrong
}

func count(all []finding, l level) int {
	n := 0
	for _, f := range all {
		if f.Level == l {
			n++
		}
	}
	return n
}

// diagnosisReport is what doctor -o json prints.
type diagnosisReport struct {
	reportHead
	Findings []finding `json:"findings"`
}

func printDiagnosis(out io.Writer, all []finding, output string, now time.Time) error {
	if output == "json" {
		return printJSON(out, diagnosisReport{newHead("Diagnosis", now), append([]finding{}, all...)})
	}
	_, err := io.WriteString(out, diagnosis(all))
	return err
}

// diagnosis lays findings out in at most 80 columns.
func diagnosis(all []finding) string {
	var b strings.Builder
	last := ""
	for _, f := range all {
		if f.Check != last {
			b.WriteString(f.Check + "\n")
			last = f.Check
		}
		b.WriteString(wrap(f.Says, pageWidth, "  "+pad(string(f.Level), 5), "       "))
		b.WriteString(wrap(f.Do, pageWidth, "       > ", "         "))
	}
	fmt.Fprintf(&b, "\n%d ok, %d to look at, %d failed, %d skipped\n", count(all, levelOK), count(all, levelWarn), count(all, levelFail), count(all, levelSkip))
	return b.String()
}

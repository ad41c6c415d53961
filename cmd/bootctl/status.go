package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"

	"github.com/boot-operator/boot-operator/internal/timeline"
)

// statusFlags are those of the verb status.
type statusFlags struct {
	machineFlags
	selection
	output string
}

// selection says which machines are shown.
type selection struct {
	selector string
	stuck    bool
}

func (s *selection) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&s.selector, "selector", "l", "", "machines of which an object has these labels")
	f.BoolVar(&s.stuck, "stuck", false, "only machines that take too long, or do not go on by themselves")
}

// parse reads the selector.
func (s *selection) parse() (labels.Selector, error) {
	selector, err := labels.Parse(s.selector)
	if err != nil {
		return nil, usageError{fmt.Errorf("--selector: %w", err)}
	}
	return selector, nil
}

const statusLong = `Status prints a line for each machine: how far its boot is, how much of what is sent
to it just now was sent, since when, and below it what it waits for and what would help.
A BareMetalHost and the configs that are made of it are one machine, as are configs of
both kinds with one name or one UUID.

Names may be those of configs or hosts, UUIDs, or MAC or IP addresses.`

const statusExample = `  bootctl status -n machines
  bootctl status -A --stuck
  bootctl status machine-8 -o json`

// newStatusCommand makes the verb status.
func newStatusCommand(env *environment) *cobra.Command {
	var o statusFlags
	cmd := &cobra.Command{
		Use:     "status [NAME…] [flags]",
		Short:   "Say of every machine how far its boot is, and what it waits for",
		Long:    statusLong,
		Example: statusExample,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args)
		},
	}
	o.machineFlags.add(cmd)
	o.addAll(cmd)
	o.selection.add(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "table", "how to print: table, wide, json or yaml")
	return cmd
}

func (o *statusFlags) run(ctx context.Context, env *environment, names []string) error {
	if !slices.Contains([]string{"table", "wide", "json", "yaml"}, o.output) {
		return usageError{fmt.Errorf("--output is %q; it must be table, wide, json or yaml", o.output)}
	}
	selector, err := o.parse()
	if err != nil {
		return err
	}
	f, err := o.connect(env)
	if err != nil {
		return err
	}
	all, err := f.list(ctx)
	if err != nil {
		return err
	}
	if all, err = choose(all, names, selector, f.where()); err != nil {
		return err
	}
	rows := rowsOf(all, f.now(), o.stuck)
	if len(rows) == 0 {
		fmt.Fprintf(env.Err, "%s\n", nothingTo(o.stuck, len(all), f.where()))
	}
	return printStatus(env.Out, rows, o.output, f.namespace == "", f.now())
}

// nothingTo says why nothing is shown.
func nothingTo(stuck bool, there int, where string) string {
	if stuck && there > 0 {
		return fmt.Sprintf("None of %d machines is stuck.", there)
	}
	return fmt.Sprintf("No machine in %s: there are no HTTPBootConfigs, IPXEBootConfigs or BareMetalHosts that were asked for.", where)
}

// row is a machine with its state.
type row struct {
	timeline.Machine
	timeline.State
}

func rowsOf(all []timeline.Machine, now time.Time, stuck bool) []row {
	var rows []row
	for _, m := range all {
		if s := m.State(now); s.Stuck || !stuck {
			rows = append(rows, row{m, s})
		}
	}
	return rows
}

func printStatus(out io.Writer, rows []row, output string, namespaces bool, now time.Time) error {
	switch output {
	case "json":
		return printJSON(out, newStatusReport(rows, now))
	case "yaml":
		text, err := yaml.Marshal(newStatusReport(rows, now))
		if err == nil {
			_, err = out.Write(text)
		}
		return err
	case "wide":
		return printWide(out, rows, namespaces, now)
	}
	_, err := io.WriteString(out, statusTable(rows, namespaces, now))
	return err
}

// The widths of the table's columns, with the space behind them.
const (
	stageWidth     = 18
	doneWidth      = 6
	sinceWidth     = 7
	namespaceWidth = 18
)

// statusTable lays the machines out in at most 80 columns. What takes more is below.
func statusTable(rows []row, namespaces bool, now time.Time) string {
	if len(rows) == 0 {
		return ""
	}
	name := len("MACHINE")
	for _, r := range rows {
		name = max(name, columns(r.Name))
	}
	limit := pageWidth - stageWidth - doneWidth - sinceWidth - 2
	if namespaces {
		limit -= namespaceWidth
	}
	name = min(name, limit) + 2
	var b strings.Builder
	line := func(namespace, machine, stage, done, since string) {
		if namespaces {
			b.WriteString(pad(cut(namespace, namespaceWidth-2), namespaceWidth))
		}
		text := pad(cut(machine, name-2), name) + pad(stage, stageWidth) + pad(done, doneWidth) + since
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	line("NAMESPACE", "MACHINE", "STAGE", "DONE", "SINCE")
	for _, r := range rows {
		line(r.Namespace, r.Name, string(r.Stage), done(r.Progress), age(r.Since, now))
		b.WriteString(reason(r.State, pageWidth))
	}
	return b.String()
}

// reason is what a machine waits for, and what would help, indented.
func reason(s timeline.State, width int) string {
	return wrap(plain(s.Why), width, "  ", "  ") + wrap(plain(s.Help), width, "  > ", "    ")
}

// done is how much of what is being sent was sent.
func done(p *timeline.Progress) string {
	if p == nil || p.Percent() < 0 {
		return "-"
	}
	return strconv.Itoa(p.Percent()) + "%"
}

// age is how long ago something was, for people.
func age(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(0, now.Sub(since)))
}

// printWide prints a line for each machine, however long.
func printWide(out io.Writer, rows []row, namespaces bool, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(cells ...string) {
		if !namespaces {
			cells = cells[1:]
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if len(rows) > 0 {
		line("NAMESPACE", "MACHINE", "STAGE", "DONE", "SINCE", "STUCK", "ATTEMPT", "ADDRESS", "PROOF", "BOOT", "OBJECTS", "WHY")
	}
	for _, r := range rows {
		why := plain(joined(" > ", r.Why, r.Help))
		line(r.Namespace, r.Name, string(r.Stage), done(r.Progress), age(r.Since, now), yes(r.Stuck), strconv.FormatInt(r.Attempt, 10),
			dash(plain(r.Address)), dash(plain(r.Proof)), dash(plain(r.BootID)), strings.Join(kindsOf(r.Machine), ","), dash(why))
	}
	return w.Flush()
}

// kindsOf are the kinds of a machine's objects.
func kindsOf(m timeline.Machine) []string {
	var all []string
	for _, o := range objectsOf(m) {
		all = append(all, o.Kind)
	}
	return all
}

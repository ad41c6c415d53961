package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/timeline"
)

// explainFlags are those of the verb explain.
type explainFlags struct {
	machineFlags
	output string
}

const explainLong = `Explain prints what happened when in the last boot of a machine: each step through its
BMC, each offer, each thing that it fetched, and the warnings that were recorded
meanwhile. Of the time between two of them it says what happens then, and, where that took
longer than usual, what it points to.

The machine is named by the name of its config or host, by its UUID, or by a MAC or IP
address of it.`

const explainExample = `  bootctl explain machine-8 -n machines
  bootctl explain 52:54:00:aa:bb:01 -o json`

// newExplainCommand makes the verb explain.
func newExplainCommand(env *environment) *cobra.Command {
	var o explainFlags
	cmd := &cobra.Command{
		Use:     "explain MACHINE [flags]",
		Short:   "Tell the last boot of a machine: what happened when, and what took long",
		Long:    explainLong,
		Example: explainExample,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0])
		},
	}
	o.machineFlags.add(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "how to print: text or json")
	return cmd
}

func (o *explainFlags) run(ctx context.Context, env *environment, name string) error {
	if o.output != "text" && o.output != "json" {
		return usageError{fmt.Errorf("--output is %q; it must be text or json", o.output)}
	}
	f, err := o.connect(env)
	if err != nil {
		return err
	}
	m, err := f.find(ctx, name)
	if err != nil {
		return err
	}
	if err := f.events(ctx, m); err != nil {
		fmt.Fprintf(env.Err, "Events are left out: %v\n", err)
	}
	now := f.now()
	if o.output == "json" {
		return printJSON(env.Out, newExplanation(*m, m.LastBoot(now), now))
	}
	_, err = io.WriteString(env.Out, explanation(*m, m.LastBoot(now), now))
	return err
}

// The columns of an explanation: a time, and what happened then.
const (
	timeFormat = "15:04:05.0"
	timeIndent = "             "
)

// explanation tells a boot in at most 80 columns.
func explanation(m timeline.Machine, b timeline.Boot, now time.Time) string {
	var text strings.Builder
	head := fmt.Sprintf("%s/%s: %s", m.Namespace, m.Name, b.State.Stage)
	if p := done(b.State.Progress); p != "-" {
		head += " " + p
	}
	if !b.State.Since.IsZero() {
		head += fmt.Sprintf(", since %s (%s)", b.State.Since.UTC().Format("2006-01-02 15:04:05 MST"), age(b.State.Since, now))
	}
	text.WriteString(wrap(head, pageWidth, "", "  "))
	text.WriteString(reason(b.State, pageWidth))
	if len(b.Entries) == 0 {
		text.WriteString("\nThis machine has not booted yet.\n")
		return text.String()
	}
	text.WriteString("\n" + wrap(fmt.Sprintf("Attempt %d, boot %s, on %s (UTC):", b.Attempt, dash(b.ID), b.Entries[0].Time.UTC().Format(time.DateOnly)), pageWidth, "", "  ") + "\n")
	for _, e := range b.Entries {
		text.WriteString(entryText(e))
	}
	return text.String()
}

// entryText tells a point of a boot, and the time before it.
func entryText(e timeline.Entry) string {
	text := ""
	if g := e.Gap; g != nil {
		mark := "+ "
		if g.Long {
			mark = "! "
		}
		text = wrap(plain(span(g.Took)+": "+g.What+"."), pageWidth, timeIndent+mark, timeIndent+"  ")
		if g.Help != "" && e.Kind != timeline.Now {
			text += wrap(plain("That is long. It points to "+g.Help+"."), pageWidth, timeIndent+"  ", timeIndent+"  ")
		}
	}
	what := e.What
	if e.Kind == timeline.Now {
		what = "Now: " + what
	}
	mark := "  "
	if e.Warning {
		mark = "! "
	}
	return text + wrap(plain(what), pageWidth, pad(e.Time.UTC().Format(timeFormat), len(timeIndent)-len(mark))+mark, timeIndent)
}

// span is a time that passed, for people.
func span(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// explanationReport is what explain -o json prints.
type explanationReport struct {
	reportHead
	Machine  machineState  `json:"machine"`
	Attempt  int64         `json:"attempt,omitempty"`
	BootID   string        `json:"bootID,omitempty"`
	OpenedBy string        `json:"openedBy,omitempty"`
	Entries  []entryReport `json:"entries"`
}

// entryReport is a point of a boot.
type entryReport struct {
	Time    time.Time          `json:"time"`
	Kind    timeline.Milestone `json:"kind"`
	What    string             `json:"what"`
	Warning bool               `json:"warning,omitempty"`
	Bytes   int64              `json:"bytes,omitempty"`
	Gap     *gapReport         `json:"gap,omitempty"`
}

// gapReport is the time before it.
type gapReport struct {
	Seconds float64 `json:"seconds"`
	What    string  `json:"what"`
	Long    bool    `json:"long"`
	Help    string  `json:"help,omitempty"`
}

func newExplanation(m timeline.Machine, b timeline.Boot, now time.Time) explanationReport {
	r := explanationReport{
		reportHead: newHead("Explanation", now), Machine: newMachineState(m, b.State),
		Attempt: b.Attempt, BootID: b.ID, OpenedBy: b.OpenedBy, Entries: []entryReport{},
	}
	for _, e := range b.Entries {
		entry := entryReport{Time: e.Time.UTC(), Kind: e.Kind, What: e.What, Warning: e.Warning, Bytes: e.Bytes}
		if g := e.Gap; g != nil {
			entry.Gap = &gapReport{Seconds: g.Took.Seconds(), What: g.What, Long: g.Long, Help: g.Help}
		}
		r.Entries = append(r.Entries, entry)
	}
	return r
}

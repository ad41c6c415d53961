package main

import (
	"time"

	"github.com/boot-operator/boot-operator/internal/timeline"
)

// reportSchema is the version of what status, watch, explain and doctor print for
// programs. Fields are added to it; none is renamed, taken away or given another meaning
// without another version.
const reportSchema = "bootctl.boot.ironcore.dev/v1"

// reportHead is at the beginning of each report.
type reportHead struct {
	Schema string `json:"schema"`
	Kind   string `json:"kind"`
	// Time at which it was made.
	Time time.Time `json:"time"`
}

func newHead(kind string, now time.Time) reportHead {
	return reportHead{Schema: reportSchema, Kind: kind, Time: now.UTC()}
}

// statusReport is what status -o json prints.
type statusReport struct {
	reportHead
	Machines []machineState `json:"machines"`
}

// changeReport is what watch -o json prints, one a line.
type changeReport struct {
	reportHead
	Machine machineState `json:"machine"`
	// Gone: the machine has no objects any more.
	Gone bool `json:"gone,omitempty"`
}

// machineState is one machine and how far it is.
type machineState struct {
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Objects   []objectReport  `json:"objects"`
	Stage     timeline.Stage  `json:"stage"`
	Stuck     bool            `json:"stuck"`
	Since     *time.Time      `json:"since,omitempty"`
	Progress  *progressReport `json:"progress,omitempty"`
	Why       string          `json:"why,omitempty"`
	Help      string          `json:"help,omitempty"`
	Attempt   int64           `json:"attempt,omitempty"`
	BootID    string          `json:"bootID,omitempty"`
	Address   string          `json:"address,omitempty"`
	Proof     string          `json:"proof,omitempty"`
}

// objectReport names an object of a machine.
type objectReport struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// progressReport is how much is sent, in bytes.
type progressReport struct {
	Sent    int64 `json:"sent"`
	Size    int64 `json:"size"`
	Percent int   `json:"percent"`
}

func newStatusReport(rows []row, now time.Time) statusReport {
	r := statusReport{reportHead: newHead("Status", now), Machines: []machineState{}}
	for _, row := range rows {
		r.Machines = append(r.Machines, newMachineState(row.Machine, row.State))
	}
	return r
}

func newMachineState(m timeline.Machine, s timeline.State) machineState {
	r := machineState{
		Namespace: m.Namespace, Name: m.Name, Objects: objectsOf(m), Stage: s.Stage, Stuck: s.Stuck, Why: s.Why, Help: s.Help,
		Attempt: s.Attempt, BootID: s.BootID, Address: s.Address, Proof: s.Proof,
	}
	if !s.Since.IsZero() {
		since := s.Since.UTC()
		r.Since = &since
	}
	if p := s.Progress; p != nil && p.Percent() >= 0 {
		r.Progress = &progressReport{Sent: p.Sent, Size: p.Size, Percent: p.Percent()}
	}
	return r
}

func objectsOf(m timeline.Machine) []objectReport {
	all := []objectReport{}
	if m.Host != nil {
		all = append(all, objectReport{"BareMetalHost", m.Host.Name})
	}
	for _, c := range m.Configs {
		all = append(all, objectReport{c.Kind(), c.GetName()})
	}
	return all
}

package move

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Report says what a move does or did.
type Report struct {
	// Move is the name of the move.
	Move string
	// Rows are in the order of the work.
	Rows []Row
	// Warnings are what went otherwise than planned without an error.
	Warnings []string
}

// Row is about one object.
type Row struct {
	Kind, Namespace, Name string
	// Action is create, move, finish, copy, delete or note.
	Action string
	// Note says why, or what else is to be known.
	Note string
}

// rows are the plan for a reader.
func (p *plan) rows() []Row {
	var rows []Row
	for _, ns := range p.namespaces {
		rows = append(rows, Row{Kind: "Namespace", Name: ns.Name, Action: "create", Note: "on the target, with the source's labels"})
	}
	for _, s := range p.secrets {
		rows = append(rows, s.row())
	}
	for _, c := range p.configs {
		rows = append(rows, c.row())
	}
	return append(rows, p.notes...)
}

func (s *secret) row() Row {
	r := Row{Kind: s.kind, Namespace: s.namespace, Name: s.name, Action: "move"}
	switch {
	case s.keep != "":
		r.Action, r.Note = "copy", "stays on the source: "+s.keep
	case len(s.users) == 0:
		r.Action, r.Note = "delete", "from the source: an earlier run copied it"
	case len(s.users) > 1:
		r.Note = fmt.Sprintf("once, for %d configs", len(s.users))
	}
	return r
}

func (c *config) row() Row {
	r := Row{Kind: c.kind, Namespace: c.namespace, Name: c.name, Action: "move"}
	switch c.stage {
	case stageEqual:
		r.Note = "the target has an equal one"
	case stageBegun:
		r.Action, r.Note = "finish", "an earlier run began it"
	case stageTaken:
		r.Action, r.Note = "delete", "from the source: the target has taken over"
	case stageNew, stageSkipped:
	}
	return r
}

// set replaces the row of the same object.
func (r *Report) set(row Row) {
	for i, old := range r.Rows {
		if old.Kind == row.Kind && old.Namespace == row.Namespace && old.Name == row.Name && old.Action != "note" {
			r.Rows[i] = row
			return
		}
	}
}

// Print writes the report as a table.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Rows) > 0 {
		fmt.Fprintln(t, "ACTION\tKIND\tNAMESPACE\tNAME\tNOTE")
	}
	for _, row := range r.Rows {
		line := strings.Join([]string{row.Action, row.Kind, row.Namespace, row.Name, row.Note}, "\t")
		fmt.Fprintln(t, strings.TrimRight(line, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, warning := range r.Warnings {
		if _, err := fmt.Fprintln(w, "warning:", warning); err != nil {
			return err
		}
	}
	return nil
}

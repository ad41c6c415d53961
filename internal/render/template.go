package render

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// MaxTemplate bounds a template, in bytes.
	MaxTemplate = 64 << 10
	// maxSteps bounds how much of a template is executed: every text and every
	// action, each time that it is reached, is one step.
	maxSteps = 5_000
	// maxAction bounds one action between {{ and }}, in bytes.
	maxAction = 512
)

// script is a compiled template.
type script struct {
	tmpl    *template.Template
	builtIn bool
	// size is that of the last script, so that the next fits at once.
	size int
}

// functions are those that a template may call. None makes a string longer or
// another, so that what was escaped stays so and memory is bounded.
var functions = map[string]bool{
	"and": true, "or": true, "not": true, "len": true, "index": true, "slice": true,
	"eq": true, "ne": true, "lt": true, "le": true, "gt": true, "ge": true,
}

// compile parses a template, refuses what could do harm, and tries it on the
// sample plans. It returns ErrInvalid.
func compile(text string) (*script, error) {
	if len(text) > MaxTemplate {
		return nil, fmt.Errorf("%w: the template has %d bytes; at most %d are possible", boot.ErrInvalid, len(text), MaxTemplate)
	}
	if strings.IndexByte(text, 0) >= 0 {
		return nil, fmt.Errorf("%w: line %d of the template has a NUL character", boot.ErrInvalid, 1+strings.Count(text[:strings.IndexByte(text, 0)], "\n"))
	}
	tmpl, err := template.New("script").Option("missingkey=zero").Parse(text)
	if err != nil {
		return nil, explain(err)
	}
	for _, t := range tmpl.Templates() {
		if t.Tree == nil || t.Root == nil {
			continue
		}
		if err := (&inspector{tree: t.Tree}).list(t.Root); err != nil {
			return nil, err
		}
	}
	s := &script{tmpl: tmpl}
	for _, sample := range samples() {
		out, err := s.execute(sample.data)
		if err != nil {
			return nil, fmt.Errorf("%w (for %s)", err, sample.name)
		}
		s.size = max(s.size, len(out))
	}
	return s, nil
}

// execute returns the script. It returns ErrInvalid where the template is at
// fault.
func (s *script) execute(data *Data) ([]byte, error) {
	w := bounded{b: make([]byte, 0, s.size+s.size/4)}
	if err := s.tmpl.Execute(&w, data); err != nil {
		return nil, explain(err)
	}
	if !isScript(w.b) {
		first, _, _ := bytes.Cut(w.b, []byte("\n"))
		return nil, fmt.Errorf("%w: line 1 of the script that the template yields is %q; it must be #!ipxe, or iPXE does not know it as a script", boot.ErrInvalid, clip(string(first)))
	}
	return w.b, nil
}

// Errors of a template that does too much.
var (
	errSteps = fmt.Errorf("the template does more than %d steps: a loop or a template that calls itself does not end", maxSteps)
	errSize  = fmt.Errorf("the template yields more than %d bytes", MaxScript)
)

// bounded is where a script is written. Everything that a template does ends in
// a write, see inspector.list, and so can be counted.
type bounded struct {
	b     []byte
	steps int
}

func (w *bounded) Write(p []byte) (int, error) {
	w.steps++
	if w.steps > maxSteps {
		return 0, errSteps
	}
	if len(w.b)+len(p) > MaxScript {
		return 0, errSize
	}
	w.b = append(w.b, p...)
	return len(p), nil
}

var (
	// position is how text/template begins its errors.
	position = regexp.MustCompile(`^template: script:(\d+)(?::\d+)?: (?:executing "[^"]*" at )?`)
	noField  = regexp.MustCompile(`can't evaluate field (\S+) in type \S+`)
)

// explain says an error of text/template in the words of somebody who writes a
// script.
func explain(err error) error {
	if errors.Is(err, errSteps) {
		return fmt.Errorf("%w: %w", boot.ErrInvalid, errSteps)
	}
	if errors.Is(err, errSize) {
		return fmt.Errorf("%w: %w", boot.ErrInvalid, errSize)
	}
	text := strings.TrimPrefix(err.Error(), "template: ")
	if m := position.FindStringSubmatch(err.Error()); m != nil {
		text = "line " + m[1] + " of the template: " + strings.TrimPrefix(err.Error(), m[0])
	}
	text = noField.ReplaceAllString(text, "there is no field $1 here; there are "+strings.Join(fields(), ", "))
	return fmt.Errorf("%w: %s", boot.ErrInvalid, strings.ReplaceAll(text, "\n", " "))
}

// fields are the names that a template can use.
func fields() []string {
	var names []string
	for f := range reflect.TypeFor[Data]().Fields() {
		names = append(names, "."+f.Name)
	}
	return names
}

// inspector goes through a parsed template.
type inspector struct {
	tree *parse.Tree
}

func (i *inspector) fail(n parse.Node, format string, args ...any) error {
	at, _ := i.tree.ErrorContext(n)
	line := "?"
	if parts := strings.Split(at, ":"); len(parts) > 1 {
		line = parts[1]
	}
	return fmt.Errorf("%w: line %s of the template: %s", boot.ErrInvalid, line, fmt.Sprintf(format, args...))
}

// list checks every node of a list, and puts an empty text before each, which
// costs a write each time that it is reached.
func (i *inspector) list(l *parse.ListNode) error {
	if l == nil {
		return nil
	}
	nodes := make([]parse.Node, 0, 2*len(l.Nodes)+1)
	for _, n := range l.Nodes {
		if err := i.node(n); err != nil {
			return err
		}
		if n.Type() != parse.NodeText {
			nodes = append(nodes, &parse.TextNode{NodeType: parse.NodeText, Pos: n.Position()})
		}
		nodes = append(nodes, n)
	}
	if len(nodes) == 0 {
		nodes = append(nodes, &parse.TextNode{NodeType: parse.NodeText, Pos: l.Position()})
	}
	l.Nodes = nodes
	return nil
}

func (i *inspector) node(n parse.Node) error {
	switch n := n.(type) {
	case *parse.TextNode:
		if bytes.HasSuffix(n.Text, []byte("$")) {
			last := &parse.TextNode{NodeType: parse.NodeText, Pos: n.Pos + parse.Pos(len(n.Text)-1)} // fail tells where a node begins
			return i.fail(last, "a $ stands right before {{…}} or the end, where iPXE could take what follows for ${…}")
		}
	case *parse.ActionNode:
		return i.pipe(n.Pipe)
	case *parse.TemplateNode:
		return i.pipe(n.Pipe)
	case *parse.IfNode:
		return i.branch(&n.BranchNode)
	case *parse.WithNode:
		return i.branch(&n.BranchNode)
	case *parse.RangeNode:
		return i.branch(&n.BranchNode)
	}
	return nil
}

func (i *inspector) branch(b *parse.BranchNode) error {
	if err := i.pipe(b.Pipe); err != nil {
		return err
	}
	if err := i.list(b.List); err != nil {
		return err
	}
	return i.list(b.ElseList)
}

// pipe refuses functions that are not listed, and actions that are too long.
func (i *inspector) pipe(p *parse.PipeNode) error {
	if p == nil {
		return nil
	}
	if n := len(p.String()); n > maxAction {
		return i.fail(p, "an action has %d bytes; at most %d are possible", n, maxAction)
	}
	return i.commands(p)
}

func (i *inspector) commands(p *parse.PipeNode) error {
	for _, c := range p.Cmds {
		for _, arg := range c.Args {
			if err := i.operand(arg); err != nil {
				return err
			}
		}
	}
	return nil
}

func (i *inspector) operand(n parse.Node) error {
	switch n := n.(type) {
	case *parse.IdentifierNode:
		if !functions[n.Ident] {
			return i.fail(n, "the function %s is not there; there are and, or, not, eq, ne, lt, le, gt, ge, len, index and slice", n.Ident)
		}
	case *parse.PipeNode:
		return i.commands(n)
	case *parse.ChainNode:
		return i.operand(n.Node)
	}
	return nil
}

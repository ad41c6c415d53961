package ignition

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	butanecommon "github.com/coreos/butane/config/common"
	vjson "github.com/coreos/vcontext/json"
	"github.com/coreos/vcontext/path"
	"github.com/coreos/vcontext/report"
	"github.com/coreos/vcontext/tree"
	"gopkg.in/yaml.v3"
)

// maxFindings bounds what an error or a list of warnings repeats.
const maxFindings = 8

type finding struct {
	line, column int64
	text         string
}

func fatalEntry(e report.Entry) bool { return e.Kind.IsFatal() }

func warnings(rpt report.Report) []string {
	all := findings(rpt, func(e report.Entry) bool { return e.Kind == report.Warn })
	var out []string
	for _, f := range all[:min(len(all), maxFindings)] {
		out = append(out, f.text)
	}
	return out
}

// findings returns the chosen entries in the order of the document, once each:
// the parsers walk maps, and what a user is told must not change by itself.
func findings(rpt report.Report, choose func(report.Entry) bool) []finding {
	var out []finding
	for _, e := range rpt.Entries {
		if !choose(e) {
			continue
		}
		var f finding
		where := ""
		if e.Marker.StartP != nil {
			f.line, f.column = e.Marker.StartP.Line, e.Marker.StartP.Column
			where = fmt.Sprintf("line %d, column %d", f.line, f.column)
		}
		if key := keyPath(e.Context); key != "" {
			where = strings.TrimPrefix(where+", key "+key, ", ")
		}
		f.text = strings.TrimPrefix(where+": "+redact(e.Message), ": ")
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b finding) int {
		if c := a.line - b.line; c != 0 {
			return int(c)
		}
		if c := a.column - b.column; c != 0 {
			return int(c)
		}
		return strings.Compare(a.text, b.text)
	})
	return slices.Compact(out)
}

func join(all []finding) string {
	var texts []string
	for _, f := range all[:min(len(all), maxFindings)] {
		texts = append(texts, f.text)
	}
	if more := len(all) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "; ")
}

// keyPath writes a path as users write it: storage.files[0].mode.
func keyPath(p path.ContextPath) string {
	var b strings.Builder
	for _, e := range p.Path {
		if i, ok := e.(int); ok {
			fmt.Fprintf(&b, "[%d]", i)
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(clip(fmt.Sprint(e)))
	}
	return b.String()
}

var (
	quoted   = regexp.MustCompile("\"[^\"]*\"|`[^`]*`")
	mismatch = regexp.MustCompile(`cannot unmarshal (?:!!)?(\w+)(?: \S+)? into (?:Go struct field \S+ of type |Go value of type )?(\S+)`)
)

// redact takes values out of a parser's message, and the names of Go's types.
func redact(s string) string {
	if s == butanecommon.ErrNoFilesDir.Error() {
		return "local files cannot be included; write inline or source"
	}
	s = quoted.ReplaceAllString(s, "…")
	if m := mismatch.FindStringSubmatch(s); m != nil {
		return fmt.Sprintf("%s stands where %s belongs", kindName(m[1]), kindName(m[2]))
	}
	return clip(strings.ReplaceAll(s, "\n", " "))
}

// kindName names a kind of value of YAML, JSON or Go for a user.
func kindName(kind string) string {
	switch t := strings.TrimPrefix(kind, "*"); {
	case t == "str" || t == "string":
		return "a string"
	case strings.HasPrefix(t, "int") || t == "number" || t == "float":
		return "a number"
	case t == "bool":
		return "true or false"
	case t == "seq" || t == "array" || strings.HasPrefix(t, "["):
		return "a list"
	case t == "null":
		return "null"
	}
	return "a mapping"
}

// clip bounds what is repeated of a document.
func clip(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "…"
	}
	return s
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)

// yamlError rewrites an error of the YAML parser, which knows lines only, with
// the column and key of what is on that line.
func yamlError(err error, root *yaml.Node) error {
	var types *yaml.TypeError
	texts := []string{err.Error()}
	if errors.As(err, &types) {
		texts = types.Errors
	}
	var all []finding
	for _, t := range texts {
		m := yamlLine.FindStringSubmatch(strings.TrimSpace(t))
		if m == nil {
			all = append(all, finding{text: redact(strings.TrimPrefix(t, "yaml: "))})
			continue
		}
		line, _ := strconv.Atoi(m[1])
		all = append(all, finding{line: int64(line), text: locate(root, line) + ": " + redact(m[2])})
	}
	return errors.New(join(all))
}

// locate names the line, and where the document could be parsed the column and
// key of the last thing that begins on it.
func locate(root *yaml.Node, line int) string {
	column, key := 0, ""
	if root != nil {
		walk(root, "", func(n *yaml.Node, path string) {
			if n.Line == line && n.Column >= column {
				column, key = n.Column, path
			}
		})
	}
	switch {
	case key != "":
		return fmt.Sprintf("line %d, column %d, key %s", line, column, key)
	case column > 0:
		return fmt.Sprintf("line %d, column %d", line, column)
	}
	return fmt.Sprintf("line %d", line)
}

// walk visits every value of a document with its path; aliases are not followed.
func walk(n *yaml.Node, path string, visit func(*yaml.Node, string)) {
	visit(n, path)
	for i, child := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			walk(child, fmt.Sprintf("%s[%d]", path, i), visit)
		case n.Kind == yaml.MappingNode && i%2 == 1:
			walk(child, strings.TrimPrefix(path+"."+clip(n.Content[i-1].Value), "."), visit)
		}
	}
}

// at names where a top-level key's value is, or where the document begins.
func at(root *yaml.Node, key string) string {
	if v := value(root, key); v != nil {
		root = v
	}
	return fmt.Sprintf("line %d, column %d: ", root.Line, root.Column)
}

// value returns the value of a key of a mapping, or nil.
func value(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}

// position turns an offset into a line and a column, both counted from 1.
func position(data []byte, offset int64) string {
	before := data[:max(0, min(offset-1, int64(len(data))))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("line %d, column %d", line, column)
}

// keyPosition names where the value at a path of a JSON document begins, or
// nothing where there is no such path.
func keyPosition(data []byte, keys ...any) string {
	node, err := vjson.UnmarshalToContext(data)
	if err != nil {
		return ""
	}
	value, err := node.Get(path.New("json", keys...))
	if err != nil || value == nil || value.GetMarker().StartP == nil {
		return ""
	}
	return fmt.Sprintf("line %d, column %d: ", value.GetMarker().StartP.Line, value.GetMarker().StartP.Column)
}

// keyAt returns the path of the innermost value of a JSON document that holds
// the byte before offset, which is where a parser stopped.
func keyAt(data []byte, offset int64) string {
	root, err := vjson.UnmarshalToContext(data)
	if err != nil {
		return ""
	}
	var p path.ContextPath
	for {
		child, key := childAt(root, offset)
		if child == nil {
			return keyPath(p)
		}
		root, p = child, p.Append(key)
	}
}

func childAt(n tree.Node, offset int64) (tree.Node, any) {
	// What is marked of a list or mapping begins after its bracket, and ends
	// before the other one.
	holds := func(c tree.Node) bool {
		m := c.GetMarker()
		if m.StartP == nil || m.EndP == nil {
			return false
		}
		start := m.StartP.Index
		if _, leaf := c.(tree.Leaf); leaf {
			start++
		}
		return start <= offset && offset <= m.EndP.Index+1
	}
	switch n := n.(type) {
	case tree.MapNode:
		for key, c := range n.Children {
			if holds(c) {
				return c, key
			}
		}
	case tree.SliceNode:
		for i, c := range n.Children {
			if holds(c) {
				return c, i
			}
		}
	}
	return nil, nil
}

package networkdata

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// maxDepth bounds how deep a document is nested, and maxText the bytes of one of
// its values.
const (
	maxDepth = 16
	maxText  = 256
)

// value is a part of the document, and where it stands; without a node it is
// absent, or null.
type value struct {
	path string
	node *yaml.Node
}

// parse reads JSON or YAML. It refuses what a reader of one form would take for
// something else than a reader of the other: duplicate keys, and aliases, with
// which a short document can be a long one.
func parse(data []byte) (value, error) {
	if len(data) > MaxBytes {
		return value{}, fmt.Errorf("%w: %d bytes are more than the %d that are allowed", boot.ErrInvalid, len(data), MaxBytes)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(plain(data), &root); err != nil {
		return value{}, fmt.Errorf("%w: neither JSON nor YAML (%s)", boot.ErrInvalid, yamlLine.FindString(err.Error()))
	}
	if len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
		return value{}, fmt.Errorf("%w: the document must be a mapping with the keys links, networks and services", boot.ErrInvalid)
	}
	if err := check(root.Content[0], "", 0); err != nil {
		return value{}, err
	}
	return value{node: root.Content[0]}, nil
}

// plain writes JSON anew, without the tabs and the escapes of UTF-16 that YAML
// does not know; YAML it leaves as it is.
func plain(data []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if !json.Valid(data) || d.Decode(&v) != nil {
		return data
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return data
	}
	return out.Bytes()
}

// yamlLine is the only part of a YAML error that tells no value, and safeKey
// what an error repeats of a key.
var (
	yamlLine = regexp.MustCompile(`line \d+`)
	safeKey  = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
)

func check(n *yaml.Node, path string, depth int) error {
	switch {
	case depth > maxDepth:
		return invalid(path, "nested deeper than %d levels", maxDepth)
	case n.Kind == yaml.AliasNode:
		return invalid(path, "an alias (*) is not read here; write out what it stands for")
	case n.Kind == yaml.SequenceNode:
		for i, item := range n.Content {
			if err := check(item, fmt.Sprintf("%s[%d]", path, i), depth+1); err != nil {
				return err
			}
		}
	case n.Kind == yaml.MappingNode:
		return checkMapping(n, path, depth)
	}
	return nil
}

func checkMapping(n *yaml.Node, path string, depth int) error {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		at := join(path, keyName(key.Value))
		switch {
		case key.Kind != yaml.ScalarNode:
			return invalid(path, "line %d: a key must be a string", key.Line)
		case seen[key.Value]:
			return invalid(at, "the key is there twice")
		}
		seen[key.Value] = true
		if err := check(n.Content[i+1], at, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func keyName(key string) string {
	if safeKey.MatchString(key) {
		return key
	}
	return "?"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// invalid returns boot.ErrInvalid with the path of what is wrong, and never the
// value that stands there: whoever reads the error may not be allowed to.
func invalid(path, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", boot.ErrInvalid, path, fmt.Sprintf(format, args...))
}

func (v value) absent() bool { return v.node == nil }

// field returns the value of a key.
func (v value) field(key string) value {
	f := value{path: join(v.path, key)}
	if v.node == nil {
		return f
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		if v.node.Content[i].Value == key && v.node.Content[i+1].Tag != "!!null" {
			f.node = v.node.Content[i+1]
		}
	}
	return f
}

// items returns the mappings of a list of at most limit; an absent list is
// empty.
func (v value) items(limit int) ([]value, error) {
	all, err := v.list(limit)
	for _, item := range all {
		if err == nil && item.node.Kind != yaml.MappingNode {
			err = invalid(item.path, "a mapping belongs here")
		}
	}
	return all, err
}

func (v value) list(limit int) ([]value, error) {
	switch {
	case v.absent():
		return nil, nil
	case v.node.Kind != yaml.SequenceNode:
		return nil, invalid(v.path, "a list belongs here")
	case len(v.node.Content) > limit:
		return nil, invalid(v.path, "%d entries are more than the %d that are allowed", len(v.node.Content), limit)
	}
	out := make([]value, len(v.node.Content))
	for i, n := range v.node.Content {
		out[i] = value{path: fmt.Sprintf("%s[%d]", v.path, i), node: n}
	}
	return out, nil
}

// text returns a scalar as it was written; an absent one is empty.
func (v value) text() (string, error) {
	switch {
	case v.absent():
		return "", nil
	case v.node.Kind != yaml.ScalarNode:
		return "", invalid(v.path, "a string belongs here")
	case len(v.node.Value) > maxText:
		return "", invalid(v.path, "longer than %d bytes", maxText)
	}
	return v.node.Value, nil
}

// number returns an integer from lo to hi; an absent one is 0.
func (v value) number(lo, hi int) (int, error) {
	text, err := v.text()
	if v.absent() || err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < lo || n > hi {
		return 0, invalid(v.path, "an integer from %d to %d belongs here", lo, hi)
	}
	return n, nil
}

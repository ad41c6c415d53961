package verification

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// value is a place in a YAML file: it is asked for what it has to be, and knows where
// it is when it is something else. The zero value is a field that is not there.
type value struct {
	node *yaml.Node
	path string
}

func (v value) given() bool { return v.node != nil }

// wrong is an error about this place.
func (v value) wrong(format string, a ...any) error {
	path := v.path
	if path == "" {
		path = "the file"
	}
	if v.node == nil {
		return fmt.Errorf("%s: %w", path, fmt.Errorf(format, a...))
	}
	return fmt.Errorf("line %d: %s: %w", v.node.Line, path, fmt.Errorf(format, a...))
}

// at returns a value of v, with what an alias stands for.
func (v value) at(n *yaml.Node, path string) value {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return value{node: n, path: strings.TrimPrefix(path, ".")}
}

// fields reads a mapping that may have these fields, each once. All of them are in
// the result, given or not.
func (v value) fields(known ...string) (map[string]value, error) {
	all := map[string]value{}
	for _, name := range known {
		all[name] = value{path: strings.TrimPrefix(v.path+"."+name, ".")}
	}
	if v.node == nil || v.node.Kind != yaml.MappingNode {
		return nil, v.wrong("it has to have the fields %s", strings.Join(known, ", "))
	}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.node.Content[i]
		name := key.Value
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(known, name):
			return nil, value{node: key, path: v.path}.wrong("%q is no field that it can have: those are %s", clip(name), strings.Join(known, ", "))
		case all[name].given():
			return nil, value{node: key, path: v.path}.wrong("%s is there twice", name)
		}
		all[name] = v.at(v.node.Content[i+1], v.path+"."+name)
	}
	return all, nil
}

// list reads a sequence that has to have something in it.
func (v value) list(most int) ([]value, error) {
	if v.node == nil || v.node.Kind != yaml.SequenceNode || len(v.node.Content) == 0 {
		return nil, v.wrong("it has to be a list with something in it")
	}
	if n := len(v.node.Content); n > most {
		return nil, v.wrong("it has %d entries; %d are the most", n, most)
	}
	var all []value
	for i, n := range v.node.Content {
		all = append(all, v.at(n, fmt.Sprintf("%s[%d]", v.path, i)))
	}
	return all, nil
}

// text reads a scalar, or !!binary in base64.
func (v value) text() ([]byte, error) {
	if v.node.Kind != yaml.ScalarNode || v.node.Tag != "!!str" && v.node.Tag != "!!binary" || strings.TrimSpace(v.node.Value) == "" {
		return nil, v.wrong("it has to be text")
	}
	if v.node.Tag == "!!str" {
		return []byte(v.node.Value), nil
	}
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(v.node.Value), ""))
	if err != nil {
		return nil, v.wrong("it is !!binary and has to be in base64")
	}
	return b, nil
}

// parsed reads a text that means something.
func parsed[T any](v value, parse func([]byte) (T, error)) (T, error) {
	var t T
	text, err := v.text()
	if err != nil {
		return t, err
	}
	if t, err = parse(text); err != nil {
		return t, v.wrong("%w", err)
	}
	return t, nil
}

// choice reads one of several words.
func choice[T ~string](v value, words ...T) (T, error) {
	return parsed(v, func(text []byte) (T, error) {
		if slices.Contains(words, T(text)) {
			return T(text), nil
		}
		return "", fmt.Errorf("%q is none of %v", clip(string(text)), words)
	})
}

// clip bounds what an error repeats of a file.
func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}

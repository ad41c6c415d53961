package userdata

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// The bounds of meta data.
const (
	// MaxMetaDataBytes is what the document may be long.
	MaxMetaDataBytes = 64 << 10

	maxMetaDataKeys  = 256
	maxMetaDataKey   = 128
	maxMetaDataValue = 8 << 10
)

// MetaData reads the meta data in a Secret's data, under the key metaData: a
// mapping of scalars as YAML or JSON, of at most MaxMetaDataBytes. Every value is
// taken as the string that was written: true, 0123 and 1e5 too. It returns
// ErrNoKey, or boot.ErrInvalid, naming key or line, and never a value.
func MetaData(data map[string][]byte) (map[string]string, error) {
	text, ok := data[v1alpha1.SecretKeyMetaData]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w %q", ErrNoKey, v1alpha1.SecretKeyMetaData)
	case len(text) > MaxMetaDataBytes:
		return nil, badMetaData("%d bytes are more than the %d that are allowed", len(text), MaxMetaDataBytes)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(withoutTabs(text), &root); err != nil {
		return nil, badMetaData("neither YAML nor JSON (%s)", yamlLine.FindString(err.Error()))
	}
	if root.Kind == 0 {
		return map[string]string{}, nil // nothing but comments
	}
	if len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
		return nil, badMetaData("it must be a mapping, such as key: value")
	}
	return scalars(root.Content[0].Content)
}

// withoutTabs writes JSON without what YAML does not know, and leaves YAML alone.
func withoutTabs(text []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if !json.Valid(text) || d.Decode(&v) != nil {
		return text
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return text
	}
	return out.Bytes()
}

// scalars makes a map of a mapping's keys and values.
func scalars(content []*yaml.Node) (map[string]string, error) {
	if len(content) > 2*maxMetaDataKeys {
		return nil, badMetaData("%d keys are more than the %d that are allowed", len(content)/2, maxMetaDataKeys)
	}
	out := make(map[string]string, len(content)/2)
	for i := 0; i+1 < len(content); i += 2 {
		key, value := content[i], content[i+1]
		_, twice := out[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge" || !metaDataKey.MatchString(key.Value):
			return nil, badMetaData("line %d: a key is 1 to %d printable ASCII characters without blanks", key.Line, maxMetaDataKey)
		case twice:
			return nil, badMetaData("key %s is there twice", key.Value)
		case value.Kind != yaml.ScalarNode:
			return nil, badMetaData("key %s: a string, number or boolean belongs here, and no list, mapping or alias", key.Value)
		case len(value.Value) > maxMetaDataValue || !utf8.ValidString(value.Value) || strings.Contains(value.Value, "\x00"):
			return nil, badMetaData("key %s: at most %d bytes of text belong here", key.Value, maxMetaDataValue)
		case value.Tag == "!!null":
			out[key.Value] = ""
		default:
			out[key.Value] = value.Value
		}
	}
	return out, nil
}

var metaDataKey = regexp.MustCompile(`^[!-~]{1,128}$`)

func badMetaData(format string, args ...any) error {
	return fmt.Errorf("%w: the meta data under the key %s: %s", boot.ErrInvalid, v1alpha1.SecretKeyMetaData, fmt.Sprintf(format, args...))
}

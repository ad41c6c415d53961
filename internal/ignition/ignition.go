// Package ignition turns the documents that users write into the Ignition JSON
// that machines are given.
package ignition

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	butane "github.com/coreos/butane/config"
	butanecommon "github.com/coreos/butane/config/common"
	ignconfig "github.com/coreos/ignition/v2/config"
	ignerrors "github.com/coreos/ignition/v2/config/shared/errors"
	"github.com/coreos/vcontext/path"
	"github.com/coreos/vcontext/report"
	"gopkg.in/yaml.v3"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// FormatButane is the format of Butane documents of any variant: fcos,
	// flatcar, openshift, r4e or fiot. Every other format is Ignition JSON.
	FormatButane = "fcos"
	// MaxBytes bounds a document; a Secret cannot hold more.
	MaxBytes = 1 << 20
)

// Document is a checked Ignition document.
type Document struct {
	// JSON is what the machine is given. Ignition JSON is passed on as it was
	// written; what was converted from Butane is the same for the same input.
	JSON []byte
	// Version is the version of the Ignition specification, such as 3.4.0.
	Version string
	// Warnings say what is probably not as it was meant, each with its line,
	// column and key, such as a key that Ignition does not know.
	Warnings []string
}

// Convert returns the Ignition JSON of a document, see Check.
func Convert(data []byte, format string) ([]byte, error) {
	d, err := Check(data, format)
	return d.JSON, err
}

// Check reads a document of at most MaxBytes in the given format: Butane is
// converted and may not include local files, there being none; Ignition JSON
// is validated if its version is 3.x, and passed on if its version is 2.x,
// which Flatcar still reads and whose rules nothing here knows. It returns
// boot.ErrInvalid, naming line, column and key of each thing that is wrong, and
// never a value: whoever reads the error may not be allowed to read the document.
func Check(data []byte, format string) (Document, error) {
	kind, check := "Ignition JSON", checkIgnition
	if strings.TrimSpace(format) == FormatButane {
		kind, check = "Butane", checkButane
	}
	var d Document
	err := bound(data)
	if err == nil {
		d, err = guarded(check, data)
	}
	if err != nil {
		return Document{}, fmt.Errorf("%w %s: %w", boot.ErrInvalid, kind, err)
	}
	return d, nil
}

func bound(data []byte) error {
	if len(data) > MaxBytes {
		return fmt.Errorf("%d bytes are more than the %d that are allowed", len(data), MaxBytes)
	}
	if strings.TrimSpace(string(data)) == "" {
		return errors.New("the document is empty")
	}
	return nil
}

// guarded turns a panic of the parsers, which reflect deeply over whatever a
// user wrote, into an error.
func guarded(check func([]byte) (Document, error), data []byte) (d Document, err error) {
	defer func() {
		if recover() != nil {
			d, err = Document{}, errors.New("the document's structure cannot be read")
		}
	}()
	return check(data)
}

func checkButane(data []byte) (Document, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return Document{}, yamlError(err, nil)
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
		return Document{}, errors.New("line 1, column 1: the document must be a mapping that begins with the keys variant and version")
	}
	for _, key := range []string{"variant", "version"} {
		if v := value(root.Content[0], key); v != nil && v.Kind != yaml.ScalarNode {
			return Document{}, fmt.Errorf("line %d, column %d, key %s: a string belongs here", v.Line, v.Column, key)
		}
	}
	// No FilesDir: nothing of this machine's file system may be included. Raw:
	// Ignition itself, where a variant would wrap it.
	out, rpt, err := butane.TranslateBytes(data, butanecommon.TranslateBytesOptions{Raw: true})
	if err != nil || rpt.IsFatal() {
		return Document{}, butaneError(rpt, err, root.Content[0])
	}
	version, err := versionOf(out)
	if err != nil {
		return Document{}, fmt.Errorf("reading what was converted: %w", err)
	}
	return Document{JSON: out, Version: version, Warnings: warnings(rpt)}, nil
}

func butaneError(rpt report.Report, err error, root *yaml.Node) error {
	if fatal := findings(rpt, fatalEntry); len(fatal) > 0 {
		return errors.New(join(fatal))
	}
	var unknown butanecommon.ErrUnknownVersion
	switch {
	case errors.Is(err, butanecommon.ErrNoVariant):
		return fmt.Errorf("%skey variant is missing; it must be fcos, flatcar, openshift, r4e or fiot (if the document is Ignition JSON, remove the Secret's key format)", at(root, "variant"))
	case errors.Is(err, butanecommon.ErrInvalidVersion):
		return fmt.Errorf("%skey version is missing or not a version such as 1.5.0", at(root, "version"))
	case errors.As(err, &unknown):
		return fmt.Errorf("%sthere is no version %s of variant %s", at(root, "version"), unknown.Version, clip(unknown.Variant))
	}
	return yamlError(err, root)
}

func checkIgnition(data []byte) (Document, error) {
	if err := syntax(data); err != nil {
		return Document{}, err
	}
	version, err := versionOf(data)
	if err != nil {
		return Document{}, err
	}
	if strings.HasPrefix(version, "2.") {
		return Document{JSON: data, Version: version, Warnings: []string{"Ignition " + version + " is passed on unchecked; only Flatcar reads it"}}, nil
	}
	_, rpt, err := ignconfig.Parse(data)
	nameKeys(rpt, data)
	if fatal := findings(rpt, fatalEntry); len(fatal) > 0 {
		return Document{}, errors.New(join(fatal))
	}
	if errors.Is(err, ignerrors.ErrUnknownVersion) || errors.Is(err, ignerrors.ErrInvalidVersion) {
		return Document{}, fmt.Errorf("%skey ignition.version: %q is no version that is known; use 3.0.0 to 3.6.0", keyPosition(data, "ignition", "version"), clip(version))
	}
	if err != nil {
		return Document{}, err
	}
	return Document{JSON: data, Version: version, Warnings: warnings(rpt)}, nil
}

// nameKeys adds the keys that the JSON parser does not tell.
func nameKeys(rpt report.Report, data []byte) {
	for i, e := range rpt.Entries {
		if e.Context.Len() == 0 && e.Marker.StartP != nil {
			if key := keyAt(data, e.Marker.StartP.Index); key != "" {
				rpt.Entries[i].Context = path.New("json", key)
			}
		}
	}
}

// syntax checks that data is one JSON object.
func syntax(data []byte) error {
	var object map[string]json.RawMessage
	err := json.Unmarshal(data, &object)
	var bad *json.SyntaxError
	switch {
	case errors.As(err, &bad):
		hint := ""
		if t := strings.TrimSpace(string(data)); !strings.HasPrefix(t, "{") {
			hint = ` (if the document is Butane, set the Secret's key format to "fcos")`
		}
		return fmt.Errorf("%s: not JSON: %s%s", position(data, bad.Offset), redact(bad.Error()), hint)
	case err != nil || object == nil:
		return errors.New("line 1, column 1: the document must be a JSON object")
	}
	return nil
}

// versionOf reads ignition.version, and only that.
func versionOf(data []byte) (string, error) {
	var stub struct {
		Ignition struct {
			Version *string `json:"version"`
		} `json:"ignition"`
	}
	err := json.Unmarshal(data, &stub)
	var bad *json.UnmarshalTypeError
	switch {
	case errors.As(err, &bad):
		return "", fmt.Errorf("%s, key %s: %s", position(data, bad.Offset), bad.Field, redact(bad.Error()))
	case err != nil:
		return "", err
	case stub.Ignition.Version == nil:
		return "", fmt.Errorf("%skey ignition.version is missing; it must be a version such as 3.4.0", keyPosition(data, "ignition"))
	}
	return *stub.Ignition.Version, nil
}

package ignition

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/ignition/v2/config/v3_0"
	"github.com/coreos/ignition/v2/config/v3_1"
	"github.com/coreos/ignition/v2/config/v3_2"
	"github.com/coreos/ignition/v2/config/v3_3"
	"github.com/coreos/ignition/v2/config/v3_4"
	"github.com/coreos/ignition/v2/config/v3_5"
	"github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/ignition/v2/config/v3_7_experimental"
	"github.com/coreos/vcontext/report"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Where a machine finds what its Secrets say beside the document.
const (
	MetaDataPath      = "/etc/boot-operator/meta-data.json"
	NetworkConfigPath = "/etc/boot-operator/network-config.yaml"
)

// File is a file that a document is given, with mode 0600 and owned by root.
type File struct {
	// Path is absolute.
	Path string
	Data []byte
}

// AddFiles merges files into a document that Check accepted, as Ignition itself
// merges configs, and keeps its version of the specification. A path that the
// document has already, as a file, directory or link, stays the document's. It
// returns boot.ErrInvalid where the document cannot be read; without files it
// returns the document as it was written.
func AddFiles(document []byte, files ...File) ([]byte, error) {
	own, err := paths(document)
	if err != nil {
		return nil, fmt.Errorf("%w Ignition JSON: %w", boot.ErrInvalid, err)
	}
	files = slices.DeleteFunc(slices.Clone(files), func(f File) bool { return slices.Contains(own, f.Path) })
	if len(files) == 0 {
		return document, nil
	}
	version, err := versionOf(document)
	if err != nil {
		return nil, fmt.Errorf("%w Ignition JSON: %w", boot.ErrInvalid, err)
	}
	merge, known := mergers[version]
	switch {
	case known:
	case strings.HasPrefix(version, "2."):
		merge = append2
	default:
		return nil, fmt.Errorf("%w Ignition JSON: nothing can be added to version %s", boot.ErrInvalid, clip(version))
	}
	out, err := merge(document, version, files)
	if err != nil {
		return nil, fmt.Errorf("adding files to the Ignition document: %w", err)
	}
	return out, nil
}

// paths are what a document has in its file systems.
func paths(document []byte) ([]string, error) {
	type node struct {
		Path string `json:"path"`
	}
	var d struct {
		Storage struct {
			Files, Directories, Links []node
		} `json:"storage"`
	}
	if err := json.Unmarshal(document, &d); err != nil {
		return nil, errors.New("its storage cannot be read")
	}
	var out []string
	for _, n := range slices.Concat(d.Storage.Files, d.Storage.Directories, d.Storage.Links) {
		out = append(out, n.Path)
	}
	return out, nil
}

// merger adds files to a document of one version.
type merger func(document []byte, version string, files []File) ([]byte, error)

var mergers = map[string]merger{
	"3.0.0": mergeWith(v3_0.Parse, v3_0.Merge),
	"3.1.0": mergeWith(v3_1.Parse, v3_1.Merge),
	"3.2.0": mergeWith(v3_2.Parse, v3_2.Merge),
	"3.3.0": mergeWith(v3_3.Parse, v3_3.Merge),
	"3.4.0": mergeWith(v3_4.Parse, v3_4.Merge),
	"3.5.0": mergeWith(v3_5.Parse, v3_5.Merge),
	"3.6.0": mergeWith(v3_6.Parse, v3_6.Merge),

	"3.7.0-experimental": mergeWith(v3_7_experimental.Parse, v3_7_experimental.Merge),
}

// mergeWith merges with a version's own types: the document is the child, which
// wins.
func mergeWith[C any](parse func([]byte) (C, report.Report, error), merge func(parent, child C) C) merger {
	return func(document []byte, version string, files []File) ([]byte, error) {
		ours, err := json.Marshal(map[string]any{
			"ignition": map[string]any{"version": version},
			"storage":  map[string]any{"files": entries(files, map[string]any{"overwrite": true})},
		})
		if err != nil {
			return nil, err
		}
		parent, _, err := parse(ours)
		if err != nil {
			return nil, err
		}
		child, _, err := parse(document)
		if err != nil {
			return nil, err
		}
		return json.Marshal(merge(parent, child))
	}
}

// entries are files as storage.files has them.
func entries(files []File, more map[string]any) []map[string]any {
	var out []map[string]any
	for _, f := range files {
		e := map[string]any{
			"path": f.Path, "mode": 0o600,
			"contents": map[string]any{"source": "data:;base64," + base64.StdEncoding.EncodeToString(f.Data)},
		}
		for k, v := range more {
			e[k] = v
		}
		out = append(out, e)
	}
	return out
}

// append2 adds files to a document of version 2.x, whose types nothing here knows:
// everything else of it stays as it was written.
func append2(document []byte, _ string, files []File) ([]byte, error) {
	var root, storage map[string]json.RawMessage
	if err := json.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	storageKey := keyOf(root, "storage")
	if err := unmarshalIfThere(root[storageKey], &storage); err != nil {
		return nil, err
	}
	if storage == nil {
		storage = map[string]json.RawMessage{}
	}
	filesKey := keyOf(storage, "files")
	var all []json.RawMessage
	if err := unmarshalIfThere(storage[filesKey], &all); err != nil {
		return nil, err
	}
	for _, e := range entries(files, map[string]any{"filesystem": "root"}) {
		text, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	var err error
	if storage[filesKey], err = json.Marshal(all); err != nil {
		return nil, err
	}
	if root[storageKey], err = json.Marshal(storage); err != nil {
		return nil, err
	}
	return json.Marshal(root)
}

// keyOf returns the key as the object writes it: Ignition reads it in any case.
func keyOf(object map[string]json.RawMessage, key string) string {
	for k := range object {
		if strings.EqualFold(k, key) {
			return k
		}
	}
	return key
}

func unmarshalIfThere(text json.RawMessage, v any) error {
	if text == nil {
		return nil
	}
	return json.Unmarshal(text, v)
}

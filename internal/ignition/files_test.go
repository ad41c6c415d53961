package ignition_test

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/ignition"
)

// filesOf returns storage.files of a document, by path.
func filesOf(t *testing.T, document []byte) map[string]map[string]any {
	t.Helper()
	var d struct {
		Storage struct {
			Files []map[string]any `json:"files"`
		} `json:"storage"`
	}
	require.NoError(t, json.Unmarshal(document, &d))
	out := map[string]map[string]any{}
	for _, f := range d.Storage.Files {
		require.NotContains(t, out, f["path"])
		out[f["path"].(string)] = f
	}
	return out
}

var added = []ignition.File{{Path: "/etc/boot-operator/a", Data: []byte("data a\n")}, {Path: "/etc/boot-operator/b", Data: []byte("b")}}

func TestFilesAreMergedIntoEveryVersion(t *testing.T) {
	for _, version := range []string{"3.0.0", "3.1.0", "3.2.0", "3.3.0", "3.4.0", "3.5.0", "3.6.0", "3.7.0-experimental", "2.0.0", "2.3.0"} {
		t.Run(version, func(t *testing.T) {
			document := []byte(`{"ignition":{"version":"` + version + `"},"passwd":{"users":[{"name":"core"}]},"storage":{"files":[{"filesystem":"root","path":"/etc/own","mode":420,"contents":{"source":"data:,own"}}]},"systemd":{"units":[{"name":"a.service","enabled":true}]}}`)
			out, err := ignition.AddFiles(document, added...)
			require.NoError(t, err)
			d, err := ignition.Check(out, "")
			require.NoError(t, err)
			require.Equal(t, version, d.Version, "the document's own")
			files := filesOf(t, out)
			require.Len(t, files, 3)
			require.Equal(t, map[string]any{"source": "data:,own"}, noNulls(files["/etc/own"]["contents"]))
			a := files["/etc/boot-operator/a"]
			require.EqualValues(t, 0o600, a["mode"])
			require.Equal(t, "data:;base64,"+base64.StdEncoding.EncodeToString([]byte("data a\n")), a["contents"].(map[string]any)["source"])
			require.Equal(t, version[0] == '2', a["filesystem"] == "root")
			require.Contains(t, string(out), `"core"`)
			require.Contains(t, string(out), `"a.service"`)
			again, err := ignition.AddFiles(document, added...)
			require.NoError(t, err)
			require.Equal(t, out, again, "the same for the same input")
		})
	}
}

func noNulls(v any) map[string]any {
	m := v.(map[string]any)
	for k, v := range m {
		if inner, ok := v.(map[string]any); v == nil || ok && len(inner) == 0 {
			delete(m, k)
		}
	}
	return m
}

func TestADocumentKeepsItsOwnPath(t *testing.T) {
	for name, storage := range map[string]string{
		"a file":      `"files":[{"path":"/etc/boot-operator/a","contents":{"source":"data:,own"}}]`,
		"a link":      `"links":[{"path":"/etc/boot-operator/a","target":"/own"}]`,
		"a directory": `"directories":[{"path":"/etc/boot-operator/a"}]`,
	} {
		document := []byte(`{"ignition":{"version":"3.4.0"},"storage":{` + storage + `}}`)
		out, err := ignition.AddFiles(document, added...)
		require.NoError(t, err, name)
		files := filesOf(t, out)
		require.Contains(t, files, "/etc/boot-operator/b", "the control: the other one is added")
		if own, ok := files["/etc/boot-operator/a"]; ok {
			require.Equal(t, "data:,own", own["contents"].(map[string]any)["source"], name)
			require.Nil(t, own["mode"], "nothing of ours is mixed in")
		}
		out, err = ignition.AddFiles(document, added[0])
		require.NoError(t, err)
		require.Equal(t, document, out, "nothing was added: it is as it was written")
	}
}

func TestADocumentInAnotherCaseLosesNothing(t *testing.T) {
	for _, version := range []string{"3.4.0", "2.3.0"} {
		out, err := ignition.AddFiles([]byte(`{"ignition":{"version":"`+version+`"},"Storage":{"Files":[{"filesystem":"root","path":"/etc/own"}]}}`), added...)
		require.NoError(t, err)
		require.Contains(t, string(out), `"/etc/own"`)
		var d map[string]map[string][]any
		require.NoError(t, json.Unmarshal(out, &struct{ Storage *map[string][]any }{new(map[string][]any)}))
		_ = json.Unmarshal(out, &d)
		n := 0
		for _, key := range []string{"storage", "Storage"} {
			for _, f := range []string{"files", "Files"} {
				n += len(d[key][f])
			}
		}
		require.Equal(t, 3, n, "%s", out)
	}
}

func TestNothingIsAddedToWhatCannotBeRead(t *testing.T) {
	for _, document := range []string{"", "[]", `{"ignition":{}}`, `{"ignition":{"version":"3.99.0"}}`, `{"ignition":{"version":"2.3.0"},"storage":{"files":"hunter2"}}`, `{"ignition":{"version":"2.3.0"},"storage":[]}`} {
		_, err := ignition.AddFiles([]byte(document), added...)
		require.ErrorIs(t, err, boot.ErrInvalid, document)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func FuzzAddFiles(f *testing.F) {
	f.Add([]byte(`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/x"}]}}`))
	f.Add([]byte(`{"ignition":{"version":"2.3.0"},"storage":null}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		d, err := ignition.Check(document, "")
		if err != nil {
			return
		}
		out, err := ignition.AddFiles(d.JSON, added...)
		if err == nil {
			_, err = ignition.Check(out, "")
			require.NoError(t, err)
		}
	})
}

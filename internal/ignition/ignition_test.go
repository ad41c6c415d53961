package ignition_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/ignition"
)

const butane = ignition.FormatButane

func TestErrorsNameLineColumnAndKey(t *testing.T) {
	for name, c := range map[string]struct{ document, format, want string }{
		"butane: list wanted": {
			"variant: fcos\nversion: 1.5.0\npasswd:\n  users:\n  - name: core\n    ssh_authorized_keys: hunter2\n", butane,
			"line 6, column 26, key passwd.users[0].ssh_authorized_keys: a string stands where a list belongs",
		},
		"butane: relative path": {
			"variant: fcos\nversion: 1.5.0\nstorage:\n  files:\n  - path: etc/x\n", butane,
			"line 5, column 11, key storage.files[0].path: path not absolute",
		},
		"butane: tab":              {"variant: fcos\n\tversion: 1\n", butane, "line 2: found a tab"},
		"butane: no variant":       {"version: 1.5.0\n", butane, "line 1, column 1: key variant is missing; it must be fcos, flatcar"},
		"butane: no version":       {"variant: fcos\n", butane, "line 1, column 1: key version is missing"},
		"butane: unknown version":  {"variant: fcos\nversion: 9.5.0\n", butane, "line 2, column 10: there is no version 9.5.0 of variant fcos"},
		"butane: variant a list":   {"variant: [fcos]\nversion: 1.5.0\n", butane, "line 1, column 10, key variant: a string belongs here"},
		"butane: a list":           {"- a\n", butane, "must be a mapping"},
		"butane: only a comment":   {"# nothing\n", butane, "must be a mapping"},
		"ignition called butane":   {`{"ignition":{"version":"3.4.0"}}`, butane, "remove the Secret's key format"},
		"butane called ignition":   {"variant: fcos\nversion: 1.5.0\n", "", `line 1, column 1: not JSON: invalid character 'v' looking for beginning of value (if the document is Butane, set the Secret's key format to "fcos")`},
		"ignition: list wanted":    {"{\"ignition\":{\"version\":\"3.4.0\"},\n\"storage\":{\"files\":{\"path\":\"x\"}}}", "", "line 2, column 21, key storage.files: a mapping stands where a list belongs"},
		"ignition: number wanted":  {"{\"ignition\":{\"version\":\"3.4.0\"},\n\"storage\":{\"files\":[{\"path\":\"/x\",\"mode\":\"hunter2\"}]}}", "", "key storage.files[0].mode: a string stands where a number belongs"},
		"ignition: relative path":  {"{\"ignition\":{\"version\":\"3.4.0\"},\n\"storage\":{\"files\":[{\"path\":\"x\"}]}}", "", "line 2, column 29, key storage.files[0].path: path not absolute"},
		"ignition: scheme":         {`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/x","contents":{"source":"hunter2://x"}}]}}`, "", "key storage.files[0].contents.source: invalid url scheme"},
		"ignition: comma missing":  {"{\"ignition\":{\"version\":\"3.4.0\"}\n\"a\":1}", "", "line 2, column 1: not JSON"},
		"ignition: cut":            {`{"ignition":{"version":"3.4.0"`, "", "not JSON: unexpected end"},
		"ignition: two documents":  {`{"ignition":{"version":"3.4.0"}}{}`, "", "line 1, column 33: not JSON"},
		"ignition: future version": {`{"ignition":{"version":"3.99.0"}}`, "", `line 1, column 24: key ignition.version: "3.99.0" is no version that is known`},
		"ignition: version a number": {
			`{"ignition":{"version":3}}`, "", "line 1, column 24, key ignition.version: a number stands where a string belongs",
		},
		"ignition: no version":     {`{"ignition":{}}`, "", "key ignition.version is missing"},
		"ignition: no ignition":    {`{}`, "", "key ignition.version is missing"},
		"ignition: null":           {`null`, "", "must be a JSON object"},
		"ignition: a list":         {`[]`, "", "must be a JSON object"},
		"empty":                    {" \n", "", "the document is empty"},
		"too large":                {strings.Repeat(" ", ignition.MaxBytes+1), butane, "1048577 bytes are more than the 1048576"},
		"butane: deeper than sane": {strings.Repeat("[", 1<<19), butane, "exceeded max depth"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ignition.Convert([]byte(c.document), c.format)
			require.ErrorIs(t, err, boot.ErrInvalid)
			assert.Contains(t, err.Error(), c.want)
			assert.NotContains(t, err.Error(), "hunter2", "an error is shown to people who may not read the Secret")
			assert.Less(t, len(err.Error()), 2500)
		})
	}
}

func TestEveryVariantOfButaneBecomesIgnition(t *testing.T) {
	for document, version := range map[string]string{
		"variant: fcos\nversion: 1.5.0\n":    "3.4.0",
		"variant: flatcar\nversion: 1.1.0\n": "3.4.0",
		"variant: r4e\nversion: 1.1.0\n":     "3.4.0",
		"variant: fiot\nversion: 1.0.0\n":    "3.4.0",
		"variant: openshift\nversion: 4.14.0\nmetadata:\n  name: x\n  labels: {machineconfiguration.openshift.io/role: worker}\n": "3.4.0",
	} {
		d, err := ignition.Check([]byte(document), butane)
		require.NoError(t, err, document)
		assert.Equal(t, version, d.Version)
		assert.JSONEq(t, `{"ignition":{"version":"`+version+`"}}`, string(d.JSON), "what a machine gets is Ignition, without a variant's wrapping")
	}
}

func TestButaneIncludesNoLocalFiles(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("hunter2"), 0o600))
	here, err := os.Getwd()
	require.NoError(t, err)
	relative, err := filepath.Rel(here, secret)
	require.NoError(t, err)
	for _, path := range []string{secret, relative} {
		for _, include := range []string{
			"storage: {files: [{path: /x, contents: {local: " + path + "}}]}",
			"storage: {trees: [{local: " + filepath.Dir(path) + "}]}",
			"passwd: {users: [{name: core, ssh_authorized_keys_local: [" + path + "]}]}",
			"systemd: {units: [{name: a.service, contents_local: " + path + "}]}",
			"ignition: {config: {merge: [{local: " + path + "}]}}",
		} {
			out, err := ignition.Convert([]byte("variant: fcos\nversion: 1.6.0\n"+include+"\n"), butane)
			require.Error(t, err, include)
			assert.Contains(t, err.Error(), "local files cannot be included")
			assert.Empty(t, out)
		}
	}
}

func TestWarningsTellOfKeysThatNobodyReads(t *testing.T) {
	d, err := ignition.Check([]byte("variant: fcos\nversion: 1.5.0\nstorage:\n  files:\n  - path: /etc/x\n    mod: 420\nzebra: 1\n"), butane)
	require.NoError(t, err)
	assert.Equal(t, []string{"line 6, column 5, key storage.files[0].mod: unused key mod", "line 7, column 1, key zebra: unused key zebra"}, d.Warnings)

	d, err = ignition.Check([]byte("{\"ignition\":{\"version\":\"3.4.0\"},\n\"storge\":{}}"), "")
	require.NoError(t, err)
	assert.Len(t, d.Warnings, 1)
	assert.Contains(t, d.Warnings[0], "key storge: unused key storge")
}

func TestIgnitionIsPassedOnAsWritten(t *testing.T) {
	for _, document := range []string{
		`{"ignition": {"version": "3.0.0"}}`,
		`{ "ignition":{"version":"3.6.0"}, "storage":{"files":[{"path":"/etc/x","contents":{"source":"data:,a"}}]} }`,
		`{"ignition":{"version":"2.3.0"},"networkd":{"units":[]}}`,
	} {
		out, err := ignition.Convert([]byte(document), "anything but fcos")
		require.NoError(t, err)
		assert.Equal(t, document, string(out))
	}
}

func TestIgnition2IsPassedOnWithAWarning(t *testing.T) {
	d, err := ignition.Check([]byte(`{"ignition":{"version":"2.3.0"}}`), "")
	require.NoError(t, err)
	assert.Equal(t, "2.3.0", d.Version)
	assert.Equal(t, []string{"Ignition 2.3.0 is passed on unchecked; only Flatcar reads it"}, d.Warnings)
}

func TestConversionIsDeterministic(t *testing.T) {
	document := []byte("variant: fcos\nversion: 1.5.0\nstorage:\n  files:\n  - path: /a\n    contents: {inline: " +
		strings.Repeat("hello ", 500) + "}\n  - path: b\n  - path: c\n    x: 1\n    y: 2\n")
	_, first := ignition.Convert(document, butane)
	require.Error(t, first)
	good := bytes.ReplaceAll(bytes.ReplaceAll(document, []byte("path: b"), []byte("path: /b")), []byte("path: c"), []byte("path: /c"))
	want, err := ignition.Check(good, butane)
	require.NoError(t, err)
	for range 20 {
		_, again := ignition.Convert(document, butane)
		require.Equal(t, first.Error(), again.Error())
		d, err := ignition.Check(good, butane)
		require.NoError(t, err)
		require.Equal(t, want, d)
	}
}

func FuzzConvert(f *testing.F) {
	for _, seed := range []string{
		"variant: fcos\nversion: 1.5.0\nstorage:\n  files:\n  - path: /etc/x\n    contents: {inline: hello}\n",
		"variant: openshift\nversion: 4.14.0\n", "variant: &a fcos\nversion: *a\n", "a: &a [*a]\n", "---\n---\n", "? {a: b}\n: c\n",
		`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/x"}]}}`, `{"ignition":{"version":"2.3.0"}}`, `{"ignition":null}`,
	} {
		f.Add([]byte(seed), butane)
		f.Add([]byte(seed), "")
	}
	f.Fuzz(func(t *testing.T, document []byte, format string) {
		d, err := ignition.Check(document, format)
		if err != nil {
			if !errors.Is(err, boot.ErrInvalid) || d.JSON != nil {
				t.Fatalf("%v with %q", err, d.JSON)
			}
			return
		}
		var stub struct{ Ignition struct{ Version string } }
		if err := json.Unmarshal(d.JSON, &stub); err != nil || stub.Ignition.Version != d.Version {
			t.Fatalf("accepted %q as version %q: %v", d.JSON, d.Version, err)
		}
	})
}

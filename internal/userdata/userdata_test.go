package userdata

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func secret(pairs ...string) map[string][]byte {
	data := map[string][]byte{}
	for i := 0; i < len(pairs); i += 2 {
		data[pairs[i]] = []byte(pairs[i+1])
	}
	return data
}

func TestReadFindsTheDocumentWhereverUsersPutIt(t *testing.T) {
	for name, c := range map[string]struct {
		secret map[string][]byte
		want   Document
	}{
		"Ignition":                 {secret("ignition", "{}"), Document{Data: []byte("{}")}},
		"Butane":                   {secret("ignition", "a", "format", " fcos\n"), Document{Format: "fcos", Data: []byte("a")}},
		"a bootstrap Secret":       {secret("value", "{}", "format", "ignition"), Document{Format: "ignition", Data: []byte("{}")}},
		"both keys":                {secret("value", "no", "ignition", "yes"), Document{Data: []byte("yes")}},
		"cloud-config":             {secret("ignition", "#cloud-config", "format", "cloud-config"), Document{Format: "cloud-config", Data: []byte("#cloud-config")}},
		"cloud-config by CAPI":     {secret("value", "#cloud-config", "format", "cloud-config"), Document{Format: "cloud-config", Data: []byte("#cloud-config")}},
		"cloud-config and friends": {secret("user-data", "u", "ignition", "no", "vendor-data", "v", "network-config", "n", "format", "cloud-config"), Document{Format: "cloud-config", Data: []byte("u"), VendorData: []byte("v"), NetworkConfig: []byte("n")}},
		"an empty document":        {secret("ignition", ""), Document{Data: []byte{}}},
		"a BareMetalHost's":        {secret("userData", "{}"), Document{Data: []byte("{}")}},
		"another word":             {secret("ignition", "{}", "format", "raw"), Document{Format: "raw", Data: []byte("{}")}},
		"Butane by CAPI":           {secret("value", "a", "format", "fcos"), Document{Format: "fcos", Data: []byte("a")}},
		"text that is neither":     {secret("value", "variant: fcos"), Document{Data: []byte("variant: fcos")}},
		"Ignition as user-data":    {secret("user-data", `{"ignition":{}}`), Document{Data: []byte(`{"ignition":{}}`)}},
		"cloud-config of a host":   {secret("userData", "#cloud-config\n"), Document{Format: "cloud-config", Data: []byte("#cloud-config\n")}},
		"cloud-config, a script":   {secret("value", "#!/bin/sh\n", "vendor-data", "v"), Document{Format: "cloud-config", Data: []byte("#!/bin/sh\n"), VendorData: []byte("v")}},
		"cloud-config by its key":  {secret("user-data", "users: []"), Document{Format: "cloud-config", Data: []byte("users: []")}},
		"cloud-config, Metal3":     {secret("userData", "x", "format", " cloud-config\n"), Document{Format: "cloud-config", Data: []byte("x")}},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Read(c.secret)
			require.NoError(t, err)
			require.Equal(t, c.want, d)
			require.Equal(t, strings.HasPrefix(name, "cloud-config"), d.ForCloudInit())
		})
	}
}

func TestReadSaysWhichKeyIsMissing(t *testing.T) {
	_, err := Read(secret("other", "x"))
	require.ErrorIs(t, err, ErrNoKey)
	require.ErrorContains(t, err, `"ignition"`)
	_, err = Read(secret("format", "cloud-config"))
	require.ErrorIs(t, err, ErrNoKey)
	require.ErrorContains(t, err, `"user-data"`)
}

func TestAnUnknownFormatIsRefusedUnlessTheKeyIsIgnition(t *testing.T) {
	for _, key := range []string{"value", "userData"} {
		_, err := Read(secret(key, "{}", "format", "s3cret"))
		require.ErrorIs(t, err, ErrFormat)
		require.ErrorContains(t, err, "write ignition, cloud-config or fcos")
		require.NotContains(t, err.Error(), "s3cret")
	}
	_, err := Read(secret("ignition", "{}", "format", "s3cret"))
	require.NoError(t, err, "what worked before works")
}

func TestMetaDataIsReadAsItWasWritten(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"name: node-7\nindex: 0123\nbig: 1e5\non: true\nnothing: null\ntext: |\n  a\n  b\n": {"name": "node-7", "index": "0123", "big": "1e5", "on": "true", "nothing": "", "text": "a\nb\n"},
		"{\n\t\"a\": 1.50,\n\t\"b\": \"\\ud83d\\ude00 <\\/>\"\n}":                           {"a": "1.50", "b": "😀 </>"},
		"providerid: metal3://a/b/c\nx/y: '1'":                                              {"providerid": "metal3://a/b/c", "x/y": "1"},
		"# nothing yet\n":                                                                   {},
		"{}":                                                                                {},
	} {
		got, err := MetaData(secret("metaData", text))
		require.NoError(t, err, text)
		require.Equal(t, want, got)
	}
}

func TestBadMetaDataIsRefusedWithoutItsValues(t *testing.T) {
	for text, want := range map[string]string{
		"a: [s3cret":                           "neither YAML nor JSON (line",
		"- s3cret":                             "must be a mapping",
		"s3cret":                               "must be a mapping",
		"a: [s3cret]":                          "key a: a string, number or boolean",
		"a: {s3cret: b}":                       "key a: a string, number or boolean",
		"b: &x s3cret\na: *x":                  "key a: a string, number or boolean",
		"<<: {a: s3cret}":                      "line 1: a key is",
		"s3cret b: c":                          "line 1: a key is",
		"? [s3cret]\n: b":                      "line 1: a key is",
		"a: s3cret\na: b":                      "key a is there twice",
		"a: \"s3cret\\0\"":                     "key a: at most 8192 bytes of text",
		"a: " + strings.Repeat("s3cret", 2000): "key a: at most 8192 bytes of text",
		strings.Repeat("s3", MaxMetaDataBytes/2) + ": b":  "more than the 65536 that are allowed",
		"{" + strings.Repeat("\"a\": s3cret,", 257) + "}": "257 keys are more than the 256",
	} {
		_, err := MetaData(secret("metaData", text))
		require.ErrorIs(t, err, boot.ErrInvalid, want)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "s3cret")
	}
	_, err := MetaData(secret("metadata", "a: b"))
	require.ErrorIs(t, err, ErrNoKey)
	require.ErrorContains(t, err, `"metaData"`)
}

func FuzzMetaData(f *testing.F) {
	f.Add([]byte("a: b\nc: 1\n"))
	f.Add([]byte(`{"a": "b", "c": [*a]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := MetaData(map[string][]byte{"metaData": text})
		if err != nil {
			require.ErrorIs(t, err, boot.ErrInvalid)
			require.Less(t, len(err.Error()), 400)
		}
		require.LessOrEqual(t, len(m), maxMetaDataKeys)
	})
}

func TestCheckCloudInit(t *testing.T) {
	for name, c := range map[string]struct {
		in   boot.CloudInit
		want string
	}{
		"cloud-config":            {boot.CloudInit{UserData: []byte("#cloud-config\nusers: []\n")}, ""},
		"cloud-config of nothing": {boot.CloudInit{UserData: []byte("#cloud-config\n# later\n")}, ""},
		"a script":                {boot.CloudInit{UserData: []byte("#!/bin/sh\necho : : :")}, ""},
		"a MIME archive":          {boot.CloudInit{UserData: []byte("Content-Type: multipart/mixed; boundary=x\n")}, ""},
		"gzip":                    {boot.CloudInit{UserData: []byte("\x1f\x8b\x08")}, ""},
		"jinja":                   {boot.CloudInit{UserData: []byte("## template: jinja\n#cloud-config\na: {{ b }}\n")}, ""},
		"with a network":          {boot.CloudInit{UserData: []byte("#cloud-config\n"), NetworkConfig: []byte("version: 2\n")}, ""},
		"empty":                   {boot.CloudInit{UserData: []byte(" \n")}, "empty"},
		"no header":               {boot.CloudInit{UserData: []byte("users: [s3cret]\n")}, "first line"},
		"a list":                  {boot.CloudInit{UserData: []byte("#cloud-config\n- s3cret\n")}, "mapping"},
		"broken YAML":             {boot.CloudInit{UserData: []byte("#cloud-config\na: [s3cret\nb: c\n")}, "line"},
		"a broken network":        {boot.CloudInit{UserData: []byte("#cloud-config\n"), NetworkConfig: []byte("s3cret")}, "network-config"},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckCloudInit(c.in)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, boot.ErrInvalid)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
}

func FuzzCheckCloudInit(f *testing.F) {
	f.Add([]byte("#cloud-config\na: b\n"), []byte("version: 2\n"))
	f.Add([]byte("#cloud-config\n&a [*a]\n"), []byte("{"))
	f.Fuzz(func(t *testing.T, user, network []byte) {
		if err := CheckCloudInit(boot.CloudInit{UserData: user, NetworkConfig: network}); err != nil {
			require.ErrorIs(t, err, boot.ErrInvalid)
			require.Less(t, len(err.Error()), 200)
		}
	})
}

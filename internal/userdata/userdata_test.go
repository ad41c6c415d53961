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
	_, err := Read(secret("user-data", "x"))
	require.ErrorIs(t, err, ErrNoKey)
	require.ErrorContains(t, err, `"ignition"`)
	_, err = Read(secret("format", "cloud-config"))
	require.ErrorIs(t, err, ErrNoKey)
	require.ErrorContains(t, err, `"user-data"`)
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

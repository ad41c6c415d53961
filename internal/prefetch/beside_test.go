package prefetch

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/ignition"
)

const (
	nodeSeven = "name: node-7\nindex: 7\n"
	oneNIC    = `{"links":[{"id":"eth0","type":"phy","ethernet_mac_address":"52:54:00:aa:bb:01"}],"networks":[{"link":"eth0","type":"ipv4_dhcp"}]}`
)

// withBeside lets a config name meta data and network data too.
func withBeside(metaData, networkData string) func(*v1alpha1.HTTPBootConfig) {
	ref := func(name string) *corev1.LocalObjectReference {
		if name == "" {
			return nil
		}
		return &corev1.LocalObjectReference{Name: name}
	}
	return func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.MetaDataSecretRef, c.Spec.NetworkDataSecretRef = ref(metaData), ref(networkData)
	}
}

// besideFixture has a machine with Ignition or user data, and what goes with it.
func besideFixture(t *testing.T, document map[string][]byte) *fixture {
	t.Helper()
	f := newFixture(t, func(o *Options) { o.Convert = ignition.Convert })
	f.reader.put("user", document)
	f.reader.put("meta", map[string][]byte{"metaData": []byte(nodeSeven)})
	f.reader.put("net", map[string][]byte{"networkData": []byte(oneNIC)})
	f.put(config("one", "user", withBeside("meta", "net")))
	return f
}

func cloudPlan(name string) *boot.Plan {
	p := plan(name)
	p.HasIgnition, p.HasCloudInit = false, true
	return p
}

func TestMetaDataAndNetworkDataGoWithUserData(t *testing.T) {
	f := besideFixture(t, map[string][]byte{"userData": []byte("#cloud-config\n")})
	for range 3 {
		c, err := f.CloudInit(t.Context(), cloudPlan("one"))
		require.NoError(t, err)
		require.Equal(t, "#cloud-config\n", string(c.UserData))
		require.Equal(t, map[string]string{"name": "node-7", "index": "7"}, c.MetaData)
		require.Contains(t, string(c.NetworkConfig), "version: 2\nethernets:\n  eth0:\n")
	}
	require.Equal(t, 3, f.reader.count(), "each Secret once")
	_, bytes := f.secrets.size()
	require.Greater(t, bytes, len("#cloud-config\n")+len("namenode-7index7"), "all of it counts")
}

func TestTheUserDatasOwnNetworkConfigCountsMore(t *testing.T) {
	f := besideFixture(t, map[string][]byte{"format": []byte("cloud-config"), "value": []byte("#cloud-config\n"), "network-config": []byte("version: 1\n")})
	c, err := f.CloudInit(t.Context(), cloudPlan("one"))
	require.NoError(t, err)
	require.Equal(t, "version: 1\n", string(c.NetworkConfig))
	require.NotEmpty(t, c.MetaData)
}

func TestMetaDataAndNetworkDataGoIntoIgnition(t *testing.T) {
	f := besideFixture(t, map[string][]byte{"value": []byte(`{"ignition":{"version":"3.3.0"}}`), "format": []byte("ignition")})
	got, err := f.Ignition(t.Context(), plan("one"))
	require.NoError(t, err)
	var d struct {
		Ignition struct{ Version string }
		Storage  struct {
			Files []struct {
				Path     string
				Mode     int
				Contents struct{ Source string }
			}
		}
	}
	require.NoError(t, json.Unmarshal(got, &d))
	require.Equal(t, "3.3.0", d.Ignition.Version)
	files := map[string]string{}
	for _, file := range d.Storage.Files {
		require.Equal(t, 0o600, file.Mode)
		text, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(file.Contents.Source, "data:;base64,"))
		require.NoError(t, err)
		files[file.Path] = string(text)
	}
	require.Len(t, files, 2)
	require.JSONEq(t, `{"name":"node-7","index":"7"}`, files["/etc/boot-operator/meta-data.json"])
	require.Contains(t, files["/etc/boot-operator/network-config.yaml"], `macaddress: "52:54:00:aa:bb:01"`)
}

func TestWithoutThemTheDocumentStaysAsItWasWritten(t *testing.T) {
	f := besideFixture(t, map[string][]byte{"ignition": []byte(` {"ignition" : {"version":"3.3.0"}}`)})
	f.put(config("one", "user"))
	got, err := f.Ignition(t.Context(), plan("one"))
	require.NoError(t, err)
	require.Equal(t, ` {"ignition" : {"version":"3.3.0"}}`, string(got))
	require.Equal(t, 1, f.reader.count())
}

func TestOneSecretMayHoldAllOfIt(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Convert = ignition.Convert })
	f.reader.put("all", map[string][]byte{"userData": []byte("#!/bin/sh\n"), "metaData": []byte(nodeSeven), "networkData": []byte(oneNIC)})
	f.put(config("one", "all", withBeside("all", "all")))
	c, err := f.CloudInit(t.Context(), cloudPlan("one"))
	require.NoError(t, err)
	require.NotEmpty(t, c.MetaData)
	require.NotEmpty(t, c.NetworkConfig)
	require.Equal(t, 1, f.reader.count())
}

func TestTroubleWithWhatGoesWithADocumentIsUnavailable(t *testing.T) {
	for want, edit := range map[string]func(*fixture){
		"there is no Secret default/meta":                         func(f *fixture) { delete(f.reader.secrets, "default/meta") },
		"there is no Secret default/net":                          func(f *fixture) { delete(f.reader.secrets, "default/net") },
		`Secret default/meta: there is no key "metaData"`:         func(f *fixture) { f.reader.put("meta", nil) },
		`Secret default/net: there is no key "networkData"`:       func(f *fixture) { f.reader.put("net", nil) },
		"Secret default/meta: invalid: the meta data":             func(f *fixture) { f.reader.put("meta", map[string][]byte{"metaData": []byte("[hunter2]")}) },
		"Secret default/net: invalid: links: a list belongs here": func(f *fixture) { f.reader.put("net", map[string][]byte{"networkData": []byte("links: hunter2")}) },
		"Secret default/user: the format is none that is known": func(f *fixture) {
			f.reader.put("user", map[string][]byte{"value": []byte("{}"), "format": []byte("hunter2")})
		},
		"Secret default/user: invalid Ignition JSON: nothing can be": func(f *fixture) {
			f.secrets.convert = func([]byte, string) ([]byte, error) { return []byte(`{"ignition":{"version":"9.0.0"}}`), nil }
		},
	} {
		f := besideFixture(t, map[string][]byte{"userData": []byte(`{"ignition":{"version":"3.3.0"}}`)})
		edit(f)
		got, err := f.Ignition(t.Context(), plan("one"))
		require.ErrorIs(t, err, boot.ErrUnavailable)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
		require.Nil(t, got)
	}
}

func TestAnotherNetworkDataSecretIsAnotherDocument(t *testing.T) {
	f := besideFixture(t, map[string][]byte{"userData": []byte("#cloud-config\n")})
	_, err := f.CloudInit(t.Context(), cloudPlan("one"))
	require.NoError(t, err)
	f.reader.put("other", map[string][]byte{"networkData": []byte(strings.ReplaceAll(oneNIC, "eth0", "eth7"))})
	f.put(config("one", "user", withBeside("meta", "other")))
	c, err := f.CloudInit(t.Context(), cloudPlan("one"))
	require.NoError(t, err)
	require.Contains(t, string(c.NetworkConfig), "eth7")
}

package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

func TestMain(m *testing.M) { controlplane.Main(m) }

// spec is a spec as a user writes it.
type spec = map[string]any

// with returns base with other fields.
func with(base, other spec) spec {
	out := spec{}
	for _, s := range []spec{base, other} {
		for k, v := range s {
			out[k] = v
		}
	}
	return out
}

func list(n int, text string) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = text
	}
	return out
}

var (
	httpBase = spec{"image": "registry.example.com/os/image:1"}
	ipxeBase = spec{"image": "registry.example.com/os/image:1"}
)

// creator applies specs to a real API server.
func creator(t *testing.T) func(kind string, s spec) error {
	t.Helper()
	cfg := controlplane.Start(t)
	c, err := client.New(cfg, client.Options{Scheme: runtime.NewScheme()})
	require.NoError(t, err)
	ns := controlplane.Namespace(t, cfg)
	return func(kind string, s spec) error {
		o := &unstructured.Unstructured{Object: map[string]any{"spec": s}}
		o.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
		o.SetNamespace(ns)
		o.SetGenerateName("c-")
		return c.Create(t.Context(), o)
	}
}

func TestABadSpecIsRefusedWithWhatWouldBeRight(t *testing.T) {
	create := creator(t)
	both := []struct {
		name, message string
		spec          spec
	}{
		{"UUID", "systemUUID must be a UUID such as 00112233-", spec{"systemUUID": "machine-1"}},
		{"UUID of 35 characters", "systemUUID must be a UUID", spec{"systemUUID": "00112233-4455-6677-8899-aabbccddeef"}},
		{"UUID too long", "Too long: may not be more than 64", spec{"systemUUID": strings.Repeat("0", 65)}},
		{"prefix for an address", "prefixes and host names name no single machine", spec{"networkIdentifiers": []any{"10.0.0.0/24"}}},
		{"host name for an address", "prefixes and host names name no single machine", spec{"networkIdentifiers": []any{"10.0.0.5", "host.example.com"}}},
		{"empty identifier", "should be at least 2 chars long", spec{"networkIdentifiers": []any{""}}},
		{"too many identifiers", "Too many: 65: must have at most 64 items", spec{"networkIdentifiers": list(65, "10.0.0.5")}},
		{"identifier too long", "Too long: may not be more than 64", spec{"networkIdentifiers": []any{strings.Repeat("0", 65)}}},
		{"image with a scheme", "image must be an OCI reference without scheme", spec{"image": "oci://registry.example.com/image"}},
		{"image with a newline", "image must be an OCI reference", spec{"image": "registry.example.com/image\nboot"}},
		{"architecture", `supported values: "amd64", "arm64"`, spec{"architecture": "x86_64"}},
		{"policy", `supported values: "Always", "Once"`, spec{"bootPolicy": "Never"}},
		{"proof", `supported values: "BMC", "Relay", "Proxy", "Address", "Claimed"`, spec{"minimumProof": "Trust"}},
	}
	for _, c := range both {
		for kind, base := range map[string]spec{v1alpha1.KindHTTPBootConfig: httpBase, v1alpha1.KindIPXEBootConfig: ipxeBase} {
			refused(t, create, kind+" "+c.name, kind, with(base, c.spec), c.message)
		}
	}
	url := func(field, value string) spec {
		return spec{"kernelURL": "http://example.com/k", "initrdURL": "http://example.com/i", field: value}
	}
	for _, c := range []struct {
		name, kind, message string
		spec                spec
	}{
		{"image and ukiURL", v1alpha1.KindHTTPBootConfig, "set either image or ukiURL, not both", spec{"image": "a/b:1", "ukiURL": "http://example.com/os.efi"}},
		{"ukiURL of another scheme", v1alpha1.KindHTTPBootConfig, "ukiURL must be an absolute http or https URL", spec{"ukiURL": "ftp://example.com/os.efi"}},
		{"ukiURL with a newline", v1alpha1.KindHTTPBootConfig, "ukiURL must be an absolute http or https URL", spec{"ukiURL": "http://example.com/os.efi\nx"}},
		{"nothing to boot", v1alpha1.KindIPXEBootConfig, "say what to boot: image, or kernelURL and initrdURL, or ipxeScriptSecretRef", spec{}},
		{"kernel without initrd", v1alpha1.KindIPXEBootConfig, "say what to boot", spec{"kernelURL": "http://example.com/k"}},
		{"MAC among IPs", v1alpha1.KindIPXEBootConfig, "MAC addresses go into networkIdentifiers", with(ipxeBase, spec{"systemIPs": []any{"52-54-00-aa-bb-01"}})},
		{"kernelURL with a newline", v1alpha1.KindIPXEBootConfig, "kernelURL must be an absolute http or https URL without white space", url("kernelURL", "http://example.com/k\nshell")},
		{"initrdURL with a space", v1alpha1.KindIPXEBootConfig, "initrdURL must be an absolute http or https URL without white space", url("initrdURL", "http://example.com/i x")},
		{"squashfsURL", v1alpha1.KindIPXEBootConfig, "squashfsURL must be an absolute http or https URL", url("squashfsURL", "example.com")},
		{"kernel argument with a newline", v1alpha1.KindIPXEBootConfig, "one argument of printable ASCII without spaces", with(ipxeBase, spec{"kernelArguments": []any{"quiet\nshell"}})},
		{"two kernel arguments in one", v1alpha1.KindIPXEBootConfig, "one argument of printable ASCII without spaces", with(ipxeBase, spec{"kernelArguments": []any{"quiet splash"}})},
		{"too many kernel arguments", v1alpha1.KindIPXEBootConfig, "must have at most 64 items", with(ipxeBase, spec{"kernelArguments": list(65, "quiet")})},
	} {
		refused(t, create, c.kind+" "+c.name, c.kind, c.spec, c.message)
	}
}

func refused(t *testing.T, create func(string, spec) error, name, kind string, s spec, message string) {
	t.Run(name, func(t *testing.T) {
		err := create(kind, s)
		require.True(t, apierrors.IsInvalid(err), "%v", err)
		assert.Contains(t, err.Error(), message)
	})
}

func TestWhatUsersWroteBeforeStillApplies(t *testing.T) {
	create := creator(t)
	for i, c := range []struct {
		kind string
		spec spec
	}{
		{v1alpha1.KindHTTPBootConfig, spec{}},
		{v1alpha1.KindHTTPBootConfig, spec{
			"systemUUID": "{00112233-4455-6677-8899-AABBCCDDEEFF}", "networkIdentifiers": []any{"10.0.0.5", "2001:DB8::5", "fe80::1%eth0", "52-54-00-AA-BB-01", "5254.00aa.bb01", "525400aabb01"},
			"ukiURL": "https://images.example.com:8443/os.efi?version=1", "ignitionSecretRef": spec{"name": "ign"},
		}},
		{v1alpha1.KindHTTPBootConfig, spec{"image": "docker.io/library/os@sha256:" + strings.Repeat("a", 64), "ukiURL": ""}},
		{v1alpha1.KindHTTPBootConfig, spec{"networkIdentifiers": list(64, strings.Repeat("0", 64))}},
		{v1alpha1.KindIPXEBootConfig, spec{"systemUUID": "urn:uuid:00112233-4455-6677-8899-aabbccddeeff", "systemIPs": []any{"10.0.0.5"}, "kernelURL": "http://example.com/k", "initrdURL": "http://example.com/i", "ipxeServerURL": "http://old.example.com"}},
		{v1alpha1.KindIPXEBootConfig, spec{"ipxeScriptSecretRef": spec{"name": "script"}}},
		{v1alpha1.KindIPXEBootConfig, spec{"image": "localhost:5000/os", "kernelArguments": []any{"console=ttyS0,115200", "ds=nocloud;s=http://x/"}}},
	} {
		assert.NoError(t, create(c.kind, c.spec), fmt.Sprint(i, c.spec))
	}
}

func TestEveryReferenceToASecretIsKept(t *testing.T) {
	cfg := controlplane.Start(t)
	c, err := client.New(cfg, client.Options{Scheme: runtime.NewScheme()})
	require.NoError(t, err)
	ns := controlplane.Namespace(t, cfg)
	for kind, base := range map[string]spec{v1alpha1.KindHTTPBootConfig: httpBase, v1alpha1.KindIPXEBootConfig: ipxeBase} {
		o := &unstructured.Unstructured{Object: map[string]any{"spec": with(base, spec{
			"ignitionSecretRef": spec{"name": "user"}, "metaDataSecretRef": spec{"name": "meta"}, "networkDataSecretRef": spec{"name": "net"},
		})}}
		o.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
		o.SetNamespace(ns)
		o.SetName("m")
		require.NoError(t, c.Create(t.Context(), o), kind)
		for field, want := range map[string]string{"ignitionSecretRef": "user", "metaDataSecretRef": "meta", "networkDataSecretRef": "net"} {
			got, _, err := unstructured.NestedString(o.Object, "spec", field, "name")
			require.NoError(t, err)
			assert.Equal(t, want, got, kind+" "+field)
		}
	}
}

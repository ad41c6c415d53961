package manifests

import (
	"strings"
	"testing"
	"time"

	metal3v1alpha1 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/test/controlplane"
)

type host = metal3v1alpha1.BareMetalHost

// hosts is an API server that knows BareMetalHosts.
func hosts(t *testing.T) cluster {
	t.Helper()
	c := newCluster(t)
	if err := metal3v1alpha1.AddToScheme(c.Scheme()); err != nil {
		t.Fatal(err)
	}
	return c
}

// admit puts the chart's policy in force in the cluster's namespace.
func (c cluster) admit(t *testing.T) {
	t.Helper()
	for _, object := range chart(t, "metal3.admissionPolicies.enabled=true", "baremetalhost.namespaces={"+c.namespace+"}") {
		if strings.HasPrefix(object.GetKind(), "ValidatingAdmissionPolicy") {
			if err := c.apply(t.Context(), object); err != nil {
				t.Fatal(err)
			}
		}
	}
	bad := goodHost(c.namespace)
	bad.Spec.BMC.Address = "ipmi://10.0.0.5"
	for deadline := time.Now().Add(time.Minute); c.Create(t.Context(), bad.DeepCopy(), client.DryRunAll) == nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the policy is not in force within a minute")
		}
	}
}

func goodHost(namespace string) *host {
	h := &host{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "host-", Annotations: map[string]string{}}}
	h.Spec.BMC = metal3v1alpha1.BMCDetails{Address: "redfish+https://10.0.0.5/redfish/v1/Systems/1", CredentialsName: "bmc"}
	h.Spec.BootMACAddress = "52:54:00:aa:bb:01"
	h.Spec.Online = true
	return h
}

func image(h *host, url, format string) {
	h.Spec.Image = &metal3v1alpha1.Image{URL: url}
	if format != "" {
		h.Spec.Image.DiskFormat = &format
	}
}

func annotate(name, value string) func(*host) {
	return func(h *host) { h.Annotations[name] = value }
}

// hostRules has, for what the policy says, what it refuses and what it takes.
var hostRules = []struct {
	message      string
	wrong, right []func(*host)
}{
	{"spec.bmc.address must be a Redfish address such as", []func(*host){
		func(h *host) { h.Spec.BMC.Address = "10.0.0.5" },
		func(h *host) { h.Spec.BMC.Address = "redfish://root:calvin@10.0.0.5" },
		func(h *host) { h.Spec.BMC.Address = "redfish://10.0.0.5/redfish/v1/Systems/1?a=b" },
		func(h *host) { h.Spec.BMC.Address = "redfish://10.0.0.5/login" },
		func(h *host) { h.Spec.BMC.Address = "idrac://10.0.0.5" },
	}, []func(*host){
		func(h *host) { h.Spec.BMC = metal3v1alpha1.BMCDetails{} },
		func(h *host) { h.Spec.BMC.Address = "idrac-redfish://bmc.example.com:8443" },
		func(h *host) { h.Spec.BMC.Address = "ilo5-virtualmedia+http://[2001:db8::5]/redfish/v1/Systems/1/" },
		func(h *host) { h.Spec.BMC.Address = "https://10.0.0.5/" },
	}},
	{"spec.bootMACAddress must be the MAC address of one network card", []func(*host){
		func(h *host) { h.Spec.BootMACAddress = "x52:54:00:aa:bb:01" },
		func(h *host) { h.Spec.BootMACAddress = "01:00:5e:00:00:01" },
		func(h *host) { h.Spec.BootMACAddress = "00:00:00:00:00:00" },
	}, []func(*host){
		func(h *host) { h.Spec.BootMACAddress = "52:54:00:AA:BB:01" },
		func(h *host) { h.Spec.BootMACAddress = "" },
	}},
	{"spec.image and spec.customDeploy cannot both say what to boot", []func(*host){func(h *host) {
		image(h, "oci://example.com/os:1", "raw")
		h.Spec.CustomDeploy = &metal3v1alpha1.CustomDeploy{Method: "oci://example.com/os:1"}
	}}, []func(*host){func(h *host) {
		image(h, "", "")
		h.Spec.CustomDeploy = &metal3v1alpha1.CustomDeploy{Method: "oci://example.com/os:1"}
	}}},
	{"spec.image.url must name an image in an OCI registry", []func(*host){
		func(h *host) { image(h, "https://example.com/a.qcow2", "raw") },
		func(h *host) { image(h, "oci://robot:secret@example.com/os:1", "raw") },
	}, []func(*host){
		func(h *host) { image(h, "oci://example.com:5000/os@sha256:00", "raw") },
	}},
	{"spec.customDeploy.method must name an image in an OCI registry", []func(*host){
		func(h *host) { h.Spec.CustomDeploy = &metal3v1alpha1.CustomDeploy{Method: "install_it"} },
	}, []func(*host){
		func(h *host) { h.Spec.CustomDeploy = &metal3v1alpha1.CustomDeploy{Method: ""} },
	}},
	{"spec.image.format must be raw (booted once, an installation) or live-iso", []func(*host){
		func(h *host) { image(h, "oci://example.com/os:1", "qcow2") },
	}, []func(*host){
		func(h *host) { image(h, "oci://example.com/os:1", "live-iso") },
		func(h *host) { image(h, "oci://example.com/os:1", "") },
	}},
	{"must be in the host's own namespace", []func(*host){
		func(h *host) { h.Spec.UserData = &corev1.SecretReference{Name: "a", Namespace: "kube-system"} },
		func(h *host) { h.Spec.MetaData = &corev1.SecretReference{Name: "a", Namespace: "kube-system"} },
		func(h *host) { h.Spec.NetworkData = &corev1.SecretReference{Name: "a", Namespace: "kube-system"} },
	}, []func(*host){
		func(h *host) { h.Spec.UserData = &corev1.SecretReference{Name: "a", Namespace: h.Namespace} },
		func(h *host) { h.Spec.NetworkData = &corev1.SecretReference{Name: "a"} },
	}},
	{"spec.online cannot be false while spec.disablePowerOff is true", []func(*host){
		func(h *host) { h.Spec.Online, h.Spec.DisablePowerOff = false, true },
	}, []func(*host){
		func(h *host) { h.Spec.DisablePowerOff = true },
		func(h *host) { h.Spec.Online = false },
	}},
	{"spec.architecture must be x86_64 or aarch64", []func(*host){func(h *host) { h.Spec.Architecture = "ppc64le" }},
		[]func(*host){func(h *host) { h.Spec.Architecture = "aarch64" }}},
	{"spec.rootDeviceHints.deviceName must be a path such as /dev/sda", []func(*host){
		func(h *host) { h.Spec.RootDeviceHints = &metal3v1alpha1.RootDeviceHints{DeviceName: "sda"} },
		func(h *host) {
			h.Spec.RootDeviceHints = &metal3v1alpha1.RootDeviceHints{DeviceName: "/dev/disk/by-id/a"}
		},
	}, []func(*host){
		func(h *host) { h.Spec.RootDeviceHints = &metal3v1alpha1.RootDeviceHints{DeviceName: "/dev/sda"} },
		func(h *host) {
			h.Spec.RootDeviceHints = &metal3v1alpha1.RootDeviceHints{DeviceName: "/dev/disk/by-path/pci-0000:00:1f.2-ata-1"}
		},
		func(h *host) { h.Spec.RootDeviceHints = &metal3v1alpha1.RootDeviceHints{Model: "a"} },
	}},
	{"the annotation reboot.metal3.io, and those that begin with", []func(*host){
		annotate("reboot.metal3.io", `{"mode":"brutal"}`), annotate("reboot.metal3.io/a", "now"), annotate("reboot.metal3.io", `{"force":"yes"}`),
	}, []func(*host){
		annotate("reboot.metal3.io", ""), annotate("reboot.metal3.io/a", `{"mode":"hard"}`), annotate("reboot.metal3.io", ` {"force": true, "mode": ""}`),
		annotate("reboot.metal3.io", "{}"), annotate("reboot.metal3.iox", "now"),
	}},
	{"the annotation inspect.metal3.io must be disabled or empty", []func(*host){annotate("inspect.metal3.io", "off")},
		[]func(*host){annotate("inspect.metal3.io", "disabled"), annotate("inspect.metal3.io", "")}},
	{"contradict each other", []func(*host){func(h *host) {
		h.Annotations["inspect.metal3.io"], h.Spec.InspectionMode = "disabled", "agent"
	}}, []func(*host){func(h *host) {
		h.Annotations["inspect.metal3.io"], h.Spec.InspectionMode = "disabled", "disabled"
	}}},
	{"is used only without inspection", []func(*host){annotate("inspect.metal3.io/hardwaredetails", "{}")}, []func(*host){func(h *host) {
		h.Annotations["inspect.metal3.io/hardwaredetails"], h.Spec.InspectionMode = "{\n}\n", "disabled"
	}}},
	{"must hold a JSON object", []func(*host){annotate("baremetalhost.metal3.io/status", "available")},
		[]func(*host){annotate("baremetalhost.metal3.io/status", `{"a":1}`)}},
	{"boot-policy must be Once", []func(*host){annotate("boot.ironcore.dev/boot-policy", "once")},
		[]func(*host){annotate("boot.ironcore.dev/boot-policy", "Once")}},
	{"provisioned-when must be", []func(*host){annotate("boot.ironcore.dev/provisioned-when", "Ready")},
		[]func(*host){annotate("boot.ironcore.dev/provisioned-when", "UserData")}},
	{"addresses must be IP addresses", []func(*host){annotate("boot.ironcore.dev/addresses", "10.0.0.0/24")},
		[]func(*host){annotate("boot.ironcore.dev/addresses", "10.0.0.5, 2001:db8::5")}},
	{"system-uuid must be a UUID", []func(*host){annotate("boot.ironcore.dev/system-uuid", "machine-7")},
		[]func(*host){annotate("boot.ironcore.dev/system-uuid", "00112233-4455-6677-8899-AABBCCDDEEFF")}},
	{"pull-secret must be the name of a Secret", []func(*host){annotate("boot.ironcore.dev/pull-secret", "a/b")},
		[]func(*host){annotate("boot.ironcore.dev/pull-secret", "registry-login")}},
}

func TestHostsThatCannotBeDrivenAreRefused(t *testing.T) {
	c := hosts(t)
	c.admit(t)
	outside := controlplane.Namespace(t, controlplane.Start(t))
	for _, rule := range hostRules {
		t.Run(rule.message, func(t *testing.T) {
			for i, change := range rule.wrong {
				h := goodHost(c.namespace)
				change(h)
				refused(t, c.Create(t.Context(), h, client.DryRunAll), rule.message)
				if h.Spec.UserData != nil || h.Spec.MetaData != nil || h.Spec.NetworkData != nil {
					continue // of another namespace everywhere
				}
				h.Namespace = outside
				if err := c.Create(t.Context(), h, client.DryRunAll); err != nil {
					t.Errorf("wrong %d, in a namespace that is not ours: %v", i, err)
				}
			}
			for i, change := range rule.right {
				h := goodHost(c.namespace)
				change(h)
				if err := c.Create(t.Context(), h, client.DryRunAll); err != nil {
					t.Errorf("right %d: %v", i, err)
				}
			}
		})
	}
}

func refused(t *testing.T, err error, message string) {
	t.Helper()
	if !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), message) {
		t.Errorf("not refused with %q: %v", message, err)
	}
}

// made creates a host with a status.
func (c cluster) made(t *testing.T, state metal3v1alpha1.ProvisioningState, operational metal3v1alpha1.OperationalStatus, change ...func(*host)) *host {
	t.Helper()
	h := goodHost(c.namespace)
	for _, ch := range change {
		ch(h)
	}
	if err := c.Create(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	h.Status.Provisioning.State, h.Status.OperationalStatus = state, operational
	if err := c.Status().Update(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestWhatAHostIsCannotBeChanged(t *testing.T) {
	c := hosts(t)
	c.admit(t)
	address := func(h *host) { h.Spec.BMC.Address = "redfish://10.0.0.6" }
	mac := func(h *host) { h.Spec.BootMACAddress = "52:54:00:aa:bb:02" }
	external := func(h *host) { h.Spec.ExternallyProvisioned = true }
	noMAC := func(h *host) { h.Spec.BootMACAddress = "" }
	for _, tt := range []struct {
		name        string
		state       metal3v1alpha1.ProvisioningState
		operational metal3v1alpha1.OperationalStatus
		before      func(*host)
		change      func(*host)
		message     string // empty: it is taken
	}{
		{"address", "available", "OK", nil, address, "spec.bmc.address cannot be changed in the state available: another BMC is another machine"},
		{"address, provisioned", "provisioned", "OK", nil, address, "wait for status.operationalStatus to be detached"},
		{"address removed", "available", "OK", nil, func(h *host) { h.Spec.BMC.Address = "" }, "spec.bmc.address cannot be changed"},
		{"address, registering", "registering", "error", nil, address, ""},
		{"address, detached", "provisioned", "detached", nil, address, ""},
		{"address, new", "", "", nil, address, ""},
		{"address, none before", "available", "OK", func(h *host) { h.Spec.BMC = metal3v1alpha1.BMCDetails{} }, address, ""},
		{"MAC", "registering", "OK", nil, mac, "spec.bootMACAddress cannot be changed once it is set"},
		{"MAC removed", "available", "OK", nil, noMAC, "spec.bootMACAddress cannot be changed once it is set"},
		{"MAC in capitals", "available", "OK", nil, func(h *host) { h.Spec.BootMACAddress = "52:54:00:AA:BB:01" }, ""},
		{"MAC, none before", "available", "OK", noMAC, mac, ""},
		{"external", "provisioned", "OK", nil, external, "spec.externallyProvisioned can be set in the state available only, not in provisioned"},
		{"external, available", "available", "OK", nil, external, ""},
		{"external before", "externally provisioned", "OK", external, func(h *host) { h.Spec.Online = false }, ""},
		{"no longer external", "externally provisioned", "OK", external, func(h *host) { h.Spec.ExternallyProvisioned = false }, ""},
		{"anything else", "provisioned", "OK", nil, func(h *host) { image(h, "oci://example.com/os:2", "raw"); h.Spec.Online = false }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before []func(*host)
			if tt.before != nil {
				before = append(before, tt.before)
			}
			h := c.made(t, tt.state, tt.operational, before...)
			tt.change(h)
			err := c.Update(t.Context(), h)
			if tt.message != "" {
				refused(t, err, tt.message)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// A policy that comes later must not hold hosts that are there already.
func TestHostsFromBeforeThePolicyCanBeReleased(t *testing.T) {
	c := hosts(t)
	old := c.made(t, "provisioned", "OK", func(h *host) {
		h.Finalizers = []string{"baremetalhost.metal3.io/test"}
		h.Annotations["reboot.metal3.io"] = "now"
		h.Annotations["inspect.metal3.io"] = "disabled"
		h.Annotations["boot.ironcore.dev/addresses"] = "machine-7"
		h.Spec.BMC.Address, h.Spec.BootMACAddress, h.Spec.Architecture = "ipmi://10.0.0.5", "01:00:5e:00:00:01", "ppc64le"
		h.Spec.InspectionMode, h.Spec.DisablePowerOff, h.Spec.Online = "agent", true, false
		h.Spec.UserData = &corev1.SecretReference{Name: "a", Namespace: "kube-system"}
		h.Spec.RootDeviceHints = &metal3v1alpha1.RootDeviceHints{DeviceName: "sda"}
		image(h, "https://example.com/a.qcow2", "qcow2")
	})
	c.admit(t)
	old.Labels = map[string]string{"a": "b"}
	if err := c.Update(t.Context(), old); err != nil {
		t.Error("changing something else:", err)
	}
	old.Spec.Image = nil
	if err := c.Update(t.Context(), old); err != nil {
		t.Error("releasing it:", err)
	}
	if err := c.Delete(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(old), old); err != nil {
		t.Fatal(err)
	}
	old.Finalizers, old.Spec.Architecture = nil, "sparc"
	if err := c.Update(t.Context(), old); err != nil {
		t.Error("letting it go:", err)
	}
}

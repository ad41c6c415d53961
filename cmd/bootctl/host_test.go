package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/controller/host"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

// rack is a cluster with hosts, and an operator that a test plays.
type rack struct {
	t    *testing.T
	api  client.Client
	path string
	mu   sync.Mutex
}

// newRack starts a cluster; before is called while it does not know Metal3's hosts.
func newRack(t *testing.T, before func(r *rack)) *rack {
	t.Helper()
	api, path := launch(t)
	r := &rack{t: t, api: api, path: path}
	before(r)
	config, err := clientcmd.BuildConfigFromFlags("", path)
	require.NoError(t, err)
	options, err := controlplane.Metal3CRDs()
	require.NoError(t, err)
	_, err = envtest.InstallCRDs(config, options)
	require.NoError(t, err)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme, metal3.AddToScheme} {
		require.NoError(t, add(scheme))
	}
	r.api, err = client.New(config, client.Options{Scheme: scheme})
	require.NoError(t, err)
	for _, name := range []string{"machines", "others"} {
		require.NoError(t, r.api.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	return r
}

// host runs a verb of host.
func (r *rack) host(args ...string) (code int, out, errs string) {
	return run(r.t, append(append([]string{"host"}, args...), "--kubeconfig", r.path)...)
}

// add makes a host that is driven and in a state.
func (r *rack) add(name string, state metal3.ProvisioningState, changes ...func(*metal3.BareMetalHost)) {
	r.t.Helper()
	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: "machines", Name: name, Annotations: map[string]string{}}}
	h.Spec.BMC = metal3.BMCDetails{Address: "redfish://10.0.0.1/redfish/v1/Systems/1", CredentialsName: "bmc"}
	h.Spec.Online, h.Status.PoweredOn = true, true
	h.Status.Provisioning.State = state
	meta.SetStatusCondition(&h.Status.Conditions, metav1.Condition{Type: host.ConditionDriven, Status: metav1.ConditionTrue, Reason: host.ReasonDriven})
	for _, change := range changes {
		change(h)
	}
	status := h.Status.DeepCopy()
	require.NoError(r.t, r.api.Create(r.t.Context(), h))
	h.Status = *status
	h.Status.OperationalStatus = metal3.OperationalStatusOK
	require.NoError(r.t, r.api.Status().Update(r.t.Context(), h))
}

func (r *rack) get(name string) *metal3.BareMetalHost {
	var h metal3.BareMetalHost
	require.NoError(r.t, r.api.Get(r.t.Context(), client.ObjectKey{Namespace: "machines", Name: name}, &h))
	return &h
}

// operate plays the operator for a host until the returned function is called: step
// is called with the host as it is, again and again, and says what it becomes.
func (r *rack) operate(name string, step func(ctx context.Context, h *metal3.BareMetalHost)) (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var h metal3.BareMetalHost
			if r.api.Get(ctx, client.ObjectKey{Namespace: "machines", Name: name}, &h) == nil {
				before := h.DeepCopy()
				step(ctx, &h)
				after := h.Status.DeepCopy()
				_ = r.api.Patch(ctx, &h, client.MergeFrom(before))
				h.Status = *after
				_ = r.api.Status().Patch(ctx, &h, client.MergeFrom(before))
			}
			select {
			case <-ctx.Done():
			case <-time.After(700 * time.Millisecond):
			}
		}
	}()
	return func() { cancel(); <-done }
}

func booting(policy string) func(*metal3.BareMetalHost) {
	return func(h *metal3.BareMetalHost) {
		h.Spec.Image = &metal3.Image{URL: "oci://registry.example/os:1"}
		h.Annotations[v1alpha1.HostBootPolicyAnnotation] = policy
	}
}

func TestTheVerbsOfHost(t *testing.T) {
	require.Equal(t, host.ConditionDriven, conditionDriven)
	r := newRack(t, func(r *rack) {
		code, _, errs := r.host("inspect", "m1")
		require.Equal(t, exitFailure, code)
		require.Contains(t, errs, "this cluster has no BareMetalHosts (metal3.io/v1alpha1); the operator's chart installs their CRD")
	})
	for name, test := range map[string]func(*rack){
		"a host that is not there": testNoSuchHost, "a host that nobody drives": testRefusedHosts, "misuse": testHostMisuse,
		"inspect": testInspect, "boot": testBoot, "a boot that fails": testBootFails, "a boot that takes long": testBootTimeout, "power": testPower,
		"enroll": testEnroll,
	} {
		t.Run(name, func(t *testing.T) {
			test(&rack{t: t, api: r.api, path: r.path})
		})
	}
}

func testNoSuchHost(r *rack) {
	code, _, errs := r.host("inspect", "any", "-n", "others")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "namespace others has no BareMetalHost any, nor any other")
	r.add("rack-7-a", metal3.StateAvailable)
	r.add("zebra", metal3.StateAvailable)
	_, _, errs = r.host("power", "rack-7-b", "on")
	require.Contains(r.t, errs, "namespace machines has no BareMetalHost rack-7-b; it has rack-7-a, ")
	_, _, errs = r.host("power", "zebra", "on", "-n", "others")
	require.Contains(r.t, errs, "namespace others has no BareMetalHost zebra; namespace machines has: use -n machines")
}

func testRefusedHosts(r *rack) {
	annotate := func(name string) func(*metal3.BareMetalHost) {
		return func(h *metal3.BareMetalHost) { h.Annotations[name] = "" }
	}
	for name, c := range map[string]struct {
		change func(*metal3.BareMetalHost)
		says   string
	}{
		"paused":   {annotate(metal3.PausedAnnotation), "is paused: nothing is done to it until the annotation baremetalhost.metal3.io/paused is removed"},
		"detached": {annotate(metal3.DetachedAnnotation), "is detached"},
		"elsewhere": {func(h *metal3.BareMetalHost) {
			h.Status.Conditions = []metav1.Condition{{Type: "Driven", Status: "False", Reason: host.ReasonManagedElsewhere, Message: "Keep them apart.", LastTransitionTime: metav1.Now()}}
		}, "does not drive host machines/elsewhere (ManagedByBaremetalOperator): Keep them apart."},
		"no-bmc": {func(h *metal3.BareMetalHost) { h.Spec.BMC = metal3.BMCDetails{} }, "names no BMC"},
	} {
		r.add(name, metal3.StateProvisioned, booting("Always"), c.change)
		for _, verb := range [][]string{{"power", name, "off"}, {"boot", name}, {"inspect", name}} {
			code, _, errs := r.host(verb...)
			require.Equal(r.t, exitFailure, code, errs)
			require.Contains(r.t, errs, c.says)
		}
		h := r.get(name)
		require.True(r.t, h.Spec.Online, "nothing was written")
		require.NotContains(r.t, h.Annotations, v1alpha1.HostRequestBootAnnotation)
	}
	r.add("nobody", metal3.StateAvailable, func(h *metal3.BareMetalHost) { h.Status.Conditions = nil })
	code, _, errs := r.host("power", "nobody", "off", "--wait=false")
	require.Zero(r.t, code, errs)
	require.Contains(r.t, errs, "No operator has said yet that it drives host machines/nobody. One does with --baremetalhost-mode=drive")
}

func testHostMisuse(r *rack) {
	code, _, errs := run(r.t, "host")
	require.Equal(r.t, exitUsage, code)
	require.Contains(r.t, errs, "a verb of host is missing")
	for _, c := range []struct{ args, says string }{
		{"power m1", "accepts 2 arg"},
		{"power m1 up", `"up" is not on, off or cycle`},
		{"power m1 on --hard", "--hard is for off and cycle"},
		{"inspect m1 -o xml", "must be table, json or yaml"},
		{"boot m1 --timeout 0s", "must be positive"},
	} {
		code, _, errs := r.host(strings.Fields(c.args)...)
		require.Equal(r.t, exitUsage, code, errs)
		require.Contains(r.t, errs, c.says)
	}
	code, _, errs = run(r.t, "host", "boot", "m1", "--kubeconfig", filepath.Join(r.t.TempDir(), "none"))
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "bootctl: connecting: ")
}

func testInspect(r *rack) {
	r.add("seen", metal3.StateAvailable)
	code, _, errs := r.host("inspect", "seen", "--show")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "nothing is known of the hardware of host machines/seen yet; the host is available")
	defer r.operate("seen", func(_ context.Context, h *metal3.BareMetalHost) {
		_, asked := h.Annotations[metal3.InspectAnnotationPrefix]
		switch {
		case asked && h.Status.Provisioning.State == metal3.StateAvailable:
			h.Status.Provisioning.State = metal3.StateInspecting
		case asked:
			h.Status.HardwareDetails = &metal3.HardwareDetails{
				SystemVendor: metal3.HardwareSystemVendor{Manufacturer: "Maker", ProductName: "M-1", SerialNumber: "S-1"},
				RAMMebibytes: 2048, CPU: metal3.CPU{Arch: "x86_64", Count: 8},
				NIC:     []metal3.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01", SpeedGbps: 25, PXE: true}},
				Storage: []metal3.Storage{{Name: "disk0", SizeBytes: 960_197_124_096, Type: metal3.NVME}},
			}
			delete(h.Annotations, metal3.InspectAnnotationPrefix)
			h.Status.Provisioning.State = metal3.StateAvailable
		}
	})()
	code, out, errs := r.host("inspect", "seen", "--timeout", "30s")
	require.Zero(r.t, code, errs)
	require.Contains(r.t, errs, "inspecting")
	for _, want := range []string{"Maker M-1", "2048 MiB", "x86_64, 8 threads", "52:54:00:00:00:01", "25 Gbit/s", "960.2 GB"} {
		require.Contains(r.t, out, want)
	}
	code, out, _ = r.host("inspect", "seen", "--show", "-o", "json")
	require.Zero(r.t, code)
	var details metal3.HardwareDetails
	require.NoError(r.t, json.Unmarshal([]byte(out), &details))
	require.Equal(r.t, 2048, details.RAMMebibytes)
	_, out, _ = r.host("inspect", "seen", "--show", "-o", "yaml")
	require.Contains(r.t, out, "ramMebibytes: 2048\n")

	r.add("used", metal3.StateProvisioned)
	code, _, errs = r.host("inspect", "used")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "is provisioned, and only one that is available is inspected")
	require.NotContains(r.t, r.get("used").Annotations, metal3.InspectAnnotationPrefix)
}

// playBoot plays the operator's part of a boot: a step each time it is called.
func (r *rack) playBoot(name string, end v1alpha1.NetworkBootStep) (stop func()) {
	config := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: "machines", Name: name}}
	config.Spec.SystemUUID = "00112233-4455-6677-8899-aabbccddee" + map[bool]string{true: "01", false: "02"}[end == v1alpha1.NetworkBootDelivered]
	require.NoError(r.t, r.api.Create(r.t.Context(), config))
	old := v1alpha1.NetworkBoot{Request: "a.1", Step: v1alpha1.NetworkBootDelivered, Disarmed: true, Since: metav1.NowMicro()}
	config.Status.Boot = &v1alpha1.BootStatus{NetworkBoot: &old}
	require.NoError(r.t, r.api.Status().Update(r.t.Context(), config))
	steps := []v1alpha1.NetworkBootStep{v1alpha1.NetworkBootPowerOff, v1alpha1.NetworkBootArm, v1alpha1.NetworkBootPowerOn, v1alpha1.NetworkBootAwaitFetch, end}
	return r.operate(name, func(ctx context.Context, h *metal3.BareMetalHost) {
		if h.Annotations[v1alpha1.HostRequestBootAnnotation] == "" {
			return
		}
		h.Status.Provisioning.State = metal3.StateProvisioning
		if len(steps) == 0 {
			if end == v1alpha1.NetworkBootDelivered {
				h.Status.Provisioning.State = metal3.StateProvisioned
			}
			return
		}
		before := config.DeepCopy()
		b := &v1alpha1.NetworkBoot{Request: "b.1", Step: steps[0], Since: metav1.NowMicro(), Try: 1, Tactic: "UefiHttp"}
		if b.Step == end {
			b.Disarmed = true
		}
		if end == v1alpha1.NetworkBootFailed {
			b.Message = "no bytes were fetched within 20m"
		}
		config.Status.Boot.NetworkBoot = b
		_ = r.api.Status().Patch(ctx, config, client.MergeFrom(before))
		steps = steps[1:]
	})
}

func testBoot(r *rack) {
	r.add("once", metal3.StateProvisioned, booting("Once"))
	code, _, errs := r.host("boot", "once")
	require.Equal(r.t, exitUsage, code)
	require.Contains(r.t, errs, "installs it again")
	require.Contains(r.t, errs, "--yes")
	require.NotContains(r.t, r.get("once").Annotations, v1alpha1.HostRequestBootAnnotation)

	defer r.playBoot("once", v1alpha1.NetworkBootDelivered)()
	code, out, errs := r.host("boot", "once", "--yes", "--timeout", "1m")
	require.Zero(r.t, code, errs)
	require.Contains(r.t, out, "host machines/once booted from the network")
	last := -1
	for _, step := range []string{"PowerOff: ", "Arm: ", "PowerOn: ", "AwaitFetch: waiting for the machine", "Delivered: the machine has fetched what it boots (UefiHttp)"} {
		at := strings.Index(errs, step)
		require.Greater(r.t, at, last, "%s in %s", step, errs)
		last = at
	}

	r.add("dark", metal3.StateProvisioned, booting("Always"), func(h *metal3.BareMetalHost) { h.Spec.Online = false })
	_, _, errs = r.host("boot", "dark")
	require.Contains(r.t, errs, "boots when it is switched on: bootctl host power dark on -n machines")
	r.add("bare", metal3.StateAvailable)
	_, _, errs = r.host("boot", "bare")
	require.Contains(r.t, errs, "names nothing to boot: set spec.image.url")
}

func testBootFails(r *rack) {
	r.add("fails", metal3.StateProvisioned, booting("Always"))
	defer r.playBoot("fails", v1alpha1.NetworkBootFailed)()
	code, out, errs := r.host("boot", "fails", "--timeout", "1m")
	require.Equal(r.t, exitFailure, code)
	require.Empty(r.t, out)
	require.Contains(r.t, errs, "bootctl: the boot failed: no bytes were fetched within 20m")
}

func testBootTimeout(r *rack) {
	r.add("slow", metal3.StateProvisioned, booting("Always"), func(h *metal3.BareMetalHost) {
		h.Status.Conditions = append(h.Status.Conditions, metav1.Condition{
			Type: metal3.ProgressingCondition, Status: "True", Reason: "Provisioning", Message: "waits for the image", LastTransitionTime: metav1.Now(),
		})
	})
	code, _, errs := r.host("boot", "slow", "--timeout", "1s")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, errs, "it is not done after 1s (--timeout), and what was asked for stays asked for. The host is last seen provisioned: waits for the image")
	require.NotEmpty(r.t, r.get("slow").Annotations[v1alpha1.HostRequestBootAnnotation])
}

func testPower(r *rack) {
	r.add("switched", metal3.StateProvisioned)
	hard := false
	defer r.operate("switched", func(_ context.Context, h *metal3.BareMetalHost) {
		r.mu.Lock()
		defer r.mu.Unlock()
		text, asked := h.Annotations[metal3.RebootAnnotationPrefix]
		hard = hard || strings.Contains(text, "hard")
		if asked && !h.Status.PoweredOn {
			delete(h.Annotations, metal3.RebootAnnotationPrefix)
		}
		h.Status.PoweredOn = h.Spec.Online && !asked
	})()
	code, out, errs := r.host("power", "switched", "off", "--timeout", "30s")
	require.Zero(r.t, code, errs)
	require.Contains(r.t, out, "host machines/switched is off")
	require.False(r.t, r.get("switched").Status.PoweredOn)
	_, _, errs = r.host("power", "switched", "cycle")
	require.Contains(r.t, errs, "nothing to reboot: bootctl host power switched on -n machines")
	code, _, errs = r.host("power", "switched", "on", "--timeout", "30s")
	require.Zero(r.t, code, errs)
	require.False(r.t, hard)
	code, out, errs = r.host("power", "switched", "cycle", "--hard", "--timeout", "30s")
	require.Zero(r.t, code, errs)
	require.Contains(r.t, out, "is on")
	r.mu.Lock()
	require.True(r.t, hard)
	r.mu.Unlock()
	require.NotContains(r.t, r.get("switched").Annotations, metal3.RebootAnnotationPrefix)

	r.add("kept", metal3.StateProvisioned, func(h *metal3.BareMetalHost) { h.Spec.DisablePowerOff = true })
	_, _, errs = r.host("power", "kept", "off")
	require.Contains(r.t, errs, "must not be switched off (spec.disablePowerOff)")
}

// A machine that was off for a moment between two looks is not waited for for ever.
func TestACycleThatNobodySawIsBelieved(t *testing.T) {
	now := time.Unix(0, 0)
	done := cycled(func() time.Time { return now })
	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{metal3.RebootAnnotationPrefix: ""}}}
	h.Status.PoweredOn = true
	look := func() bool {
		over, err := done(t.Context(), h)
		require.NoError(t, err)
		return over
	}
	require.False(t, look(), "it was not begun")
	now = now.Add(time.Hour)
	delete(h.Annotations, metal3.RebootAnnotationPrefix)
	require.False(t, look(), "the status may be older than that")
	now = now.Add(cycleSettles)
	require.True(t, look())
}

func TestTheMostSimilarNameComesFirst(t *testing.T) {
	require.Zero(t, distance("node", "node"))
	require.Equal(t, 1, distance("node-1", "node-2"))
	require.Equal(t, 3, distance("kitten", "sitting"))
	require.Equal(t, 4, distance("", "four"))
}

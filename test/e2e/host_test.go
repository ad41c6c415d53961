package e2e

import (
	"context"
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/test/controlplane"
	"github.com/boot-operator/boot-operator/test/lab"
)

const (
	bmcUser     = "operator"
	bmcPassword = "correct horse"
	// hostTime is for a host's way from one stable state to the next.
	hostTime = 3 * bootTime
)

// bmc is a simulated BMC with a QEMU machine.
type bmc struct {
	*bmcsim.BMC
	machine *lab.Machine
	// address is for spec.bmc.address.
	address string
}

// installMetal3 installs Metal3's CRD.
func (s *site) installMetal3() {
	s.t.Helper()
	crds, err := controlplane.Metal3CRDs()
	require.NoError(s.t, err)
	_, err = envtest.InstallCRDs(s.config, crds)
	require.NoError(s.t, err)
	require.NoError(s.t, metal3.AddToScheme(s.client.Scheme()))
}

// bmcCA is the file with the authority of the site's BMCs.
func (s *site) bmcCA() string { return filepath.Join(s.dir, "bmc-ca.pem") }

// bmc starts a BMC in front of a machine of the site, over HTTPS.
func (s *site) bmc(ca *lab.CA, profile string, options lab.MachineOptions) *bmc {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(s.bmcCA(), ca.PEM, 0o600))
	m := s.network.Machine(s.t, options)
	ctx, cancel := context.WithCancel(context.Background())
	machine, err := bmcsim.NewQEMU(ctx, m.VM.VM)
	require.NoError(s.t, err)
	sim, err := bmcsim.New(bmcsim.Options{
		Profile: profile, Machine: machine, Username: bmcUser, Password: bmcPassword, UUID: m.UUID(),
		Hardware: bmcsim.Hardware{CPU: "Lab", Cores: 2, Threads: 4, MemoryMiB: 2048, BIOSVersion: "1.2.3", NICs: []bmcsim.NIC{{MAC: m.MAC()}}},
	})
	require.NoError(s.t, err)
	l := sim.Listener(s.network.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Handler: sim, TLSConfig: ca.ServerConfig("127.0.0.1"), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.ServeTLS(l, "", "") }()
	s.t.Cleanup(func() { _ = server.Close(); sim.Close(); cancel() })
	return &bmc{BMC: sim, machine: m, address: "redfish://" + l.Addr().String() + sim.SystemPath()}
}

// memoryBMC starts a BMC in front of a machine that is not there, over HTTPS; front,
// if any, is asked before the BMC.
func (s *site) memoryBMC(certificate *tls.Config, front func(http.Handler) http.Handler, options bmcsim.Options) *bmc {
	s.t.Helper()
	options.Username, options.Password = bmcUser, bmcPassword
	sim, err := bmcsim.New(options)
	require.NoError(s.t, err)
	var handler http.Handler = sim
	if front != nil {
		handler = front(sim)
	}
	l := s.network.Listen("tcp", "127.0.0.1:0")
	server := &http.Server{Handler: handler, TLSConfig: certificate, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.ServeTLS(l, "", "") }()
	s.t.Cleanup(func() { _ = server.Close(); sim.Close() })
	return &bmc{BMC: sim, address: "redfish://" + l.Addr().String() + sim.SystemPath()}
}

// drive runs a replica that owns the site's hosts.
func (s *site) drive(registry *siteRegistry, args ...string) *operator {
	return s.start("a", append([]string{
		"--plain-http-registries=" + registry.host, "--baremetalhost-mode=drive", "--bmc-ca-file=" + s.bmcCA(), "--bmc-power-interval=5s",
	}, args...)...)
}

// pinning has BMCs told where machines find the boot server.
func (s *site) pinning() string { return "--bmc-boot-url=" + s.url("") }

// declare creates a host, with the Secret of its BMC.
func (s *site) declare(name string, b *bmc) *metal3.BareMetalHost {
	s.t.Helper()
	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Name: name}}
	h.Spec.BMC = metal3.BMCDetails{Address: b.address, CredentialsName: name + "-bmc"}
	h.Spec.BootMACAddress = b.machine.MAC()
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name + "-bmc"}, StringData: map[string]string{"username": bmcUser, "password": bmcPassword}}, h)
	return h
}

// change changes a host, again where it was changed meanwhile.
func (s *site) change(name string, edit func(*metal3.BareMetalHost)) {
	s.t.Helper()
	h := s.host(name)
	before := h.DeepCopy()
	edit(h)
	require.NoError(s.t, s.client.Patch(context.Background(), h, client.MergeFrom(before)))
}

// boot has a host boot an image, with user data from the Secret of its name.
func (s *site) boot(name, image, format string) {
	s.t.Helper()
	s.change(name, func(h *metal3.BareMetalHost) {
		h.Spec.Online = true
		h.Spec.Image = &metal3.Image{URL: "oci://" + image, DiskFormat: &format}
		h.Spec.UserData = &corev1.SecretReference{Name: name}
	})
}

func (s *site) host(name string) *metal3.BareMetalHost {
	s.t.Helper()
	var h metal3.BareMetalHost
	require.NoError(s.t, s.client.Get(context.Background(), client.ObjectKey{Namespace: s.namespace, Name: name}, &h))
	return &h
}

// becomes waits until a host is in a state.
func (s *site) becomes(name string, state metal3.ProvisioningState) *metal3.BareMetalHost {
	s.t.Helper()
	return s.hostWhere(name, string(state), func(h *metal3.BareMetalHost) bool {
		return h.Status.Provisioning.State == state && h.Status.ErrorMessage == ""
	})
}

// hostWhere waits until a host is as wanted.
func (s *site) hostWhere(name, what string, is func(*metal3.BareMetalHost) bool) *metal3.BareMetalHost {
	s.t.Helper()
	var last *metal3.BareMetalHost
	for deadline := time.Now().Add(hostTime); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if last = s.host(name); is(last) {
			return last
		}
	}
	s.t.Fatalf("host %s did not become %s within %s: %s, %q, on %t, %+v", name, what, hostTime, last.Status.Provisioning.State, last.Status.ErrorMessage, last.Status.PoweredOn, last.Status.Conditions)
	return nil
}

// userDataIgnition is a host's user data as Cluster API's bootstrap providers write
// it.
func (s *site) userDataIgnition(name, content string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"value": ignitionFile(content), "format": "ignition"}}
}

// noConfig says that a host has no config left.
func (s *site) noConfig(name string) {
	s.t.Helper()
	for _, c := range []client.Object{&v1alpha1.HTTPBootConfig{}, &v1alpha1.IPXEBootConfig{}} {
		err := s.client.Get(context.Background(), client.ObjectKey{Namespace: s.namespace, Name: name}, c)
		require.Error(s.t, err, "%T %s is gone", c, name)
	}
}

// switched counts how often a BMC switched its machine on or reset it.
func (b *bmc) switched() int {
	n := 0
	for _, r := range b.Resets() {
		if r.Type == "On" || r.Type == "ForceRestart" || r.Type == "PowerCycle" || r.Type == "ForceOn" {
			n++
		}
	}
	return n
}

// installed is a machine that tries its disk first, as one that was installed.
func installed(t *testing.T, name string) lab.MachineOptions {
	return lab.MachineOptions{Name: name, DiskFirst: true, NextBoot: greeting(t, "amd64", "FROM-ITS-DISK")}
}

// A host's whole life: found out, offered, installed in one boot, run from its
// disk, and handed back.
func TestABareMetalHostIsInstalledInOneBootAndHandedBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.installMetal3()
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": labOS(t, s, "amd64")})
	s.network.DHCP(lab.DHCPOptions{IgnoreClientID: true})
	b := s.bmc(lab.NewCA(t, "bmcs"), "generic", installed(t, "ours"))
	op := s.drive(registry, s.pinning())

	s.declare("m", b)
	h := s.becomes("m", metal3.StateAvailable)
	require.Equal(t, b.machine.MAC(), h.Status.HardwareDetails.NIC[0].MAC)
	require.Equal(t, 2048, h.Status.HardwareDetails.RAMMebibytes)
	require.False(t, h.Status.PoweredOn)

	s.create(s.userDataIgnition("m", "user-data-of-m"))
	s.boot("m", image, "raw")
	s.hostWhere("m", "on", func(h *metal3.BareMetalHost) bool { return h.Status.PoweredOn })
	b.machine.Expect("UKI-BOOTED uuid="+b.machine.UUID(), bootTime)
	b.machine.ExpectLine(`^IGNITION-APPLIED user-data-of-m`, bootTime)
	h = s.becomes("m", metal3.StateProvisioned)
	require.Equal(t, 1, b.switched(), "one boot: %+v", b.Resets())
	require.Equal(t, "Proxy", s.configOf("m").Status.Boot.Proof, "the token in the URL that the BMC was told, over plain HTTP")
	require.True(t, meta.IsStatusConditionTrue(h.Status.Conditions, metal3.ProvisionedCondition))

	// The lab's OS switches off; the host is to be on, and runs from its disk.
	require.Eventually(t, func() bool { return b.switched() == 2 && b.machine.IsOn() }, hostTime, 50*time.Millisecond)
	b.machine.Expect("FROM-ITS-DISK", bootTime)
	s.tellsNoToken(op)

	s.change("m", func(h *metal3.BareMetalHost) { h.Spec.Image, h.Spec.UserData, h.Spec.Online = nil, nil, false })
	h = s.hostWhere("m", "available and off", func(h *metal3.BareMetalHost) bool {
		return h.Status.Provisioning.State == metal3.StateAvailable && !h.Status.PoweredOn
	})
	require.Empty(t, h.Status.Provisioning.Image.URL)
	s.noConfig("m")
	require.False(t, b.machine.IsOn())
	require.Zero(t, b.OpenSessions())
	require.Equal(t, 1, b.MaxInFlight(), "one request at a time")
}

// A BMC without UefiHttp: by Pxe, with the operator's ProxyDHCP and iPXE.
func TestABareMetalHostWhoseBMCKnowsOnlyPXEIsInstalled(t *testing.T) {
	t.Parallel()
	s := installsByPXE(t, func(_ *site, r *siteRegistry) string { return r.publishKernel("os/pxe") })
	s.tactic(&v1alpha1.IPXEBootConfig{})
}

// The same with an image that has a UKI and nothing else: iPXE starts it.
func TestAUKIIsInstalledByPXEWhereTheBMCKnowsNothingElse(t *testing.T) {
	t.Parallel()
	s := installsByPXE(t, func(s *site, r *siteRegistry) string {
		return r.publish("os/lab", "1", map[string][]byte{"amd64": labOS(t, s, "amd64")})
	})
	s.tactic(&v1alpha1.HTTPBootConfig{})
}

// installsByPXE has a host m installed whose BMC knows no UefiHttp.
func installsByPXE(t *testing.T, publish func(*site, *siteRegistry) string) *site {
	t.Helper()
	lab.Require(t, lab.IPXE)
	s := newSite(t)
	s.installMetal3()
	registry := s.registry()
	image := publish(s, registry)
	s.addressesOnly()
	options := installed(t, "ours")
	options.Boot = lab.UEFIPXE
	b := s.bmc(lab.NewCA(t, "bmcs"), "openbmc", options)
	s.drive(registry, "--netboot-interface=br0")

	s.declare("m", b)
	s.becomes("m", metal3.StateAvailable)
	s.create(s.userDataIgnition("m", "over-pxe"))
	s.boot("m", image, "raw")
	s.hostWhere("m", "on", func(h *metal3.BareMetalHost) bool { return h.Status.PoweredOn })
	b.machine.Expect("UKI-BOOTED uuid="+b.machine.UUID(), netbootTime)
	b.machine.ExpectLine(`^IGNITION-APPLIED over-pxe`, bootTime)
	s.becomes("m", metal3.StateProvisioned)
	require.Equal(t, 1, b.switched(), "one boot: %+v", b.Resets())
	return s
}

// tactic holds that the host m was booted by PXE, with a config of this kind.
func (s *site) tactic(c config) {
	s.t.Helper()
	require.NoError(s.t, s.client.Get(context.Background(), client.ObjectKey{Namespace: s.namespace, Name: "m"}, c))
	require.Equal(s.t, "Pxe", c.ConfigStatus().Boot.NetworkBoot.Tactic)
}

// A BMC that boots from the network again and again what it was told once: the
// server does not install a second time.
func TestABareMetalHostWhoseBMCIgnoresOnceIsNotInstalledAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.installMetal3()
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": labOS(t, s, "amd64")})
	s.network.DHCP(lab.DHCPOptions{IgnoreClientID: true})
	b := s.bmc(lab.NewCA(t, "bmcs"), "ignores-once", installed(t, "ours"))
	s.drive(registry, s.pinning())

	s.declare("m", b)
	s.becomes("m", metal3.StateAvailable)
	s.create(s.userDataIgnition("m", "installed-once"))
	s.boot("m", image, "raw")
	s.hostWhere("m", "on", func(h *metal3.BareMetalHost) bool { return h.Status.PoweredOn })
	b.machine.ExpectLine(`^IGNITION-APPLIED installed-once`, 2*bootTime)
	s.becomes("m", metal3.StateProvisioned)

	// Somebody clears nothing and presses buttons: the override is in force again.
	b.IgnoreOnce(true)
	s.change("m", func(h *metal3.BareMetalHost) { h.Annotations[metal3.PausedAnnotation] = "by hand" })
	_ = b.HoldPower()
	require.NoError(t, b.PressPower())
	b.machine.Expect("FROM-ITS-DISK", leaveTime)
	require.NotContains(t, b.machine.Transcript(), "UKI-BOOTED")
	require.Equal(t, int64(1), s.configOf("m").Status.Boot.Served.Attempt)
}

// No way to tell this BMC the URL: the operator's ProxyDHCP knows the machine, and
// without that nothing is switched off.
func TestABareMetalHostThatNothingNamesIsNotSwitchedOff(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.installMetal3()
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": labOS(t, s, "amd64")})
	s.addressesOnly()
	b := s.bmc(lab.NewCA(t, "bmcs"), "idrac9", installed(t, "ours"))
	op := s.drive(registry)

	s.declare("m", b)
	s.becomes("m", metal3.StateAvailable)
	require.NoError(t, b.PressPower()) // it runs something
	s.create(s.userDataIgnition("m", "by-proxydhcp"))
	s.boot("m", image, "raw")
	h := s.hostWhere("m", "refused", func(h *metal3.BareMetalHost) bool {
		return h.Status.Provisioning.State == metal3.StateProvisioning && h.Status.ErrorMessage != ""
	})
	ready := meta.FindStatusCondition(h.Status.Conditions, metal3.ReadyCondition)
	require.Equal(t, "IdentityNotObservable", ready.Reason, ready.Message)
	require.True(t, b.machine.IsOn(), "nothing was switched off")
	op.kill()

	s.drive(registry, "--netboot-interface=br0")
	require.Eventually(t, func() bool { return b.switched() == 2 && b.machine.IsOn() }, hostTime, 50*time.Millisecond)
	b.machine.ExpectLine(`^IGNITION-APPLIED by-proxydhcp`, hostTime)
	s.becomes("m", metal3.StateProvisioned)
	require.Equal(t, "Proxy", s.configOf("m").Status.Boot.Proof)
}

// A diskless machine comes back after a reboot from inside, and after the power
// cycle that remediation asks for.
func TestADisklessBareMetalHostComesBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.installMetal3()
	registry := s.registry()
	image := registry.publish("os/lab", "1", map[string][]byte{"amd64": lab.OS(t, "amd64", "ignition.config.url="+s.url("/ignition")+" lab.shell")})
	s.addressesOnly()
	b := s.bmc(lab.NewCA(t, "bmcs"), "generic", lab.MachineOptions{Name: "ours"})
	s.drive(registry, s.pinning(), "--netboot-interface=br0")

	s.declare("m", b)
	s.becomes("m", metal3.StateAvailable)
	s.create(s.userDataIgnition("m", "diskless"))
	s.boot("m", image, "live-iso")
	s.hostWhere("m", "on", func(h *metal3.BareMetalHost) bool { return h.Status.PoweredOn })
	b.machine.ExpectLine(`^IGNITION-APPLIED diskless`, 2*bootTime)
	b.machine.Expect("SHELL-READY", bootTime)
	h := s.becomes("m", metal3.StateProvisioned)
	require.True(t, meta.IsStatusConditionTrue(h.Status.Conditions, "ReturnsAfterReboot"), "%+v", h.Status.Conditions)

	b.machine.Send("reboot -f\r")
	b.machine.ExpectLine(`^IGNITION-APPLIED diskless`, 2*bootTime)
	b.machine.Expect("SHELL-READY", bootTime)
	require.Equal(t, 1, b.switched(), "the BMC had no part in it: %+v", b.Resets())

	// As Cluster API's remediation does: held off, then let go.
	const hold = metal3.RebootAnnotationPrefix + "/remediation"
	s.change("m", func(h *metal3.BareMetalHost) { h.Annotations[hold] = `{"mode":"hard"}` })
	s.hostWhere("m", "off", func(h *metal3.BareMetalHost) bool { return !h.Status.PoweredOn })
	s.change("m", func(h *metal3.BareMetalHost) { delete(h.Annotations, hold) })
	s.hostWhere("m", "on", func(h *metal3.BareMetalHost) bool { return h.Status.PoweredOn })
	b.machine.ExpectLine(`^IGNITION-APPLIED diskless`, 2*bootTime)
	require.Equal(t, metal3.StateProvisioned, s.host("m").Status.Provisioning.State)
}

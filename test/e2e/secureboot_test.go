package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/lab"
)

// buildUKI has bootctl build a UKI of the lab's OS, and returns its file.
func (s *site) buildUKI(arch, name, cmdline string) string {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	console := map[string]string{"amd64": "ttyS0", "arm64": "ttyAMA0"}[arch]
	s.bootctl("uki", "build", "--stub", lab.OSFile(s.t, arch, "stub"), "--linux", lab.OSFile(s.t, arch, "linux"), "--initrd", lab.OSFile(s.t, arch, "initrd"),
		"--cmdline", "console="+console+" quiet panic=-1 "+cmdline, "--output", file)
	return file
}

// signUKI has bootctl sign one.
func (s *site) signUKI(file string, k *lab.SigningKey) string {
	s.t.Helper()
	signed, passphrase := strings.TrimSuffix(file, ".efi")+".signed.efi", filepath.Join(s.dir, "passphrase")
	args := []string{"uki", "sign", file, "--key", k.KeyFile, "--cert", k.CertificateFile, "--output", signed}
	if k.Passphrase != "" {
		require.NoError(s.t, os.WriteFile(passphrase, []byte(k.Passphrase+"\n"), 0o600))
		args = append(args, "--passphrase-file", passphrase)
	}
	s.bootctl(args...)
	return signed
}

// push has bootctl publish an image of files, and returns its reference.
func (s *site) push(registry *siteRegistry, name string, files ...string) string {
	s.t.Helper()
	reference := registry.host + "/os/" + name + ":1"
	s.bootctl(append([]string{"image", "push", reference, "--plain-http", "--quiet"}, files...)...)
	return reference
}

// ignitionOf is the command line of an OS that fetches its Ignition by its address.
func (s *site) ignitionOf() string {
	return "ignition.platform.id=metal ignition.firstboot ignition.config.url=" + s.url("/ignition")
}

// The pipeline's commands publish, the operator checks before anyone is switched on,
// and the firmware has the last word.
func TestWithSecureBootNothingUnsignedIsSwitchedOnFor(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.SecureBoot)
	key := lab.Snakeoil(t)
	s := newSite(t)
	s.installMetal3()
	registry := s.registry()
	unsigned := s.buildUKI("amd64", "os.efi", s.ignitionOf())
	image := s.push(registry, "unsigned", "--uki", unsigned)
	signed := s.push(registry, "signed", "--uki", s.signUKI(unsigned, key))
	db := filepath.Join(s.dir, "db.pem")
	require.NoError(t, os.WriteFile(db, key.Certificate, 0o600))
	options := installed(t, "ours")
	options.NextBoot, options.SecureBoot = key.Sign(t, options.NextBoot), key.Firmware()
	b := s.bmc(lab.NewCA(t, "bmcs"), "generic", options)
	forced := s.network.Machine(t, lab.MachineOptions{Name: "forced", UUID: otherUUID, SecureBoot: key.Firmware()})
	address := s.network.Addr(50)
	s.network.DHCP(lab.DHCPOptions{BootURL: s.url("/httpboot"), IgnoreClientID: true, Reservations: map[string]netip.Addr{forced.MAC(): address}})
	s.drive(registry, s.pinning(), "--secure-boot-db-file="+db)

	s.declare("m", b)
	s.becomes("m", metal3.StateAvailable)
	s.change("m", func(h *metal3.BareMetalHost) { h.Spec.BootMode = metal3.UEFISecureBoot })
	s.create(s.userDataIgnition("m", "signed-and-sealed"))
	s.boot("m", image, "raw")
	s.hostWhere("m", "told why", func(h *metal3.BareMetalHost) bool {
		return strings.Contains(h.Status.ErrorMessage, "not signed") || conditionSays(h, "not signed")
	})
	failed := s.reason("m", v1alpha1.ConditionArtifactsReady, v1alpha1.ReasonVerificationFailed)
	require.Contains(t, failed.Message, "not signed")
	require.Zero(t, b.switched(), "nothing is switched on")
	require.False(t, b.machine.IsOn())

	s.boot("m", signed, "raw")
	s.hostWhere("m", "on", func(h *metal3.BareMetalHost) bool { return h.Status.PoweredOn })
	b.machine.Expect("UKI-BOOTED uuid="+b.machine.UUID(), 2*bootTime)
	b.machine.ExpectLine(`^SECURE-BOOT enabled`, bootTime)
	b.machine.ExpectLine(`^IGNITION-APPLIED signed-and-sealed`, bootTime)
	s.becomes("m", metal3.StateProvisioned)
	require.Contains(t, s.configOf("m").Status.Verification.UKI.Signer, "SnakeOil", "the status says who signed")

	// Somebody forces the unsigned one past the operator: the firmware refuses it.
	config := machineConfig("forced", image, address.String())
	config.Spec.SystemUUID = otherUUID
	s.create(s.ignition("forced", ignitionFile("never")), config)
	s.condition("forced", v1alpha1.ConditionReady)
	forced.PowerOn()
	forced.Expect(lab.AccessDenied, bootTime)
	s.condition("forced", v1alpha1.ConditionUKIFetched)
	require.NotContains(t, forced.Transcript(), "UKI-BOOTED")
}

// conditionSays looks for a text in the conditions of a host.
func conditionSays(h *metal3.BareMetalHost, text string) bool {
	for _, c := range h.Status.Conditions {
		if c.Status == metav1.ConditionFalse && strings.Contains(c.Message, text) {
			return true
		}
	}
	return false
}

// reason waits until a config's condition has a reason.
func (s *site) reason(name, condition, reason string) metav1.Condition {
	s.t.Helper()
	var last *metav1.Condition
	for deadline := time.Now().Add(bootTime); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if last = meta.FindStatusCondition(s.configOf(name).Status.Conditions, condition); last != nil && last.Reason == reason {
			return *last
		}
	}
	s.t.Fatalf("%s of %s has not the reason %s: %+v", condition, name, reason, last)
	return metav1.Condition{}
}

// One image for a fleet: each machine's own command line and token, signed, and
// another one at its next boot.
func TestAComposedUKIBootsSignedWithTheMachinesOwnCommandLine(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.SecureBoot)
	key := lab.NewSigningKey(t, "the rack's")
	s := newSite(t)
	registry := s.registry()
	image := s.push(registry, "parts", "--stub", lab.OSFile(t, "amd64", "stub"), "--kernel", lab.OSFile(t, "amd64", "linux"), "--initrd", lab.OSFile(t, "amd64", "initrd"))
	machine := s.network.Addr(50)
	m := s.network.Machine(t, lab.MachineOptions{Name: "ours", UUID: uuid, SecureBoot: key.Firmware()})
	s.network.DHCP(lab.DHCPOptions{BootURL: s.url("/httpboot"), IgnoreClientID: true, Reservations: map[string]netip.Addr{m.MAC(): machine}})
	op := s.start("a", "--plain-http-registries="+registry.host, "--ipxe-service-url="+s.url(""))

	private, err := os.ReadFile(key.KeyFile)
	require.NoError(t, err)
	config := machineConfig("m", image, machine.String())
	config.Spec.SecureBoot = true
	config.Spec.KernelArguments = []string{"console=ttyS0", "quiet", "panic=-1", "machine=number-seven"}
	config.Spec.Compose = &v1alpha1.Compose{SigningSecretRef: &corev1.LocalObjectReference{Name: "signing"}}
	config.Spec.Verification = &v1alpha1.Verification{UKI: &v1alpha1.UKIVerification{CertificatesSecretRef: &corev1.LocalObjectReference{Name: "db"}, Expired: v1alpha1.ExpiredAllow}}
	s.create(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "signing"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{corev1.TLSPrivateKeyKey: private, corev1.TLSCertKey: key.Certificate}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Data: map[string][]byte{"db": key.Certificate}},
		s.ignition("m", ignitionFile("by-its-own-token")), config)
	s.condition("m", v1alpha1.ConditionReady)
	var booted []v1alpha1.ComposedUKI
	for range 2 {
		made := s.composedAfter("m", booted)
		m.PowerOn()
		m.ExpectLine(`^UKI-BOOTED uuid=`+uuid+` cmdline=console=ttyS0 quiet panic=-1 machine=number-seven$`, bootTime)
		m.ExpectLine(`^SECURE-BOOT enabled`, bootTime)
		m.ExpectLine(`^IGNITION-APPLIED by-its-own-token`, bootTime)
		m.WaitOff(bootTime)
		stage := s.configOf("m").Status.Boot.Stages
		require.Contains(t, digests(stage), made.Digest, "what was delivered is what was signed")
		booted = append(booted, made)
	}
	require.NotEqual(t, booted[0].Digest, booted[1].Digest, "each boot has a token of its own")

	// It is private: nobody gets it by its digest, nor from another address.
	stranger := s.network.Addr(60)
	s.network.AddAddress(stranger)
	require.Equal(t, 404, s.get(stranger, s.url("/images/"+booted[1].Digest+"/uki.efi")).code)
	require.Equal(t, 404, s.get(stranger, s.url("/httpboot")).code)
	s.tellsNoToken(op)
}

// composedAfter waits for a UKI that is none of those that were booted.
func (s *site) composedAfter(name string, booted []v1alpha1.ComposedUKI) v1alpha1.ComposedUKI {
	s.t.Helper()
	for deadline := time.Now().Add(bootTime); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		made := s.configOf(name).Status.Composed
		if made != nil && (len(booted) == 0 || made.Attempt > booted[len(booted)-1].Attempt) {
			return *made
		}
	}
	s.t.Fatalf("no UKI was composed for %s after %d boots: %+v", name, len(booted), s.configOf(name).Status.Composed)
	return v1alpha1.ComposedUKI{}
}

func digests(stages []v1alpha1.BootStage) []string {
	var all []string
	for _, st := range stages {
		all = append(all, st.Digest)
	}
	return all
}

func TestAUKIThatBootctlBuildsBootsOnARM64(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.ARM64)
	s := newSite(t)
	registry := s.registry()
	image := s.push(registry, "arm64", "--uki", s.buildUKI("arm64", "arm64.efi", s.ignitionOf()))
	m := s.network.Machine(t, lab.MachineOptions{Arch: "arm64", UUID: uuid})
	machine := s.network.Addr(50)
	s.network.DHCP(lab.DHCPOptions{BootURL: s.url("/httpboot"), Reservations: map[string]netip.Addr{m.MAC(): machine}, IgnoreClientID: true})
	s.start("a", "--plain-http-registries="+registry.host)
	config := machineConfig("m", image, machine.String())
	config.Spec.Architecture = v1alpha1.ArchitectureARM64
	s.create(s.ignition("m", ignitionFile("built-by-bootctl")), config)
	s.condition("m", v1alpha1.ConditionReady)
	m.PowerOn()
	m.Expect("UKI-BOOTED", 2*bootTime)
	m.ExpectLine(`^IGNITION-APPLIED built-by-bootctl`, 2*bootTime)
}

package host

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func withSecureBoot(h *metal3.BareMetalHost) { h.Spec.BootMode = metal3.UEFISecureBoot }

func TestAHostWithSecureBootHasItSwitchedOnAndConfigsThatSaySo(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, withAddress, boots(bothImage), withSecureBoot)
	f.is(h, metal3.StateProvisioned)
	all := f.children(h)
	require.Len(t, all, 1, "nothing says that iPXE would start")
	require.True(t, all[0].Common().SecureBoot)
	require.Equal(t, "UefiHttp", f.record(h).Tactic)
	require.True(t, m.bmc.SecureBoot(), "the boot ran with it")

	m = f.newMachine("n2", bmcOptions{})
	h = f.host("n2", m, withAddress, boots(bothImage))
	f.is(h, metal3.StateProvisioned)
	for _, c := range f.children(h) {
		require.False(t, c.Common().SecureBoot)
	}
	require.False(t, m.bmc.SecureBoot(), "whoever does not ask for it does not get it")
}

// What firmware would refuse to start is told before the machine is switched off.
func TestUnsignedIPXEIsRefusedForAHostWithSecureBootBeforePowerOff(t *testing.T) {
	f := newFixture(t)
	var signed atomic.Bool
	f.run(func(o *Options) {
		o.SignedIPXE = func(arch boot.Architecture) error {
			if signed.Load() && arch == boot.AMD64 {
				return nil
			}
			return errors.New("ipxe.efi is signed by nobody")
		}
	})
	hosts := map[string]*metal3.BareMetalHost{}
	for name, c := range map[string]struct{ image, profile, says string }{
		"kernel": {pxeImage, "generic", "the image has a kernel and an initrd, which iPXE boots, and spec.bootMode is UEFISecureBoot: ipxe.efi is signed by nobody"},
		"nohttp": {ukiImage, "openbmc", "the only way to boot is by PXE and iPXE, and spec.bootMode is UEFISecureBoot: ipxe.efi is signed by nobody"},
	} {
		m := f.newMachine(name, bmcOptions{profile: c.profile})
		require.NoError(t, m.bmc.PressPower())
		hosts[name] = f.host(name, m, withAddress, boots(c.image), withSecureBoot)
		message := f.fails(hosts[name], metal3.ProvisioningError, v1alpha1.ReasonSecureBootUnsupported)
		require.Contains(t, message, c.says)
		require.Contains(t, message, "nothing was switched off")
		require.Equal(t, []string{"On"}, m.executed())
		require.Empty(t, m.sent(http.MethodPatch, ""))
		f.quiet(hosts[name])
	}
	signed.Store(true)
	for name, h := range hosts {
		f.change(h, annotated("look", "again"))
		f.is(h, metal3.StateProvisioned)
		require.Equal(t, "Pxe", f.record(h).Tactic, name)
		require.True(t, f.children(h)[0].Common().SecureBoot)
		require.True(t, f.machine(name).bmc.SecureBoot())
	}
}

// A host that can boot over HTTP does not fall back to what its firmware refuses.
func TestAHostWithSecureBootIsNotArmedForUnsignedIPXE(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.FetchTimeout = 3 * o.PollInterval })
	m := f.newMachine("n1", bmcOptions{})
	m.knob(func() { m.deaf = map[bmcsim.Kind]int{bmcsim.KindHTTP: 100, bmcsim.KindPXE: 100} })
	h := f.host("n1", m, withAddress, boots(ukiImage), withSecureBoot)
	f.fails(h, metal3.ProvisioningError, ReasonBootFailed)
	starts, _ := m.starts()
	require.Len(t, starts, maxDry)
	for _, next := range starts {
		require.Equal(t, bmcsim.KindHTTP, next.Kind)
	}
}

func TestAHostWhoseImageIsNotSignedIsNeitherArmedNorSwitchedOn(t *testing.T) {
	f := newFixture(t)
	const says = "uki: not signed by any certificate of db; it is signed by CN=somebody"
	fails := func(name string, really bool) {
		f.site.set(func() {
			f.site.unready[name], f.site.reason[name] = map[bool]string{true: says}[really], v1alpha1.ReasonVerificationFailed
		})
		f.site.again(name)
	}
	fails("n1", true)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, withAddress, boots(ukiImage), withSecureBoot)
	require.Contains(t, f.fails(h, metal3.ProvisioningError, v1alpha1.ReasonVerificationFailed), "HTTPBootConfig n1: "+says)
	f.quiet(h)
	f.untouched(m)
	fails("n1", false)
	f.is(h, metal3.StateProvisioned)

	// One that turns out to be wrong in the middle of a boot is not switched on.
	m = f.newMachine("n2", bmcOptions{})
	remove := m.bmc.Inject(bmcsim.Fault{Method: http.MethodPost, Path: "/Actions/ComputerSystem.Reset", Answer: &bmcsim.Answer{Status: http.StatusServiceUnavailable}})
	h = f.host("n2", m, withAddress, boots(ukiImage))
	f.until(h, "it is about to be switched on", func() bool {
		record := f.record(h)
		return record != nil && record.Step == v1alpha1.NetworkBootPowerOn && len(m.sent(http.MethodPost, "ComputerSystem.Reset")) > 0
	})
	fails("n2", true)
	f.until(h, "it goes back", func() bool { return f.record(h).Step == v1alpha1.NetworkBootArm })
	remove()
	require.Contains(t, f.fails(h, metal3.ProvisioningError, v1alpha1.ReasonVerificationFailed), says)
	f.quiet(h)
	require.Empty(t, m.executed())
	fails("n2", false)
	f.is(h, metal3.StateProvisioned)
	require.Equal(t, []string{"On"}, m.executed())
}

func TestTheKernelArgumentsOfAHostAreThoseOfItsConfigs(t *testing.T) {
	f := newFixture(t)
	f.run()
	arguments := func(h *metal3.BareMetalHost) (all [][]string) {
		for _, c := range f.children(h) {
			switch c := c.(type) {
			case *v1alpha1.HTTPBootConfig:
				all = append(all, c.Spec.KernelArguments)
			case *v1alpha1.IPXEBootConfig:
				all = append(all, c.Spec.KernelArguments)
			}
		}
		return all
	}
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, withAddress, boots(bothImage), diskless, annotated(v1alpha1.HostKernelArgumentsAnnotation, "console=ttyS0 quiet"))
	f.is(h, metal3.StateProvisioned)
	both := []string{"console=ttyS0", "quiet"}
	require.Equal(t, [][]string{both, both}, arguments(h))

	f.change(h, annotated(v1alpha1.HostKernelArgumentsAnnotation, "a=\nb"))
	require.Contains(t, f.fails(h, metal3.ProvisioningError, ReasonInvalidSpec), "annotation boot.ironcore.dev/kernel-arguments has the character")
	require.Equal(t, [][]string{both, both}, arguments(h))
	f.change(h, func(h *metal3.BareMetalHost) { delete(h.Annotations, v1alpha1.HostKernelArgumentsAnnotation) })
	f.until(h, "they go", func() bool { return h.Status.ErrorMessage == "" && len(arguments(h)[0])+len(arguments(h)[1]) == 0 })

	c := f.children(h)[1].(*v1alpha1.IPXEBootConfig)
	c.Spec.KernelArguments = []string{"theirs"}
	require.NoError(t, f.client.Update(t.Context(), c))
	f.change(h, annotated("look", "again"))
	f.quiet(h)
	require.Equal(t, [][]string{nil, {"theirs"}}, arguments(h), "what somebody gave the config stays")
}

func TestABMCWithoutSecureBootSaysSoBeforePowerOff(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	require.NoError(t, m.bmc.PressPower())
	remove := m.bmc.Inject(bmcsim.Fault{Method: http.MethodGet, Path: "/SecureBoot", Answer: &bmcsim.Answer{Status: http.StatusNotFound}})
	h := f.host("n1", m, withAddress, boots(ukiImage), withSecureBoot)
	message := f.fails(h, metal3.ProvisioningError, ReasonNoSecureBoot)
	require.Contains(t, message, "nothing was switched off")
	f.quiet(h)
	require.Equal(t, []string{"On"}, m.executed())
	remove()
	f.change(h, annotated("look", "again"))
	f.is(h, metal3.StateProvisioned)
}

package host

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// refusals are the requests of a BMC that it answered with 401.
func (m *machine) refusals() int {
	n := 0
	for _, r := range m.bmc.Log() {
		if r.Status == http.StatusUnauthorized {
			n++
		}
	}
	return n
}

func TestWrongCredentialsAreTriedOnceUntilTheirSecretChanges(t *testing.T) {
	f := newFixture(t)
	stop := f.run()
	m := f.newMachine("n1", bmcOptions{})
	m.bmc.SetPassword("another")
	h := f.host("n1", m)
	message := f.fails(h, metal3.RegistrationError, ReasonCredentialsRefused)
	require.Contains(t, message, "not tried again until Secret n1-bmc changes")
	require.NotContains(t, message, password)
	tried := m.refusals()
	require.Equal(t, 1, tried)
	f.quiet(h)
	require.Equal(t, 1, h.Status.ErrorCount, "nothing was tried again, and nothing is written")
	stop()
	stop = f.run(func(o *Options) { o.BMCs = redfish.New(redfish.Options{}) }) // that know of nothing
	f.quiet(h)
	require.Equal(t, tried, m.refusals(), "a new operator does not try them again")
	f.shows(h, metal3.ManageableCondition, isFalse, ReasonCredentialsRefused)
	f.told("n1", ReasonCredentialsRefused)
	require.Equal(t, 1, f.events("n1")[ReasonCredentialsRefused])

	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "n1-bmc"}}
	f.reread(s)
	s.Data["password"] = []byte("another")
	require.NoError(t, f.client.Update(t.Context(), s))
	f.is(h, metal3.StateAvailable)
	require.Equal(t, tried, m.refusals())
	stop()
}

func TestCredentialsThatAreMissingAreWaitedFor(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m, func(h *metal3.BareMetalHost) { h.Spec.BMC.CredentialsName = "later" })
	require.Contains(t, f.fails(h, metal3.RegistrationError, ReasonNoCredentials), "there is no Secret "+f.ns+"/later")
	f.quiet(h)
	f.secret("later", map[string]string{"username": username, "password": password})
	f.is(h, metal3.StateAvailable)

	other := f.host("n2", f.newMachine("n2", bmcOptions{}), func(h *metal3.BareMetalHost) { h.Spec.BMC.Address = "ipmi://10.0.0.1" })
	require.Contains(t, f.fails(other, metal3.RegistrationError, ReasonInvalidAddress), "spec.bmc.address")
	f.quiet(other)
	bare := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "bare"}}
	f.create(bare)
	f.is(bare, metal3.StateUnmanaged)
	f.shows(bare, metal3.ManageableCondition, isFalse, metal3.NotManagedReason)
	require.Equal(t, metal3.OperationalStatusDiscovered, bare.Status.OperationalStatus)
}

func TestABMCWhoseCertificateIsNotTrustedIsNotSpokenTo(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{tls: true})
	h := f.host("n1", m)
	require.Contains(t, f.fails(h, metal3.RegistrationError, ReasonCertificateNotTrusted), "disableCertificateVerification")
	require.Empty(t, m.bmc.Log(), "no credentials were sent")
	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.BMC.DisableCertificateVerification = true })
	f.is(h, metal3.StateAvailable)
}

func TestWhatIsNoUsableBMCIsSaidSo(t *testing.T) {
	var visited atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visited.Store(true) }))
	defer elsewhere.Close()
	for name, c := range map[string]struct {
		fault  bmcsim.Fault
		reason string
	}{
		"html":     {bmcsim.HTML(), ReasonBMCUnusable},
		"redirect": {bmcsim.Redirect(elsewhere.URL), ReasonBMCUnusable},
		"hostile":  {bmcsim.HostileID(elsewhere.URL + "/redfish/v1/Systems/1"), ReasonBMCUnusable},
		"huge":     {bmcsim.Huge(50 << 20), ReasonBMCUnusable},
		"busy":     {bmcsim.Busy(0, time.Hour), ReasonBMCRefused},
		"hang":     {bmcsim.Fault{Hang: true}, ReasonBMCUnreachable},
		"reset":    {bmcsim.Fault{Reset: true}, ReasonBMCUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			m := f.newMachine(name, bmcOptions{})
			remove := m.bmc.Inject(c.fault)
			limits := redfish.Limits{PerSecond: 5000, BreakFor: 100 * time.Millisecond}
			if name == "hang" {
				limits.Timeout = 200 * time.Millisecond
			}
			clients := redfish.New(redfish.Options{Limits: limits})
			f.run(func(o *Options) { o.BMCs = clients })
			h := f.host(name, m, func(h *metal3.BareMetalHost) {
				if name == "hostile" {
					h.Spec.BMC.Address = "redfish+" + m.server.URL
				}
			})
			f.fails(h, metal3.RegistrationError, c.reason)
			count := len(m.bmc.Log())
			f.until(h, "it waits longer and longer", func() bool { return h.Status.ErrorCount > 2 || name == "busy" })
			if name == "busy" {
				f.quiet(h)
				require.Len(t, m.bmc.Log(), count, "what the BMC asked for is honoured")
				require.Equal(t, 1, h.Status.ErrorCount)
				return
			}
			require.Less(t, len(m.bmc.Log()), 60)
			remove()
			f.is(h, metal3.StateAvailable)
			require.False(t, visited.Load(), "nothing left for another host")
		})
	}
}

func TestSeveralSystemsBehindOneBMCNeedAPath(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{profile: "hgx"})
	h := f.host("n1", m, func(h *metal3.BareMetalHost) { h.Spec.BMC.Address = "redfish+" + m.server.URL })
	require.Contains(t, f.fails(h, metal3.RegistrationError, ReasonBMCUnusable), "several systems")
	f.untouched(m)
	f.change(h, func(h *metal3.BareMetalHost) { h.Spec.BMC.Address = m.address() })
	f.is(h, metal3.StateAvailable)
}

func TestAnotherMachineBehindTheBMCIsLeftAlone(t *testing.T) {
	f := newFixture(t)
	f.run()
	m := f.newMachine("n1", bmcOptions{})
	h := f.host("n1", m)
	f.is(h, metal3.StateAvailable)
	m.bmc.SetUUID("ffeeddcc-bbaa-9988-7766-554433221100")
	require.Contains(t, f.fails(h, metal3.RegistrationError, ReasonAnotherMachine), "nothing is done to it")
	f.change(h, withAddress, boots(ukiImage))
	f.quiet(h)
	f.untouched(m)
	f.change(h, func(h *metal3.BareMetalHost) { delete(h.Annotations, v1alpha1.HostSystemUUIDAnnotation) })
	f.is(h, metal3.StateProvisioned)
}

// What goes wrong while a machine is being armed and switched on passes by itself.
func TestTroubleInTheMiddleOfABootStartsNoSecond(t *testing.T) {
	for name, trouble := range map[string]func(*machine){
		"in POST while arming":  func(m *machine) { m.bmc.InPOST(time.Second) },
		"the reply is lost":     func(m *machine) { m.bmc.Inject(bmcsim.LostReset(1)) },
		"NC-SI":                 func(m *machine) { m.bmc.SharePort(time.Second) },
		"slow power off":        func(m *machine) { m.bmc.SlowPowerOff(time.Second) },
		"the BMC reboots":       func(m *machine) { m.bmc.GoAway(time.Second) },
		"busy for a while":      func(m *machine) { m.bmc.Inject(bmcsim.Busy(time.Second, 0)) },
		"denies what it did":    func(m *machine) { m.bmc.DenyAfterChange(1) },
		"the connection breaks": func(m *machine) { m.bmc.Inject(bmcsim.Fault{Method: "POST", Reset: true, Times: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.run(func(o *Options) {
				o.PowerOffTimeout, o.FetchTimeout = 10*time.Second, 20*time.Second
				o.BMCs = redfish.New(redfish.Options{Limits: redfish.Limits{PerSecond: 5000, BreakFor: 50 * time.Millisecond}, Sleep: nil})
			})
			m := f.newMachine("n1", bmcOptions{})
			require.NoError(t, m.bmc.PressPower())
			h := f.host("n1", m, withAddress)
			f.is(h, metal3.StateAvailable)
			require.NoError(t, m.bmc.PressPower())
			trouble(m)
			f.change(h, boots(ukiImage))
			f.until(h, "it is provisioned", func() bool { return h.Status.Provisioning.State == metal3.StateProvisioned })
			require.Equal(t, 1, m.powerOns(), "%v", m.executed())
			served, _ := f.site.count("n1")
			require.Equal(t, 1, served)
		})
	}
}

func TestADellIsPinnedByItsBIOSAndClearedAfterwards(t *testing.T) {
	f := newFixture(t)
	f.site.unidentified = true
	f.run()
	for _, profile := range []string{"idrac9", "ilo6"} {
		m := f.newMachine(profile, bmcOptions{profile: profile})
		h := f.host(profile, m, boots(ukiImage))
		f.is(h, metal3.StateProvisioned)
		started, _ := m.starts()
		require.Contains(t, started[len(started)-1].URL, "http://boot.example.com/httpboot/t/", "%v", join(started))
		require.Empty(t, f.record(h).PinnedBy)
		require.True(t, f.record(h).Disarmed)
		m.bmc.HoldPower()
		require.Empty(t, nextOf(m).URL)
	}
}

package redfish_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// refusing is the fault of a BMC that refuses the next so many requests of a method
// (0: all), with a status and one message.
func refusing(method string, times, status int, id, message, retryAfter string, about ...string) bmcsim.Fault {
	header := http.Header{"Content-Type": {"application/json"}}
	if retryAfter != "" {
		header.Set("Retry-After", retryAfter)
	}
	args := ""
	if len(about) > 0 {
		args = `"` + strings.Join(about, `","`) + `"`
	}
	body := `{"error":{"code":"` + id + `","message":"` + message + `","@Message.ExtendedInfo":[{"MessageId":"` + id + `","Message":"` + message + `","MessageArgs":[` + args + `]}]}}`
	return bmcsim.Fault{Method: method, Times: times, Answer: &bmcsim.Answer{Status: status, Header: header, Body: body}}
}

// replacing is a BMC whose answers say other words than the profile's.
func replacing(pairs ...string) func(http.Handler) http.Handler {
	words := strings.NewReplacer(pairs...)
	return rewriting(func(_ http.Header, body string) string { return words.Replace(body) })
}

// untagged is a BMC that tells no ETags.
func untagged(inner http.Handler) http.Handler {
	return rewriting(func(h http.Header, body string) string {
		h.Del("ETag")
		return strings.ReplaceAll(body, "@odata.etag", "@odata.none")
	})(inner)
}

func rewriting(change func(h http.Header, body string) string) func(http.Handler) http.Handler {
	return func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			recorded := httptest.NewRecorder()
			inner.ServeHTTP(recorded, r)
			maps.Copy(w.Header(), recorded.Header())
			w.Header().Del("Content-Length")
			body := change(w.Header(), recorded.Body.String())
			w.WriteHeader(recorded.Code)
			_, _ = io.WriteString(w, body)
		})
	}
}

const (
	legacy     = `{"Boot":{"BootSourceOverrideMode":"Legacy"}}`
	onceUEFI   = `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe","BootSourceOverrideMode":"UEFI"}}`
	notWritten = "The property BootSourceOverrideMode is a read-only property."
)

// TestWhatIsSentAfterEachRefusal holds the error table for the override, against
// the simulator: what is sent, how long it waits, what then boots.
func TestWhatIsSentAfterEachRefusal(t *testing.T) {
	for name, c := range map[string]struct {
		profile string
		wraps   []func(http.Handler) http.Handler
		before  string
		goes    func(s *simulation)
		request redfish.BootRequest
		sent    []string
		err     error
		wait    time.Duration
		next    bmcsim.NextBoot
	}{
		"400 in POST: once, and again after 30 s": {
			profile: "ilo5", goes: func(s *simulation) { s.InPOST(20 * time.Second) }, request: byDHCP,
			sent: []string{"PATCH 1 weak " + onceHTTP + " 400"}, err: redfish.ErrBusy, wait: 30 * time.Second, next: bootsHTTP,
		},
		"400 in the wrong state": {
			profile: "generic", goes: func(s *simulation) {
				s.Inject(refusing("PATCH", 1, 400, "iLO.2.14.InvalidOperationForSystemState", "Not now.", ""))
			}, request: byDHCP,
			sent: []string{"PATCH 1 strong " + onceHTTP + " 400"}, err: redfish.ErrBusy, wait: 30 * time.Second, next: bootsHTTP,
		},
		"SYS518: iDRAC is not ready": {
			profile: "idrac9", goes: func(s *simulation) { s.Inject(refusing("PATCH", 1, 400, "IDRAC.2.8.SYS518", "Not ready.", "")) }, request: byDHCP,
			sent: []string{dell + " strong " + onceHTTP + " 400"}, err: redfish.ErrBusy, wait: 30 * time.Second, next: bootsHTTP,
		},
		"SYS518 with Retry-After": {
			profile: "idrac9", goes: func(s *simulation) { s.InPOST(time.Minute) }, request: byDHCP,
			sent: []string{dell + " strong " + onceHTTP + " 503"}, err: redfish.ErrBusy, wait: 5 * time.Minute, next: bootsHTTP,
		},
		"Mode not writable: dropped, once": {
			profile: "idrac9", before: legacy, goes: func(s *simulation) {
				s.Inject(refusing("PATCH", 1, 400, "Base.1.12.PropertyNotWritable", notWritten, "", "BootSourceOverrideMode"))
			}, request: byPXE,
			sent: []string{dell + " strong " + onceUEFI + " 400", dell + " strong " + oncePXE + " 200"}, next: bootsPXE,
		},
		"Mode not writable, and the rest neither": {
			profile: "idrac9", before: legacy, goes: func(s *simulation) {
				s.Inject(refusing("PATCH", 2, 400, "Base.1.12.PropertyNotWritable", notWritten, "", "BootSourceOverrideMode"))
			}, request: byPXE,
			sent: []string{dell + " strong " + onceUEFI + " 400", dell + " strong " + oncePXE + " 400"}, err: redfish.ErrUnsupported, next: bootsPXE,
		},
		"a value that is not in the list: the next tactic is Pxe": {
			profile: "openbmc", request: byDHCP,
			sent: []string{"PATCH system strong " + onceHTTP + " 400"}, err: redfish.ErrUnsupported, next: bootsPXE,
		},
		"future-state URI: the settings object with its ETag": {
			profile: "megarac", wraps: []func(http.Handler) http.Handler{replacing("AMI", "Maker", "MegaRAC", "Board", "Ami", "Maker")}, request: byDHCP,
			sent: []string{"PATCH Self weak " + onceHTTP + " 400", "PATCH Self/SD weak " + onceHTTP + " 204"}, next: bootsHTTP,
		},
		"412 to a stale ETag: with the fresh one": {
			profile: "generic", goes: func(s *simulation) { s.Inject(refusing("PATCH", 1, 412, "Base.1.18.PreconditionFailed", "Stale.", "")) }, request: byDHCP,
			sent: []string{"PATCH 1 strong " + onceHTTP + " 412", "PATCH 1 strong " + onceHTTP + " 200"}, next: bootsHTTP,
		},
		"412 to a weak one: without W/, then without": {
			profile: "ilo5", goes: func(s *simulation) { s.Inject(refusing("PATCH", 2, 412, "Base.1.18.PreconditionFailed", "Stale.", "")) }, request: byDHCP,
			sent: []string{
				"PATCH 1 weak " + onceHTTP + " 412", "PATCH 1 weak " + onceHTTP + " 412", "PATCH 1 strong " + onceHTTP + " 412", "PATCH 1 none " + onceHTTP + " 200",
			}, next: bootsHTTP,
		},
		"412 for ever: each step once": {
			profile: "ilo5", goes: func(s *simulation) { s.Inject(refusing("PATCH", 4, 412, "Base.1.18.PreconditionFailed", "Stale.", "")) }, request: byDHCP,
			sent: []string{
				"PATCH 1 weak " + onceHTTP + " 412", "PATCH 1 weak " + onceHTTP + " 412", "PATCH 1 strong " + onceHTTP + " 412", "PATCH 1 none " + onceHTTP + " 412",
			}, err: redfish.ErrRefused, next: bootsHTTP,
		},
		"428 where no ETag was told: any": {
			profile: "megarac", wraps: []func(http.Handler) http.Handler{untagged}, request: byDHCP,
			sent: []string{"PATCH Self/SD none " + onceHTTP + " 428", "PATCH Self/SD strong " + onceHTTP + " 204"}, next: bootsHTTP,
		},
		"503 with Retry-After": {
			profile: "generic", goes: func(s *simulation) {
				s.Inject(refusing("PATCH", 1, 503, "Base.1.18.ServiceTemporarilyUnavailable", "Later.", "77"))
			}, request: byDHCP,
			sent: []string{"PATCH 1 strong " + onceHTTP + " 503"}, err: redfish.ErrBusy, wait: 77 * time.Second, next: bootsHTTP,
		},
		"RAC0218, whatever it says of time: 5 min": {
			profile: "idrac9", goes: func(s *simulation) {
				s.Inject(refusing("PATCH", 1, 503, "IDRAC.2.8.RAC0218", "No sessions left.", "1"))
			}, request: byDHCP,
			sent: []string{dell + " strong " + onceHTTP + " 503"}, err: redfish.ErrBusy, wait: 5 * time.Minute, next: bootsHTTP,
		},
		"400 although it was done: the state is believed": {
			profile: "idrac9", goes: func(s *simulation) { s.DenyAfterChange(1) }, request: byDHCP,
			sent: []string{dell + " strong " + onceHTTP + " 400"}, next: bootsHTTP,
		},
		"404: the BMC restarts": {
			profile: "generic", goes: func(s *simulation) {
				s.Inject(refusing("PATCH", 1, 404, "Base.1.18.ResourceMissingAtURI", "Gone.", ""))
			}, request: byDHCP,
			sent: []string{"PATCH 1 strong " + onceHTTP + " 404"}, err: redfish.ErrUnreachable, wait: 5 * time.Second, next: bootsHTTP,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := simulate(t, c.profile, c.wraps...)
			if c.before != "" {
				s.seed(s.SystemPath(), c.before)
			}
			if c.goes != nil {
				c.goes(s)
			}
			_, err := s.arm(c.request)
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.wait, redfish.RetryAfter(err))
			require.Equal(t, c.sent, s.sent())
			if err != nil {
				s.again(c.request, c.wait, c.err)
			}
			require.Equal(t, c.next, s.boots())
		})
	}
}

// again arms after the time to wait, by PXE where the tactic cannot work.
func (s *simulation) again(r redfish.BootRequest, wait time.Duration, was error) {
	s.t.Helper()
	if wait > 0 {
		require.NoError(s.t, s.clock.Sleep(s.t.Context(), wait))
	}
	if was == redfish.ErrUnsupported { //nolint:errorlint // a sentinel of the table
		r = byPXE
	}
	_, err := s.arm(r)
	require.NoError(s.t, err)
}

func TestABMCThatAskedForTimeGetsNoRequestBefore(t *testing.T) {
	s := simulate(t, "generic")
	s.Inject(bmcsim.Busy(time.Minute, 20*time.Second))
	_, err := s.arm(byDHCP)
	require.ErrorIs(t, err, redfish.ErrBusy)
	require.Equal(t, 20*time.Second, redfish.RetryAfter(err))
	s.ClearLog()
	for range 3 {
		require.ErrorIs(t, s.on(), redfish.ErrBusy)
	}
	require.Empty(t, s.Log(), "not even a read")
	require.NoError(t, s.clock.Sleep(t.Context(), time.Minute))
	require.NoError(t, s.on())
}

func TestWhereNoSessionIsLeftNoneIsAskedForFiveMinutes(t *testing.T) {
	s := simulate(t, "idrac9")
	s.con.Session = true
	const sessions = "/redfish/v1/SessionService/Sessions"
	for range 8 {
		require.Equal(t, http.StatusCreated, s.ask(http.MethodPost, sessions, `{"UserName":"`+simUser+`","Password":"`+simPassword+`"}`, "").Code)
	}
	s.ClearLog()
	err := s.on()
	require.ErrorIs(t, err, redfish.ErrBusy)
	require.ErrorContains(t, err, "RAC0218")
	require.GreaterOrEqual(t, redfish.RetryAfter(err), 5*time.Minute)
	require.Equal(t, []string{"POST " + sessions + " none (credentials) 503"}, s.sent())
	require.NoError(t, s.clock.Sleep(t.Context(), 4*time.Minute))
	require.ErrorIs(t, s.on(), redfish.ErrBusy)
	require.Empty(t, s.Log())
	s.GoAway(0) // it forgets its sessions
	require.NoError(t, s.clock.Sleep(t.Context(), time.Minute))
	require.NoError(t, s.on())
	require.Zero(t, s.OpenSessions())
}

func TestRefusedCredentialsAreSentOnceAndNothingIsWritten(t *testing.T) {
	for _, session := range []bool{false, true} {
		s := simulate(t, "generic")
		s.con.Session = session
		s.RefuseCredentials(true)
		for range 3 {
			_, err := s.arm(byDHCP)
			require.ErrorIs(t, err, redfish.ErrUnauthorized)
		}
		carried := 0
		for _, r := range s.Log() {
			if r.Auth != "none" || r.Body == "(credentials)" {
				carried++
			}
			require.NotEqual(t, http.MethodPatch, r.Method)
		}
		require.Equal(t, 1, carried)
	}
}

func TestASessionThatTheBMCForgotIsOpenedAgainOnce(t *testing.T) {
	s := simulate(t, "generic")
	s.con.Session = true
	const sessions = "/redfish/v1/SessionService/Sessions"
	login := "POST " + sessions + " none (credentials) 201"
	err := s.do(func(ctx context.Context, b redfish.BMC) error {
		s.GoAway(0)
		_, err := b.Arm(ctx, byDHCP)
		return err
	})
	require.NoError(t, err)
	require.Equal(t, []string{login, "PATCH 1 strong " + onceHTTP + " 401", login, "PATCH 1 strong " + onceHTTP + " 200", "DELETE " + sessions + "/2 none  204"}, s.sent())
	require.Zero(t, s.OpenSessions())

	err = s.do(func(ctx context.Context, b redfish.BMC) error {
		s.SetPassword("another")
		s.GoAway(0)
		return b.On(ctx)
	})
	require.ErrorIs(t, err, redfish.ErrUnauthorized)
	require.Equal(t, 2, strings.Count(strings.Join(s.sent(), "\n"), "(credentials)"), "the login of before, and one more")
	require.False(t, s.machine.IsOn())
}

func TestAResetWhoseAnswerIsLostIsNotRepeated(t *testing.T) {
	s := simulate(t, "generic")
	s.Inject(bmcsim.LostReset(1))
	require.ErrorIs(t, s.on(), redfish.ErrLost)
	require.NoError(t, s.on(), "the state is read: it is on")
	require.Equal(t, []string{on("1", "", "204")}, s.sent())
	require.Len(t, s.Resets(), 1)

	silent := simulate(t, "generic")
	remove := silent.Inject(bmcsim.Fault{Method: http.MethodPost, Hang: true})
	require.ErrorIs(t, silent.on(), redfish.ErrLost, "a time-out says nothing of what was done")
	remove()
	require.False(t, silent.machine.IsOn())
	require.NoError(t, silent.on(), "the state is read: it is off")
	require.Len(t, silent.Resets(), 1)
}

func TestABMCThatVanishesAtPowerOffIsAskedForTheStateLater(t *testing.T) {
	s := simulate(t, "generic")
	require.NoError(t, s.on())
	s.SharePort(time.Minute)
	require.ErrorIs(t, s.off(), redfish.ErrLost)
	require.ErrorIs(t, s.off(), redfish.ErrUnreachable)
	require.NoError(t, s.clock.Sleep(t.Context(), time.Minute))
	require.NoError(t, s.off())
	require.Len(t, s.Resets(), 2, "one on, one off")
}

func TestABMCThatRebootsIsLeftAloneLongerEachTime(t *testing.T) {
	s := simulate(t, "generic")
	s.GoAway(time.Hour)
	var waits []time.Duration
	for range 9 {
		err := s.on()
		require.ErrorIs(t, err, redfish.ErrUnreachable)
		waits = append(waits, redfish.RetryAfter(err))
		if redfish.RetryAfter(err) > 0 && len(waits) >= 3 {
			require.ErrorIs(t, s.on(), redfish.ErrBroken, "nothing is sent before")
			require.NoError(t, s.clock.Sleep(t.Context(), redfish.RetryAfter(err)))
		}
	}
	require.Equal(t, []time.Duration{5 * time.Second, 5 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute}, waits)
	require.Empty(t, s.sent())
}

func TestAfterABMCRebootedTheMachineIsCheckedBeforeItIsSwitchedOn(t *testing.T) {
	s := simulate(t, "generic")
	_, err := s.arm(byDHCP)
	require.NoError(t, err)
	s.sent()
	s.GoAway(time.Minute)
	require.ErrorIs(t, s.on(), redfish.ErrUnreachable)
	s.SetUUID("11111111-2222-3333-4444-555555555555")
	require.NoError(t, s.clock.Sleep(t.Context(), time.Minute))
	require.ErrorIs(t, s.on(), redfish.ErrWrongSystem)
	require.Empty(t, s.sent())
	s.SetUUID(simUUID)
	require.NoError(t, s.on())
}

func TestAnotherCertificateStopsBeforeTheCredentials(t *testing.T) {
	s := simulate(t, "generic")
	s.con.CA = nil
	require.ErrorIs(t, s.on(), redfish.ErrCertificate)
	require.Empty(t, s.Log())
}

func TestOneThatIsAlreadyInTheStateIsNoError(t *testing.T) {
	for _, profile := range []string{"ilo5", "idrac9"} {
		s := simulate(t, profile)
		require.NoError(t, s.on())
		s.sent()
		require.NoError(t, s.on())
		require.Empty(t, s.sent(), "nothing is sent to one that is on")
		// Someone presses the button between the reading and the request.
		require.NoError(t, s.off())
		s.sent()
		require.NoError(t, s.do(func(ctx context.Context, b redfish.BMC) error {
			require.NoError(t, s.PressPower())
			return b.On(ctx)
		}))
		require.Len(t, s.sent(), 1, "refused, and the state read")
	}
}

package bmcsim

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serve serves the BMC on loopback.
func (s *bench) serve() *httptest.Server {
	server := httptest.NewUnstartedServer(s.BMC)
	server.Listener = s.Listener(server.Listener)
	server.Start()
	s.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server
}

// send sends a request over the network.
func send(t *testing.T, server *httptest.Server, method, path, body string) (*http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, server.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	r.SetBasicAuth(testUser, testPassword)
	r.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return client.Do(r)
}

func TestALostReplyIsLostAfterTheResetWasExecuted(t *testing.T) {
	s := newBench(t, "generic")
	server := s.serve()
	s.Inject(LostReset(2))
	path := s.SystemPath() + "/Actions/ComputerSystem.Reset"
	resp, err := send(t, server, http.MethodPost, path, `{"ResetType":"On"}`)
	require.NoError(t, err)
	require.Equal(t, http.StatusNoContent, resp.StatusCode)
	_, err = send(t, server, http.MethodPost, path, `{"ResetType":"ForceRestart"}`)
	require.Error(t, err)
	booted, _ := s.machine.Boots()
	require.Equal(t, 2, booted)
	require.Len(t, s.Resets(), 2)
	resp, err = send(t, server, http.MethodPost, path, `{"ResetType":"ForceRestart"}`)
	require.NoError(t, err)
	require.Equal(t, http.StatusNoContent, resp.StatusCode)
}

func TestAnswersAreReplacedForAsLongAsTheFaultLasts(t *testing.T) {
	s := newBench(t, "generic")
	s.Inject(Fault{Method: http.MethodGet, Path: "/Systems", Skip: 1, Times: 2, Answer: &Answer{Status: 418, Body: "tea"}})
	var got []int
	for range 4 {
		got = append(got, s.ask(http.MethodGet, root+"/Systems", "").Code)
	}
	require.Equal(t, []int{200, 418, 418, 200}, got)
	require.Equal(t, http.StatusOK, s.ask(http.MethodGet, root+"/Chassis", "").Code)

	s.Inject(Busy(time.Minute, 7*time.Second))
	a := s.ask(http.MethodGet, root, "")
	require.Equal(t, http.StatusServiceUnavailable, a.Code)
	require.Equal(t, "7", a.Header().Get("Retry-After"))
	require.Equal(t, "ServiceTemporarilyUnavailable", a.id())
	s.clock.Step(time.Minute)
	require.Equal(t, http.StatusOK, s.ask(http.MethodGet, root, "").Code)
}

func TestHostileAnswersAreWhatTheyAreCalled(t *testing.T) {
	s := newBench(t, "generic")
	server := s.serve()
	remove := s.Inject(HTML())
	resp, err := send(t, server, http.MethodGet, root, "")
	require.NoError(t, err)
	require.Equal(t, "text/html", resp.Header.Get("Content-Type"))
	remove()
	remove()
	remove = s.Inject(Huge(5 << 20))
	resp, err = send(t, server, http.MethodGet, root, "")
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.Greater(t, n, int64(5<<20))
	remove()
	remove = s.Inject(Redirect("http://192.0.2.1/redfish/v1"))
	resp, err = send(t, server, http.MethodGet, root, "")
	require.NoError(t, err)
	require.Equal(t, http.StatusTemporaryRedirect, resp.StatusCode)
	require.Equal(t, "http://192.0.2.1/redfish/v1", resp.Header.Get("Location"))
	remove()
	s.Inject(HostileID("http://192.0.2.1/redfish/v1/Systems/1"))
	require.Equal(t, []any{object{"@odata.id": "http://192.0.2.1/redfish/v1/Systems/1"}}, s.get(root + "/Systems")["Members"])
}

func TestABMCThatHangsEndsWithItsClientOrTheFault(t *testing.T) {
	s := newBench(t, "generic")
	server := s.serve()
	remove := s.Inject(Fault{Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+root, http.NoBody)
	require.NoError(t, err)
	failed := make(chan error, 2)
	go func() {
		_, err := server.Client().Do(r)
		failed <- err
	}()
	go func() {
		_, err := http.Get(server.URL + root)
		failed <- err
	}()
	require.Eventually(t, func() bool { return s.MaxInFlight() == 2 }, 5*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	remove()
	require.Error(t, <-failed)
}

func TestABMCThatIsAwayResetsConnectionsAndForgetsSessions(t *testing.T) {
	s := newBench(t, "generic")
	server := s.serve()
	s.ask(http.MethodPost, sessionsPath(), `{"UserName":"`+testUser+`","Password":"`+testPassword+`"}`)
	require.Equal(t, 1, s.OpenSessions())
	s.GoAway(time.Minute)
	require.Zero(t, s.OpenSessions())
	_, err := send(t, server, http.MethodGet, root, "")
	require.Error(t, err)
	_, err = tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	require.Error(t, err)
	s.clock.Step(time.Minute)
	resp, err := send(t, server, http.MethodGet, root, "")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)

	require.Equal(t, http.StatusNoContent, s.ask(http.MethodPost, s.managerPath()+"/Actions/Manager.Reset", `{"ResetType":"GracefulRestart"}`).Code)
	require.Eventually(t, s.away, 5*time.Second, time.Millisecond)
	s.clock.Step(time.Minute)
	require.False(t, s.away())
}

func TestASharedPortIsGoneAfterEachPowerOff(t *testing.T) {
	s := newBench(t, "generic")
	s.SharePort(time.Minute)
	for _, kind := range []string{"ForceOff", "GracefulShutdown"} {
		require.NoError(t, s.PressPower())
		require.False(t, s.away())
		require.Panics(t, func() { s.reset(kind) }, "the answer is lost")
		require.False(t, s.machine.IsOn())
		require.True(t, s.away())
		s.clock.Step(time.Minute)
	}
	s.ask(http.MethodGet, root, "")
}

func TestAnOffThatTakesTimeIsShownAndKeepsOnAway(t *testing.T) {
	s := newBench(t, "generic")
	s.SlowPowerOff(time.Minute)
	s.boots()
	require.Equal(t, http.StatusNoContent, s.reset("ForceOff").Code)
	require.Equal(t, "PoweringOff", s.get(s.SystemPath())["PowerState"])
	require.Equal(t, "ResourceInStandby", s.reset("On").id())
	s.clock.Step(time.Minute)
	require.Equal(t, "Off", s.get(s.SystemPath())["PowerState"])
	s.boots()
}

func TestAFrozenPowerStateAndAnotherMachine(t *testing.T) {
	s := newBench(t, "generic")
	s.FreezePowerState(true)
	s.boots()
	require.Equal(t, "Off", s.get(s.SystemPath())["PowerState"])
	s.FreezePowerState(false)
	require.Equal(t, "On", s.get(s.SystemPath())["PowerState"])
	s.SetUUID("11111111-2233-4455-6677-8899aabbccdd")
	require.Equal(t, "11111111-2233-4455-6677-8899aabbccdd", s.get(s.SystemPath())["UUID"])
}

func TestNamedFaultsAreReadOrRefusedWithWhatWouldBeRight(t *testing.T) {
	for _, f := range Faults() {
		require.NotEmpty(t, f.About)
		text := f.Name
		if f.Value != "" && f.Default == "" {
			text += "=" + map[string]string{"a URL": "http://x/y", "a UUID": testUUID}[f.Value]
		}
		apply, err := ParseFault(text)
		require.NoError(t, err, text)
		apply(newBench(t, "generic").BMC)
	}
	for text, says := range map[string]string{
		"fire":               `no fault "fire"; there are refuse-credentials`,
		"hang=1":             `takes no value`,
		"slow-power-off=x":   "it must be a duration",
		"slow-power-off=-1s": "it must be a duration",
		"lose-reset=0":       "it must be a number",
		"other-uuid=7":       "it must be a UUID",
		"redirect":           "it must be a URL",
	} {
		_, err := ParseFault(text)
		require.ErrorContains(t, err, says)
	}
}

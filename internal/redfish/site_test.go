package redfish_test

import (
	"context"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

const (
	simUUID     = "4c4c4544-0000-4444-8888-0123456789ab"
	simMAC      = "52:54:00:aa:bb:01"
	simUser     = "operator"
	simPassword = "correct horse"
	simURL      = "https://boot.example/httpboot/t/token"
	simPlainURL = "http://boot.example/httpboot/t/token"
	simOption   = "PciRoot(0x0)/MAC(525400AABB01,0x1)/IPv4(0.0.0.0)"
)

// manual is a clock that only waiting moves.
type manual struct {
	mu  sync.Mutex
	now time.Time
}

func (m *manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

func (m *manual) Sleep(ctx context.Context, d time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
	return ctx.Err()
}

// simulation is a simulated BMC, its machine, and what speaks to it.
type simulation struct {
	*bmcsim.BMC
	t       testing.TB
	machine *bmcsim.MemoryMachine
	server  *httptest.Server
	clients *redfish.Clients
	con     redfish.Connection
	clock   *manual
}

// simulate starts a BMC of a profile; its machine is off, and has one NIC and a disk.
// Wraps change what the BMC says.
func simulate(t testing.TB, profile string, wraps ...func(http.Handler) http.Handler) *simulation {
	s := &simulation{t: t, clock: &manual{now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}}
	s.machine = bmcsim.NewMemoryMachine(nil,
		bmcsim.BootOption{Reference: "Boot0001", Name: "Disk", Kind: bmcsim.KindDisk},
		bmcsim.BootOption{Reference: "Boot0002", Name: "UEFI HTTPv4", Kind: bmcsim.KindHTTP, MAC: simMAC, DevicePath: simOption + "/Uri()"},
		bmcsim.BootOption{Reference: "Boot0003", Name: "UEFI PXEv4", Kind: bmcsim.KindPXE, MAC: simMAC, DevicePath: simOption},
	)
	var err error
	s.BMC, err = bmcsim.New(bmcsim.Options{
		Profile: profile, Machine: s.machine, Username: simUser, Password: simPassword, UUID: simUUID, Now: s.clock.Now,
		Hardware: bmcsim.Hardware{NICs: []bmcsim.NIC{{MAC: simMAC}}},
		Fetch:    func(context.Context, string) error { return nil },
	})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	var handler http.Handler = s.BMC
	for _, wrap := range wraps {
		handler = wrap(handler)
	}
	s.server = httptest.NewUnstartedServer(handler)
	s.server.Listener = s.Listener(s.server.Listener)
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.server.StartTLS()
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
	})
	s.clients = redfish.New(redfish.Options{
		Limits: redfish.Limits{Timeout: time.Second}, Now: s.clock.Now, Sleep: s.clock.Sleep, Random: func() float64 { return 0 },
	})
	s.con = redfish.Connection{
		Address: s.address(s.SystemPath()), Username: simUser, Password: simPassword, UUID: simUUID,
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}),
	}
	return s
}

// address is the BMC's, with the path of a system.
func (s *simulation) address(path string) redfish.Address {
	a, err := redfish.ParseAddress("redfish://" + s.server.Listener.Addr().String() + path)
	require.NoError(s.t, err)
	return a
}

func (s *simulation) do(f func(ctx context.Context, b redfish.BMC) error) error {
	return s.clients.Do(s.t.Context(), s.con, f)
}

func (s *simulation) arm(r redfish.BootRequest) (armed redfish.Armed, err error) {
	err = s.do(func(ctx context.Context, b redfish.BMC) error {
		armed, err = b.Arm(ctx, r)
		return err
	})
	return armed, err
}

func (s *simulation) on() error {
	return s.do(func(ctx context.Context, b redfish.BMC) error { return b.On(ctx) })
}

func (s *simulation) off() error {
	return s.do(func(ctx context.Context, b redfish.BMC) error { return b.Off(ctx) })
}

func (s *simulation) disarm(pinnedBy string) error {
	return s.do(func(ctx context.Context, b redfish.BMC) error { return b.Disarm(ctx, pinnedBy) })
}

// boots pulls the plug, switches on, and returns what the firmware tried first.
func (s *simulation) boots() bmcsim.NextBoot {
	s.t.Helper()
	require.NoError(s.t, s.off())
	require.NoError(s.t, s.on())
	_, next := s.machine.Boots()
	return next
}

// seed writes to a resource as someone else did before, with its ETag.
func (s *simulation) seed(path, body string) {
	s.t.Helper()
	get := s.ask(http.MethodGet, path, "", "")
	patch := s.ask(http.MethodPatch, path, body, get.Header().Get("ETag"))
	require.Less(s.t, patch.Code, 300, patch.Body)
	s.ClearLog()
}

func (s *simulation) ask(method, path, body, match string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.SetBasicAuth(simUser, simPassword)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if match != "" {
		r.Header.Set("If-Match", match)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// sent are the requests since it was asked last that were no reads: method, path
// below /redfish/v1/Systems/, what If-Match was (none, strong, weak), body, status.
func (s *simulation) sent() []string {
	var all []string
	for _, r := range s.Log() {
		if r.Method == http.MethodGet {
			continue
		}
		match := "none"
		switch {
		case strings.HasPrefix(r.IfMatch, "W/"):
			match = "weak"
		case r.IfMatch != "":
			match = "strong"
		}
		all = append(all, strings.Join([]string{r.Method, strings.TrimPrefix(r.Path, "/redfish/v1/Systems/"), match, strings.TrimSpace(r.Body), strconv.Itoa(r.Status)}, " "))
	}
	s.ClearLog()
	return all
}

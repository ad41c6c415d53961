package bmcsim

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	testUUID     = "00112233-4455-6677-8899-aabbccddeeff"
	testUser     = "admin"
	testPassword = "correct horse"
)

// clock is one that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var testBootOptions = []BootOption{
	{Reference: "Boot0001", Name: "UEFI HTTPv4", Kind: KindHTTP, MAC: "52:54:00:00:00:01", DevicePath: "MAC(525400000001,0x1)/IPv4(0.0.0.0)/Uri()"},
	{Reference: "Boot0002", Name: "UEFI PXEv4", Kind: KindPXE, MAC: "52:54:00:00:00:01"},
	{Reference: "Boot0003", Name: "Disk", Kind: KindDisk},
}

// bench is a BMC with a machine that only has a power state, and a clock.
type bench struct {
	*BMC
	t       testing.TB
	machine *MemoryMachine
	clock   *clock
	fetched chan string
}

func newBench(t testing.TB, profile string, changes ...func(*Options)) *bench {
	s := &bench{t: t, machine: NewMemoryMachine(nil, testBootOptions...), clock: newClock(), fetched: make(chan string, 4)}
	o := Options{
		Profile: profile, Machine: s.machine, Username: testUser, Password: testPassword, UUID: testUUID, Now: s.clock.Now,
		Hardware: Hardware{
			Cores: 4, Threads: 8, MemoryMiB: 2048, NICs: []NIC{{MAC: "52:54:00:00:00:01"}, {MAC: "52:54:00:00:00:02", Down: true}},
			Disks: []Disk{{Bytes: 500 << 30, Type: "HDD"}, {Bytes: 1 << 40, Protocol: "NVMe"}},
		},
	}
	for _, change := range changes {
		change(&o)
	}
	var err error
	s.BMC, err = New(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// answer is one that a test looks at.
type answer struct {
	*httptest.ResponseRecorder
	body object
}

// id is the first message ID of an error, without registry and version.
func (a answer) id() string {
	e, _ := a.body["error"].(object)
	info, _ := e["@Message.ExtendedInfo"].([]any)
	if len(info) == 0 {
		return ""
	}
	id, _ := info[0].(object)["MessageId"].(string)
	return id[strings.LastIndexByte(id, '.')+1:]
}

// ask sends a request with basic authentication, unless headers say otherwise:
// pairs of name and value.
func (s *bench) ask(method, path, body string, headers ...string) answer {
	s.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.SetBasicAuth(testUser, testPassword)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	a := answer{ResponseRecorder: httptest.NewRecorder()}
	s.ServeHTTP(a.ResponseRecorder, r)
	if a.Body.Len() > 0 && strings.HasPrefix(a.Header().Get("Content-Type"), "application/json") {
		require.NoError(s.t, json.Unmarshal(a.Body.Bytes(), &a.body), a.Body.String())
	}
	return a
}

// get reads what must be there.
func (s *bench) get(path string) object {
	s.t.Helper()
	a := s.ask(http.MethodGet, path, "")
	require.Equal(s.t, http.StatusOK, a.Code, "%s: %s", path, a.Body)
	return a.body
}

// patch sends a change, with the resource's ETag where the profile wants that.
func (s *bench) patch(path, body string) answer {
	s.t.Helper()
	var headers []string
	if s.profile.needsMatch {
		headers = []string{"If-Match", s.ask(http.MethodGet, path, "").Header().Get("ETag")}
	}
	return s.ask(http.MethodPatch, path, body, headers...)
}

// override is Boot as the System shows it.
func (s *bench) boot() object {
	s.t.Helper()
	return s.get(s.SystemPath())["Boot"].(object)
}

func (s *bench) shown() (enabled, target any) {
	s.t.Helper()
	boot := s.boot()
	return boot["BootSourceOverrideEnabled"], boot["BootSourceOverrideTarget"]
}

func (s *bench) reset(kind string) answer {
	s.t.Helper()
	return s.ask(http.MethodPost, s.SystemPath()+"/Actions/ComputerSystem.Reset", `{"ResetType":"`+kind+`"}`)
}

// arm sets an override that must be taken.
func (s *bench) arm(body string) {
	s.t.Helper()
	path := s.SystemPath()
	if s.profile.settings != "" && !s.profile.lockSettings {
		path += "/" + s.profile.settings
	}
	a := s.patch(path, `{"Boot":`+body+`}`)
	require.Less(s.t, a.Code, 300, "%s", a.Body)
}

// boots switches the machine on, or resets it, and returns what it tries first.
func (s *bench) boots() NextBoot {
	s.t.Helper()
	kind := "On"
	if s.machine.IsOn() {
		kind = "ForceRestart"
	}
	a := s.reset(kind)
	require.Less(s.t, a.Code, 300, "%s", a.Body)
	_, next := s.machine.Boots()
	return next
}

const onceHTTP = `{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp"}`
const oncePXE = `{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe"}`

func TestOptionsThatMakeNoBMCAreRefused(t *testing.T) {
	good := Options{Machine: NewMemoryMachine(nil), Username: "a", Password: "b", UUID: testUUID}
	b, err := New(good)
	require.NoError(t, err)
	b.Close()
	for says, change := range map[string]func(*Options){
		`no profile "ilo9"; there are generic, idrac9`: func(o *Options) { o.Profile = "ilo9" },
		"needs a machine":     func(o *Options) { o.Machine = nil },
		"a password":          func(o *Options) { o.Password = "" },
		`the UUID is "12-34"`: func(o *Options) { o.UUID = "12-34" },
	} {
		o := good
		change(&o)
		_, err := New(o)
		require.ErrorContains(t, err, says)
	}
}

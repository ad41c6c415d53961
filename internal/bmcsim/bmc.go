package bmcsim

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

// Options say which BMC to make.
type Options struct {
	// Profile is the name of one of Profiles; empty: generic.
	Profile string
	// Machine is what the BMC powers. Required.
	Machine Machine
	// Username and Password are the only account. Both are required.
	Username, Password string
	// UUID is ComputerSystem.UUID. Required. Serial is the serial number; default:
	// made from the UUID.
	UUID, Serial string
	// Hardware is what the machine is made of, as the BMC says.
	Hardware Hardware
	// Sessions is how many sessions can be open. Default: the profile's, or 16.
	Sessions int
	// POST is how long the machine is in POST after each boot. Default: 0, never.
	POST time.Duration
	// Reboot is how long the BMC is away after Manager.Reset. Default: 10 s.
	Reboot time.Duration
	// Logged is called with each request when it was answered; optional.
	Logged func(Request)
	// Now is the clock; default: time.Now.
	Now func() time.Time
	// Fetch downloads what HttpBootUri names, for the profile that does that.
	// Default: a GET whose body is thrown away.
	Fetch func(ctx context.Context, url string) error
}

// Hardware is what a machine is made of. The zero value is one small amd64 machine
// without NICs and disks.
type Hardware struct {
	// Arch is amd64 or arm64; default: amd64.
	Arch string
	// CPU is a model name; Cores and Threads are of all sockets.
	CPU            string
	Cores, Threads int
	MemoryMiB      int
	BIOSVersion    string
	NICs           []NIC
	Disks          []Disk
}

// NIC is one network interface.
type NIC struct {
	// MAC as the BMC writes it.
	MAC string
	// Addrs are the IPv4 addresses that it knows of; usually none.
	Addrs []string
	// Down says that there is no link.
	Down bool
}

// Disk is one drive. Type is HDD or SSD, Protocol such as SATA or NVMe.
type Disk struct {
	Name, Serial, Model, Type, Protocol string
	Bytes                               int64
}

// BMC is a simulated BMC: an http.Handler. It is safe for concurrent use. Close it
// at the end.
type BMC struct {
	profile *profile
	options Options
	machine Machine
	ctx     context.Context
	close   context.CancelFunc
	salt    string

	// writes serialises what changes the machine or its settings. It is taken
	// before mu, never while mu is held.
	writes sync.Mutex

	mu       sync.Mutex
	static   map[string]*resource
	uuid     string
	password string
	sessions []*session
	number   int // of the last session, certificate or task
	tasks    []*task
	certs    map[string][]certificate // by the path of their collection
	keys     SecureBooter             // nil: there is no Secure Boot
	entries  map[qemu.Database][]entry
	staged   qemu.Keys // what the next boot makes the keys; nil: nothing

	override  override
	pending   *override // written in the settings object
	repeat    override  // what a BMC that ignores Once boots again
	bios      map[string]any
	biosNext  map[string]any
	biosJob   bool // the settings will be applied
	extraBoot bool
	media     [2]media
	assetTag  string
	led       string

	lastReset time.Time
	postUntil time.Time
	progress  string
	offShown  time.Time // until then the machine is shown as being switched off
	resets    []Reset

	knobs  knobs
	faults []*fault
	log    log
}

// Reset is one change of power, as it was executed.
type Reset struct {
	// Type is a ResetType, or Inside for a reset from inside the machine, or BIOSJob
	// for a boot that the BMC added itself.
	Type string
	Time time.Time
	// ByHand: from the panel, not over Redfish.
	ByHand bool
	// Boots says that the machine started; Next is what it was told to try first.
	Boots bool
	Next  NextBoot
}

// New makes a BMC.
func New(options Options) (*BMC, error) {
	p, err := findProfile(or(options.Profile, "generic"))
	if err != nil {
		return nil, err
	}
	if options.Machine == nil || options.Username == "" || options.Password == "" {
		return nil, errors.New("a BMC needs a machine, a user name and a password")
	}
	if err := checkUUID(options.UUID); err != nil {
		return nil, err
	}
	fill(&options, p)
	ctx, cancel := context.WithCancel(context.Background())
	b := &BMC{
		profile: p, options: options, machine: options.Machine, ctx: ctx, close: cancel, salt: randomHex(8),
		uuid: strings.ToLower(options.UUID), password: options.Password, led: "Off",
		certs: map[string][]certificate{}, bios: maps.Clone(p.attributes), lastReset: options.Now(),
		keys: keysOf(options.Machine), entries: map[qemu.Database][]entry{},
	}
	b.override = b.clear()
	b.repeat = b.clear()
	b.build()
	b.machine.OnReset(b.insideReset)
	return b, nil
}

func fill(o *Options, p *profile) {
	o.Sessions = or(o.Sessions, p.sessions, 16)
	o.Reboot = or(o.Reboot, 10*time.Second)
	o.Serial = or(o.Serial, strings.ToUpper(strings.ReplaceAll(o.UUID, "-", ""))[20:])
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Fetch == nil {
		o.Fetch = fetch
	}
	h := &o.Hardware
	h.Arch = or(h.Arch, "amd64")
	h.CPU = or(h.CPU, "Simulated CPU")
	h.Cores = or(h.Cores, 1)
	h.Threads = max(h.Threads, h.Cores)
	h.MemoryMiB = or(h.MemoryMiB, 1024)
	h.BIOSVersion = or(h.BIOSVersion, "1.0.0")
}

// checkUUID checks a UUID's form.
func checkUUID(text string) error {
	parts := strings.Split(text, "-")
	raw, err := hex.DecodeString(strings.Join(parts, ""))
	if err != nil || len(raw) != 16 || len(parts) != 5 || len(text) != 36 || len(parts[0]) != 8 || len(parts[4]) != 12 {
		return fmt.Errorf("the UUID is %q; it must be one such as 00112233-4455-6677-8899-aabbccddeeff", text)
	}
	return nil
}

func randomHex(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // it never fails
	return hex.EncodeToString(raw)
}

// Close ends what the BMC does in the background. The machine stays as it is.
func (b *BMC) Close() { b.close() }

// SystemPath is the path of the machine's ComputerSystem.
func (b *BMC) SystemPath() string { return b.systemPath() }

// ServeHTTP answers one request.
func (b *BMC) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	entry := b.begin(r)
	// What is dropped is in the log before its client can know.
	end := sync.OnceFunc(func() { b.end(entry) })
	defer end()
	lose := func() {
		end()
		drop(w)
	}
	if b.away() {
		lose()
	}
	body, tooLarge := readBody(w, r)
	entry.Body = logged(r, body)
	f := b.match(r)
	if f != nil && f.instead(w, r, b, entry, lose) {
		return
	}
	answer := b.serve(&call{Request: r, raw: body, tooLarge: tooLarge}, entry)
	entry.Status = answer.status
	if b.away() || (f != nil && f.LoseReply) {
		lose()
	}
	answer.write(w, r)
}

// drop resets the connection without an answer, as a BMC does that loses its
// network. It does not return.
func drop(w http.ResponseWriter) {
	if h, ok := w.(http.Hijacker); ok {
		if conn, _, err := h.Hijack(); err == nil {
			reset(conn)
		}
	}
	panic(http.ErrAbortHandler)
}

// reset closes a connection with RST, where it is a TCP connection.
func reset(conn net.Conn) {
	inner := conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		inner = t.NetConn()
	}
	if tcp, ok := inner.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
		inner.Close()
		return
	}
	conn.Close()
}

// Listener wraps the one that the BMC is served on: while the BMC is away, it
// resets each new connection before anything is said on it.
func (b *BMC) Listener(inner net.Listener) net.Listener { return listener{inner, b} }

type listener struct {
	net.Listener
	bmc *BMC
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || !l.bmc.away() {
			return conn, err
		}
		reset(conn)
	}
}

func fetch(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	return discard(resp.Body, 4<<30)
}

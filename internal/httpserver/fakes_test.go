package httpserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	uuidA = boot.UUID("00112233-4455-6677-8899-aabbccddeeff")
	uuidB = boot.UUID("a0b1c2d3-e4f5-0617-2839-4a5b6c7d8e9f")
	macA  = boot.MAC("52:54:00:aa:bb:01")
)

var (
	addrA = netip.MustParseAddr("127.0.0.1")
	addrB = netip.MustParseAddr("127.0.0.2")
	addrC = netip.MustParseAddr("127.0.0.3")
)

// fakeSource finds plans in lists. Broken makes every look-up fail.
type fakeSource struct {
	mu      sync.Mutex
	plans   []*boot.Plan
	cluster []netip.Addr
	public  []boot.Artifact
	broken  error
	calls   int
}

func (f *fakeSource) find(match func(*boot.Plan) bool) ([]*boot.Plan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.broken != nil {
		return nil, f.broken
	}
	var out []*boot.Plan
	for _, p := range f.plans {
		if match(p) {
			out = append(out, p)
		}
	}
	if out == nil {
		return nil, boot.ErrNotFound
	}
	return out, nil
}

func (f *fakeSource) ByAddr(a netip.Addr) ([]*boot.Plan, error) {
	return f.find(func(p *boot.Plan) bool {
		for _, b := range p.Machine.Addrs {
			if a == b {
				return true
			}
		}
		return false
	})
}

func (f *fakeSource) ByUUID(u boot.UUID) ([]*boot.Plan, error) {
	return f.find(func(p *boot.Plan) bool { return p.Machine.UUID == u || p.Machine.UUID.Swapped() == u })
}

func (f *fakeSource) ByMAC(m boot.MAC) ([]*boot.Plan, error) {
	return f.find(func(p *boot.Plan) bool {
		for _, n := range p.Machine.MACs {
			if n == m {
				return true
			}
		}
		return false
	})
}

// ByBootAddr finds what the control plane was told of earlier boots.
func (f *fakeSource) ByBootAddr(a netip.Addr) (*boot.Plan, error) {
	plans, err := f.find(func(p *boot.Plan) bool { return p.Attempt.BootAddr == a })
	if err != nil {
		return nil, err
	}
	return plans[len(plans)-1], nil
}

func (f *fakeSource) ByObject(uid string) (*boot.Plan, error) {
	plans, err := f.find(func(p *boot.Plan) bool { return p.Object.UID == uid })
	if err != nil {
		return nil, err
	}
	return plans[0], nil
}

func (f *fakeSource) PublicArtifact(d boot.Digest) (boot.Artifact, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return boot.Artifact{}, f.broken
	}
	for _, p := range f.plans {
		for _, a := range p.Artifacts {
			if a.Digest == d && p.NotReady == "" {
				return a, nil
			}
		}
	}
	for _, a := range f.public {
		if a.Digest == d {
			return a, nil
		}
	}
	return boot.Artifact{}, boot.ErrNotFound
}

func (f *fakeSource) ProvesNothing(a netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.cluster {
		if a == b {
			return true
		}
	}
	return false
}

// fakeBlobs opens files of a directory. Wrap lets a test stand between.
type fakeBlobs struct {
	dir    string
	broken error
	wrap   func(boot.Blob) boot.Blob
	mu     sync.Mutex
	opened []boot.Digest
}

func (f *fakeBlobs) add(t testing.TB, data []byte) boot.Artifact {
	t.Helper()
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:])
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, name), data, 0o600))
	return boot.Artifact{Role: boot.RoleUKI, Digest: boot.Digest("sha256:" + name), Size: int64(len(data)), Source: "registry.example/os@sha256:" + name}
}

func (f *fakeBlobs) Open(_ context.Context, d boot.Digest) (boot.Blob, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened = append(f.opened, d)
	if f.broken != nil {
		return nil, f.broken
	}
	file, err := os.Open(filepath.Join(f.dir, d.Hex()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", boot.ErrNotReady, err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	var b boot.Blob = &fakeBlob{file: file, size: info.Size()}
	if f.wrap != nil {
		b = f.wrap(b)
	}
	return b, nil
}

type fakeBlob struct {
	file *os.File
	size int64
}

func (b *fakeBlob) Read(p []byte) (int, error)         { return b.file.Read(p) }
func (b *fakeBlob) Seek(o int64, w int) (int64, error) { return b.file.Seek(o, w) }
func (b *fakeBlob) Close() error                       { return b.file.Close() }
func (b *fakeBlob) Size() int64                        { return b.size }
func (b *fakeBlob) File() *os.File                     { return b.file }

// arriving is a blob without a file whose bytes may be held up.
type arriving struct {
	boot.Blob
	// before is asked before each read, with the position.
	before func(pos int64) error
	pos    int64
}

func (a *arriving) File() *os.File { return nil }

func (a *arriving) Seek(o int64, w int) (int64, error) {
	n, err := a.Blob.Seek(o, w)
	a.pos = n
	return n, err
}

func (a *arriving) Read(p []byte) (int, error) {
	if a.before != nil {
		if err := a.before(a.pos); err != nil {
			return 0, err
		}
	}
	n, err := a.Blob.Read(p)
	a.pos += int64(n)
	return n, err
}

// fakeSecrets hands out documents by object.
type fakeSecrets struct {
	mu      sync.Mutex
	docs    map[string][]byte
	clouds  map[string]boot.CloudInit
	scripts map[string][]byte
	broken  error
	calls   int
}

func read[T any](f *fakeSecrets, from map[string]T, p *boot.Plan) (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	var none T
	if f.broken != nil {
		return none, f.broken
	}
	doc, ok := from[p.Object.UID]
	if !ok {
		return none, boot.ErrNotFound
	}
	return doc, nil
}

func (f *fakeSecrets) CloudInit(_ context.Context, p *boot.Plan) (boot.CloudInit, error) {
	return read(f, f.clouds, p)
}

func (f *fakeSecrets) Script(_ context.Context, p *boot.Plan) ([]byte, error) {
	return read(f, f.scripts, p)
}

func (f *fakeSecrets) Ignition(_ context.Context, p *boot.Plan) ([]byte, error) {
	return read(f, f.docs, p)
}

// object is what the API server knows of one object's attempts; replicas share
// it.
type object struct {
	attempt  boot.Attempt
	delivery string
}

type apiServer struct {
	mu      sync.Mutex
	objects map[string]*object
}

func (s *apiServer) get(uid string) *object {
	if s.objects[uid] == nil {
		s.objects[uid] = &object{}
	}
	return s.objects[uid]
}

// fakeAttempts behaves as one replica does: a memory of its own over an API
// server that commits by compare-and-swap.
type fakeAttempts struct {
	api *apiServer
	now func() time.Time

	mu        sync.Mutex
	local     map[string]boot.Attempt
	seen      []boot.Observation
	begun     []boot.Observation
	clients   []boot.Client
	commits   int
	refreshes int
	begins    int

	// Knobs.
	commit    func(ctx context.Context) error // before a commit reaches the API server
	lost      error                           // answer of a commit that was made
	noRefresh error
}

func (f *fakeAttempts) Current(p *boot.Plan) boot.Attempt {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a, ok := f.local[p.Object.UID]; ok && a.Number >= p.Attempt.Number {
		return a
	}
	return p.Attempt
}

func (f *fakeAttempts) Begin(p *boot.Plan, c boot.Client) (boot.Attempt, error) {
	a := f.Current(p)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begins++
	f.clients = append(f.clients, c)
	if p.Policy != boot.Once && c.Attempt != 0 && c.Attempt == a.Number {
		return a, nil
	}
	next, err := f.coming(p, a)
	if err == nil && next.Number > a.Number {
		// No two attempts are opened at one instant; the clock stands still.
		next.OpenedAt = f.now().Add(time.Duration(a.Number) * time.Microsecond)
		f.local[p.Object.UID] = next
	}
	return next, err
}

func (f *fakeAttempts) Coming(p *boot.Plan) (boot.Attempt, error) {
	a := f.Current(p)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.coming(p, a)
}

func (f *fakeAttempts) coming(p *boot.Plan, a boot.Attempt) (boot.Attempt, error) {
	switch {
	case p.Policy == boot.Once && a.Number == 0:
		return a, boot.ErrNotReady
	case p.Policy == boot.Once && a.Spent:
		return a, boot.ErrSpent
	case p.Policy != boot.Once && (a.Number == 0 || !a.BootServedAt.IsZero() || !a.Open(f.now())):
		return boot.Attempt{Number: a.Number + 1}, nil
	}
	return a, nil
}

func (f *fakeAttempts) Commit(ctx context.Context, p *boot.Plan, a boot.Attempt, _ boot.Digest, _ netip.Addr, delivery string) error {
	f.mu.Lock()
	f.commits++
	commit, lost := f.commit, f.lost
	f.mu.Unlock()
	if commit != nil {
		if err := commit(ctx); err != nil {
			return err
		}
	}
	f.api.mu.Lock()
	defer f.api.mu.Unlock()
	o := f.api.get(p.Object.UID)
	if o.attempt.Spent && o.attempt.Number == a.Number && o.delivery != delivery {
		return boot.ErrSpent
	}
	o.attempt = a
	o.attempt.Spent = true
	o.delivery = delivery
	f.mu.Lock()
	defer f.mu.Unlock()
	f.local[p.Object.UID] = o.attempt
	return lost
}

func (f *fakeAttempts) Refresh(_ context.Context, p *boot.Plan) (boot.Attempt, error) {
	f.mu.Lock()
	f.refreshes++
	broken := f.noRefresh
	f.mu.Unlock()
	if broken != nil {
		return boot.Attempt{}, broken
	}
	f.api.mu.Lock()
	a := f.api.get(p.Object.UID).attempt
	f.api.mu.Unlock()
	current := f.Current(p)
	if a.Number > current.Number {
		f.set(p, a)
		return a, nil
	}
	return current, nil
}

func (f *fakeAttempts) Observe(o boot.Observation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isBegin(o) {
		f.begun = append(f.begun, o)
	} else {
		f.seen = append(f.seen, o)
	}
	a := f.local[o.Object.UID]
	if a.Number != o.Attempt {
		return
	}
	bytes := bootBytes(o)
	if bytes && o.Proof >= boot.Address {
		a.BootAddr, a.BootProof = o.Addr, o.Proof
	}
	switch {
	case o.Stage == boot.StageAmbiguous:
		a.Ambiguous = true
	case bytes && o.Complete && a.BootServedAt.IsZero():
		a.BootServedAt = o.Time
	case (o.Stage == boot.StageIgnition || o.Stage == boot.StageCloudInit) && o.Complete && a.SecretServedAt.IsZero():
		a.SecretServedAt, a.SecretAddr = o.Time, o.Addr
	}
	f.local[o.Object.UID] = a
}

func bootBytes(o boot.Observation) bool {
	if o.Object.Kind == kindIPXE {
		return o.Stage == boot.StageIPXEScript
	}
	return o.Stage == boot.StageUKI
}

// isBegin says whether an observation is the first of a delivery, which tells
// that its bytes begin to flow.
func (f *fakeAttempts) isBegin(o boot.Observation) bool {
	if !o.UnderWay || o.Stage != boot.StageUKI {
		return false
	}
	for _, b := range f.begun {
		if b.Object == o.Object && b.Attempt == o.Attempt && b.Addr == o.Addr {
			return false
		}
	}
	return true
}

func (f *fakeAttempts) set(p *boot.Plan, a boot.Attempt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.local[p.Object.UID] = a
}

func (f *fakeAttempts) observed(stage boot.Stage) []boot.Observation {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []boot.Observation
	for _, o := range f.seen {
		if o.Stage == stage {
			out = append(out, o)
		}
	}
	return out
}

func (f *fakeAttempts) count() (commits, refreshes, begins int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commits, f.refreshes, f.begins
}

// fakeClock is moved by hand.
type fakeClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *fakeClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *fakeClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) line(prefix, args string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.WriteString(prefix + " " + args + "\n")
}

// world is a server over fakes: machine A at 127.0.0.1 with a UKI and Ignition,
// an open attempt, and the policy Always.
type world struct {
	t        testing.TB
	clock    *fakeClock
	source   *fakeSource
	blobs    *fakeBlobs
	secrets  *fakeSecrets
	attempts *fakeAttempts
	api      *apiServer
	options  Options
	log      *logBuffer
	keys     *boot.Keyring
	registry *prometheus.Registry
	plan     *boot.Plan
	data     []byte
	server   *Server
}

func randomBytes(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func newWorld(t testing.TB, change ...func(*world)) *world {
	t.Helper()
	clock := &fakeClock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	api := &apiServer{objects: map[string]*object{}}
	w := &world{
		t: t, clock: clock, api: api, log: &logBuffer{}, registry: prometheus.NewRegistry(),
		source:   &fakeSource{},
		blobs:    &fakeBlobs{dir: t.TempDir()},
		secrets:  &fakeSecrets{docs: map[string][]byte{}, clouds: map[string]boot.CloudInit{}, scripts: map[string][]byte{}},
		attempts: &fakeAttempts{api: api, now: clock.now, local: map[string]boot.Attempt{}},
		data:     randomBytes(300_000),
	}
	w.plan = w.machine("a", uuidA, addrA)
	w.plan.Machine.MACs = []boot.MAC{macA}
	w.plan.Artifacts = []boot.Artifact{w.blobs.add(t, w.data)}
	w.plan.Image = "registry.example/os"
	w.options = Options{
		Source: w.source, Blobs: w.blobs, Secrets: w.secrets, Attempts: w.attempts, Now: clock.now,
		ImageServerURL: "http://10.0.0.1:8083/httpboot", Registerer: w.registry, CommitWait: 300 * time.Millisecond,
		Logger: funcr.New(w.log.line, funcr.Options{Verbosity: 1}),
	}
	for _, c := range change {
		c(w)
	}
	var err error
	w.server, err = New(w.options)
	require.NoError(t, err)
	return w
}

// machine adds a machine with Ignition and an open attempt.
func (w *world) machine(name string, uuid boot.UUID, addrs ...netip.Addr) *boot.Plan {
	p := &boot.Plan{
		Object:       boot.Ref{Kind: "HTTPBootConfig", Namespace: "default", Name: name, UID: fmt.Sprintf("%08x-0000-4000-8000-000000000001", len(w.source.plans)+1)},
		Machine:      boot.Machine{UUID: uuid, Addrs: addrs, Architecture: boot.AMD64},
		Policy:       boot.Always,
		MinimumProof: boot.Address,
		HasIgnition:  true,
	}
	w.source.plans = append(w.source.plans, p)
	w.secrets.docs[p.Object.UID] = []byte(`{"ignition":{"version":"3.4.0"},"name":"` + name + `"}`)
	w.attempts.set(p, boot.Attempt{Number: 1, OpenedAt: w.clock.now()})
	return p
}

// serve runs a handler on a real socket and returns its base URL.
func (w *world) serve(h http.Handler, o ServeOptions) string {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	if o.DrainTime == 0 {
		o.DrainTime = 100 * time.Millisecond
	}
	counted := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		active.Add(1)
		defer active.Add(-1)
		h.ServeHTTP(rw, r)
	})
	go func() { done <- w.server.Serve(ctx, ln, counted, o) }()
	w.t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			require.NoError(w.t, err)
		case <-time.After(10 * time.Second):
			w.t.Error("server did not stop")
		}
	})
	scheme := "http://"
	if o.TLS != nil {
		scheme = "https://"
	}
	return scheme + ln.Addr().String()
}

func (w *world) bootServer() string {
	return w.serve(w.server.BootHandler(), ServeOptions{Name: "boot"})
}

// active are the requests that are being answered. A client has its answer
// before the server has noted that it sent it.
var active atomic.Int64

// settle waits for the server to have noted what it did.
func settle() {
	for deadline := time.Now().Add(time.Second); active.Load() > 0 && time.Now().Before(deadline); time.Sleep(100 * time.Microsecond) {
	}
}

// client asks from an address and follows no redirect, like firmware.
func client(from netip.Addr) *http.Client {
	d := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 5 * time.Second}
	return &http.Client{
		Transport:     &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       20 * time.Second,
	}
}

// answer is a response that was read.
type answer struct {
	*http.Response
	body []byte
	err  error
}

func ask(t testing.TB, from netip.Addr, method, url string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	require.NoError(t, err)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := client(from).Do(r)
	if err != nil {
		return answer{Response: &http.Response{Header: http.Header{}}, err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	settle()
	return answer{Response: resp, body: body, err: err}
}

func get(t testing.TB, url string, headers ...string) answer {
	t.Helper()
	return ask(t, addrA, http.MethodGet, url, headers...)
}

// eventually polls until ok, or fails.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("%s did not happen", what)
}

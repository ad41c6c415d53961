package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/render"
)

// DefaultCommitWait is how long the held back end of a Once delivery waits for
// its commit: less than the idle seconds after which firmware gives up.
const DefaultCommitWait = 3 * time.Second

// maxBaseURL keeps a URL with a token within 200 characters, in bytes.
const maxBaseURL = 100

// Options is everything that a Server is made of. Source, Blobs, Secrets and
// Attempts are required.
type Options struct {
	Source   boot.Source
	Blobs    boot.Blobs
	Secrets  boot.Secrets
	Attempts boot.Attempts
	// Composer puts composed UKIs together; without one none is served.
	Composer boot.Composer
	// Scripts renders what iPXE and GRUB run; nil is the template that is built in.
	Scripts *render.Scripts
	// Keyring checks the tokens in URLs. Without one, no token is accepted.
	Keyring *boot.Keyring
	// Issuer mints the tokens that are handed out. Without one, none are.
	Issuer *boot.Issuer
	// BaseURL is this server as machines reach it, for example
	// http://10.0.0.1:8082, in at most 100 bytes. Where it is empty, scripts name
	// the address that the machine connected to, and DHCP servers are told no URL
	// with a token. The Host header counts for nothing.
	BaseURL string
	// TrustedProxies may add hops to X-Forwarded-For. An address in here never
	// proves a machine by itself.
	TrustedProxies []netip.Prefix
	// TrustedDHCP may speak for the machines that X-Forwarded-For names, by IP
	// or MAC address.
	TrustedDHCP []netip.Prefix
	// ProxyProtocolFrom are the TCP balancers that must send a PROXY protocol
	// v2 header; a header from anyone else is refused.
	ProxyProtocolFrom []netip.Prefix
	// ClientRate is how many requests a second one client may make, and ClientBurst
	// how many at once before that counts: an IPv4 address, or an IPv6 /64. 0 is no
	// limit.
	ClientRate  float64
	ClientBurst int
	// ReloadKeys reads the keys of the keyring again, for a token of a key that it
	// lacks; nil where there is nothing to read. Its errors are those of being out of
	// reach.
	ReloadKeys func(ctx context.Context) error
	// Spans takes the spans of deliveries; nil is boot.NoSpans.
	Spans boot.Spans
	// IsNode says whether an address is one of a node of the cluster that we run in;
	// nil is that there are none.
	IsNode func(netip.Addr) bool
	// ImageServerURL is the public base of the compatibility image URLs, for
	// example http://10.0.0.1:8083/httpboot. URLs are never made from the Host
	// header: firmware leaves out its port.
	ImageServerURL string
	// DefaultImage is what unknown machines boot; nil, or false, is nothing. An
	// artifact without a digest is only told to those who ask for JSON: its
	// Source is then the URL.
	DefaultImage func() (a boot.Artifact, image string, ok bool)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// CommitWait is DefaultCommitWait when it is 0.
	CommitWait time.Duration
	Logger     logr.Logger
	// Registerer takes the metrics; nil keeps them unexported.
	Registerer prometheus.Registerer
}

// Server answers machines. Its handlers may be served on any number of
// listeners.
type Server struct {
	source     boot.Source
	blobs      boot.Blobs
	secrets    boot.Secrets
	attempts   boot.Attempts
	composer   boot.Composer
	scripts    *render.Scripts
	keyring    *boot.Keyring
	issuer     *boot.Issuer
	proxies    prefixes
	dhcp       prefixes
	proxyProto prefixes
	isNode     func(netip.Addr) bool
	reloadKeys func(ctx context.Context) error
	spans      boot.Spans
	imageURL   string
	baseURL    string
	fallback   func() (boot.Artifact, string, bool)
	now        func() time.Time
	commitWait time.Duration
	log        logr.Logger
	metrics    *metrics

	deliveries deliveries
	bindings   bindings
	refreshes  refreshes
	holds      holds
	served     limiter
	refused    limiter
	handshakes limiter
	translated limiter
	rates      rates
	reloads    reloads
}

// New returns a server. It returns boot.ErrInvalid when an option is missing or
// wrong, and the registry's error when metrics of this name are registered
// already.
func New(o Options) (*Server, error) {
	if o.Source == nil || o.Blobs == nil || o.Secrets == nil || o.Attempts == nil {
		return nil, fmt.Errorf("%w: the HTTP server needs a source, blobs, secrets and attempts", boot.ErrInvalid)
	}
	images, err := cleanBase("image server URL", "http://10.0.0.1:8083/httpboot", o.ImageServerURL)
	if err != nil {
		return nil, err
	}
	base, err := cleanBase("boot server URL", "http://10.0.0.1:8082", o.BaseURL)
	if err != nil {
		return nil, err
	}
	if len(base) > maxBaseURL {
		return nil, fmt.Errorf("%w: the boot server URL has %d bytes; it may have %d", boot.ErrInvalid, len(base), maxBaseURL)
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("registering HTTP metrics: %w", err)
	}
	s := &Server{
		source: o.Source, blobs: o.Blobs, secrets: o.Secrets, attempts: o.Attempts,
		composer: o.Composer, scripts: o.Scripts, keyring: o.Keyring, issuer: o.Issuer,
		proxies: newPrefixes(o.TrustedProxies), dhcp: newPrefixes(o.TrustedDHCP), proxyProto: newPrefixes(o.ProxyProtocolFrom),
		isNode: o.IsNode, reloadKeys: o.ReloadKeys, spans: o.Spans,
		rates:    rates{rate: o.ClientRate, burst: float64(max(o.ClientBurst, 1))},
		imageURL: images, baseURL: base, fallback: o.DefaultImage, now: o.Now, commitWait: o.CommitWait, log: o.Logger, metrics: m,
		served:     limiter{burst: 200, window: logWindow},
		refused:    limiter{burst: 30, window: logWindow},
		handshakes: limiter{burst: 10, window: logWindow},
		translated: limiter{burst: 1, window: translatedWindow},
		reloads:    reloads{turn: make(chan struct{}, 1)},
	}
	if s.scripts == nil {
		s.scripts = render.NewScripts()
	}
	if s.spans == nil {
		s.spans = boot.NoSpans{}
	}
	if s.isNode == nil {
		s.isNode = noNodes
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.commitWait == 0 {
		s.commitWait = DefaultCommitWait
	}
	return s, nil
}

// cleanBase checks a URL that paths are added to, and drops the slash at its end.
// The URL may be empty.
func cleanBase(name, example, s string) (string, error) {
	if s == "" {
		return "", nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%w: the %s %q is not of the form %s", boot.ErrInvalid, name, s, example)
	}
	return strings.TrimRight(s, "/"), nil
}

// base is this server's URL for whoever asks: the option, else the address that
// the connection was made to.
func (s *Server) base(r *http.Request) string {
	if s.baseURL != "" {
		return s.baseURL
	}
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return scheme + "localhost" // not reached by way of net/http
	}
	if tcp, ok := local.(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return scheme + netip.AddrPortFrom(boot.CanonicalAddr(ap.Addr()), ap.Port()).String()
	}
	return scheme + local.String()
}

// BootHandler serves everything: boot bytes and scripts, secrets, and the image
// routes.
func (s *Server) BootHandler() http.Handler { return &handler{server: s, match: matchBoot} }

// ImageHandler serves public blobs only: the routes of the image proxy.
func (s *Server) ImageHandler() http.Handler { return &handler{server: s, match: matchImage} }

// handler is one route table of a server.
type handler struct {
	server *Server
	match  func(path string) (match, bool)
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{w: w, r: r, s: h.server, start: time.Now(), route: routeNone}
	defer x.end()
	if err := h.serve(x); err != nil {
		x.fail(err)
	}
}

func (h *handler) serve(x *exchange) error {
	x.boundBody()
	var peerErr error
	x.peer, peerErr = h.server.peerOf(x.r)
	if err := h.server.unlimited(x); err != nil {
		return err
	}
	path, ok := cleanPath(x.r.URL.Path)
	if !ok {
		return errNoRoute
	}
	m, ok := h.match(path)
	if !ok {
		return errNoRoute
	}
	x.route, x.arg, x.file = m.route, m.arg, m.file
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return errMethod
	}
	x.readToken(m.token)
	if peerErr != nil {
		return peerErr
	}
	return m.serve(h.server, x)
}

// errAborted ends a response whose head is already out: the connection is cut,
// so that nobody takes what was sent for the whole.
var errAborted = errors.New("response aborted")

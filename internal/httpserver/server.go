package httpserver

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// DefaultCommitWait is how long the held back end of a Once delivery waits for
// its commit: less than the idle seconds after which firmware gives up.
const DefaultCommitWait = 3 * time.Second

// Options is everything that a Server is made of. Source, Blobs, Secrets and
// Attempts are required.
type Options struct {
	Source   boot.Source
	Blobs    boot.Blobs
	Secrets  boot.Secrets
	Attempts boot.Attempts
	// Keyring checks the tokens in URLs. Without one, no token is accepted.
	Keyring *boot.Keyring
	// TrustedProxies may add hops to X-Forwarded-For. An address in here never
	// proves a machine by itself.
	TrustedProxies []netip.Prefix
	// TrustedDHCP may speak for the machines that X-Forwarded-For names, by IP
	// or MAC address.
	TrustedDHCP []netip.Prefix
	// ProxyProtocolFrom are the TCP balancers that must send a PROXY protocol
	// v2 header; a header from anyone else is refused.
	ProxyProtocolFrom []netip.Prefix
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
	keyring    *boot.Keyring
	proxies    prefixes
	dhcp       prefixes
	proxyProto prefixes
	imageURL   string
	fallback   func() (boot.Artifact, string, bool)
	now        func() time.Time
	commitWait time.Duration
	log        logr.Logger
	metrics    *metrics

	deliveries deliveries
	refreshes  refreshes
	holds      holds
	served     limiter
	refused    limiter
	handshakes limiter
}

// New returns a server. It returns boot.ErrInvalid when an option is missing or
// wrong, and the registry's error when metrics of this name are registered
// already.
func New(o Options) (*Server, error) {
	if o.Source == nil || o.Blobs == nil || o.Secrets == nil || o.Attempts == nil {
		return nil, fmt.Errorf("%w: the HTTP server needs a source, blobs, secrets and attempts", boot.ErrInvalid)
	}
	base, err := imageBase(o.ImageServerURL)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("registering HTTP metrics: %w", err)
	}
	s := &Server{
		source: o.Source, blobs: o.Blobs, secrets: o.Secrets, attempts: o.Attempts, keyring: o.Keyring,
		proxies: newPrefixes(o.TrustedProxies), dhcp: newPrefixes(o.TrustedDHCP), proxyProto: newPrefixes(o.ProxyProtocolFrom),
		imageURL: base, fallback: o.DefaultImage, now: o.Now, commitWait: o.CommitWait, log: o.Logger, metrics: m,
		served:     limiter{burst: 200, window: logWindow},
		refused:    limiter{burst: 30, window: logWindow},
		handshakes: limiter{burst: 10, window: logWindow},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.commitWait == 0 {
		s.commitWait = DefaultCommitWait
	}
	return s, nil
}

func imageBase(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%w: the image server URL %q is not of the form http://10.0.0.1:8083/httpboot", boot.ErrInvalid, s)
	}
	return strings.TrimRight(s, "/"), nil
}

// BootHandler serves everything: /httpboot, /ignition and the image routes.
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
	path, ok := cleanPath(x.r.URL.Path)
	if !ok {
		return errNoRoute
	}
	m, ok := h.match(path)
	if !ok {
		return errNoRoute
	}
	x.route, x.arg = m.route, m.arg
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		return errMethod
	}
	if err := x.readToken(m.token); err != nil {
		return err
	}
	var err error
	if x.peer, err = h.server.peerOf(x.r); err != nil {
		return err
	}
	return m.serve(h.server, x)
}

// errAborted ends a response whose head is already out: the connection is cut,
// so that nobody takes what was sent for the whole.
var errAborted = errors.New("response aborted")

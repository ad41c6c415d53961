package fleet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// Gate stands between one replica and the API server. It can be cut, and counts what
// passes.
type Gate struct {
	listener net.Listener
	server   *http.Server
	proxy    *httputil.ReverseProxy

	mu       sync.Mutex
	cut      chan struct{} // closed while the gate is cut
	counts   map[string]int
	renewed  time.Time
	watching int
}

// NewGate listens on a port of loopback and passes requests on to the API server, as
// whom config says; Close ends it.
func NewGate(ctx context.Context, config *rest.Config) (*Gate, error) {
	as := rest.CopyConfig(config)
	as.QPS = -1
	transport, err := rest.TransportFor(as)
	if err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &Gate{listener: l, cut: make(chan struct{}), counts: map[string]int{}}
	g.proxy = &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1,
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: g.answered,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	g.server = &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = g.server.Serve(l) }()
	return g, nil
}

// URL is where the replica finds the API server.
func (g *Gate) URL() string { return "http://" + g.listener.Addr().String() }

// Close cuts the gate for good.
func (g *Gate) Close() error {
	g.Cut()
	return g.server.Close()
}

// ServeHTTP implements http.Handler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	cut := g.cut
	g.counts[kindOf(r)]++
	g.mu.Unlock()
	select {
	case <-cut:
		panic(http.ErrAbortHandler)
	default:
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		select {
		case <-cut:
			cancel()
		case <-ctx.Done():
		}
	}()
	if watchesConfigs(r) {
		g.watches(1)
		defer g.watches(-1)
	}
	g.proxy.ServeHTTP(w, r.WithContext(ctx))
}

func (g *Gate) watches(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watching += n
}

// answered notes when the replica last renewed the Lease of the leader's election.
func (g *Gate) answered(r *http.Response) error {
	if r.Request.Method != http.MethodGet && strings.Contains(r.Request.URL.Path, "/leases") && r.StatusCode < 300 {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.renewed = time.Now()
	}
	return nil
}

// Renewed is when the replica wrote the Lease of the leader's election last.
func (g *Gate) Renewed() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.renewed
}

// Watching says whether the replica is being told of changes of configs.
func (g *Gate) Watching() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.watching > 0
}

// Counts returns how many requests there were so far, by verb and resource, such as
// "PATCH httpbootconfigs".
func (g *Gate) Counts() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[string]int, len(g.counts))
	for k, n := range g.counts {
		out[k] = n
	}
	return out
}

// Cut ends every request and lets no new one through.
func (g *Gate) Cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.cut:
	default:
		close(g.cut)
	}
}

// Restore lets requests through again.
func (g *Gate) Restore() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = make(chan struct{})
}

func watchesConfigs(r *http.Request) bool {
	return r.URL.Query().Get("watch") != "" && strings.HasSuffix(r.URL.Path, "/httpbootconfigs")
}

// kindOf is the verb and the resource of a request, as
// /apis/<group>/<version>/namespaces/<namespace>/<resource>/… has it.
func kindOf(r *http.Request) string {
	verb := r.Method
	if r.URL.Query().Get("watch") != "" {
		verb = "WATCH"
	}
	_, rest, ok := strings.Cut(r.URL.Path, "/namespaces/")
	if parts := strings.Split(rest, "/"); ok && len(parts) > 1 {
		return verb + " " + parts[1]
	}
	return verb + " " + r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
}

package e2e

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

// operatorUser is who the operator is to the API server: it has the rights that
// config/rbac gives, and no others.
const operatorUser = "system:serviceaccount:boot-operator-system:boot-operator"

// gate stands between the operator and the API server. It can be cut, and it
// can stop the world at a request: before the API server has it, or after the
// API server did it and before the operator knows.
type gate struct {
	listener net.Listener
	proxy    *httputil.ReverseProxy

	mu            sync.Mutex
	cut           chan struct{} // closed while the gate is cut
	before, after func(*http.Request)
}

func newGate(t *testing.T, l net.Listener, config *rest.Config) *gate {
	t.Helper()
	as := rest.CopyConfig(config)
	as.Impersonate = rest.ImpersonationConfig{UserName: operatorUser, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	as.QPS = -1
	transport, err := rest.TransportFor(as)
	require.NoError(t, err)
	target, err := url.Parse(config.Host)
	require.NoError(t, err)
	g := &gate{listener: l, cut: make(chan struct{})}
	g.proxy = &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1,
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error { g.hook(&g.after, r.Request); return nil },
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { g.at(nil, nil); g.Cut(); _ = server.Close() })
	return g
}

func (g *gate) addr() string { return g.listener.Addr().String() }

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	cut := g.cut
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
	g.hook(&g.before, r)
	g.proxy.ServeHTTP(w, r.WithContext(ctx))
}

func (g *gate) hook(hook *func(*http.Request), r *http.Request) {
	g.mu.Lock()
	f := *hook
	g.mu.Unlock()
	if f != nil {
		f(r)
	}
}

// at sets what happens to requests; nil is nothing.
func (g *gate) at(before, after func(*http.Request)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.before, g.after = before, after
}

// Cut ends every request and lets no new one through.
func (g *gate) Cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.cut:
	default:
		close(g.cut)
	}
}

// Restore lets requests through again.
func (g *gate) Restore() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut = make(chan struct{})
}

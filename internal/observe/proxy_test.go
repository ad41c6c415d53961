package observe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
)

// moment is a point in the life of one commit, as a proxy between the replica
// and the API server sees it.
type moment string

const (
	readArrives   moment = "the read arrives"
	readAnswered  moment = "the read was answered"
	writeArrives  moment = "the write arrives"
	writeInFlight moment = "the write is under way"
	writeAnswered moment = "the write was answered"
	// The replica itself says these two.
	committed moment = "the commit returned"
	delivered moment = "the last bytes were handed over"
)

// proxy stands between a replica and the API server.
type proxy struct {
	url  string
	away atomic.Bool
	// refused counts requests that came while it was away.
	refused atomic.Int64
	// at is called at every moment; when it returns false the connection is cut
	// there, and what was on its way does not arrive.
	at func(moment) bool
}

var errCut = errors.New("cut by the test")

func newProxy(t *testing.T, config *rest.Config, at func(moment) bool) *proxy {
	t.Helper()
	transport, err := rest.TransportFor(config)
	require.NoError(t, err)
	target, err := url.Parse(config.Host)
	require.NoError(t, err)
	p := &proxy{at: at}
	reverse := &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:    roundTripper(func(r *http.Request) (*http.Response, error) { return p.forward(transport, r) }),
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(reverse)
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (p *proxy) forward(next http.RoundTripper, r *http.Request) (*http.Response, error) {
	if p.away.Load() {
		p.refused.Add(1)
		return nil, errCut
	}
	before, after := readArrives, readAnswered
	switch {
	case !strings.Contains(r.URL.Path, "/namespaces/"):
		return next.RoundTrip(r) // discovery
	case r.Method == http.MethodPatch:
		before, after = writeArrives, writeAnswered
	}
	if p.at != nil && !p.at(before) {
		return nil, errCut
	}
	if before == writeArrives && p.at != nil {
		if r, err := detached(r); err != nil {
			return nil, err
		} else if !p.at(writeInFlight) {
			return next.RoundTrip(r) // its sender is dead, and yet it arrives
		}
	}
	resp, err := next.RoundTrip(r)
	if err == nil && p.at != nil && !p.at(after) {
		_ = resp.Body.Close()
		return nil, errCut
	}
	return resp, err
}

// detached reads the whole of a request, so that it outlives its sender.
func detached(r *http.Request) (*http.Request, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	d := r.Clone(context.WithoutCancel(r.Context()))
	d.Body = io.NopCloser(bytes.NewReader(body))
	return d, nil
}

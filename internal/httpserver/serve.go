package httpserver

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/pires/go-proxyproto"
)

// Limits of a listener, where ServeOptions names none.
const (
	DefaultDrainTime      = 60 * time.Second
	DefaultMaxConnections = 8192
	DefaultMaxPerClient   = 1024
	headerTimeout         = 10 * time.Second
	idleTimeout           = 60 * time.Second
	maxHeaderBytes        = 16 << 10
)

// ServeOptions say how one listener is served.
type ServeOptions struct {
	// Name is the listener's in logs.
	Name string
	// TLS makes it a TLS listener.
	TLS *TLSOptions
	// DrainDelay is how long connections are still accepted after the end was asked
	// for: until then balancers have noticed that this replica is not ready.
	DrainDelay time.Duration
	// DrainTime is how long transfers may go on after that; 0 is DefaultDrainTime.
	DrainTime time.Duration
	// DrainIdle is how long a connection may be silent between two requests
	// meanwhile; 0 is DefaultDrainIdle.
	DrainIdle time.Duration
	// MaxConnections bounds the open connections: more wait to be accepted. 0
	// is DefaultMaxConnections.
	MaxConnections int
	// MaxPerClient bounds those of one address, which trusted proxies and
	// balancers are exempt from: more are closed. 0 is DefaultMaxPerClient.
	MaxPerClient int
}

// Serve answers on a listener until ctx is done. Then it accepts for DrainDelay
// more, and lets what runs finish for DrainTime. It closes the listener. It returns
// nil after such an end, and boot.ErrInvalid when the TLS certificate cannot be
// read.
func (s *Server) Serve(ctx context.Context, ln net.Listener, h http.Handler, o ServeOptions) error {
	o = o.withDefaults()
	defer func() { _ = ln.Close() }() // it was closed already, or never served
	d := &drain{}
	srv, err := s.httpServer(d.handler(h), o)
	if err != nil {
		return err
	}
	srv.ConnState = d.follow
	defer func() { _ = srv.Close() }() // nothing is left to be told
	limited := s.listener(ln, o)
	served := make(chan struct{})
	go func() { defer close(served); err = serveOn(srv, limited, o.TLS != nil) }()
	s.log.V(1).Info("Serving", "server", o.Name, "address", ln.Addr().String(), "tls", o.TLS != nil)
	select {
	case <-served:
		return fmt.Errorf("serving %s on %s: %w", o.Name, ln.Addr(), err)
	case <-ctx.Done():
	}
	s.metrics.draining.Inc()
	defer s.metrics.draining.Dec()
	d.began.Store(true)
	select {
	case <-served: // it will not accept for longer than this
	case <-time.After(o.DrainDelay):
		_ = limited.Close() // as above
		<-served
	}
	if cut := d.finish(o.DrainIdle, o.DrainTime); cut > 0 {
		s.log.Info("Cut transfers that were still running", "server", o.Name, "after", o.DrainTime.String(), "transfers", cut)
	}
	return nil
}

func (o ServeOptions) withDefaults() ServeOptions {
	if o.DrainTime == 0 {
		o.DrainTime = DefaultDrainTime
	}
	if o.DrainIdle == 0 {
		o.DrainIdle = DefaultDrainIdle
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = DefaultMaxConnections
	}
	if o.MaxPerClient == 0 {
		o.MaxPerClient = DefaultMaxPerClient
	}
	return o
}

func serveOn(srv *http.Server, ln net.Listener, tls bool) error {
	if tls {
		return srv.ServeTLS(ln, "", "") //nolint:wrapcheck // Serve wraps it
	}
	return srv.Serve(ln) //nolint:wrapcheck // Serve wraps it
}

// httpServer returns a server with limits. It has no ReadTimeout: that would
// cancel the context of every transfer that takes longer. Heads are bounded by
// ReadHeaderTimeout, bodies by the handler, and writes by WriteTimeout, which
// the handler extends with each chunk that went out.
func (s *Server) httpServer(h http.Handler, o ServeOptions) (*http.Server, error) {
	srv := &http.Server{
		Handler:                      h,
		ReadHeaderTimeout:            headerTimeout,
		WriteTimeout:                 chunkTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(serverLog{s: s, name: o.Name}, "", 0),
		Protocols:                    new(http.Protocols),
	}
	// Firmware speaks HTTP/1.1, and only that can be sent by the kernel.
	srv.Protocols.SetHTTP1(true)
	if len(s.proxyProto) > 0 {
		srv.ConnContext = keepConn
	}
	if o.TLS == nil {
		return srv, nil
	}
	c, err := tlsConfig(*o.TLS, s.log.WithValues("server", o.Name), s.now, s.metrics.expires)
	if err != nil {
		return nil, err
	}
	srv.TLSConfig = c
	return srv, nil
}

// listener puts the limits and the PROXY protocol before the server.
func (s *Server) listener(ln net.Listener, o ServeOptions) net.Listener {
	ln = newLimitListener(ln, o, append(append(prefixes(nil), s.proxies...), s.proxyProto...), s.metrics)
	if len(s.proxyProto) == 0 {
		return ln
	}
	return &proxyproto.Listener{
		Listener:          ln,
		ReadHeaderTimeout: headerTimeout,
		ConnPolicy: func(c proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if s.proxyProto.contains(addrOf(c.Upstream)) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil
		},
		ValidateHeader: checkProxyHeader,
	}
}

// errProxyHeader refuses headers that name no client.
var errProxyHeader = errors.New("PROXY protocol header is not version 2 with a TCP address")

// checkProxyHeader accepts what a TCP balancer sends: version 2, with the
// client's address or for a check of its own.
func checkProxyHeader(h *proxyproto.Header) error {
	if h.Version != 2 {
		return errProxyHeader
	}
	if h.Command.IsLocal() {
		return nil
	}
	if _, _, ok := h.TCPAddrs(); !ok {
		return errProxyHeader
	}
	return nil
}

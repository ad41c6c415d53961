package httpserver

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// limitListener bounds how many connections are open, in all and for each
// client.
type limitListener struct {
	net.Listener
	exempt    prefixes
	perClient int
	metrics   *metrics
	slots     chan struct{}
	closed    chan struct{}
	once      sync.Once

	mu      sync.Mutex
	clients map[netip.Addr]int
}

func newLimitListener(ln net.Listener, o ServeOptions, exempt prefixes, m *metrics) *limitListener {
	return &limitListener{
		Listener: ln, exempt: exempt, perClient: o.MaxPerClient, metrics: m,
		slots: make(chan struct{}, o.MaxConnections), closed: make(chan struct{}), clients: make(map[netip.Addr]int),
	}
}

// Accept implements net.Listener: it waits for a free slot and closes at once
// what a client has too many of.
func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.slots
			return nil, err //nolint:wrapcheck // net/http looks at it
		}
		client := addrOf(c.RemoteAddr())
		if l.admit(client) {
			l.metrics.conns.Inc()
			return &limitedConn{Conn: c, release: func() { l.release(client) }}, nil
		}
		l.metrics.refusedIn.Inc()
		_ = c.Close() // it is being refused
	}
}

// Close implements net.Listener.
func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close() //nolint:wrapcheck // as above
}

func (l *limitListener) admit(client netip.Addr) bool {
	if l.exempt.contains(client) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clients[client] >= l.perClient {
		return false
	}
	l.clients[client]++
	return true
}

func (l *limitListener) release(client netip.Addr) {
	<-l.slots
	l.metrics.conns.Dec()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clients[client]--; l.clients[client] <= 0 {
		delete(l.clients, client)
	}
}

// limitedConn gives its slot back once. It hands ReadFrom on, without which no
// file would be sent by the kernel.
type limitedConn struct {
	net.Conn
	once    sync.Once
	release func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.once.Do(c.release)
	return c.Conn.Close() //nolint:wrapcheck // transparent
}

// ReadFrom implements io.ReaderFrom.
func (c *limitedConn) ReadFrom(r io.Reader) (int64, error) {
	if rf, ok := c.Conn.(io.ReaderFrom); ok {
		return rf.ReadFrom(r) //nolint:wrapcheck // transparent
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r) //nolint:wrapcheck // transparent
}

// CloseWrite lets net/http end its side first, so that a client still reads an
// answer to a request that was too large.
func (c *limitedConn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite() //nolint:wrapcheck // transparent
	}
	return errors.ErrUnsupported
}

func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return boot.CanonicalAddr(tcp.AddrPort().Addr())
	}
	return netip.Addr{}
}

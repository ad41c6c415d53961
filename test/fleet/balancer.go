package fleet

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// probeEvery is how often a balancer asks a replica whether it is ready.
	probeEvery = 200 * time.Millisecond
	// window bounds what is under way on each side of the balancer, in bytes: a
	// kernel that takes a whole image at once leaves nothing to cut.
	window = 64 << 10
)

// Balancer forwards TCP connections to replicas that say they are ready, as a
// Service does, and tells them by PROXY protocol v2 who is connected. It tries no
// second replica: neither does a Service.
type Balancer struct {
	listener net.Listener
	// plain leaves out the PROXY protocol.
	plain bool

	affinity atomic.Bool
	turn     atomic.Uint64
	backends []*backend

	mu  sync.Mutex
	led map[netip.AddrPort]*leads
}

// leads says where a connection leads to, also for a while after its end.
type leads struct{ to *backend }

// remembered is how long a connection that ended is remembered.
const remembered = 5 * time.Second

// backend is one replica as the balancer sees it.
type backend struct {
	name, address, probe string
	ready                atomic.Bool
	connections          atomic.Int64
}

// NewBalancer listens on a port of loopback; Close ends it. Without backends it
// closes every connection.
func NewBalancer(ctx context.Context, plain bool) (*Balancer, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &Balancer{listener: l, plain: plain, led: map[netip.AddrPort]*leads{}}
	b.affinity.Store(true)
	go b.accept()
	return b, nil
}

// Address is where machines connect to.
func (b *Balancer) Address() string { return b.listener.Addr().String() }

// Close accepts no more connections.
func (b *Balancer) Close() error { return b.listener.Close() }

// Affinity sends every client to one replica, by its address, or else each
// connection to the next replica.
func (b *Balancer) Affinity(on bool) { b.affinity.Store(on) }

// Add forwards to a replica from now on, whenever probe answers 200, until ctx ends.
func (b *Balancer) Add(ctx context.Context, name, address, probe string) {
	back := &backend{name: name, address: address, probe: probe}
	b.mu.Lock()
	b.backends = append(b.backends, back)
	b.mu.Unlock()
	go back.watch(ctx)
}

func (b *backend) watch(ctx context.Context) {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil {
		resp, err := client.Get(b.probe)
		b.ready.Store(err == nil && resp.StatusCode == http.StatusOK)
		if err == nil {
			resp.Body.Close()
		}
		pause(ctx, probeEvery)
	}
}

// Ready says whether the balancer sends connections to this replica.
func (b *Balancer) Ready(name string) bool {
	back := b.backend(name)
	return back != nil && back.ready.Load()
}

// Connections is how many connections of this replica are open.
func (b *Balancer) Connections(name string) int64 {
	if back := b.backend(name); back != nil {
		return back.connections.Load()
	}
	return 0
}

// Through is the replica that this client's connection leads to, or did until a moment
// ago; empty where there is none.
func (b *Balancer) Through(client net.Addr) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.led[addrPort(client)]; l != nil {
		return l.to.name
	}
	return ""
}

func (b *Balancer) backend(name string) *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, back := range b.backends {
		if back.name == name {
			return back
		}
	}
	return nil
}

func (b *Balancer) accept() {
	for {
		c, err := b.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors for a moment
			continue
		}
		go b.forward(c.(*net.TCPConn)) //nolint:forcetypeassert // a TCP listener's
	}
}

// forward connects a client with the replica that is chosen for it.
func (b *Balancer) forward(client *net.TCPConn) {
	defer client.Close()
	from := addrPort(client.RemoteAddr())
	back := b.choose(Outer(from.Addr()))
	if back == nil {
		_ = client.SetLinger(0)
		return
	}
	conn, err := (&net.Dialer{Timeout: time.Second, Control: likeEthernet}).Dial("tcp", back.address)
	if err != nil {
		_ = client.SetLinger(0) // a port that nobody listens on resets, too
		return
	}
	upstream := conn.(*net.TCPConn) //nolint:forcetypeassert // as dialled
	defer upstream.Close()
	defer b.note(from, back)()
	_ = client.SetWriteBuffer(window)
	if !b.plain {
		if _, err := upstream.Write(proxyHeader(netip.AddrPortFrom(Outer(from.Addr()), from.Port()), addrPort(client.LocalAddr()))); err != nil {
			return
		}
	}
	go func() {
		_, _ = io.Copy(upstream, client)
		_ = upstream.CloseWrite()
	}()
	_, _ = io.Copy(client, upstream) // ends with the replica's side
}

// note remembers where a connection leads to until ended is called, and a while longer.
func (b *Balancer) note(client netip.AddrPort, to *backend) (ended func()) {
	to.connections.Add(1)
	l := &leads{to}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.led[client] = l
	return func() {
		to.connections.Add(-1)
		time.AfterFunc(remembered, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.led[client] == l { // the port may be another connection's by now
				delete(b.led, client)
			}
		})
	}
}

// choose picks a ready replica: by rendezvous hashing of the client's address, so that
// one which goes or comes moves only its own clients, or the next in turn.
func (b *Balancer) choose(client netip.Addr) *backend {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ready []*backend
	var best *backend
	var highest uint64
	for _, back := range b.backends {
		if !back.ready.Load() {
			continue
		}
		ready = append(ready, back)
		if w := weight(client, back.name); best == nil || w > highest {
			best, highest = back, w
		}
	}
	if len(ready) > 0 && !b.affinity.Load() {
		return ready[b.turn.Add(1)%uint64(len(ready))]
	}
	return best
}

// weight is as good as random, and always the same.
func weight(client netip.Addr, name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(client.AsSlice())
	_, _ = io.WriteString(h, name)
	// FNV's last bytes hardly reach its high bits: mixed as SplitMix64 does.
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// proxyHeader is the header of PROXY protocol version 2 for TCP over IPv4
// (section 2.2 of its specification).
func proxyHeader(source, destination netip.AddrPort) []byte {
	h := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c")
	h = append(h, source.Addr().AsSlice()...)
	h = append(h, destination.Addr().AsSlice()...)
	h = binary.BigEndian.AppendUint16(h, source.Port())
	return binary.BigEndian.AppendUint16(h, destination.Port())
}

// Outer is the address that a replica is told for one of loopback: 10.64.1.2 for
// 127.64.1.2.
func Outer(inner netip.Addr) netip.Addr {
	a := inner.Unmap().As4()
	a[0] = 10
	return netip.AddrFrom4(a)
}

// inner is the address of loopback that something at an outer address connects from.
func inner(outer netip.Addr) netip.Addr {
	a := outer.As4()
	a[0] = 127
	return netip.AddrFrom4(a)
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := tcp.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

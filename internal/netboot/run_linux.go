package netboot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// receiveBuffer holds some thousand DISCOVERs, bytes.
	receiveBuffer = 4 << 20
	// pauseAfterDown is how long a link that is down is left alone.
	pauseAfterDown = time.Second
)

// attached is a segment with its open sockets.
type attached struct {
	segment
	server *Server
	// frames receives DHCP and sends frames. It takes port 67 from nobody: an
	// address-giving DHCP server may run on this host.
	frames *packet.Conn
	// relays sends datagrams from port 67 to relays.
	relays *net.IPConn
	// files is port 69.
	files *net.UDPConn
	// quiet are sockets that receive nothing, and only keep the kernel from
	// answering "port unreachable".
	quiet []net.PacketConn
}

// run opens the sockets of all segments before it serves on any.
func (s *Server) run(ctx context.Context) error {
	var open []*attached
	defer func() {
		for _, a := range open {
			a.close()
		}
	}()
	for _, segment := range s.segments {
		a := &attached{segment: segment, server: s}
		open = append(open, a)
		if err := a.open(ctx); err != nil {
			return fmt.Errorf("serving network boots on %s: %w", segment.name, err)
		}
		s.options.Logger.Info("Serving network boots", "interface", segment.name, "address", segment.addr)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, a := range open {
		group.Go(func() error { return a.receive(ctx) })
		group.Go(func() error { return s.serveTFTP(ctx, a.files, a.segment) })
	}
	group.Go(func() error {
		s.housekeep(ctx, open)
		for _, a := range open {
			a.close()
		}
		return nil
	})
	if err := group.Wait(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err //nolint:wrapcheck // ours
	}
	return nil
}

// housekeep does what is due from time to time, until ctx ends.
func (s *Server) housekeep(ctx context.Context, open []*attached) {
	tick := time.NewTicker(rescanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.rescan()
		for _, a := range open {
			a.countDrops()
		}
	}
}

func (a *attached) countDrops() {
	stats, err := a.frames.Stats()
	if err != nil || stats.Drops == 0 {
		return
	}
	a.server.metrics.dropped.WithLabelValues(a.name).Add(float64(stats.Drops))
	a.server.options.Logger.Info("DHCP messages came faster than they were answered, and were dropped", "interface", a.name, "count", stats.Drops)
}

func (a *attached) open(ctx context.Context) error {
	filter, err := dhcpFilter(a.index)
	if err != nil {
		return err
	}
	nic := &net.Interface{Index: a.index, HardwareAddr: macBytes(a.hardware)}
	a.frames, err = packet.Listen(nic, packet.Raw, etherTypeIPv4, &packet.Config{Filter: filter})
	if err != nil {
		return fmt.Errorf("opening a packet socket, which needs CAP_NET_RAW: %w", err)
	}
	if err := a.enlarge(); err != nil {
		return err
	}
	if a.relays, err = net.ListenIP("ip4:17", &net.IPAddr{IP: a.addr.AsSlice()}); err != nil {
		return fmt.Errorf("opening a raw socket, which needs CAP_NET_RAW: %w", err)
	}
	if err := silence(a.relays); err != nil {
		return err
	}
	a.files, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.addr, portTFTP)))
	if err != nil {
		return fmt.Errorf("opening the port for TFTP, which needs CAP_NET_BIND_SERVICE: %w", err)
	}
	return a.openQuiet(ctx)
}

// enlarge asks for a larger receive buffer, beyond the host's usual limit where
// we may.
func (a *attached) enlarge() error {
	raw, err := a.frames.SyscallConn()
	if err != nil {
		return fmt.Errorf("setting the receive buffer: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("setting the receive buffer: %w", err)
	}
	return nil
}

// openQuiet binds the ports that clients send unicasts to. Where another server
// of this host has one, that is just as good. Port 67 is only bound for relays,
// and so that a server which starts later and shares its port gets what is for
// it: broadcasts, which nobody answers with "unreachable", need no socket.
func (a *attached) openQuiet(ctx context.Context) error {
	ports := []uint16{portPXE}
	if len(a.server.options.Relays) > 0 {
		ports = append(ports, portServer)
	}
	for _, port := range ports {
		address := netip.AddrPortFrom(a.addr, port)
		if port == portServer {
			address = netip.AddrPortFrom(netip.IPv4Unspecified(), port)
		}
		conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp4", address.String())
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return fmt.Errorf("opening the port %d, which needs CAP_NET_BIND_SERVICE: %w", port, err)
		}
		a.quiet = append(a.quiet, conn)
		if err := errors.Join(silence(conn), share(conn.(*net.UDPConn))); err != nil {
			return err
		}
	}
	return nil
}

// silence lets the kernel drop all that arrives at a socket.
func silence(conn net.PacketConn) error {
	filter, err := dropAll()
	if err != nil {
		return err
	}
	if err := ipv4.NewPacketConn(conn).SetBPF(filter); err != nil {
		return fmt.Errorf("setting a filter: %w", err)
	}
	return nil
}

// share lets others bind the port too.
func share(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("sharing a port: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("sharing a port: %w", err)
	}
	return nil
}

func (a *attached) close() {
	if a.frames != nil {
		_ = a.frames.Close() // nothing of what it sent is lost
	}
	if a.relays != nil {
		_ = a.relays.Close()
	}
	if a.files != nil {
		_ = a.files.Close()
	}
	for _, c := range a.quiet {
		_ = c.Close()
	}
}

// receive answers DHCP messages until ctx ends.
func (a *attached) receive(ctx context.Context) error {
	buffer := make([]byte, maxFrame)
	for {
		n, _, err := a.frames.ReadFrom(buffer)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was closed because it is to end
		case errors.Is(err, unix.ENETDOWN):
			a.server.options.Logger.Info("The interface is down", "interface", a.name)
			select {
			case <-ctx.Done():
			case <-time.After(pauseAfterDown):
			}
			continue
		case err != nil:
			return fmt.Errorf("receiving DHCP on %s: %w", a.name, err)
		}
		if d, ok := readFrame(buffer[:n]); ok {
			a.handle(d)
		}
	}
}

// handle answers a datagram, or learns from it. What only passes through this
// host, because it is a router, is none of its business.
func (a *attached) handle(d datagram) {
	if d.destination.Port() == portClient {
		if o, ok := a.server.foreignOffer(d.payload, d.source.Addr()); ok {
			a.server.observe([]boot.Observation{o})
		}
		return
	}
	to := d.destination.Addr()
	if to != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && !a.addrs[to] {
		return
	}
	v := a.server.answer(d.payload, arrival{
		local: a.addr, base: a.base, ethernet: d.ethernet, source: d.source, port: d.destination.Port(),
	})
	if v.reply != nil {
		if err := a.send(v, d); err != nil {
			a.server.metrics.failures.WithLabelValues(a.name).Inc()
			if a.server.logging.Allow() {
				a.server.options.Logger.Error(err, "Could not send an offer", "interface", a.name, "mac", v.request.mac)
			}
			return
		}
	}
	a.server.account(v)
}

// send sends a reply: to the relay that the request came by, or to the one
// Ethernet address that asked, never to all.
func (a *attached) send(v verdict, d datagram) error {
	reply := datagram{
		source:      netip.AddrPortFrom(a.addr, d.destination.Port()),
		destination: netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), portClient),
		payload:     v.reply.ToBytes(),
	}
	if giaddr := addrOf(v.request.dhcp.GatewayIPAddr); !giaddr.IsUnspecified() {
		reply.destination = netip.AddrPortFrom(giaddr, portServer)
		_, err := a.relays.WriteToIP(appendUDP(nil, reply), &net.IPAddr{IP: giaddr.AsSlice()})
		return err //nolint:wrapcheck // logged with what it was for
	}
	if a := d.source.Addr(); d.destination.Port() == portPXE && !a.IsUnspecified() {
		reply.destination = d.source
	}
	to := v.request.mac
	frame := appendFrame(make([]byte, 0, maxFrame), to, a.hardware, reply)
	_, err := a.frames.WriteTo(frame, &packet.Addr{HardwareAddr: macBytes(to)})
	return err //nolint:wrapcheck // logged with what it was for
}

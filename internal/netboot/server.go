package netboot

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// rescanEvery is how often the directory of programs is looked at again, and
	// the kernel asked what it dropped.
	rescanEvery = 10 * time.Second
	// answersPerSecond bounds what all clients together get.
	answersPerSecond, answersBurst = 5000, 2000
	// A machine that boots asks some ten times in a minute; a NIC's MAC address
	// that asks more often than this is not answered for a while.
	perMACEvery, perMACBurst = 500 * time.Millisecond, 20
	// A boot loader asks for some hundred small files at once, and for most of them in
	// vain; who asks TFTP more often than this is not answered for a while.
	filesPerSecond, filesBurst = 50, 500
	// remembered bounds how many machines are kept in mind at once.
	remembered = 16384
	// Log lines about clients, per second and at once.
	logsPerSecond, logsBurst = 2, 20
)

// Server offers boots over DHCP and serves the programs for them over TFTP.
type Server struct {
	options  Options
	segments []segment
	local    map[netip.Addr]bool
	catalog  atomic.Pointer[catalog]
	metrics  *metrics

	all     *rate.Limiter
	perMAC  *recent[boot.MAC, *rate.Limiter]
	perPeer *recent[netip.Addr, *rate.Limiter]
	tokens  *recent[mintedFor, string]
	seen    *recent[sighting, struct{}]
	logging *rate.Limiter
	slots   *slots
	// resendAfter is how long a TFTP client may take to acknowledge a block.
	resendAfter time.Duration

	scanning sync.Mutex
	// told are the files that were reported as unusable.
	told map[string]bool
}

// segment is an attached Ethernet segment, and who we are on it.
type segment struct {
	name     string
	index    int
	mtu      int
	hardware boot.MAC
	addr     netip.Addr
	// addrs are all IPv4 addresses and subnet broadcast addresses that are ours
	// there.
	addrs map[netip.Addr]bool
	base  string
}

// sighting is what is observed once.
type sighting struct {
	object string
	mac    boot.MAC
	stage  boot.Stage
	// attempt is the one to come, present the one that there was.
	attempt, present int64
}

// New returns a server that has looked at its interfaces and programs. It returns
// an error that says what is wrong with the options, and on systems other than
// Linux always.
func New(o Options) (*Server, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := newServer(o)
	for _, name := range o.Interfaces {
		seg, err := findSegment(name)
		if err != nil {
			return nil, err
		}
		if seg.base, err = checkBase(o.BaseURL(seg.addr)); err != nil {
			return nil, err
		}
		s.segments = append(s.segments, seg)
		for a := range seg.addrs {
			s.local[a] = true
		}
	}
	if err := s.metrics.register(o.Registerer); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	s.rescan()
	return s, nil
}

// newServer returns a server without interfaces.
func newServer(o Options) *Server {
	s := &Server{
		options:     o,
		local:       make(map[netip.Addr]bool),
		metrics:     newMetrics(),
		all:         rate.NewLimiter(answersPerSecond, answersBurst),
		perMAC:      newRecent[boot.MAC, *rate.Limiter](remembered),
		perPeer:     newRecent[netip.Addr, *rate.Limiter](remembered),
		tokens:      newRecent[mintedFor, string](remembered),
		seen:        newRecent[sighting, struct{}](remembered),
		logging:     rate.NewLimiter(logsPerSecond, logsBurst),
		slots:       newSlots(),
		resendAfter: resendAfter,
		told:        make(map[string]bool),
	}
	s.catalog.Store(&catalog{})
	return s
}

// findSegment looks at an interface.
func findSegment(name string) (segment, error) {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return segment{}, fmt.Errorf("looking up the interface %q: %w", name, err)
	}
	mac, err := boot.ParseMAC(nic.HardwareAddr.String())
	if err != nil || nic.Flags&net.FlagLoopback != 0 {
		return segment{}, fmt.Errorf("the interface %q is no Ethernet interface, and machines boot from Ethernet", name)
	}
	found, err := nic.Addrs()
	if err != nil {
		return segment{}, fmt.Errorf("reading the addresses of the interface %q: %w", name, err)
	}
	s := segment{name: name, index: nic.Index, mtu: nic.MTU, hardware: mac, addrs: make(map[netip.Addr]bool)}
	for _, a := range found {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			s.add(p)
		}
	}
	if !s.addr.IsValid() {
		return segment{}, fmt.Errorf("the interface %q has no IPv4 address to be reached at; "+
			"if it is a port of a bridge or a bond, name that instead", name)
	}
	return s, nil
}

// checkBase says whether firmware can use a URL below this one.
func checkBase(base string) (string, error) {
	const longest = maxURL - len("/httpboot/t/") - 80 - len("/uki.efi")
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || strings.HasSuffix(base, "/"):
		return "", fmt.Errorf("the boot server's URL %q is not one such as http://10.0.0.1:8082", base)
	case len(base) > longest:
		return "", fmt.Errorf("the boot server's URL %q is too long: firmware takes %d bytes beside a token", base, longest)
	}
	return base, nil
}

// add takes up an address of the interface: the first that is not link-local is
// the one that we are known by.
func (s *segment) add(p netip.Prefix) {
	a := p.Addr().Unmap()
	if !a.Is4() {
		return
	}
	if !s.addr.IsValid() || s.addr.IsLinkLocalUnicast() && !a.IsLinkLocalUnicast() {
		s.addr = a
	}
	s.addrs[a] = true
	b := a.As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	if p.Bits() < 31 {
		s.addrs[netip.AddrFrom4(b)] = true
	}
}

// Programs returns the network boot programs that are there now.
func (s *Server) Programs() []Program {
	return s.catalog.Load().programs()
}

// Run serves on every interface until ctx ends, and then returns nil. It returns
// an error when a socket cannot be opened or breaks.
func (s *Server) Run(ctx context.Context) error {
	return s.run(ctx)
}

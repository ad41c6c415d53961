package httpserver

import (
	"net/netip"
	"strings"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// translatedWindow is how often it is logged that machines' addresses are
// translated: it is the network that is wrong, not one machine.
const translatedWindow = time.Minute

// firmwareAgent is how UEFI firmware that boots over HTTP begins its User-Agent.
const firmwareAgent = "UefiHttpBoot/"

// onNode says whether a peer asks from an address of one of our cluster's nodes.
// A machine does not: its own was translated on its way, or a workload asks.
func (s *Server) onNode(p peer) bool {
	return p.addr.IsValid() && !p.proxy && !p.dhcp && s.isNode(p.addr)
}

// noNodes is for a server that was not told of any.
func noNodes(netip.Addr) bool { return false }

// noteTranslated reports a request that names a machine and comes from a node. It
// proves nothing and takes nothing away, since anyone there can send it; it tells
// who looks for the cause why the machine is not known by its address.
func (s *Server) noteTranslated(x *exchange, named []*boot.Plan) {
	if x.head() || x.hasToken || len(named) == 0 || !s.onNode(x.peer) {
		return
	}
	for _, p := range named {
		s.attempts.Observe(boot.Observation{
			Object: p.Object, Attempt: s.attempts.Current(p).Number, Stage: boot.StageTranslated, Addr: x.peer.addr, Time: s.now(),
		})
	}
	s.warnTranslated(x)
}

// noteFirmware counts firmware that boots from the address of a node: nothing names
// the machine then, so no object can tell of it.
func (s *Server) noteFirmware(x *exchange) {
	if x.hasToken || !s.onNode(x.peer) || !strings.HasPrefix(x.r.UserAgent(), firmwareAgent) {
		return
	}
	s.metrics.byNode.Inc()
	s.warnTranslated(x)
}

func (s *Server) warnTranslated(x *exchange) {
	if n, ok := s.translated.allow(time.Now()); ok {
		s.log.Info("A machine asked from the address of a node of this cluster: its own was translated on its way, and cannot name it. "+
			"Set externalTrafficPolicy: Local on the Service, use hostNetwork, or a balancer that speaks PROXY protocol v2 (--proxy-protocol-from)",
			"client", x.peer.addr.String(), "route", routeNames[x.route], "suppressed", n)
	}
}

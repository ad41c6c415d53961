package netboot

import (
	"golang.org/x/time/rate"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// allow says whether this NIC may have one more answer now.
func (s *Server) allow(mac boot.MAC) bool {
	limiter, _ := s.perMAC.get(mac, func() *rate.Limiter { return rate.NewLimiter(rate.Every(perMACEvery), perMACBurst) })
	return limiter.AllowN(s.options.Now(), 1)
}

// account counts a verdict and tells of what it saw. No address, URL or token of
// a client without a plan is ever logged, and no URL or token of any.
func (s *Server) account(v verdict) {
	switch {
	case v.reply != nil:
		s.metrics.offers.WithLabelValues(v.request.kind.String(), labelOf(v.request)).Inc()
	case v.refusal == "":
		return
	default:
		s.metrics.refusals.WithLabelValues(string(v.refusal), labelOf(v.request)).Inc()
		if v.plan != nil && s.logging.AllowN(s.options.Now(), 1) {
			s.options.Logger.Info("Offered no boot", "object", v.plan.Object.String(), "boot", bootOf(v.plan.Object, s.options.Attempts.Current(v.plan).Number),
				"mac", v.request.mac, "client", v.request.text(), "reason", string(v.refusal))
		}
	}
	s.observe(v.seen)
}

// bootOf is the ID of an attempt's boot, as logs write it.
func bootOf(object boot.Ref, attempt int64) string { return boot.NewID(object.UID, attempt).String() }

// observe tells each machine's sighting once for each attempt, and again when the
// attempt was opened since, which may make void what was told of it. A port is
// told until it is recorded: as long as it is not, every port is as good.
func (s *Server) observe(seen []boot.Observation) {
	for _, o := range seen {
		present := s.present(o.Object)
		key := sighting{o.Object.UID, o.MAC, o.Stage, o.Attempt, present.Number}
		pins := o.Stage == boot.StageOffer && o.Port != (boot.RelayPort{}) && present.Port == (boot.RelayPort{})
		if _, told := s.seen.get(key, func() struct{} { return struct{}{} }); told {
			if pins {
				s.options.Attempts.Observe(o)
			}
			continue
		}
		if s.logging.AllowN(o.Time, 1) {
			s.options.Logger.Info("Saw a network boot", "object", o.Object.String(), "boot", bootOf(o.Object, o.Attempt),
				"stage", string(o.Stage), "attempt", o.Attempt, "mac", o.MAC, "client", o.Firmware, "proof", o.Proof.String(), "detail", o.Detail)
		}
		s.options.Attempts.Observe(o)
	}
}

// present is the attempt that an object has now, as far as it is known.
func (s *Server) present(object boot.Ref) boot.Attempt {
	p, err := s.options.Source.ByObject(object.UID)
	if err != nil {
		return boot.Attempt{}
	}
	return s.options.Attempts.Current(p)
}

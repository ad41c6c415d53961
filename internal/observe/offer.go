package observe

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// What the network says is bounded before it is kept: in bytes.
const (
	maxDetail   = 256
	maxMAC      = 17
	maxFirmware = 64
	maxPortID   = 512
)

// maxOffered is how many different clients of one attempt are told of: a machine
// with more network cards and firmwares than that is somebody who plays.
const maxOffered = 8

// pin is the port at which a relay saw a machine first, and when.
type pin struct {
	v1alpha1.RelayPort
	Time metav1.MicroTime `json:"time"`
}

// port is the port as the rest of the operator knows it.
func (p *pin) port() boot.RelayPort { return claim.Port(p.RelayPort) }

// offered are the clients of one attempt that were told of.
type offered struct {
	attempt int64
	clients []offeredTo
}

type offeredTo struct{ mac, firmware string }

// first says whether this client is a new one of this attempt, or of a later
// one, and remembers it.
func (f *offered) first(attempt int64, c offeredTo) bool {
	if attempt > f.attempt {
		*f = offered{attempt: attempt}
	}
	if attempt < f.attempt || len(f.clients) >= maxOffered || slices.Contains(f.clients, c) {
		return false
	}
	f.clients = append(f.clients, c)
	return true
}

// addOffer takes in an offer. That of a client that was told of before is no
// news: firmware asks several times, for each of its network cards.
func (e *entry) addOffer(o boot.Observation) bool {
	seen := offerOf(o)
	changed := e.offered.first(seen.Attempt, clientOf(seen))
	if changed {
		e.pending.Offer = mergeOffer(e.pending.Offer, seen)
	}
	if o.Port != (boot.RelayPort{}) && e.known.Port == (boot.RelayPort{}) {
		e.known.Port = boundPort(o.Port)
		e.pending.Port = pinOf(o)
		changed = true
	}
	return changed
}

func offerOf(o boot.Observation) *v1alpha1.BootOffer {
	return &v1alpha1.BootOffer{
		Attempt: o.Attempt, Time: *micro(o.Time),
		MACAddress: printable(string(o.MAC), maxMAC), Firmware: printable(o.Firmware, maxFirmware),
	}
}

func clientOf(o *v1alpha1.BootOffer) offeredTo { return offeredTo{o.MACAddress, o.Firmware} }

// boundPort is a port as the status can hold it. One that had to be changed is
// equal to none that a relay tells, so nothing is offered there: our DHCP
// server writes none of that kind.
func boundPort(p boot.RelayPort) boot.RelayPort {
	return boot.RelayPort{
		Relay:   boot.CanonicalAddr(p.Relay),
		Circuit: printable(p.Circuit, maxPortID),
		Remote:  printable(p.Remote, maxPortID),
	}
}

func pinOf(o boot.Observation) *pin {
	p := boundPort(o.Port)
	return &pin{
		RelayPort: v1alpha1.RelayPort{Attempt: o.Attempt, RelayAddress: addrText(p.Relay), CircuitID: p.Circuit, RemoteID: p.Remote},
		Time:      *micro(o.Time),
	}
}

// mergeOffer joins two accounts of the last offer: the later attempt wins,
// within one the later client, and of one client its first offer. The result
// does not depend on the order of its arguments.
func mergeOffer(a, b *v1alpha1.BootOffer) *v1alpha1.BootOffer {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.Attempt != b.Attempt:
		if a.Attempt > b.Attempt {
			return a
		}
		return b
	}
	order := a.Time.Compare(b.Time.Time)
	if clientOf(a) == clientOf(b) {
		order = -order
	} else if order == 0 {
		order = strings.Compare(a.MACAddress+" "+a.Firmware, b.MACAddress+" "+b.Firmware)
	}
	if order >= 0 {
		return a
	}
	return b
}

// addForeign takes in another DHCP server's offer: once for an attempt, and
// again when an attempt was opened since, which cleared the condition.
func (e *entry) addForeign(o boot.Observation) bool {
	news := foreignSeen{attempt: o.Attempt, during: e.known.Number}
	if o.Attempt < e.foreign.attempt || news == e.foreign {
		return false
	}
	e.foreign = news
	e.pending.Foreign = noticeOf(o)
	return true
}

// foreignSeen is the attempt of which a foreign offer was told last, and which
// attempt was the present one then.
type foreignSeen struct{ attempt, during int64 }

// noticeOf is a sighting with what completes its message.
func noticeOf(o boot.Observation) *sighting {
	s := sightingOf(o)
	s.Detail = printable(o.Detail, maxDetail)
	return s
}

// outdated says whether something that was seen at t was before the control
// plane opened the present attempt, which begins anew with the network too.
func (s *state) outdated(t time.Time) bool {
	b := s.boot()
	return b.OpenedBy != causeBootDelivery && b.OpenedTime != nil && t.Before(b.OpenedTime.Time)
}

// pin keeps the port where the machine was seen first.
func (s *state) pin(p *pin) {
	b := s.boot()
	if p == nil || s.outdated(p.Time.Time) || (b.RelayPort != nil && (b.Attempt < 1 || s.attempt().Port != (boot.RelayPort{}))) {
		return
	}
	port := p.RelayPort
	if b.OpenedBy != causeBootDelivery {
		port.Attempt = max(port.Attempt, b.Attempt)
	}
	b.RelayPort = &port
}

const foreignPrefix = "In attempt %d another DHCP server offered this machine a boot"

// foreign notes that another DHCP server offered the machine a boot.
func (s *state) foreign(f *sighting, now time.Time) {
	if f == nil || f.Attempt < s.boot().Attempt || s.outdated(f.Time.Time) || s.foreignIn(f.Attempt) {
		return
	}
	what := fmt.Sprintf(foreignPrefix, f.Attempt)
	if f.Detail != "" {
		what += " (" + f.Detail + ")"
	}
	s.set(now, v1alpha1.ConditionForeignBootOffer, true, v1alpha1.ReasonForeignBootOffer,
		what+", which firmware prefers to an offer of this operator. Take the boot options out of that server, or point it at this operator: bootctl dhcp prints its configuration.")
}

// foreignIn says whether the condition tells of this attempt. It may be the next
// one: offers come before the boot that opens it.
func (s *state) foreignIn(attempt int64) bool {
	return strings.HasPrefix(s.foreignMessage(), fmt.Sprintf(foreignPrefix, attempt))
}

// foreignMessage is the message of the condition, if it is True.
func (s *state) foreignMessage() string {
	c := meta.FindStatusCondition(s.cfg.ConfigStatus().Conditions, v1alpha1.ConditionForeignBootOffer)
	if c == nil || c.Status != metav1.ConditionTrue {
		return ""
	}
	return c.Message
}

// clearForeign ends the condition as an attempt is opened, unless it was that
// attempt's boot which was offered elsewhere too.
func (s *state) clearForeign(number int64, cause string, now time.Time) {
	if s.foreignMessage() == "" || (cause == causeBootDelivery && s.foreignIn(number)) {
		return
	}
	s.set(now, v1alpha1.ConditionForeignBootOffer, false, v1alpha1.ReasonNoForeignOffer,
		fmt.Sprintf("No other DHCP server offered this machine a boot since attempt %d was opened.", number))
}

// printable returns at most limit bytes of s, on one line: what is not printable
// becomes a question mark.
func printable(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

package httpserver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// kindIPXE is the kind of object whose plans are booted by script and have
// nothing for /httpboot.
const kindIPXE = "IPXEBootConfig"

// httpboot serves the UKI to the machine that asks, or tells its URL to whoever
// asks for JSON.
func (s *Server) httpboot(x *exchange) error {
	if x.peer.dhcp {
		return s.tellDHCP(x)
	}
	s.noteFirmware(x)
	id, err := s.identify(x, boot.AudienceBoot)
	if errors.Is(err, errUnknown) {
		return s.httpbootUnknown(x)
	}
	if err != nil {
		return err
	}
	plan, err := ukiPlan(id.plans)
	if err != nil {
		return err
	}
	x.plan = plan
	if err := s.ended(plan); err != nil {
		return err
	}
	t, err := s.targetOf(plan)
	if err != nil {
		return err
	}
	if !x.wantsJSON() {
		return s.deliver(x, id, plan, t)
	}
	if t.composed != nil {
		if t.url, err = s.ownURL(x, id, plan); err != nil {
			return err
		}
	}
	return s.tell(x, t, plan)
}

// httpbootUnknown serves the default image to a machine that nothing names,
// where one is configured.
func (s *Server) httpbootUnknown(x *exchange) error {
	t, ok := s.defaultTarget()
	switch {
	case !ok:
		return errUnknown
	case x.wantsJSON():
		return s.tell(x, t, nil)
	case t.foreign():
		return errUnknown
	}
	return s.serveBlob(x, t.artifact, noCache, nil)
}

// tellDHCP answers a trusted DHCP server on behalf of a machine.
func (s *Server) tellDHCP(x *exchange) error {
	plans, err := s.byNames(names{macs: x.peer.macs, addrs: x.peer.addrs})
	if errors.Is(err, errUnknown) {
		t, ok := s.defaultTarget()
		if !ok {
			return errUnknown
		}
		return s.tell(x, t, nil)
	}
	if err != nil {
		return err
	}
	plan, err := ukiPlan(plans)
	if err != nil {
		return err
	}
	t, err := s.targetOf(plan)
	if err != nil {
		return err
	}
	if !t.foreign() {
		if t.url, err = s.tokenURL(plan, x.peer); err != nil {
			return err
		}
	}
	return s.tell(x, t, plan)
}

// tokenURL returns the URL of the machine's UKI with a token that is good from
// the one address that a DHCP server says the machine has; it is empty where no
// token can be handed out. It returns boot.ErrSpent and boot.ErrArmed where
// nothing may be booted: the blob's own URL would boot it all the same.
func (s *Server) tokenURL(p *boot.Plan, by peer) (string, error) {
	a := s.attempts.Current(p)
	switch {
	case a.Aborted:
		return "", errEnded
	case p.Policy == boot.Once && a.Spent:
		return "", boot.ErrSpent
	case a.Armed:
		return "", boot.ErrArmed
	}
	addr, ok := s.tokenAddr(p, by)
	if !ok || s.issuer == nil || s.baseURL == "" {
		return "", nil
	}
	token, err := s.issuer.Boot(p, boot.Client{Addr: addr, Proof: boot.Address})
	switch {
	case errors.Is(err, boot.ErrSpent), errors.Is(err, boot.ErrArmed):
		return "", fmt.Errorf("telling a DHCP server of %s: %w", p.Object, err)
	case err != nil:
		return "", nil //nolint:nilerr // what needs no token is told without one
	}
	return s.baseURL + bootTokenPrefix + token + "/uki.efi", nil
}

// tokenAddr returns the address that a token can be bound to: the first that the
// DHCP server names, if that can be a machine's own. FeDHCP names its relay's
// address on the link where it does not know the machine's: so a config that
// says Always and lists addresses has to list this one too.
func (s *Server) tokenAddr(p *boot.Plan, by peer) (netip.Addr, bool) {
	if len(by.addrs) == 0 {
		return netip.Addr{}, false
	}
	addr := by.addrs[len(by.addrs)-1] // they are kept from the nearest hop on
	if addr.IsLinkLocalUnicast() || s.proxies.contains(addr) || s.dhcp.contains(addr) || s.source.ProvesNothing(addr) {
		return netip.Addr{}, false
	}
	listed := p.Machine.Addrs
	return addr, p.Policy == boot.Once || len(listed) == 0 || slices.Contains(listed, addr)
}

// ukiPlan chooses the plan that boots over HTTP.
func ukiPlan(plans []*boot.Plan) (*boot.Plan, error) {
	for _, p := range plans {
		if p.Object.Kind != kindIPXE {
			return p, nil
		}
	}
	return nil, errNoUKI
}

// target is what a machine boots: an artifact of ours, or a foreign URL. An
// artifact has a URL only where its own is not the one to tell.
type target struct {
	artifact boot.Artifact
	image    string
	url      string
	// composed is the plan whose composed UKI the artifact is; nil for a blob of the
	// store.
	composed *boot.Plan
}

func (t target) foreign() bool { return t.artifact.Digest == "" }

// targetOf returns what a plan boots. It returns boot.ErrNotReady with the
// plan's reason, and errNoUKI when there is nothing.
func (s *Server) targetOf(p *boot.Plan) (target, error) {
	if p.NotReady != "" {
		return target{}, fmt.Errorf("%w: %s", boot.ErrNotReady, p.NotReady)
	}
	if p.Composes {
		return composedTarget(p)
	}
	if a, ok := p.Artifact(boot.RoleUKI); ok {
		return target{artifact: a, image: p.Image}, nil
	}
	if url := p.Foreign[boot.RoleUKI]; url != "" {
		return target{url: url}, nil
	}
	if t, ok := s.defaultTarget(); ok {
		return t, nil
	}
	return target{}, errNoUKI
}

func (s *Server) defaultTarget() (target, bool) {
	if s.fallback == nil {
		return target{}, false
	}
	a, image, ok := s.fallback()
	if ok && a.Digest == "" {
		return target{url: a.Source}, a.Source != ""
	}
	return target{artifact: a, image: image}, ok
}

// wantsJSON says whether the client asked for JSON by name: firmware accepts
// everything and means the bytes.
func (x *exchange) wantsJSON() bool {
	for _, line := range x.r.Header["Accept"] {
		if strings.Contains(line, "application/json") {
			return true
		}
	}
	return false
}

// tell answers with the URL of a UKI, in the form that DHCP plugins read. plan
// is nil for the default image; the system's UUID goes to nobody then, nor over
// a connection without forward secrecy.
func (s *Server) tell(x *exchange, t target, plan *boot.Plan) error {
	b := make([]byte, 0, 384)
	b = append(b, `{"ClientIPs":"`...)
	b = x.peer.addr.AppendTo(b)
	for _, n := range x.peer.named {
		b = append(b, ',')
		b = append(b, n...) // canonical addresses need no escape
	}
	b = append(b, `","UKIURL":`...)
	switch {
	case t.url != "":
		b = appendJSON(b, t.url)
	case t.composed != nil:
		return errNoTokenURL // it is never served by its digest
	case s.imageURL == "":
		return errNoURL
	default:
		b = s.appendImageURL(b, t)
	}
	if plan != nil && plan.Machine.UUID != "" && !weakTLS(x.r) {
		b = append(b, `,"SystemUUID":`...)
		b = appendJSON(b, string(plan.Machine.UUID))
	}
	b = append(b, "}\n"...)
	x.Header()["Cache-Control"] = noStore
	x.reply(200, contentJSON, b)
	return nil
}

// appendImageURL appends the compatibility URL of an artifact as a JSON string.
// A foreign UKI that was pulled has no image name.
func (s *Server) appendImageURL(b []byte, t target) []byte {
	b = append(b, '"')
	b = appendEscaped(b, s.imageURL)
	if t.image != "" {
		b = append(b, '/')
		b = appendEscaped(b, t.image)
	}
	b = append(b, "/sha256-"...)
	b = append(b, t.artifact.Digest.Hex()...)
	return append(b, `.efi"`...)
}

package httpserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// document is one file of a machine's secrets, and how it is served.
type document struct {
	// name is the file's in errors.
	name string
	// has says whether a plan names it; missing is told to a machine whose plans
	// do not.
	has     func(*boot.Plan) bool
	missing error
	// stage is what its delivery is reported as; empty for a file that is fetched
	// beside the one that counts.
	stage       boot.Stage
	contentType []string
	read        func(ctx context.Context, s boot.Secrets, p *boot.Plan) ([]byte, error)
}

// secret serves a document to the machine that asks: the proof alone says which.
func (s *Server) secret(x *exchange, doc *document) error {
	id, err := s.identify(x, boot.AudienceSecret)
	if err != nil {
		return err
	}
	return s.serveSecret(x, doc, id)
}

// secretOf serves a document under a machine's UUID. It has to be that of the
// machine that is proven; only a plan that accepts claims is served for its UUID
// alone. Everything else is the 404 of an unknown machine.
func (s *Server) secretOf(x *exchange, doc *document) error {
	id, idErr := s.identify(x, boot.AudienceSecret)
	if idErr != nil && !errors.Is(idErr, boot.ErrNotFound) && !errors.Is(idErr, boot.ErrAmbiguous) {
		return idErr
	}
	if idErr != nil && x.hasToken {
		return idErr
	}
	named, err := s.named(x.arg)
	if err != nil {
		return err
	}
	s.noteTranslated(x, named)
	own := filter(id.plans, func(p *boot.Plan) bool { return contains(named, p) })
	var ownErr error
	if len(own) > 0 {
		id.plans = own
		ownErr = s.serveSecret(x, doc, id)
		if ownErr == nil || !claimMayHelp(ownErr) {
			return ownErr
		}
	} else if id.byAddress() {
		s.ambiguous(x, id)
	}
	return s.serveClaim(x, doc, named, ownErr)
}

// claimMayHelp says whether a machine that is proven may still be served for
// its claim, as a stranger would be: its address is void, or no attempt is open.
func claimMayHelp(err error) bool {
	return errors.Is(err, errVoid) || errors.Is(err, boot.ErrClosed) || errors.Is(err, errNoAttempt)
}

// serveClaim serves a machine that only claims to be it, where a plan accepts
// that. ownErr is what it was told as a proven machine; it goes before.
func (s *Server) serveClaim(x *exchange, doc *document, named []*boot.Plan, ownErr error) error {
	err := errRefused
	claimed := filter(named, func(p *boot.Plan) bool { return p.MinimumProof == boot.Claimed })
	if len(claimed) > 0 && !x.hasToken {
		err = hideRefusal(s.serveSecret(x, doc, identity{plans: claimed, proof: boot.Claimed}))
	}
	if err != nil && ownErr != nil {
		return ownErr
	}
	return err
}

// named finds the machine of a UUID in a path.
func (s *Server) named(arg string) ([]*boot.Plan, error) {
	uuid, err := boot.ParseUUID(arg)
	if err != nil {
		return nil, errRefused
	}
	plans, err := s.source.ByUUID(uuid)
	switch {
	case errors.Is(err, boot.ErrNotFound):
		return nil, errRefused
	case err != nil:
		return nil, fmt.Errorf("finding the machine of a UUID: %w", err)
	}
	return plans, nil
}

// ambiguous reports that another machine's UUID was asked for from the address
// of this one: its address stands for several machines.
func (s *Server) ambiguous(x *exchange, id identity) {
	for _, p := range id.plans {
		s.attempts.Observe(boot.Observation{
			Object: p.Object, Attempt: s.attempts.Current(p).Number, Stage: boot.StageAmbiguous,
			Addr: x.peer.addr, Proof: id.proof, Time: s.now(),
		})
	}
}

// hideRefusal makes what would be told to a proven machine the 404 of an
// unknown one, for someone who only claimed to be it.
func hideRefusal(err error) error {
	for _, final := range []error{boot.ErrClosed, boot.ErrContested, boot.ErrSpent, errWeakTLS, errNoIgnition, errNoUserData, errNoNetwork} {
		if errors.Is(err, final) {
			return fmt.Errorf("%w (%s)", errRefused, final.Error()) // not wrapped: nobody may see it
		}
	}
	return err
}

// errNoAttempt: the machine is proven, and its attempt may be opened any moment.
var errNoAttempt = fmt.Errorf("%w: no boot attempt is open yet", boot.ErrNotReady)

// errPaused: another cluster may serve the machine now.
var errPaused = fmt.Errorf("%w: the machine's config is paused", boot.ErrNotReady)

// errVoid: the address proves nothing in this attempt any more.
var errVoid = fmt.Errorf("address names several machines: %w", errRefused)

// serveSecret admits one of the machine's plans and serves its document.
func (s *Server) serveSecret(x *exchange, doc *document, id identity) error {
	plan, a, err := s.admit(x, doc, id)
	if plan != nil {
		x.plan = plan
	}
	if err != nil {
		return err
	}
	if weakTLS(x.r) {
		return errWeakTLS
	}
	release, err := s.holdSecret(x, id, plan, a)
	if err != nil {
		return err
	}
	defer release()
	body, err := doc.read(x.r.Context(), s.secrets, plan)
	switch {
	case errors.Is(err, boot.ErrNotFound):
		return doc.missing
	case err != nil:
		return fmt.Errorf("reading %s of %s: %w", doc.name, plan.Object, err)
	}
	return s.sendSecret(x, doc, id, plan, a, body)
}

// holdSecret keeps the secret of an attempt for who was admitted to it, until
// release is called.
func (s *Server) holdSecret(x *exchange, id identity, p *boot.Plan, a boot.Attempt) (release func(), err error) {
	release, ok := s.holds.take(p.Object.UID, x.peer.addr)
	if !ok {
		return nil, fmt.Errorf("%w: another address is fetching the secret of this boot attempt", boot.ErrNotReady)
	}
	// Somebody else may have fetched it between the admission and the hold.
	if now := s.attempts.Current(p); now.Number == a.Number && now.SecretAddr.IsValid() && now.SecretAddr != x.peer.addr {
		release()
		s.contested(x, id, p, now)
		return nil, boot.ErrContested
	}
	return release, nil
}

func (s *Server) sendSecret(x *exchange, doc *document, id identity, plan *boot.Plan, a boot.Attempt, body []byte) error {
	h := x.Header()
	h["Content-Type"] = doc.contentType
	h["Cache-Control"] = noStore
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.WriteHeader(200)
	if x.head() {
		return nil
	}
	n, err := x.Write(body)
	if err == nil {
		err = x.flush()
	}
	if doc.stage != "" {
		x.secret = &secretDelivery{object: plan.Object, attempt: a.Number, stage: doc.stage, proof: id.proof}
		s.attempts.Observe(boot.Observation{
			Object: plan.Object, Attempt: a.Number, Stage: doc.stage, Complete: err == nil,
			Addr: x.peer.addr, Proof: id.proof, Time: s.now(), Sent: int64(n), Size: int64(len(body)),
		})
		if err != nil {
			n = min(n, len(body)-1) // what was buffered did not leave
		}
		s.record(x, plan, a.Number, spanOf[doc.stage], cutShort(int64(n), int64(len(body))), "proof", id.proof.String())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errAborted, err)
	}
	return nil
}

// admit chooses, among the plans that name a document, the one whose attempt
// is open: the newest, where several are. What is known here is asked first;
// only when it admits nobody is the API object read.
func (s *Server) admit(x *exchange, doc *document, id identity) (*boot.Plan, boot.Attempt, error) {
	plans := filter(id.plans, doc.has)
	if len(plans) == 0 {
		return nil, boot.Attempt{}, doc.missing
	}
	if plans = filter(plans, func(p *boot.Plan) bool { return !p.Paused }); len(plans) == 0 {
		return nil, boot.Attempt{}, errPaused
	}
	current := func(_ context.Context, p *boot.Plan) (boot.Attempt, error) { return s.attempts.Current(p), nil }
	plan, a, err := s.newest(x, id, plans, current)
	if err == nil {
		return plan, a, nil
	}
	plan, a, err = s.newest(x, id, plans, s.refresh)
	if err != nil && id.proof == boot.Claimed {
		return s.openOnClaim(x, plans, err)
	}
	if errors.Is(err, boot.ErrContested) {
		s.contested(x, id, plan, a)
	}
	return plan, a, err
}

// newest returns the admitted plan whose attempt was opened last. Where there
// is none it returns the plan that was opened last, and why it does not admit.
func (s *Server) newest(x *exchange, id identity, plans []*boot.Plan, attempt func(context.Context, *boot.Plan) (boot.Attempt, error)) (*boot.Plan, boot.Attempt, error) {
	var best *boot.Plan
	var bestAttempt boot.Attempt
	var bestErr error
	for _, p := range plans {
		a, err := attempt(x.r.Context(), p)
		if err != nil {
			return p, a, err
		}
		err = s.admits(a, id, x.peer.addr)
		better := best == nil || err == nil && bestErr != nil || (err == nil) == (bestErr == nil) && a.OpenedAt.After(bestAttempt.OpenedAt)
		if better {
			best, bestAttempt, bestErr = p, a, err
		}
	}
	return best, bestAttempt, bestErr
}

func (s *Server) admits(a boot.Attempt, id identity, addr netip.Addr) error {
	switch {
	case a.Ambiguous && id.byAddress():
		return errVoid
	case id.bound && !s.bootsAt(a, addr):
		return errRefused // a boot elsewhere has begun since
	}
	switch {
	case a.Number == 0:
		return errNoAttempt
	case a.Aborted:
		return errEnded
	}
	now := s.now()
	err := a.Admit(addr, now)
	if errors.Is(err, boot.ErrContested) && !a.Open(now) {
		return boot.ErrClosed // nobody can contest what is over
	}
	return err //nolint:wrapcheck // the sentinel says it all
}

// openOnClaim opens an attempt for a machine that only claims to be itself:
// where a plan accepts claims and says Always, nothing proves more, and the
// claim is what says that it boots. An attempt that is open and somebody
// else's stays theirs.
func (s *Server) openOnClaim(x *exchange, plans []*boot.Plan, cause error) (*boot.Plan, boot.Attempt, error) {
	i := slices.IndexFunc(plans, func(p *boot.Plan) bool { return p.Policy == boot.Always })
	if i < 0 || errors.Is(cause, errVoid) || errors.Is(cause, errEnded) {
		return nil, boot.Attempt{}, cause
	}
	p := plans[i]
	now := s.now()
	if a := s.attempts.Current(p); a.Open(now) && a.Admit(x.peer.addr, now) != nil {
		s.contested(x, identity{proof: boot.Claimed}, p, a)
		return nil, boot.Attempt{}, cause
	}
	if x.head() {
		return p, s.attempts.Current(p), nil
	}
	a, err := s.attempts.Begin(p, boot.Client{Addr: x.peer.addr, Proof: boot.Claimed})
	if err != nil {
		return nil, boot.Attempt{}, fmt.Errorf("opening a boot attempt of %s: %w", p.Object, err)
	}
	return p, a, a.Admit(x.peer.addr, now)
}

func (s *Server) contested(x *exchange, id identity, p *boot.Plan, a boot.Attempt) {
	s.attempts.Observe(boot.Observation{
		Object: p.Object, Attempt: a.Number, Stage: boot.StageContested, Addr: x.peer.addr, Proof: id.proof, Time: s.now(),
	})
}

// holds keeps two addresses from being sent one machine's secret at the same
// time: whose it is, is only known after the first delivery.
type holds struct {
	mu    sync.Mutex
	taken map[string]*hold
}

type hold struct {
	addr  netip.Addr
	users int
}

// take reserves the secret of an object for an address until release is
// called; it fails while another address has it.
func (h *holds) take(uid string, addr netip.Addr) (release func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taken == nil {
		h.taken = make(map[string]*hold)
	}
	e := h.taken[uid]
	switch {
	case e == nil:
		e = &hold{addr: addr}
		h.taken[uid] = e
	case e.addr != addr:
		return nil, false
	}
	e.users++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if e.users--; e.users == 0 {
			delete(h.taken, uid)
		}
	}, true
}

package httpserver

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/render"
)

// language is what a boot program runs.
type language struct {
	// leave returns what leaves for the machine's next boot device.
	leave func() []byte
	write func(s *render.Scripts, p *boot.Plan, l render.Links) ([]byte, error)
	// own says that the machine's own script is in this language.
	own bool
}

// booting is a machine that asks for its script.
type booting struct {
	lang *language
	plan *boot.Plan
	// id names the machine where it is proven; its plans are empty on a claim.
	id identity
	// named says that the plan's UUID may be told: whoever asks knows it, or is
	// proven.
	named  bool
	labels map[string]string
	// mac is the one of the plan's network interfaces that the machine named.
	mac boot.MAC
}

// proven says whether the plan takes what is known of the machine for enough.
func (b *booting) proven() bool { return contains(b.id.plans, b.plan) }

// serveScript answers with the machine's script. Whoever is nobody, or may not
// have it, gets the one that leaves for the next boot device: a program that
// boots runs no error.
func (s *Server) serveScript(x *exchange, lang *language, in said) error {
	err := s.script(x, lang, in)
	if err == nil || x.code != 0 {
		return err
	}
	if f := failureOf(err); f.status == http.StatusNotFound || f.status == http.StatusForbidden {
		return s.leave(x, lang, err)
	}
	return err
}

// leave answers with the script that leaves; cause is why, for the log.
func (s *Server) leave(x *exchange, lang *language, cause error) error {
	x.err = cause
	x.Header()["Cache-Control"] = noStore
	x.reply(200, contentText, lang.leave())
	return nil
}

func (s *Server) script(x *exchange, lang *language, in said) error {
	plans, id, err := s.bootingMachine(x, in)
	if err != nil {
		return err
	}
	b := &booting{lang: lang, plan: scriptPlan(plans), id: id, labels: in.labels}
	b.mac = in.interfaceOf(b.plan)
	x.plan = b.plan
	if err := s.ended(b.plan); err != nil {
		return err
	}
	if err := in.fits(b.plan); err != nil {
		return err
	}
	p := b.plan
	if !b.proven() && minimumProof(p) == boot.Claimed {
		b.id = identity{plans: []*boot.Plan{p}, proof: boot.Claimed}
	}
	b.named = b.proven() && !weakTLS(x.r) || in.says(p.Machine.UUID)
	switch {
	case !b.proven() && (p.HasScript || p.Policy == boot.Once):
		return errRefused
	case p.HasScript && !lang.own:
		return errOwnScript
	case p.NotReady != "" && !b.proven():
		return boot.ErrNotReady
	case p.NotReady != "":
		return fmt.Errorf("%w: %s", boot.ErrNotReady, p.NotReady)
	case p.Object.Kind != kindIPXE:
		return s.chainUKI(x, b)
	case b.proven():
		return s.deliverScript(x, b)
	}
	body, err := s.write(x, b, b.plan, "")
	if err != nil {
		return err
	}
	return s.sendScript(x, body)
}

// bootingMachine finds the machine that asks for its script: by its token, else
// by what it says, else by its address. The identity holds the plans that it is
// proven to be; none on a claim.
func (s *Server) bootingMachine(x *exchange, in said) ([]*boot.Plan, identity, error) {
	named, err := s.byNames(in.names)
	if err != nil && !errors.Is(err, errUnknown) {
		return nil, identity{}, err
	}
	s.noteTranslated(x, named)
	id, idErr := s.identify(x, boot.AudienceBoot)
	switch {
	case idErr != nil && (x.hasToken || !errors.Is(idErr, boot.ErrNotFound) && !errors.Is(idErr, boot.ErrAmbiguous)):
		return nil, identity{}, idErr
	case idErr != nil && named == nil:
		return nil, identity{}, idErr
	case idErr != nil:
		return named, identity{}, nil //nolint:nilerr // it is a claim, then
	case named == nil && !x.hasToken && contradicts(in, id.plans):
		return nil, identity{}, errUnknown
	case named == nil || sameMachine(id.plans, named):
		return union(id.plans, named), id, nil
	case x.hasToken:
		return nil, identity{}, fmt.Errorf("a token and a name of different machines: %w", boot.ErrAmbiguous)
	}
	if !x.head() {
		s.ambiguous(x, id)
	}
	return named, identity{}, nil
}

// contradicts says whether names that lead to nobody are of a kind that the
// machine's configs list: whoever asks is another machine.
func contradicts(in said, plans []*boot.Plan) bool {
	for _, p := range plans {
		if p.Machine.UUID != "" && len(in.uuids) > 0 || len(p.Machine.MACs) > 0 && len(in.macs) > 0 {
			return true
		}
	}
	return false
}

// scriptPlan chooses the plan that is booted by script, where there is one.
func scriptPlan(plans []*boot.Plan) *boot.Plan {
	for _, p := range plans {
		if p.Object.Kind == kindIPXE {
			return p
		}
	}
	return plans[0]
}

// write renders the script. A machine's UUID is told to nobody who does not know
// it and is not proven.
func (s *Server) write(x *exchange, b *booting, p *boot.Plan, secret string) ([]byte, error) {
	if len(b.labels) > 0 || !b.named && p.Machine.UUID != "" {
		told := *p
		told.Machine.Labels = b.labels
		if !b.named {
			told.Machine.UUID = ""
		}
		p = &told
	}
	l := render.Links{Base: s.base(x.r), SecretToken: secret}
	if b.id.attempt != 0 && p.Object.Kind != kindIPXE {
		l.BootToken = x.token
	}
	body, err := b.lang.write(s.scripts, p, l)
	if errors.Is(err, boot.ErrInvalid) {
		return nil, fmt.Errorf("%w: %w", boot.ErrNotReady, err)
	}
	return body, err //nolint:wrapcheck // it says what it did
}

// chainUKI serves the script that goes on with the machine's UKI. It is no
// delivery: that is the UKI's.
func (s *Server) chainUKI(x *exchange, b *booting) error {
	t, err := s.targetOf(b.plan)
	if err != nil {
		return err
	}
	if b.plan.Policy == boot.Once && s.attempts.Current(b.plan).Spent {
		return boot.ErrSpent
	}
	p := b.plan
	if _, ok := p.Artifact(boot.RoleUKI); !ok && !t.foreign() && t.composed == nil {
		withDefault := *p
		withDefault.Artifacts = []boot.Artifact{t.artifact}
		p = &withDefault
	} else if t.foreign() && p.Foreign[boot.RoleUKI] == "" {
		withDefault := *p
		withDefault.Foreign = map[boot.Role]string{boot.RoleUKI: t.url}
		p = &withDefault
	}
	body, err := s.write(x, b, p, "")
	if err != nil {
		return err
	}
	return s.sendScript(x, body)
}

// deliverScript serves the script of a machine that is proven: that is its boot.
// The delivery is known by the script without its token, which says the same in
// every attempt.
func (s *Server) deliverScript(x *exchange, b *booting) error {
	body, err := s.bareScript(x, b)
	if err != nil {
		return err
	}
	rehearsal, err := s.rehearse(x, b, body)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	g := &gate{
		s: s, x: x, plan: b.plan, id: b.id, stage: boot.StageIPXEScript, whole: true, mac: b.mac,
		artifact: boot.Artifact{Digest: boot.Digest("sha256:" + hex.EncodeToString(sum[:])), Size: int64(len(body))},
	}
	if x.head() {
		return s.headScript(x, g, rehearsal)
	}
	sent := false
	began := false
	defer func() {
		n := int64(0)
		if sent {
			n = g.artifact.Size
		}
		g.close(0, n, g.artifact.Size, began)
	}()
	if err := g.begin(); err != nil {
		return err
	}
	if b.plan.HasScript {
		release, err := s.admitScript(x, g)
		if err != nil {
			return err
		}
		defer release()
	}
	if err := g.settle(0, g.artifact.Size); err != nil {
		return err
	}
	if body, err = s.withToken(x, b, g, body); err != nil {
		return err
	}
	x.boot, began = g.d, true
	err = s.sendScript(x, body)
	sent = err == nil
	return err
}

// bareScript returns the machine's script without any token.
func (s *Server) bareScript(x *exchange, b *booting) ([]byte, error) {
	if !b.plan.HasScript {
		return s.write(x, b, b.plan, "")
	}
	if weakTLS(x.r) {
		return nil, errWeakTLS
	}
	body, err := s.secrets.Script(x.r.Context(), b.plan)
	switch {
	case errors.Is(err, boot.ErrNotFound):
		return nil, fmt.Errorf("%w: the script of %s is gone", boot.ErrNotReady, b.plan.Object)
	case err != nil:
		return nil, fmt.Errorf("reading the script of %s: %w", b.plan.Object, err)
	}
	if err := render.CheckScript(body); err != nil {
		return nil, fmt.Errorf("%w: the script of %s: %w", boot.ErrNotReady, b.plan.Object, err)
	}
	return body, nil
}

// admitScript says whether the machine's own script, which may hold secrets, may
// go to this client in the attempt that its delivery began, and keeps others from
// it until release is called.
func (s *Server) admitScript(x *exchange, g *gate) (release func(), err error) {
	err = s.admits(g.attempt, g.id, x.peer.addr)
	if err == nil && deliveredElsewhere(g.attempt, x.peer.addr) {
		err = boot.ErrContested
	}
	if errors.Is(err, boot.ErrContested) {
		s.contested(x, g.id, g.plan, g.attempt)
	}
	if err != nil {
		return nil, err
	}
	return s.holdSecret(x, g.id, g.plan, g.attempt)
}

// deliveredElsewhere says whether the script of this attempt went to another
// address: it is a secret, and belongs to who got it first.
func deliveredElsewhere(a boot.Attempt, addr netip.Addr) bool {
	return !a.BootServedAt.IsZero() && a.BootAddr.IsValid() && a.BootAddr != addr
}

// withToken renders the script again with a token for the machine's secrets,
// where it was a token that proved the machine.
func (s *Server) withToken(x *exchange, b *booting, g *gate, body []byte) ([]byte, error) {
	if !s.givesToken(b) {
		return body, nil
	}
	a := g.attempt
	if settled, ok := g.d.settledAttempt(); ok {
		a = settled
	}
	token, err := s.issuer.Secret(b.plan, a, b.id.client(x.peer))
	if err != nil {
		return nil, fmt.Errorf("minting a token: %w", err)
	}
	return s.write(x, b, b.plan, token)
}

func (s *Server) givesToken(b *booting) bool {
	p := b.plan
	return s.issuer != nil && b.id.attempt != 0 && !p.HasScript && (p.HasIgnition || p.HasCloudInit)
}

// rehearse returns a script as long as the one that is delivered, with something
// in the place of its token: one that cannot be written must show before the
// delivery is committed.
func (s *Server) rehearse(x *exchange, b *booting, bare []byte) ([]byte, error) {
	if !s.givesToken(b) {
		return bare, nil
	}
	return s.write(x, b, b.plan, strings.Repeat("-", len(x.token)))
}

// headScript answers a HEAD: as long as the GET, and without any effect.
func (s *Server) headScript(x *exchange, g *gate, body []byte) error {
	if err := g.peek(); err != nil {
		return err
	}
	return s.sendScript(x, body)
}

// sendScript sends a whole script. Content-Length is always there: without one
// iPXE waits for the end of the connection.
func (s *Server) sendScript(x *exchange, body []byte) error {
	x.Header()["Cache-Control"] = noStore
	x.reply(200, contentText, body)
	if x.head() || x.boot == nil {
		return nil
	}
	if err := x.flush(); err != nil {
		return fmt.Errorf("%w: %w", errAborted, err)
	}
	return nil
}

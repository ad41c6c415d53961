package httpserver

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// composeWait is how long a machine that boots again at once is made to wait for
	// the UKI of its new attempt: five idle seconds end a firmware's boot.
	composeWait = 1500 * time.Millisecond
	composePoll = 25 * time.Millisecond
)

// errComposing: the UKI of an attempt is on its way through the API server.
func errComposing(attempt int64) error {
	return fmt.Errorf("%w: the machine's UKI is being composed for boot attempt %d", boot.ErrNotReady, attempt)
}

// composedTarget returns the composed UKI of a plan.
func composedTarget(p *boot.Plan) (target, error) {
	if p.Composed == nil {
		return target{}, fmt.Errorf("%w: the machine's UKI is being composed", boot.ErrNotReady)
	}
	return target{artifact: p.Composed.Artifact(), image: p.Image, composed: p}, nil
}

// composedFor says whether the composed UKI of a plan is good for a boot attempt.
// The token in it is for one; a UKI without a token is good for all.
func composedFor(p *boot.Plan, attempt int64) bool {
	return p.Composed != nil && (p.Composed.Attempt == attempt || !p.FetchesSecrets())
}

// deliverComposed serves the UKI that was composed for a machine to that machine,
// which has to be proven by its address at least, whatever its plan asks for.
func (s *Server) deliverComposed(x *exchange, id identity, p *boot.Plan) error {
	if id.proof < boot.Address {
		return errRefused
	}
	p, err := s.chooseComposed(x, id, p)
	if err != nil {
		return err
	}
	a := p.Composed.Artifact()
	g := &gate{s: s, x: x, plan: p, artifact: a, id: id, stage: boot.StageUKI, composed: true}
	if x.head() {
		if err := g.peek(); err != nil {
			return err
		}
		return s.sendBlob(x, a, noStore, g, &unread{size: a.Size})
	}
	blob, err := s.openComposed(x, p)
	if err != nil {
		return err
	}
	defer func() { _ = blob.Close() }() // it was only read
	return s.sendBlob(x, a, noStore, g, blob)
}

func (s *Server) openComposed(x *exchange, p *boot.Plan) (boot.Blob, error) {
	if s.composer == nil {
		return nil, fmt.Errorf("%w: this server composes no UKIs", boot.ErrNotReady)
	}
	blob, err := s.composer.OpenComposed(x.r.Context(), p)
	if errors.Is(err, boot.ErrInvalid) {
		return nil, fmt.Errorf("%w: %w", boot.ErrNotReady, err) // the controller tells of it
	}
	return blob, err //nolint:wrapcheck // it says what it did
}

// chooseComposed returns the plan whose composed UKI is served: the one that a
// delivery under way goes on with, else that of the attempt which a boot that begins
// now belongs to. The latter is waited for a little, as a machine may boot again
// before the next UKI was composed. It returns boot.ErrNotReady when it does not
// come, and the errors of boot.Attempts.Coming.
func (s *Server) chooseComposed(x *exchange, id identity, p *boot.Plan) (*boot.Plan, error) {
	known := s.deliveries.find(deliveryKey{object: p.Object.UID, addr: x.peer.addr})
	if known != nil && known.plan.Composed == nil {
		known = nil
	}
	goesOn := known != nil && known.goesOn(known.artifact, s.attempts.Current(p), s.now())
	if goesOn && resumes(x.r) {
		return known.plan, nil
	}
	deadline := time.NewTimer(composeWait)
	defer deadline.Stop()
	for {
		attempt, err := s.attemptOf(p, id)
		switch {
		case errors.Is(err, boot.ErrSpent) && known != nil && (known.undecided(known.artifact) || goesOn && x.head()):
			return known.plan, nil
		case err != nil:
			return nil, fmt.Errorf("choosing the UKI of %s: %w", p.Object, err)
		case composedFor(p, attempt):
			return p, nil
		case goesOn && (known.attempt.Number == attempt || x.head()):
			return known.plan, nil
		}
		select {
		case <-time.After(composePoll):
			if p, err = s.newestOf(p); err != nil {
				return nil, err
			}
		case <-deadline.C:
			return nil, errComposing(attempt)
		case <-x.r.Context().Done():
			return nil, fmt.Errorf("%w: %w", errComposing(attempt), x.r.Context().Err())
		}
	}
}

// newestOf returns a plan as it is now.
func (s *Server) newestOf(p *boot.Plan) (*boot.Plan, error) {
	now, err := s.source.ByObject(p.Object.UID)
	switch {
	case errors.Is(err, boot.ErrNotFound):
		return nil, errRefused
	case err != nil:
		return nil, fmt.Errorf("looking for the new UKI of %s: %w", p.Object, err)
	case now.NotReady != "":
		return nil, fmt.Errorf("%w: %s", boot.ErrNotReady, now.NotReady)
	case !now.Composes:
		return nil, fmt.Errorf("%w: the machine's config was changed", boot.ErrNotReady)
	}
	return now, nil
}

// attemptOf returns the number of the attempt that a boot of this machine which
// begins now belongs to, as boot.Attempts.Begin would; it opens nothing.
func (s *Server) attemptOf(p *boot.Plan, id identity) (int64, error) {
	if current := s.attempts.Current(p); p.Policy != boot.Once && id.attempt != 0 && id.attempt == current.Number {
		return id.attempt, nil
	}
	a, err := s.attempts.Coming(p)
	return a.Number, err //nolint:wrapcheck // who asks wraps it
}

// fits makes sure that a composed UKI is that of the attempt which its delivery is
// about to open: what would be opened otherwise is one that nothing fits.
func (g *gate) fits() error {
	if !g.composed {
		return nil
	}
	attempt, err := g.s.attemptOf(g.plan, g.id)
	if err == nil && !composedFor(g.plan, attempt) {
		return errComposing(attempt)
	}
	return nil //nolint:nilerr // it is Begin that tells of it
}

// resumes says whether a request asks for anything but the beginning.
func resumes(r *http.Request) bool {
	header := strings.ReplaceAll(r.Header.Get("Range"), " ", "")
	return header != "" && !strings.HasPrefix(header, "bytes=0-")
}

// ownURL returns the URL of its composed UKI for a machine that asks for it itself:
// with its own token, or with one that is as good as what proves it. It is empty
// where there is none.
func (s *Server) ownURL(x *exchange, id identity, p *boot.Plan) (string, error) {
	token := x.token
	if s.baseURL == "" {
		return "", nil
	}
	if id.attempt == 0 {
		if s.issuer == nil {
			return "", nil
		}
		var err error
		if token, err = s.issuer.Boot(p, id.client(x.peer)); err != nil {
			return "", fmt.Errorf("telling %s where its UKI is: %w", p.Object, err)
		}
	}
	return s.baseURL + bootTokenPrefix + token + "/uki.efi", nil
}

// byComposed finds the machine of a token from a composed UKI. Such a token proves
// the machine as the delivery of that UKI did, and nothing where none is known of.
func (s *Server) byComposed(x *exchange, p *boot.Plan, t boot.Token) (identity, error) {
	a := s.attempts.Current(p)
	if t.Attempt > a.Number || t.Attempt == a.Number && a.BootProof < boot.Address {
		// Another replica may have delivered the UKI.
		var err error
		if a, err = s.refresh(x.r.Context(), p); err != nil {
			return identity{}, err
		}
	}
	switch {
	case t.Attempt < a.Number:
		return identity{}, errRefused
	case t.Attempt > a.Number || a.BootProof < boot.Address:
		return identity{}, fmt.Errorf("%w: no delivery of the UKI that this token is from is known yet", boot.ErrNotReady)
	case a.BootProof < minimumProof(p):
		return identity{}, errRefused
	}
	return identity{plans: []*boot.Plan{p}, proof: a.BootProof, attempt: t.Attempt}, nil
}

// unread is a blob of which only the size is told.
type unread struct{ size, pos int64 }

func (u *unread) Size() int64              { return u.size }
func (u *unread) File() *os.File           { return nil }
func (u *unread) Close() error             { return nil }
func (u *unread) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (u *unread) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += u.pos
	case io.SeekEnd:
		offset += u.size
	}
	u.pos = offset
	return offset, nil
}

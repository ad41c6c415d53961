package artifact

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// errStartOver: bytes of several transfers together are not what the digest
// says. What was kept of them is gone, and a clean pull may well succeed.
var errStartOver = fmt.Errorf("joined from several transfers, or from a mirror: %w", ErrDigestMismatch)

// flight is the one pull of a digest that is running.
type flight struct {
	// asked is whose pull it is. Others join it, but take only its success.
	asked   request
	digest  boot.Digest
	size    int64
	arrival *arrival
	cancel  context.CancelFunc
	done    chan struct{}
	// after is the end of an abandoned flight that wrote the same file.
	after <-chan struct{}
	// err is set before done is closed.
	err error

	// waiters counts callers of Pull; Store.mu guards it.
	waiters   int
	abandoned bool
}

// request is what decides whether a pull succeeds: two that are equal share
// their failure too.
type request struct {
	role   boot.Role
	source string
	size   int64
	cred   [sha256.Size]byte
}

// Pull makes sure that the blob is here, verified, and what its role asks for.
// However many call it, there is one transfer at a time, which goes on while
// anyone waits for it or reads it. It returns ErrInvalidReference,
// ErrNotAllowed, ErrNotFound, ErrUnauthorized, ErrDigestMismatch, ErrTooLarge,
// ErrFull or ErrNotAUKI; any other error is transient, and what has arrived is
// kept for the next call.
func (s *Store) Pull(ctx context.Context, a boot.Artifact, creds Credentials) error {
	err := s.pull(ctx, a, creds)
	if err != nil {
		return fmt.Errorf("pulling %s %s: %w", a.Role, a.Digest, err)
	}
	return nil
}

func (s *Store) pull(ctx context.Context, a boot.Artifact, creds Credentials) error {
	from, cred, err := s.origin(a, creds)
	if err != nil {
		return err
	}
	asked := request{role: a.Role, source: a.Source, size: a.Size, cred: cred}
	startedOver := false
	for {
		if here, err := s.present(ctx, a); here || err != nil {
			return err
		}
		f, err := s.join(a, asked, from)
		if err != nil {
			return err
		}
		if err = s.await(ctx, f); ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case err == nil:
		case s.life.Err() != nil:
			return fmt.Errorf("%w: %w", errClosed, err)
		case f.asked != asked:
			// Someone else's failure is not ours: they may have named another
			// registry, or lacked our credentials.
		case errors.Is(err, errStartOver) && !startedOver:
			startedOver, from = true, from.again()
		default:
			return err
		}
	}
}

// origin checks what an artifact says and finds where it comes from.
func (s *Store) origin(a boot.Artifact, creds Credentials) (origin, [sha256.Size]byte, error) {
	var none [sha256.Size]byte
	if _, err := boot.ParseDigest(string(a.Digest)); err != nil {
		return nil, none, fmt.Errorf("%w: %w", ErrInvalidReference, err)
	}
	if a.Size <= 0 {
		return nil, none, fmt.Errorf("%w: the artifact has a size of %d bytes", ErrInvalidReference, a.Size)
	}
	if strings.Contains(a.Source, "://") {
		u, err := s.allow.foreign(a.Source)
		if err != nil {
			return nil, none, err
		}
		return s.urlOrigin(u), none, nil
	}
	ref, err := ParseReference(a.Source)
	if err == nil {
		err = s.allow.image(ref)
	}
	if err != nil {
		return nil, none, err
	}
	return s.registryOrigin(ref, creds, a), fingerprint(creds.lookup(ref.Registry, ref.Repository)), nil
}

// present says whether the blob is here and fit for its role. What an earlier
// process left is believed, unless its size is in doubt.
func (s *Store) present(ctx context.Context, a boot.Artifact) (bool, error) {
	s.mu.Lock()
	e := s.blobs[a.Digest]
	if e == nil {
		s.mu.Unlock()
		return false, nil
	}
	size, verified, checked := e.size, e.verified, e.checked[a.Role]
	s.mu.Unlock()
	if size != a.Size {
		// Either the file is damaged, or the artifact lies about its size.
		if !verified {
			if err := s.verify(ctx, a.Digest, e); err != nil {
				if ctx.Err() != nil {
					return false, context.Cause(ctx)
				}
				s.drop(a.Digest, e, err)
				return false, nil
			}
		}
		return true, fmt.Errorf("%w: the blob has %d bytes, not %d", ErrDigestMismatch, size, a.Size)
	}
	if checked || s.opts.Check == nil {
		return true, nil
	}
	return s.checkRole(ctx, a, e)
}

// checkRole asks Options.Check about a blob that came for another role, or in
// an earlier process.
func (s *Store) checkRole(ctx context.Context, a boot.Artifact, e *entry) (bool, error) {
	b, err := s.Open(ctx, a.Digest)
	if errors.Is(err, boot.ErrNotReady) {
		return false, nil // dropped just now
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = b.Close() }()
	f := b.File()
	if f == nil {
		return false, nil // dropped and arriving again
	}
	if err := s.check(a.Role, f); err != nil {
		return true, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.checked[a.Role] = true
	return true, nil
}

// join returns the flight of this digest, and starts it where there is none.
func (s *Store) join(a boot.Artifact, asked request, from origin) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.flights[a.Digest]
	if old != nil && !old.abandoned {
		old.waiters++
		return old, nil
	}
	ctx, cancel := context.WithCancel(s.life)
	f := &flight{
		asked: asked, digest: a.Digest, size: a.Size, arrival: newArrival(a.Size),
		cancel: cancel, done: make(chan struct{}), waiters: 1,
	}
	if old != nil {
		f.after = old.done
	}
	if err := s.run(func() { s.fly(ctx, f, from) }); err != nil {
		cancel()
		return nil, err
	}
	s.flights[a.Digest] = f
	s.metrics.inFlight.Inc()
	return f, nil
}

// await waits for a flight, and abandons it when it was the last to do so.
func (s *Store) await(ctx context.Context, f *flight) error {
	var err error
	select {
	case <-f.done:
		err = f.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.waiters--
	s.abandonIfUnwanted(f.digest)
	return err
}

// abandonIfUnwanted cancels a flight that nobody waits for. s.mu is held.
func (s *Store) abandonIfUnwanted(d boot.Digest) {
	f := s.flights[d]
	if f != nil && f.waiters == 0 && s.open[d] == 0 {
		f.abandoned = true
		f.cancel()
	}
}

// fly is the goroutine of a flight.
func (s *Store) fly(ctx context.Context, f *flight, from origin) {
	defer f.cancel()
	if f.after != nil {
		<-f.after
	}
	f.err = s.land(ctx, f, from)
	if f.err != nil {
		f.arrival.fail(f.err)
		s.log.Info("a pull failed", "digest", f.digest, "source", redact(f.asked.source), "error", f.err.Error())
	} else {
		s.log.Info("pulled a blob", "digest", f.digest, "bytes", f.size, "source", redact(f.asked.source))
	}
	s.metrics.inFlight.Dec()
	s.metrics.pulls.WithLabelValues(result(f.err)).Inc()
	s.mu.Lock()
	if s.flights[f.digest] == f {
		delete(s.flights, f.digest)
	}
	s.mu.Unlock()
	close(f.done)
}

// land takes a flight from its turn to a file in the store.
func (s *Store) land(ctx context.Context, f *flight, from origin) error {
	leave, err := s.slots.enter(ctx, from.name())
	if err != nil {
		return err
	}
	defer leave()
	name := f.digest.Hex()
	s.mu.Lock()
	resumed := s.stale[name] > 0
	delete(s.stale, name) // from here on it is ours
	s.mu.Unlock()
	if err := s.reserve(f.size); err != nil {
		s.discard(f.arrival, name, true)
		return err
	}
	reserved := f.size
	err = s.receive(ctx, f, from, resumed, &reserved)
	s.unreserve(reserved)
	s.discard(f.arrival, name, err != nil && !worthKeeping(err))
	return err
}

// receive fills the file, verifies it and puts it in its place.
func (s *Store) receive(ctx context.Context, f *flight, from origin, resumed bool, reserved *int64) error {
	a := f.arrival
	if err := a.start(ctx, s.ingestPath(f.digest)); err != nil {
		return err
	}
	t := transfer{store: s, from: from, to: a, joined: resumed}
	if err := t.run(ctx); err != nil {
		s.metrics.registryError(from.name(), err)
		return err
	}
	if err := a.check(f.digest); err != nil {
		if t.joined || from.suspect() {
			return fmt.Errorf("%w: %w", errStartOver, err)
		}
		return err
	}
	if err := s.check(f.asked.role, a.file); err != nil {
		return err
	}
	a.release()
	return s.install(a, f.digest, f.asked.role, reserved)
}

// worthKeeping says whether what arrived before this error can be resumed.
func worthKeeping(err error) bool {
	return !Terminal(err) && !errors.Is(err, ErrFull) && !errors.Is(err, errStartOver)
}

// redact keeps the query of a URL, which may be signed, out of logs.
func redact(source string) string {
	if !strings.Contains(source, "://") {
		return source
	}
	u, err := url.Parse(source)
	if err != nil {
		return "a URL"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

package httpserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// reloadEvery bounds how often strangers can make us read the keys of tokens.
	reloadEvery = time.Second
	// reloadTimeout bounds one read: with the wait before it less than the idle
	// seconds after which firmware gives up.
	reloadTimeout = 2 * time.Second
)

// reloads lets one reading of the keys at a time happen, for all who wait for it.
type reloads struct {
	// turn is held by whoever reads, and guards what follows.
	turn  chan struct{}
	began time.Time
	err   error
}

// since makes sure that the keys were read after a request arrived.
func (r *reloads) since(ctx context.Context, arrived time.Time, read func(context.Context) error) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for the keys of tokens: %w", ctx.Err())
	}
	if !r.began.IsZero() && !r.began.Before(arrived) {
		return r.err
	}
	select {
	case <-time.After(time.Until(r.began.Add(reloadEvery))):
	case <-ctx.Done():
		return fmt.Errorf("waiting for the keys of tokens: %w", ctx.Err())
	}
	r.began = time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadTimeout)
	defer cancel()
	r.err = read(ctx)
	return r.err
}

// verify reads the token of a request. One that was signed with a key that is not
// known here may be of a key that other replicas have read: so the keys are read
// again before it is refused. It returns errRefused, and boot.ErrUnavailable when
// they cannot be read.
func (s *Server) verify(x *exchange, audience boot.Audience) (boot.Token, error) {
	t, err := s.verifyNow(x, audience)
	if err == nil || s.reloadKeys == nil || !errors.Is(err, boot.ErrUnknownKey) && !errors.Is(err, boot.ErrSeal) {
		return t, hidden(err)
	}
	readErr := s.reloads.since(x.r.Context(), x.start, s.reloadKeys)
	t, err = s.verifyNow(x, audience)
	if readErr != nil && errors.Is(err, boot.ErrUnknownKey) {
		return boot.Token{}, fmt.Errorf("%w: reading the keys of tokens: %w", boot.ErrUnavailable, readErr)
	}
	return t, hidden(err)
}

// verifyNow takes a token from a composed UKI for secrets, too.
func (s *Server) verifyNow(x *exchange, audience boot.Audience) (boot.Token, error) {
	t, err := s.keyring.Verify(x.token, audience, x.peer.addr, s.now())
	if err != nil && audience == boot.AudienceSecret {
		t, err = s.keyring.Verify(x.token, boot.AudienceComposed, x.peer.addr, s.now())
	}
	return t, err //nolint:wrapcheck // who asks hides it
}

// hidden makes every fault of a token the same refusal.
func hidden(err error) error {
	if err != nil {
		return errRefused
	}
	return nil
}

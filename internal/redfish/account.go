package redfish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxAccounts bounds how many BMCs are remembered.
	maxAccounts = 8192
	// forgetAfter is when a BMC that nothing bad is known of is forgotten.
	forgetAfter = 15 * time.Minute
	// longestBreak bounds how long a BMC is left alone.
	longestBreak = 5 * time.Minute
)

// account is what is remembered of one BMC, by its host and port. Its fields but
// turn are guarded by Clients.mu.
type account struct {
	// turn is held by whoever speaks to the BMC.
	turn chan struct{}
	// users hold or wait for the turn: an account with users is not forgotten.
	users   int
	used    time.Time
	limiter *rate.Limiter
	// failures to connect in a row; opened counts how often the breaker opened.
	failures, opened int
	openUntil        time.Time
	// quietUntil is what the BMC asked for.
	quietUntil time.Time
	// refused is the fingerprint of credentials that were refused.
	refused string
	// manager is what the BMC's Manager said, and when.
	manager   manager
	managerAt time.Time
	// vendor is the label that the BMC was counted under last.
	vendor string
}

// enter waits for the turn at a BMC, and for a global slot. The account must be
// given back by leave.
func (c *Clients) enter(ctx context.Context, con Connection) (*account, error) {
	a := c.account(con.Address.Host)
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		c.release(a)
		return nil, &Error{BMC: con.Address.Host, Err: ErrBusy, Message: "another operation on it did not end in time", Cause: ctx.Err()}
	}
	select {
	case c.global <- struct{}{}:
		return a, nil
	case <-ctx.Done():
		<-a.turn
		c.release(a)
		return nil, &Error{BMC: con.Address.Host, Err: ErrBusy, Message: "too many BMCs are being spoken to", Cause: ctx.Err()}
	}
}

func (c *Clients) leave(a *account) {
	<-c.global
	<-a.turn
	c.release(a)
}

func (c *Clients) account(host string) *account {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.bmcs[host]
	if a == nil {
		c.sweep()
		burst := max(1, int(c.limits.PerSecond))
		a = &account{turn: make(chan struct{}, 1), limiter: rate.NewLimiter(rate.Limit(c.limits.PerSecond), burst)}
		c.bmcs[host] = a
	}
	a.users++
	a.used = c.now()
	return a
}

func (c *Clients) release(a *account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.users--
	a.used = c.now()
}

// sweep forgets idle BMCs, at most once a minute; those that something bad is
// known of only when there are too many, oldest first. c.mu is held.
func (c *Clients) sweep() {
	now, oldest := c.now(), ""
	if now.Sub(c.swept) < time.Minute && len(c.bmcs) < maxAccounts {
		return
	}
	c.swept = now
	for host, a := range c.bmcs {
		clean := a.refused == "" && a.opened == 0 && now.After(a.quietUntil)
		switch {
		case a.users > 0:
		case clean && now.Sub(a.used) > forgetAfter:
			delete(c.bmcs, host)
		case oldest == "" || a.used.Before(c.bmcs[oldest].used):
			oldest = host
		}
	}
	if len(c.bmcs) >= maxAccounts && oldest != "" {
		delete(c.bmcs, oldest)
	}
}

// mayAsk says whether a BMC may be spoken to now.
func (c *Clients) mayAsk(a *account, con Connection) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &Error{BMC: con.Address.Host}
	switch now := c.now(); {
	case a.refused != "" && a.refused == c.fingerprint(con):
		e.Err, e.Message = ErrUnauthorized, "they were refused before and are not tried again until they change"
	case now.Before(a.openUntil):
		e.Err, e.RetryAfter = ErrBroken, a.openUntil.Sub(now)
		e.Message = fmt.Sprintf("%d failures in a row", a.failures)
	case now.Before(a.quietUntil):
		e.Err, e.RetryAfter, e.Message = ErrBusy, a.quietUntil.Sub(now), "it asked for no request before then"
	default:
		return nil
	}
	return e
}

// settle remembers how an operation ended.
func (c *Clients) settle(a *account, con Connection, l *link, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.refused {
		a.refused = c.fingerprint(con)
	} else if l.answered {
		a.refused = ""
	}
	a.vendor = l.tally.vendor
	if l.quiet > 0 {
		a.quietUntil = c.now().Add(l.quiet)
	}
	failed := errors.Is(err, ErrUnreachable) || errors.Is(err, ErrCertificate) || errors.Is(err, ErrNotBMC) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrLost)
	switch {
	case errors.Is(err, context.Canceled):
	case !failed:
		a.failures, a.opened, a.openUntil = 0, 0, time.Time{}
	default:
		a.failures++
		c.trip(a, err)
	}
}

// trip opens the breaker once there were enough failures: for BreakFor, doubling
// up to longestBreak, less up to a quarter so that BMCs do not come back all at
// once. c.mu is held.
func (c *Clients) trip(a *account, err error) {
	wait := c.limits.BreakFor
	if a.failures >= c.limits.BreakAfter {
		wait = min(c.limits.BreakFor<<min(a.opened, 16), longestBreak)
		a.opened++
		a.openUntil = c.now().Add(wait - time.Duration(float64(wait/4)*c.random()))
		wait = a.openUntil.Sub(c.now())
	}
	var e *Error
	if errors.As(err, &e) && e.RetryAfter == 0 {
		e.RetryAfter = wait
	}
}

// pace waits until the BMC may get its next request.
func (c *Clients) pace(ctx context.Context, a *account) error {
	now := c.now()
	r := a.limiter.ReserveN(now, 1)
	if d := r.DelayFrom(now); d > 0 {
		return c.sleep(ctx, d)
	}
	return nil
}

package redfish

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"math"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"time"
)

// Options is what Clients needs. The zero value is the default.
type Options struct {
	Limits Limits
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Sleep waits; nil: a timer that ends with the context.
	Sleep func(ctx context.Context, d time.Duration) error
	// Random returns a number from 0 to 1, for jitter; nil: a random one.
	Random func() float64
}

// withDefaults fills in what was left out.
func (l Limits) withDefaults() Limits {
	set(&l.Global, 64)
	set(&l.PerSecond, 10)
	set(&l.Timeout, time.Minute)
	set(&l.Operation, 5*time.Minute)
	set(&l.MaxBody, 8<<20)
	set(&l.BreakAfter, 3)
	set(&l.BreakFor, 5*time.Second)
	return l
}

func set[T int | int64 | float64 | time.Duration](to *T, value T) {
	if *to <= 0 {
		*to = value
	}
}

// Clients speaks to many BMCs and keeps each from being asked too much. It is
// safe for concurrent use, and collects the figures about BMCs for Prometheus.
type Clients struct {
	limits Limits
	now    func() time.Time
	sleep  func(ctx context.Context, d time.Duration) error
	random func() float64
	// key makes fingerprints of credentials; it is of this process only.
	key     [32]byte
	global  chan struct{}
	metrics *metrics

	mu   sync.Mutex
	bmcs map[string]*account
	// swept is when idle BMCs were last forgotten.
	swept time.Time
}

// New returns Clients that hold o's limits.
func New(o Options) *Clients {
	c := &Clients{limits: o.Limits.withDefaults(), now: o.Now, sleep: o.Sleep, random: o.Random, metrics: newMetrics(), bmcs: map[string]*account{}}
	if c.now == nil {
		c.now = time.Now
	}
	if c.sleep == nil {
		c.sleep = sleep
	}
	if c.random == nil {
		c.random = mathrand.Float64
	}
	_, _ = rand.Read(c.key[:]) // it never fails (crypto/rand)
	c.global = make(chan struct{}, min(c.limits.Global, math.MaxInt16))
	return c
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Do lends the BMC of a connection to f: it waits for its turn at this BMC and
// for a free slot, connects, finds the system, checks that it is the expected
// one, and logs out in the end whatever happened. The BMC is valid until f
// returns. It returns f's error, or an *Error.
//
// Nothing is sent while the circuit breaker is open (ErrBroken), before a time
// that the BMC asked to wait for has passed (ErrBusy), and with credentials that
// it refused before (ErrUnauthorized); see Forget.
func (c *Clients) Do(ctx context.Context, con Connection, f func(ctx context.Context, bmc BMC) error) error {
	return c.do(ctx, con, func(ctx context.Context, b *bmc) error {
		err := b.choose(ctx)
		if vendor := b.vendor(); err == nil || vendor != otherVendor {
			b.conn.link.tally.vendor = vendor
		}
		if err != nil {
			return err
		}
		return f(ctx, b)
	})
}

// do is Do without the choice of a system.
func (c *Clients) do(ctx context.Context, con Connection, f func(ctx context.Context, b *bmc) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.limits.Operation)
	defer cancel()
	a, err := c.enter(ctx, con)
	if err != nil {
		c.metrics.failed(otherVendor, err)
		return err
	}
	defer c.leave(a)
	if err := c.mayAsk(a, con); err != nil {
		c.metrics.failed(c.vendorOf(a), err)
		return err
	}
	l, err := c.link(con, a)
	if err != nil {
		return err
	}
	defer c.metrics.add(l.tally)
	defer l.close()
	b, err := l.connect(ctx)
	if err == nil {
		err = f(ctx, b)
	}
	c.settle(a, con, l, err)
	c.metrics.failed(l.tally.vendor, err)
	return err
}

// Forget forgets that a BMC refused credentials, and its failures: someone says
// that it is worth another try.
func (c *Clients) Forget(a Address) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.bmcs[a.Host]; known != nil {
		known.refused, known.failures, known.opened = "", 0, 0
		known.openUntil, known.quietUntil = time.Time{}, time.Time{}
	}
}

// fingerprint tells credentials apart without keeping them.
func (c *Clients) fingerprint(con Connection) string {
	h := hmac.New(sha256.New, c.key[:])
	h.Write([]byte(strings.Join([]string{con.Username, con.Password}, "\x00")))
	return string(h.Sum(nil))
}

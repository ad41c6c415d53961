package main

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
)

const (
	// clockTolerance is how far this machine's clock may be off before the API server's
	// counts.
	clockTolerance = 2 * time.Second
	// clockBlur is the longest request whose answer tells the time.
	clockBlur = 10 * time.Second
	// clockLogEvery bounds how often a change is logged: API servers may disagree.
	clockLogEvery = time.Minute
)

// clusterClock is the one clock by which all replicas judge attempts and tokens: the
// API server's, as the Date header (RFC 9110 section 6.6.1) of its answers tells it.
// Replicas whose machines' clocks differ by minutes agree with each other to within
// seconds. While the API server is away what it said last goes on counting.
type clusterClock struct {
	clock.RealClock
	local  func() time.Time
	logger logr.Logger
	// offset is what the local clock lacks, in nanoseconds.
	offset atomic.Int64
	logged atomic.Int64 // when a change was logged last, in nanoseconds
}

func newClusterClock(logger logr.Logger) *clusterClock {
	return &clusterClock{local: time.Now, logger: logger}
}

// Now returns the cluster's time.
func (c *clusterClock) Now() time.Time { return c.local().Add(time.Duration(c.offset.Load())) }

// Since returns the cluster's time since t.
func (c *clusterClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

// follow makes a client's answers set the clock.
func (c *clusterClock) follow(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		sent := c.local()
		resp, err := next.RoundTrip(r)
		if err == nil {
			if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
				c.learn(date, sent, c.local())
			}
		}
		return resp, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// learn takes in that the server's clock showed date, which has whole seconds only,
// at some time between sent and got.
func (c *clusterClock) learn(date, sent, got time.Time) {
	least, most := date.Sub(got.Round(0)), date.Add(time.Second).Sub(sent.Round(0))
	if most < least || most-least > clockBlur {
		return
	}
	fits := func(offset time.Duration) bool {
		return offset >= least-clockTolerance && offset <= most+clockTolerance
	}
	now := time.Duration(c.offset.Load())
	next := (least + most) / 2
	switch {
	case fits(0):
		next = 0
	case now != 0 && fits(now):
		return
	}
	if next == now || !c.offset.CompareAndSwap(int64(now), int64(next)) {
		return
	}
	if last := c.logged.Load(); got.UnixNano()-last > int64(clockLogEvery) && c.logged.CompareAndSwap(last, got.UnixNano()) {
		c.logger.Info("this machine's clock and the API server's differ; the latter counts", "by", next.Round(time.Second).String())
	}
}

// metric tells how far this machine's clock is off.
func (c *clusterClock) metric() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "boot_operator", Name: "clock_offset_seconds",
		Help: "How far the API server's clock is ahead of this replica's machine, where that is more than two seconds; the API server's counts."},
		func() float64 { return time.Duration(c.offset.Load()).Seconds() })
}

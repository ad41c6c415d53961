package httpserver

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// DefaultDrainIdle is how long a connection without a request is kept while a
	// server drains. Firmware asks HEAD, then GET on the same connection, tries
	// nothing again and gives the boot up after five idle seconds: whoever was silent
	// for longer does not come back.
	DefaultDrainIdle = 6 * time.Second
	// drainPoll is how often it is looked for connections that are over.
	drainPoll = 20 * time.Millisecond
)

// drain follows the connections of one listener, so that its end cuts no boot.
// http.Server.Shutdown would close a connection between HEAD and GET at once.
type drain struct {
	began atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]connection
}

// connection is what a connection does, and since when.
type connection struct {
	state http.ConnState
	since time.Time
}

// follow is the server's ConnState.
func (d *drain) follow(c net.Conn, state http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(d.conns, c)
		return
	}
	if d.conns == nil {
		d.conns = make(map[net.Conn]connection)
	}
	d.conns[c] = connection{state: state, since: time.Now()}
}

// handler makes an answer the last of its connection while the server drains; but
// not one to HEAD, which a GET comes after.
func (d *drain) handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodHead && d.began.Load() {
			w.Header()["Connection"] = connectionClose
		}
		h.ServeHTTP(w, r)
	})
}

var connectionClose = []string{"close"}

// finish waits, for at most so long, until no connection is left. It closes those
// that have been idle for too long to ever be used again, and returns how many
// still carried a request in the end.
func (d *drain) finish(idle, limit time.Duration) (cut int) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		open, active := d.closeIdle(idle, time.Now())
		if open == 0 {
			return 0
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return active
		}
	}
}

// closeIdle closes the connections that have been idle for so long. One that has
// sent nothing yet may be in the middle of a TLS handshake, which takes firmware
// its time: it is given as long as a request's head is.
func (d *drain) closeIdle(idle time.Duration, now time.Time) (open, active int) {
	var over []net.Conn
	d.mu.Lock()
	for c, is := range d.conns {
		silent := now.Sub(is.since)
		switch {
		case is.state == http.StateActive:
			active++
		case is.state == http.StateIdle && silent > idle, silent > max(idle, headerTimeout):
			over = append(over, c)
			continue
		}
		open++
	}
	d.mu.Unlock()
	for _, c := range over {
		_ = c.Close() // nobody is there to be told
	}
	return open, active
}

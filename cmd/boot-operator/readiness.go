package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// need is one thing that a replica needs to be ready.
type need struct {
	name string
	// verdict is nil where it is there, else it says what is missing. It returns at
	// once.
	verdict func() error
}

// needs are what this replica needs, in the order in which they come true. What is
// no part of the process is not waited for.
func (p *parts) needs() []need {
	all := []need{
		{"running", p.running},
		{"caches", p.synced},
		{"ports", p.portsOpen},
		{"store", p.storeWatch.verdict},
	}
	if p.settings.tokenSecret != "" && (p.settings.handsOutTokens() || p.settings.offersOnly()) {
		all = append(all, need{"token keys", p.keysRead})
	}
	if !p.settings.offersOnly() {
		all = append(all, need{"artifacts", p.prefetch.Ready})
	}
	return all
}

func (p *parts) running() error {
	if p.ending.Load() {
		return errors.New("this replica is ending")
	}
	return nil
}

func (p *parts) synced() error {
	if !p.inventory.HasSynced() {
		return errors.New("caches have not synced: configs, nodes and namespaces are still being listed")
	}
	return nil
}

func (p *parts) portsOpen() error {
	if !p.serving.Load() {
		return errors.New("the ports that machines reach are not open yet")
	}
	return nil
}

func (p *parts) keysRead() error {
	if _, ok := p.keyring.Active(); !ok {
		return fmt.Errorf("the keys of boot tokens have not been read from the Secret %s", p.tokenKeys.secret)
	}
	return nil
}

// ready says whether machines may be sent to this replica; its error is the first
// thing that is missing.
func (p *parts) ready() error {
	for _, c := range p.needs() {
		if err := c.verdict(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// readyz answers /readyz: 200 or 503, and each check with what is missing where that
// is asked for by ?verbose, or where something is.
func (p *parts) readyz(w http.ResponseWriter, r *http.Request) {
	var text strings.Builder
	status := http.StatusOK
	for _, c := range p.needs() {
		if err := c.verdict(); err != nil {
			status = http.StatusServiceUnavailable
			fmt.Fprintf(&text, "[-] %s: %s\n", c.name, err)
			continue
		}
		fmt.Fprintf(&text, "[+] %s: ok\n", c.name)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, verbose := r.URL.Query()["verbose"]; !verbose && status == http.StatusOK {
		_, _ = w.Write([]byte("ok\n")) // a prober that is gone needs no answer
		return
	}
	_, _ = w.Write([]byte(text.String())) // as above
}

const (
	// storePeriod is how often the directory of the store is looked at.
	storePeriod = 5 * time.Second
	// storeSilence is how long that may take: a file system that hangs gives no error.
	storeSilence = 20 * time.Second
)

// storeWatch keeps an eye on the directory of the artifact store and the journal.
type storeWatch struct {
	usable func() error
	last   atomic.Pointer[storeLook]
}

// storeLook is what the last look at the directory found.
type storeLook struct {
	at  time.Time
	err error
}

// Run looks until ctx ends. A look that hangs holds nothing up but the next one.
func (w *storeWatch) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.last.Store(&storeLook{err: w.usable(), at: time.Now()})
		}()
		select {
		case <-done:
			pause(ctx, storePeriod)
		case <-ctx.Done():
		}
	}
	return nil
}

func (w *storeWatch) verdict() error {
	look := w.last.Load()
	if look == nil {
		return errors.New("its directory was not looked at yet")
	}
	if age := time.Since(look.at); age > storeSilence {
		return fmt.Errorf("its file system has not answered for %s", age.Round(time.Second))
	}
	return look.err
}

package prefetch

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// maxReads is how many Secrets are read at once.
	maxReads = 32
	// readLimit ends a read for which nobody waits any more.
	readLimit = 10 * time.Second
	// failureAge is how long a document that is gone or invalid is not read
	// again: a client that asks in a loop must not load the API server.
	failureAge = 2 * time.Second
	// warmPause is the same for a machine that begins to boot in a loop.
	warmPause = time.Second
)

// errStale: the config named another Secret while this one was read.
var errStale = fmt.Errorf("%w: the config has just changed", boot.ErrUnavailable)

// document is what is known of one document of a machine.
type document struct {
	key documentKey
	// data is the whole of it, except for what only cloud-init has.
	data      []byte
	cloudInit *boot.CloudInit
	// err is set when the API server answered, and there is nothing to serve.
	err    error
	readAt time.Time
	// warmedAt is when the machine began to boot, as far as is known here.
	warmedAt time.Time
	expires  time.Time
	place    *list.Element
}

// secrets keeps the documents of machines that began to boot, bounded in
// number, bytes and time.
type secrets struct {
	reader     client.Reader
	convert    func(data []byte, format string) ([]byte, error)
	configs    *configs
	clock      clock.WithDelayedExecution
	logger     logr.Logger
	metrics    *metrics
	maxCount   int
	maxBytes   int
	revalidate time.Duration
	timeout    time.Duration
	flights    singleflight.Group
	slots      chan struct{}

	mu        sync.Mutex
	documents map[slot]*document
	recent    *list.List // of *document, the last used first
	bytes     int
}

func newSecrets(o Options, c *configs) *secrets {
	return &secrets{
		reader: o.Reader, convert: o.Convert, configs: c, clock: o.Clock, logger: o.Logger,
		maxCount: o.MaxSecrets, maxBytes: o.MaxSecretBytes, revalidate: o.Revalidate, timeout: o.ReadTimeout,
		slots: make(chan struct{}, maxReads), documents: map[slot]*document{}, recent: list.New(),
	}
}

func (s *secrets) get(ctx context.Context, k documentKey) (document, error) {
	if d, ok := s.fresh(k); ok {
		s.metrics.secretFrom("memory")
		return d, d.err
	}
	d, err := s.await(ctx, k)
	if err == nil {
		s.metrics.secretFrom("read")
		return d, d.err
	}
	if d, ok := s.old(k); ok && !errors.Is(err, errStale) {
		s.metrics.secretFrom("stale")
		return d, nil
	}
	s.metrics.secretFrom("none")
	return document{}, err
}

// warm prolongs what is in memory and reads it anew, unless that was just done,
// for whoever comes.
func (s *secrets) warm(k documentKey) {
	s.mu.Lock()
	now := s.clock.Now()
	justRead := false
	if d := s.documents[k.slot()]; d != nil && d.key == k {
		d.warmedAt, d.expires = now, now.Add(boot.AttemptLifetime)
		justRead = now.Sub(d.readAt) < warmPause
	}
	s.mu.Unlock()
	if justRead {
		return
	}
	s.flights.DoChan(k.flight(), func() (any, error) { return s.read(k) })
}

// await waits for a read, its own or one under way.
func (s *secrets) await(ctx context.Context, k documentKey) (document, error) {
	timer := time.NewTimer(s.timeout)
	defer timer.Stop()
	flight := s.flights.DoChan(k.flight(), func() (any, error) {
		if d, ok := s.fresh(k); ok {
			return d, nil // the read before this one has just ended
		}
		return s.read(k)
	})
	select {
	case r := <-flight:
		if r.Err != nil {
			return document{}, r.Err
		}
		return r.Val.(document), nil //nolint:forcetypeassert // ours
	case <-timer.C:
		return document{}, fmt.Errorf("%w: the API server did not answer within %s", boot.ErrUnavailable, s.timeout)
	case <-ctx.Done():
		return document{}, fmt.Errorf("%w: %w", boot.ErrUnavailable, context.Cause(ctx))
	}
}

// flight names a read; neither UIDs nor names hold a slash.
func (k documentKey) flight() string {
	return k.object + "/" + strconv.Itoa(int(k.purpose)) + "/" + k.namespace + "/" + k.secret + "/" + k.metaData + "/" + k.networkData
}

// read gets a document's Secrets from the API server and remembers what came of
// them. Its error means that the API server did not answer.
func (s *secrets) read(k documentKey) (document, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readLimit)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return document{}, fmt.Errorf("%w: too many Secrets are being read", boot.ErrUnavailable)
	}
	found, missing, err := s.fetch(ctx, k)
	if err != nil {
		s.metrics.secretRead("unavailable")
		return document{}, fmt.Errorf("%w: %w", boot.ErrUnavailable, err)
	}
	d := document{key: k}
	if missing != "" {
		d.err = fmt.Errorf("%w: there is no Secret %s/%s", boot.ErrUnavailable, k.namespace, missing)
	} else {
		d.read(s, found)
	}
	s.metrics.secretRead(outcome(d.err))
	if !s.store(d) {
		return document{}, errStale
	}
	return d, nil
}

// fetch gets the Secrets of a document, by name, or the name of the first that
// does not exist.
func (s *secrets) fetch(ctx context.Context, k documentKey) (found map[string]*corev1.Secret, missing string, err error) {
	found = map[string]*corev1.Secret{}
	for _, name := range []string{k.secret, k.metaData, k.networkData} {
		if name == "" || found[name] != nil {
			continue
		}
		var secret corev1.Secret
		err := s.reader.Get(ctx, client.ObjectKey{Namespace: k.namespace, Name: name}, &secret)
		switch {
		case apierrors.IsNotFound(err):
			return nil, name, nil
		case err != nil:
			return nil, "", err
		}
		found[name] = &secret
	}
	return found, "", nil
}

func outcome(err error) string {
	if err != nil {
		return "invalid"
	}
	return "ok"
}

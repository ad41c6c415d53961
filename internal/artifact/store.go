package artifact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// The defaults of Options.
const (
	DefaultMaxBytes     = 16 << 30
	DefaultMaxPulls     = 8
	DefaultStallTimeout = 30 * time.Second
	DefaultRetryDelay   = 500 * time.Millisecond
)

// Options are the settings of a Store.
type Options struct {
	// Dir holds blobs/sha256/<hex> and ingest/. One process uses it at a time.
	Dir string
	// MaxBytes is the budget of the store in bytes; 0 means DefaultMaxBytes.
	MaxBytes int64
	// MaxBlobBytes bounds a single blob; 0 means MaxBytes.
	MaxBlobBytes int64
	// MaxPulls bounds the pulls that run at once, of which one registry may
	// have half; 0 means DefaultMaxPulls.
	MaxPulls int
	// AllowedRegistries are registry, registry:port or registry/path-prefix; a
	// prefix counts by whole segments. "*" allows every registry. Without any,
	// none is allowed.
	AllowedRegistries []string
	// PlainHTTPRegistries are the registries that are spoken to without TLS.
	PlainHTTPRegistries []string
	// AllowedURLHosts are the hosts that UKIs may be pulled from by URL: host or
	// host:port for https, http://host:port for plain HTTP too.
	AllowedURLHosts []string
	// RedirectHosts are host:port that redirects may lead to although they have
	// an address of this machine: a local CDN, in tests.
	RedirectHosts []string
	// CABundle is PEM; it is trusted besides the system's.
	CABundle []byte
	// Mirrors lists, for a registry or registry/path-prefix, where to ask first.
	Mirrors map[string][]string
	// StallTimeout is how long a transfer may go on at less than 1 KiB/s; 0
	// means DefaultStallTimeout. There is no limit on its total time.
	StallTimeout time.Duration
	// RetryDelay is the wait before a broken transfer is resumed, which doubles
	// while nothing comes; 0 means DefaultRetryDelay.
	RetryDelay time.Duration
	// Check is asked whether a blob whose digest was verified is what its role
	// needs; an error of it becomes ErrNotAUKI, and the blob is not kept. It
	// must not close the file. Without it every blob is good.
	Check func(role boot.Role, f *os.File) error
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Registerer takes the metrics; nil means none are published.
	Registerer prometheus.Registerer
	Logger     logr.Logger
}

// Store is a directory of verified blobs, and the pulls that fill it. Its
// methods may be called by any number of goroutines at once.
type Store struct {
	opts    Options
	allow   *allowlist
	client  *client
	metrics *metrics
	log     logr.Logger
	now     func() time.Time
	slots   *slots
	lock    *os.File

	// life ends with Close, and every pull with it.
	life context.Context //nolint:containedctx // pulls outlive their callers
	end  context.CancelFunc
	// running counts the goroutines of pulls; it grows under mu only.
	running sync.WaitGroup

	mu      sync.Mutex
	blobs   map[boot.Digest]*entry
	flights map[boot.Digest]*flight
	// open counts, by digest, the readers of a blob, here or arriving.
	open map[boot.Digest]int
	// used is the size of all blobs, reserved what running pulls may write,
	// stale the unfinished files that no pull is writing, by name.
	used, reserved int64
	stale          map[string]int64
	keep           func() map[boot.Digest]struct{}

	urls  singleflight.Group
	known urlCache
}

var _ boot.Blobs = (*Store)(nil)

// entry is a blob that is here.
type entry struct {
	size     int64
	lastUsed time.Time
	// persisted is the lastUsed that the file's time tells.
	persisted time.Time
	// verified says that this process has hashed the bytes.
	verified bool
	// checked are the roles that Options.Check has passed.
	checked map[boot.Role]bool
}

// New opens a store, with what an earlier process left in its directory. It
// returns ErrInvalidReference for settings that cannot be read, and an error
// when another process uses the directory.
func New(o Options) (*Store, error) {
	allow, err := newAllowlist(o)
	if err != nil {
		return nil, fmt.Errorf("opening the artifact store: %w", err)
	}
	c, err := newClient(o, allow)
	if err != nil {
		return nil, fmt.Errorf("opening the artifact store: %w", err)
	}
	o = o.withDefaults()
	s := &Store{
		opts: o, allow: allow, client: c, log: o.Logger, now: o.Now, slots: newSlots(o.MaxPulls),
		blobs: map[boot.Digest]*entry{}, flights: map[boot.Digest]*flight{}, open: map[boot.Digest]int{}, stale: map[string]int64{},
	}
	s.life, s.end = context.WithCancel(context.Background())
	if err := s.openDir(); err != nil {
		s.end()
		return nil, fmt.Errorf("opening the artifact store: %w", err)
	}
	if s.metrics, err = newMetrics(s); err != nil {
		s.end()
		return nil, errors.Join(fmt.Errorf("opening the artifact store: %w", err), s.lock.Close())
	}
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxBlobBytes <= 0 || o.MaxBlobBytes > o.MaxBytes {
		o.MaxBlobBytes = o.MaxBytes
	}
	if o.MaxPulls <= 0 {
		o.MaxPulls = DefaultMaxPulls
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = DefaultStallTimeout
	}
	if o.RetryDelay <= 0 {
		o.RetryDelay = DefaultRetryDelay
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// openDir makes, locks and reads the directory.
func (s *Store) openDir() error {
	for _, d := range []string{s.blobDir(), s.ingestDir()} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return diskError("making "+d, err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(s.opts.Dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return diskError("locking the directory", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("%s is in use by another process; every replica needs a directory of its own: %w", s.opts.Dir, err), lock.Close())
	}
	s.lock = lock
	if err := s.scan(); err != nil {
		return errors.Join(err, lock.Close())
	}
	return nil
}

func (s *Store) blobDir() string   { return filepath.Join(s.opts.Dir, "blobs", "sha256") }
func (s *Store) ingestDir() string { return filepath.Join(s.opts.Dir, "ingest") }

func (s *Store) blobPath(d boot.Digest) string   { return filepath.Join(s.blobDir(), d.Hex()) }
func (s *Store) ingestPath(d boot.Digest) string { return filepath.Join(s.ingestDir(), d.Hex()) }

// Close ends all pulls, waits for them, and gives the directory free. Blobs
// that are open stay readable.
func (s *Store) Close() error {
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.running.Wait()
	return s.lock.Close()
}

// errClosed: Close was called.
var errClosed = errors.New("the artifact store is closed")

// run starts the goroutine of a pull, unless the store is closed. s.mu is held.
func (s *Store) run(f func()) error {
	if s.life.Err() != nil {
		return errClosed
	}
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		f()
	}()
	return nil
}

// Has says whether the blob is here, complete.
func (s *Store) Has(d boot.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blobs[d] != nil
}

// Openable says whether the blob is here or arriving, so that Open would find it.
func (s *Store) Openable(d boot.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flights[d]
	return s.blobs[d] != nil || f != nil && !f.abandoned
}

// Keep names the function that tells which blobs must stay, however full the
// store is. It is called without any lock held, whenever room is needed.
func (s *Store) Keep(keep func() map[boot.Digest]struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = keep
}

// Open returns a blob that is here or arriving; ctx bounds its reads too. It
// hashes nothing and never starts a pull. It returns ErrNotReady when the blob
// is neither here nor arriving, or has turned out to be damaged.
func (s *Store) Open(ctx context.Context, d boot.Digest) (boot.Blob, error) {
	if _, err := boot.ParseDigest(string(d)); err != nil {
		return nil, fmt.Errorf("opening a blob: %w", err)
	}
	s.mu.Lock()
	e, f := s.blobs[d], s.flights[d]
	switch {
	case e != nil:
		s.open[d]++
		s.mu.Unlock()
		return s.openEntry(ctx, d, e)
	case f != nil && !f.abandoned:
		s.open[d]++
		s.mu.Unlock()
		s.metrics.opened("arriving")
		return &blob{ctx: ctx, store: s, digest: d, size: f.size, arrival: f.arrival}, nil
	}
	s.mu.Unlock()
	s.metrics.opened("miss")
	return nil, fmt.Errorf("opening %s: %w: it is not in the store", d, boot.ErrNotReady)
}

func (s *Store) openEntry(ctx context.Context, d boot.Digest, e *entry) (boot.Blob, error) {
	f, err := os.Open(s.blobPath(d))
	if err == nil {
		var st os.FileInfo
		if st, err = f.Stat(); err == nil && st.Size() != e.size {
			err = fmt.Errorf("the file has %d bytes, not %d", st.Size(), e.size)
		}
	}
	if err != nil {
		if f != nil {
			_ = f.Close()
		}
		s.release(d)
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			return nil, fmt.Errorf("opening %s: %w: %w", d, boot.ErrUnavailable, err)
		}
		s.drop(d, e, err)
		s.metrics.opened("miss")
		return nil, fmt.Errorf("opening %s: %w: %w", d, boot.ErrNotReady, err)
	}
	s.touch(d, e)
	s.metrics.opened("hit")
	return &blob{ctx: ctx, store: s, digest: d, size: e.size, file: f, whole: true}, nil
}

// touch notes the use of a blob, in its file's time too, but seldom: that is
// what a restart knows of it.
func (s *Store) touch(d boot.Digest, e *entry) {
	now := s.now()
	s.mu.Lock()
	e.lastUsed = now
	persist := now.Sub(e.persisted) > 10*time.Minute
	if persist {
		e.persisted = now
	}
	s.mu.Unlock()
	if persist {
		if err := os.Chtimes(s.blobPath(d), now, now); err != nil {
			s.log.V(1).Info("did not note the use of a blob", "digest", d, "error", err.Error())
		}
	}
}

// release ends the interest of one reader.
func (s *Store) release(d boot.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[d]--; s.open[d] <= 0 {
		delete(s.open, d)
	}
	s.abandonIfUnwanted(d)
}

// drop forgets a blob whose file is gone or damaged.
func (s *Store) drop(d boot.Digest, e *entry, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs[d] != e {
		return
	}
	s.log.Error(why, "dropped a damaged blob", "digest", d)
	s.forget(d, e)
}

// forget removes a blob and its file. s.mu is held.
func (s *Store) forget(d boot.Digest, e *entry) {
	delete(s.blobs, d)
	s.used -= e.size
	if err := os.Remove(s.blobPath(d)); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Error(err, "did not remove a blob", "digest", d)
	}
}

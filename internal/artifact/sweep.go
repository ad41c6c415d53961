package artifact

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// staleAge is how long the file of an unfinished pull waits to be resumed.
const staleAge = time.Hour

// reserve makes room for a pull of size bytes and takes it. It returns
// ErrTooLarge when the blob can never fit, and ErrFull when what is kept, open
// or arriving leaves no room now.
func (s *Store) reserve(size int64) error {
	if size > s.opts.MaxBlobBytes {
		return fmt.Errorf("%w: the blob has %d bytes; the store takes blobs of at most %d", ErrTooLarge, size, s.opts.MaxBlobBytes)
	}
	if err := s.sweep(size); err != nil {
		return err
	}
	return nil
}

func (s *Store) unreserve(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= size
}

// sweep evicts, unfinished files first and then what was used least recently,
// until need more bytes fit in the budget, and reserves them.
func (s *Store) sweep(need int64) error {
	s.mu.Lock()
	keep := s.keep
	s.mu.Unlock()
	var kept map[boot.Digest]struct{}
	if keep != nil {
		kept = keep()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.stale {
		if s.excess(need) <= 0 {
			break
		}
		s.removeStale(name)
	}
	if s.excess(need) > 0 {
		s.evict(need, kept)
	}
	if over := s.excess(need); over > 0 {
		return fmt.Errorf("%w: %d bytes do not fit beside what is kept, open or arriving (%d of %d bytes are in use)",
			ErrFull, need, s.used+s.reserved, s.opts.MaxBytes)
	}
	s.reserved += need
	return nil
}

// excess is by how much the budget is exceeded with need more. s.mu is held.
func (s *Store) excess(need int64) int64 {
	over := s.used + s.reserved + need - s.opts.MaxBytes
	for _, n := range s.stale {
		over += n
	}
	return over
}

// evict removes blobs that nobody keeps or reads. s.mu is held.
func (s *Store) evict(need int64, kept map[boot.Digest]struct{}) {
	var all []boot.Digest
	for d := range s.blobs {
		if _, ok := kept[d]; !ok && s.open[d] == 0 {
			all = append(all, d)
		}
	}
	sort.Slice(all, func(i, j int) bool { return s.blobs[all[i]].lastUsed.Before(s.blobs[all[j]].lastUsed) })
	for _, d := range all {
		if s.excess(need) <= 0 {
			return
		}
		s.log.Info("evicted a blob", "digest", d, "bytes", s.blobs[d].size)
		s.forget(d, s.blobs[d])
		s.metrics.evictions.Inc()
	}
}

// removeStale removes an unfinished file that no pull writes. s.mu is held.
func (s *Store) removeStale(name string) {
	delete(s.stale, name)
	if err := os.Remove(filepath.Join(s.ingestDir(), name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Error(err, "did not remove an unfinished pull", "name", name)
	}
}

// expireStale removes unfinished files that nobody came back for.
func (s *Store) expireStale() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.stale {
		info, err := os.Stat(filepath.Join(s.ingestDir(), name))
		if err != nil || s.now().Sub(info.ModTime()) > staleAge {
			s.removeStale(name)
		}
	}
}

package prefetch

import (
	"context"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// fresh returns what may be served without asking the API server.
func (s *secrets) fresh(k documentKey) (document, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.find(k)
	if d == nil || !s.clock.Now().Before(d.expires) {
		return document{}, false
	}
	age := s.clock.Since(d.readAt)
	if (d.err == nil && age >= s.revalidate) || (d.err != nil && age >= failureAge) {
		return document{}, false
	}
	return *d, true
}

// old returns what may be served while the API server does not answer.
func (s *secrets) old(k documentKey) (document, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.find(k)
	if d == nil || d.err != nil {
		return document{}, false
	}
	return *d, true
}

// find returns what is known under exactly this key. It may have expired: as long as
// the API server does not answer there is nothing else, see expire.
func (s *secrets) find(k documentKey) *document {
	d := s.documents[k.slot()]
	switch {
	case d == nil:
		return nil
	case d.key != k:
		s.forget(d)
		return nil
	}
	s.recent.MoveToFront(d.place)
	return d
}

// store remembers what was read. It returns false when it is not what the
// config names any more.
func (s *secrets) store(d document) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Asked under the lock that changed takes afterwards: either we see the
	// change here, or it sees what we stored.
	if k, ok := s.configs.document(d.key.object, d.key.purpose); !ok || k != d.key {
		return false
	}
	now := s.clock.Now()
	d.readAt, d.warmedAt, d.expires = now, now, now.Add(boot.AttemptLifetime)
	if old := s.documents[d.key.slot()]; old != nil {
		if old.key == d.key && now.Before(old.expires) {
			d.warmedAt, d.expires = old.warmedAt, old.expires
		}
		s.forget(old)
	}
	kept := d
	kept.place = s.recent.PushFront(&kept)
	s.documents[d.key.slot()] = &kept
	s.bytes += d.size()
	for len(s.documents) > s.maxCount || s.bytes > s.maxBytes {
		s.forget(s.recent.Back().Value.(*document)) //nolint:forcetypeassert // ours
	}
	return true
}

func (s *secrets) forget(d *document) {
	s.recent.Remove(d.place)
	delete(s.documents, d.key.slot())
	s.bytes -= d.size()
}

// changed takes in that a config changed; after is nil when it is gone.
func (s *secrets) changed(before, after *record) {
	if before == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range purposes {
		if d := s.documents[slot{before.uid, p}]; d != nil {
			s.reconsider(d, before, after)
		}
	}
}

// reconsider is changed for one document.
func (s *secrets) reconsider(d *document, before, after *record) {
	if after == nil || after.documents[d.key.purpose] != d.key {
		s.forget(d)
		return
	}
	if after.generation != before.generation || after.attempt.Number != before.attempt.Number {
		d.readAt = d.readAt.Add(-s.revalidate) // a new boot gets what is there now
	}
	// Where the machine boots once, the end of the attempt that it began here ends our
	// need of it. A delivery before that was of an earlier attempt. A machine that boots
	// whenever it likes may do so while the API server is away.
	if served := after.attempt.SecretServedAt; after.once && !served.IsZero() && !served.Before(d.warmedAt) {
		if end := served.Add(boot.SecretGrace); end.Before(d.expires) {
			d.expires = end
		}
	}
}

// expire drops what is not needed any more, if it could be read again: machines that
// boot while the API server is away have what was in memory when it went.
func (s *secrets) expire() {
	due := s.due()
	if len(due) == 0 || !s.answers(due[0]) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	for _, d := range s.documents {
		if !now.Before(d.expires) {
			s.forget(d)
		}
	}
}

// due returns the keys of what has expired.
func (s *secrets) due() []documentKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	var keys []documentKey
	for _, d := range s.documents {
		if !now.Before(d.expires) {
			keys = append(keys, d.key)
		}
	}
	return keys
}

// answers says whether the API server answers to a read of a document's Secrets.
func (s *secrets) answers(k documentKey) bool {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	_, _, err := s.fetch(ctx, k)
	return err == nil
}

// clear forgets all documents.
func (s *secrets) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.documents)
	s.recent.Init()
	s.bytes = 0
}

func (s *secrets) size() (count, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.documents), s.bytes
}

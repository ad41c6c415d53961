package prefetch

import (
	"slices"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// mostBoots bounds the boots that have one pull in their traces: a room that is
// switched on at once has it in some of them.
const mostBoots = 32

// awaiting is a boot that waits for a blob.
type awaiting struct {
	id     boot.ID
	object boot.Ref
}

// await notes that a machine began to boot what is not all in the store yet.
func (p *pulls) await(plan *boot.Plan, attempt int64) {
	b := awaiting{boot.NewID(plan.Object.UID, attempt), plan.Object}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range plan.Artifacts {
		w := p.wants[a.Digest]
		if w != nil && w.state != pulled && len(w.boots) < mostBoots && !slices.Contains(w.boots, b) {
			w.boots = append(w.boots, b)
		}
	}
}

// record puts a pull that ended into the traces of the boots that waited for it. One
// that failed is tried again: a machine that still asks then has that in its trace too.
func (p *pulls) record(w *want, y way, err error) {
	for _, b := range w.boots {
		p.spans.Record(boot.Span{Boot: b.id, Name: boot.SpanPull, Start: w.lastTry, End: p.clock.Now(), Err: err,
			Attributes: []string{"object", b.object.String(), "digest", string(w.digest), "role", string(y.artifact.Role)}})
	}
	w.boots = nil
}

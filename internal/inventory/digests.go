package inventory

import (
	"cmp"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// digests counts which blobs are named at all, and which by a ready plan.
type digests struct {
	named  map[boot.Digest]int
	public map[boot.Digest]*publicBlob
}

// publicBlob is one digest that ready plans name, perhaps in several ways: the
// same bytes may come from two images.
type publicBlob struct {
	ways   map[boot.Artifact]int
	chosen boot.Artifact
	// strict counts the plans that let no byte of it flow before it was verified.
	strict int
}

func newDigests() digests {
	return digests{named: map[boot.Digest]int{}, public: map[boot.Digest]*publicBlob{}}
}

func (d *digests) name(p *boot.Plan) {
	for _, a := range p.Artifacts {
		d.named[a.Digest]++
	}
}

func (d *digests) unname(p *boot.Plan) {
	for _, a := range p.Artifacts {
		d.named[a.Digest]--
		if d.named[a.Digest] == 0 {
			delete(d.named, a.Digest)
		}
	}
}

// publish makes the artifacts of a plan public if it is ready.
func (d *digests) publish(p *boot.Plan) {
	if p.NotReady != "" {
		return
	}
	for _, a := range p.Artifacts {
		b := d.public[a.Digest]
		if b == nil {
			b = &publicBlob{ways: make(map[boot.Artifact]int, 1), chosen: a}
			d.public[a.Digest] = b
		}
		b.ways[a]++
		if p.Strict {
			b.strict++
		}
		if compareArtifacts(a, b.chosen) < 0 {
			b.chosen = a
		}
	}
}

// withdraw undoes publish.
func (d *digests) withdraw(p *boot.Plan) {
	if p.NotReady != "" {
		return
	}
	for _, a := range p.Artifacts {
		b := d.public[a.Digest]
		b.ways[a]--
		if p.Strict {
			b.strict--
		}
		if b.ways[a] > 0 {
			continue
		}
		delete(b.ways, a)
		if len(b.ways) == 0 {
			delete(d.public, a.Digest)
		} else if b.chosen == a {
			b.choose()
		}
	}
}

func (b *publicBlob) choose() {
	first := true
	for a := range b.ways {
		if first || compareArtifacts(a, b.chosen) < 0 {
			b.chosen, first = a, false
		}
	}
}

// compareArtifacts puts UKIs first: what is a UKI to any config must be served
// with the type that firmware insists on.
func compareArtifacts(a, b boot.Artifact) int {
	rank := func(a boot.Artifact) int {
		if a.Role == boot.RoleUKI {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)),
		cmp.Compare(a.Role, b.Role),
		cmp.Compare(a.Size, b.Size),
		cmp.Compare(a.Source, b.Source),
	)
}

// PublicArtifact finds a digest that a ready plan names. It returns
// boot.ErrNotFound and boot.ErrUnavailable as boot.Source says.
func (i *Inventory) PublicArtifact(d boot.Digest) (boot.Artifact, error) {
	if !i.HasSynced() {
		return boot.Artifact{}, boot.ErrUnavailable
	}
	i.mu.RLock()
	defer i.mu.RUnlock()
	b := i.digests.public[d]
	if b == nil {
		return boot.Artifact{}, boot.ErrNotFound
	}
	a := b.chosen
	a.Strict = b.strict > 0
	return a, nil
}

// Digests returns everything that the status of any config names, ready or
// not: what a sweep of the store must keep. Until HasSynced it is what was seen
// so far, so nothing that sweeps should be started before.
func (i *Inventory) Digests() map[boot.Digest]struct{} {
	i.mu.RLock()
	defer i.mu.RUnlock()
	all := make(map[boot.Digest]struct{}, len(i.digests.named))
	for d := range i.digests.named {
		all[d] = struct{}{}
	}
	return all
}

package observe

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// report is what this replica saw of one object and has not written yet. Its
// size does not depend on how much was seen: merging is idempotent, and the
// order in which the reports of several replicas reach the object does not
// change which stages it ends up with.
type report struct {
	// Opening is the newest attempt that this replica opened by itself.
	Opening *opening `json:"opening,omitempty"`
	// Stages holds at most one entry for each name.
	Stages []v1alpha1.BootStage `json:"stages,omitempty"`
	// Cut are those of Stages whose last delivery here ended before its last byte.
	Cut []v1alpha1.BootStageName `json:"cut,omitempty"`
	// Last is the last client that was served.
	Last *sighting `json:"last,omitempty"`
	// Offer is the last boot that was offered, Port where a relay saw the machine.
	Offer *v1alpha1.BootOffer `json:"offer,omitempty"`
	Port  *pin                `json:"port,omitempty"`
	// Ambiguous and the others are what went wrong.
	Ambiguous   *sighting `json:"ambiguous,omitempty"`
	Translated  *sighting `json:"translated,omitempty"`
	Contested   *sighting `json:"contested,omitempty"`
	Foreign     *sighting `json:"foreign,omitempty"`
	NoProgram   *sighting `json:"noProgram,omitempty"`
	PortChanged *sighting `json:"portChanged,omitempty"`
}

// opening is an attempt that a boot delivery opened.
type opening struct {
	Number int64            `json:"number"`
	Time   metav1.MicroTime `json:"time"`
	Addr   string           `json:"addr,omitempty"`
	Proof  string           `json:"proof,omitempty"`
	// Token says that the client had a token of this attempt: whatever else has
	// happened since, it opens no other.
	Token bool `json:"token,omitempty"`
}

// sighting is one client in one attempt, or something that went wrong in it.
type sighting struct {
	Attempt int64            `json:"attempt"`
	Addr    string           `json:"addr,omitempty"`
	Proof   string           `json:"proof,omitempty"`
	Time    metav1.MicroTime `json:"time"`
	Detail  string           `json:"detail,omitempty"`
}

func (r *report) empty() bool {
	return r.Opening == nil && len(r.Stages) == 0 && r.Offer == nil && r.Port == nil &&
		!slices.ContainsFunc(r.sightings(), func(s **sighting) bool { return *s != nil })
}

func (r *report) sightings() []**sighting {
	return []**sighting{&r.Last, &r.Ambiguous, &r.Translated, &r.Contested, &r.Foreign, &r.NoProgram, &r.PortChanged}
}

// clone copies everything that later merges change in place.
func (r *report) clone() report {
	c := *r
	c.Stages, c.Cut = slices.Clone(r.Stages), slices.Clone(r.Cut)
	return c
}

// renumber moves everything that was seen of one attempt to another.
func (r *report) renumber(from, to int64) {
	for i := range r.Stages {
		if r.Stages[i].Attempt == from {
			r.Stages[i].Attempt = to
		}
	}
	for _, s := range r.sightings() {
		if *s != nil && (*s).Attempt == from {
			moved := **s
			moved.Attempt = to
			*s = &moved
		}
	}
	if r.Offer != nil && r.Offer.Attempt == from {
		moved := *r.Offer
		moved.Attempt = to
		r.Offer = &moved
	}
	if r.Port != nil && r.Port.Attempt == from {
		moved := *r.Port
		moved.Attempt = to
		r.Port = &moved
	}
	if r.Opening != nil && r.Opening.Number == from {
		moved := *r.Opening
		moved.Number = to
		r.Opening = &moved
	}
}

// stageOf is the stage that this observation alone tells of.
func stageOf(o boot.Observation) v1alpha1.BootStage {
	s := v1alpha1.BootStage{
		Name: v1alpha1.BootStageName(o.Stage), Attempt: o.Attempt, ClientAddress: addrText(o.Addr),
		Proof: proofText(o.Proof), StartedTime: micro(o.Time), Digest: string(o.Digest),
		Sent: max(o.Sent, 0), Size: max(o.Size, 0), MACAddress: printable(string(o.MAC), maxMAC),
	}
	if o.Complete {
		s.CompletedTime = micro(o.Time)
	}
	return s
}

func sightingOf(o boot.Observation) *sighting {
	return &sighting{Attempt: o.Attempt, Addr: addrText(o.Addr), Proof: proofText(o.Proof), Time: *micro(o.Time)}
}

// mergeStage joins two accounts of one stage: the later attempt wins; within
// an attempt the first complete delivery, or else the first one, and the most bytes
// that any of them had sent. The result does not depend on the order of its arguments.
func mergeStage(a, b v1alpha1.BootStage) v1alpha1.BootStage {
	if a.Attempt != b.Attempt {
		if a.Attempt > b.Attempt {
			return a
		}
		return b
	}
	won := a
	if precedes(b, a) {
		won = b
	}
	won.StartedTime = earliest(a.StartedTime, b.StartedTime)
	won.Sent, won.Size = max(a.Sent, b.Sent), max(a.Size, b.Size)
	return won
}

// precedes orders deliveries of one stage of one attempt. The start of one that
// is complete says nothing: it is the first of all that were merged into it.
func precedes(a, b v1alpha1.BootStage) bool {
	if c := compareTimes(a.CompletedTime, b.CompletedTime); c != 0 {
		return c < 0
	}
	if c := compareTimes(a.StartedTime, b.StartedTime); c != 0 && a.CompletedTime == nil {
		return c < 0
	}
	return cmp.Or(
		strings.Compare(a.ClientAddress, b.ClientAddress),
		strings.Compare(a.Proof, b.Proof),
		strings.Compare(a.Digest, b.Digest),
		compareMACs(a.MACAddress, b.MACAddress),
	) < 0
}

// compareMACs orders MAC addresses; one that is not known comes last.
func compareMACs(a, b string) int {
	if a == "" || b == "" {
		return -strings.Compare(a, b)
	}
	return strings.Compare(a, b)
}

// compareTimes orders times; none is later than any.
func compareTimes(a, b *metav1.MicroTime) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return a.Compare(b.Time)
}

func earliest(a, b *metav1.MicroTime) *metav1.MicroTime {
	if compareTimes(a, b) <= 0 {
		return a
	}
	return b
}

// sameStage says whether two accounts tell the same but for how far a delivery came.
func sameStage(a, b v1alpha1.BootStage) bool {
	return a.Name == b.Name && a.Attempt == b.Attempt && a.ClientAddress == b.ClientAddress && a.Proof == b.Proof && a.Digest == b.Digest &&
		a.MACAddress == b.MACAddress && compareTimes(a.StartedTime, b.StartedTime) == 0 && compareTimes(a.CompletedTime, b.CompletedTime) == 0
}

// findStage returns the stage of this name; its Attempt is -1 where there is none.
func findStage(stages []v1alpha1.BootStage, name v1alpha1.BootStageName) v1alpha1.BootStage {
	for _, s := range stages {
		if s.Name == name {
			return s
		}
	}
	return v1alpha1.BootStage{Name: name, Attempt: -1}
}

// putStage returns stages with s in place of the one of its name.
func putStage(stages []v1alpha1.BootStage, s v1alpha1.BootStage) []v1alpha1.BootStage {
	for i := range stages {
		if stages[i].Name == s.Name {
			stages[i] = s
			return stages
		}
	}
	return append(stages, s)
}

// micro is t as the API keeps it.
func micro(t time.Time) *metav1.MicroTime {
	m := metav1.NewMicroTime(t.UTC().Truncate(time.Microsecond))
	return &m
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return boot.CanonicalAddr(a).String()
}

// proofText is the proof as the API keeps it.
func proofText(p boot.Proof) string {
	if p == boot.Unproven {
		return ""
	}
	return p.String()
}

package observe

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// progressEvery is how often the progress of one object's deliveries is written at
	// most, where nothing else of it is.
	progressEvery = 5 * time.Second
	// progressQueue is how many objects may wait to be written when one is for nothing
	// but its progress: whoever waits there has something that counts.
	progressQueue = 4
)

// progress is how far the deliveries of one object have come, as this replica saw
// it. It is worth a write only when there is nothing better to do.
type progress struct {
	// report holds stages only.
	report
	// written is when the object was written last, and queued says that it is to be.
	written time.Time
	queued  bool
}

// due says whether a write is to be asked for, and in how much time from now.
func (p *progress) due(now time.Time) (time.Duration, bool) {
	if p.queued || len(p.Stages) == 0 {
		return 0, false
	}
	p.queued = true
	return max(p.written.Add(progressEvery).Sub(now), 0), true
}

// settle drops what the object tells.
func (p *progress) settle(told *v1alpha1.BootStatus) {
	p.Stages = slices.DeleteFunc(p.Stages, func(s v1alpha1.BootStage) bool {
		has := findStage(told.Stages, s.Name)
		return has.Attempt > s.Attempt || has.Attempt == s.Attempt && has.Sent >= s.Sent && has.Size >= s.Size
	})
}

// with adds progress to a report.
func (r *report) with(p *progress) {
	for _, s := range p.Stages {
		r.Stages = putStage(r.Stages, mergeStage(findStage(r.Stages, s.Name), s))
	}
}

// setCut notes whether the last delivery of a stage was cut.
func (r *report) setCut(name v1alpha1.BootStageName, cut bool) {
	r.Cut = slices.DeleteFunc(r.Cut, func(n v1alpha1.BootStageName) bool { return n == name })
	if cut {
		r.Cut = append(r.Cut, name)
	}
}

// turns says whether an observation tells that a delivery of this stage was cut, or
// goes on after one that was, where the last that was told here is the contrary.
func (e *entry) turns(o boot.Observation, stage v1alpha1.BootStage) bool {
	if stage.CompletedTime != nil || stage.Attempt != o.Attempt {
		return false
	}
	cut := !o.Complete && !o.UnderWay
	was := e.cuts[stage.Name] == o.Attempt+1
	if cut == was {
		return false
	}
	if e.cuts == nil {
		e.cuts = map[v1alpha1.BootStageName]int64{}
	}
	delete(e.cuts, stage.Name)
	if cut {
		e.cuts[stage.Name] = o.Attempt + 1 // so that attempt 0 is one too
	}
	return true
}

// unfinished sets the condition of a stage of the present attempt that is not
// complete. A report that does not tell of it leaves what another replica said.
func (s *state) unfinished(st v1alpha1.BootStage, told *report, now time.Time) {
	f := fetched[st.Name]
	in := fmt.Sprintf(" in attempt %d.", st.Attempt)
	c := meta.FindStatusCondition(s.cfg.ConfigStatus().Conditions, f.condition)
	if !told.tells(st.Name) && c != nil && c.Reason == f.incomplete && strings.HasSuffix(c.Message, in) {
		return
	}
	what := "is under way"
	if slices.Contains(told.Cut, st.Name) {
		what = "was cut"
	}
	s.set(now, f.condition, false, f.incomplete, fmt.Sprintf("A delivery to %s %s%s%s", st.ClientAddress, what, share(st), in))
}

// tells says whether a report is about a stage.
func (r *report) tells(name v1alpha1.BootStageName) bool {
	return findStage(r.Stages, name).Attempt >= 0
}

// share says how much of a stage was sent, where it is known.
func share(st v1alpha1.BootStage) string {
	if st.Size <= 0 {
		return ""
	}
	const mebi = 1 << 20
	return fmt.Sprintf(" (%.1f of %.1f MiB)", float64(st.Sent)/mebi, float64(st.Size)/mebi)
}

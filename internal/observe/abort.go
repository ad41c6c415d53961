package observe

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// errAborted is boot.ErrClosed for an attempt that somebody ended.
func errAborted(a boot.Attempt) error {
	return fmt.Errorf("%w: boot attempt %d was aborted", boot.ErrClosed, a.Number)
}

// asksToAbort says whether the annotation abort-boot names the present attempt, and
// that is not aborted yet.
func asksToAbort(cfg v1alpha1.Config) bool {
	b := cfg.ConfigStatus().Boot
	number, err := strconv.ParseInt(strings.TrimSpace(cfg.GetAnnotations()[v1alpha1.AbortBootAnnotation]), 10, 64)
	return err == nil && number > 0 && b != nil && b.Attempt == number && b.Aborted != number
}

// abortIfAsked ends the present attempt where the annotation names it. An attempt that
// was opened in the same step is another than the one that was meant.
func (s *state) abortIfAsked(now time.Time) {
	if !asksToAbort(s.cfg) {
		return
	}
	b := s.boot()
	b.Aborted = b.Attempt
	if s.bootStage().Attempt < 0 { // of which nothing was said so far
		s.setAborted(fetched[bytesOf(s.cfg.Kind())].condition, now)
	}
	s.derive(&report{}, now)
}

// setAborted says of what was not delivered that it will not be.
func (s *state) setAborted(condition string, now time.Time) {
	s.set(now, condition, false, v1alpha1.ReasonBootAborted, s.abortMessage())
}

func (s *state) abortMessage() string {
	return fmt.Sprintf("Boot attempt %d was aborted: nothing more is delivered in it, and no boot opens another. A change of spec or of the annotation %s does.",
		s.boot().Attempt, v1alpha1.RequestBootAnnotation)
}

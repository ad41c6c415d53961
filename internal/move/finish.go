package move

import (
	"context"
	"fmt"
	"maps"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// verifyTries bounds how often a config that changes on the source meanwhile is
// copied again.
const verifyTries = 5

// verify reads everything back from both clusters. Reports of what machines
// fetched may still arrive at the source, and users may change specs: what has
// changed is copied again.
func (m *mover) verify(ctx context.Context, p *plan) error {
	for _, s := range p.secrets {
		if !s.needed {
			continue
		}
		if err := m.verifySecret(ctx, s.key); err != nil {
			return err
		}
	}
	for _, c := range p.configs {
		if c.stage == stageTaken {
			continue
		}
		if err := m.verifyConfig(ctx, p, c); err != nil {
			return err
		}
	}
	return nil
}

func (m *mover) verifySecret(ctx context.Context, k key) error {
	source, err := m.source.must(ctx, k)
	if err != nil {
		return err
	}
	target, err := m.target.must(ctx, k)
	if err != nil {
		return err
	}
	if !onTarget(source, target) {
		return fmt.Errorf("%s is not the same on both clusters any more: make both equal, or delete the target's, and run the move again", k)
	}
	return nil
}

func (m *mover) verifyConfig(ctx context.Context, p *plan, c *config) error {
	for try := 1; ; try++ {
		source, err := m.source.must(ctx, c.key)
		if err != nil {
			return err
		}
		target, err := m.target.must(ctx, c.key)
		if err != nil {
			return err
		}
		if err := m.inHand(c, p, source, target); err != nil {
			return err
		}
		c.source = source
		wrong := incomplete(c, target)
		if wrong == "" {
			return nil
		}
		if try == verifyTries {
			return fmt.Errorf("%s on the target does not hold what the source has: %s", c.key, wrong)
		}
		m.Log("  %s: once more, because of %s", c.key, wrong)
		if err := m.copyConfig(ctx, c); err != nil {
			return err
		}
	}
}

// inHand says whether both objects are still this move's to work on, and whether
// the source's names no Secret that was not copied.
func (m *mover) inHand(c *config, p *plan, source, target *unstructured.Unstructured) error {
	if by, _ := pausedBy(source); by != m.id || source.GetUID() != c.source.GetUID() {
		return fmt.Errorf("%s on the source was unpaused or made anew by someone else during the move", c.key)
	}
	if by, _ := pausedBy(target); by != m.id {
		return fmt.Errorf("%s on the target was unpaused by someone else during the move", c.key)
	}
	for field, name := range secretsOf(source) {
		if k := (key{kindSecret, c.namespace, name}); !p.named[k] {
			return fmt.Errorf("%s was changed during the move: %s names %s now; run the move again", c.key, field, k)
		}
	}
	return nil
}

// incomplete says what of a source config its copy lacks; "" means nothing.
func incomplete(c *config, target *unstructured.Unstructured) string {
	_, labels := merge(target.GetLabels(), labelsOf(c.source))
	_, annotations := merge(target.GetAnnotations(), annotationsOf(c.source))
	switch {
	case c.copied != c.source.GetGeneration() || !covers(target.Object["spec"], c.source.Object["spec"]):
		return "the spec"
	case labels || annotations:
		return "labels or annotations"
	case !sameBoots(c.source, target):
		return "status.boot"
	}
	return ""
}

// handOver lets the target go on with its configs; the source's stay paused.
func (m *mover) handOver(ctx context.Context, p *plan) error {
	for _, c := range p.configs {
		if c.stage == stageTaken {
			continue
		}
		// Once more: much may have happened since the first was verified.
		if err := m.verifyConfig(ctx, p, c); err != nil {
			return err
		}
		mark, err := configMark(c.source)
		if err != nil {
			return err
		}
		_, err = m.target.amend(ctx, c.key, func(u *unstructured.Unstructured) (bool, error) {
			if by, _ := pausedBy(u); by != m.id {
				return false, fmt.Errorf("%s on the target was unpaused by someone else during the move", c.key)
			}
			resume(u)
			setAnnotation(u, MovedFromAnnotation, mark)
			return true, nil
		})
		if err != nil {
			return err
		}
		m.Log("  %s", c.key)
		c.stage = stageTaken
	}
	return nil
}

// deleteConfigs deletes the configs that the target has taken over.
func (m *mover) deleteConfigs(ctx context.Context, p *plan) error {
	for _, c := range p.configs {
		if err := m.deleteConfig(ctx, c); err != nil {
			return err
		}
		m.Log("  %s", c.key)
	}
	return nil
}

// deleteConfig deletes the source's config if it is what the target has taken
// over, not a byte of spec or boot status newer.
func (m *mover) deleteConfig(ctx context.Context, c *config) error {
	for try := 1; ; try++ {
		source, err := m.source.read(ctx, c.key)
		if err != nil || source == nil {
			return err
		}
		target, err := m.target.must(ctx, c.key)
		if err != nil {
			return err
		}
		mark, err := configMark(source)
		if err != nil {
			return err
		}
		if by, _ := pausedBy(source); by != m.id || target.GetAnnotations()[MovedFromAnnotation] != mark {
			return fmt.Errorf("%s was changed on the source (unpaused, spec or status.boot) after the target had taken it over, and is not deleted: bring the change to the target if it is wanted, then delete the source's", c.key)
		}
		if source.GetDeletionTimestamp() == nil {
			if err := m.source.remove(ctx, source); apierrors.IsConflict(err) && try < amendTries {
				continue
			} else if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("deleting %s from the source: %w", c.key, err)
			}
		}
		return m.warnOfFinalizers(ctx, c.key)
	}
}

// warnOfFinalizers tells of an object that waits for others before it goes.
func (m *mover) warnOfFinalizers(ctx context.Context, k key) error {
	left, err := m.source.read(ctx, k)
	if err == nil && left != nil && left.GetDeletionTimestamp() != nil {
		m.report.Warnings = append(m.report.Warnings, fmt.Sprintf("%s on the source is being deleted and waits for its finalizers: %s", k, strings.Join(left.GetFinalizers(), ", ")))
	}
	return err
}

// deleteSecrets deletes the Secrets that nothing on the source needs any more.
func (m *mover) deleteSecrets(ctx context.Context, p *plan) error {
	// What is still there now, stays.
	if err := m.findUses(ctx, &plan{secrets: p.secrets}); err != nil {
		return err
	}
	for _, s := range p.secrets {
		if err := m.deleteSecret(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (m *mover) deleteSecret(ctx context.Context, s *secret) error {
	source, err := m.source.read(ctx, s.key)
	if err != nil || source == nil {
		return err
	}
	target, err := m.target.read(ctx, s.key)
	if err != nil {
		return err
	}
	if s.later {
		m.report.Warnings = append(m.report.Warnings, fmt.Sprintf("%s stays on the source until what is being deleted there is gone (%s); run the move again then", s.key, s.keep))
		return nil
	}
	if s.keep == "" && (target == nil || !onTarget(source, target)) {
		s.keep = "the target does not hold the same"
	}
	m.report.set(s.row())
	if s.keep != "" {
		m.Log("  %s stays: %s", s.key, s.keep)
		return m.unmark(ctx, s.key)
	}
	m.Log("  %s", s.key)
	if source.GetDeletionTimestamp() == nil {
		if err := m.source.remove(ctx, source); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("deleting %s from the source: %w", s.key, err)
		}
	}
	return m.warnOfFinalizers(ctx, s.key)
}

// unmark takes the mark of the move off a Secret that stays.
func (m *mover) unmark(ctx context.Context, k key) error {
	_, err := m.source.amend(ctx, k, func(u *unstructured.Unstructured) (bool, error) {
		labels := maps.Clone(u.GetLabels())
		_, marked := labels[MovingLabel]
		delete(labels, MovingLabel)
		u.SetLabels(labels)
		return marked, nil
	})
	return err
}

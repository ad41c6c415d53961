package move

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// pause pauses the source's configs and marks its Secrets.
func (m *mover) pause(ctx context.Context, p *plan) error {
	for _, c := range p.configs {
		live, err := m.source.amend(ctx, c.key, func(u *unstructured.Unstructured) (bool, error) {
			if u.GetUID() != c.source.GetUID() {
				return false, fmt.Errorf("%s was made anew on the source during the move", c.key)
			}
			return pauseFor(u, m.id), nil
		})
		if err != nil {
			return err
		}
		m.Log("  %s", c.key)
		c.source = live
	}
	for _, s := range p.secrets {
		live, err := m.source.amend(ctx, s.key, func(u *unstructured.Unstructured) (bool, error) {
			labels, changed := merge(u.GetLabels(), map[string]string{MovingLabel: m.id})
			u.SetLabels(labels)
			return changed, nil
		})
		if err != nil {
			return err
		}
		s.source = live
	}
	return nil
}

// awaitPause waits until the source's operator says of every config that it has
// dealt with before that it leaves it alone now.
func (m *mover) awaitPause(ctx context.Context, p *plan) error {
	if m.Acknowledge <= 0 {
		return nil
	}
	patience, cancel := context.WithTimeout(ctx, m.Acknowledge)
	defer cancel()
	deaf := 0
	for _, c := range p.configs {
		if !m.acknowledged(patience, c) {
			deaf++
		}
	}
	if deaf > 0 {
		m.report.Warnings = append(m.report.Warnings, fmt.Sprintf("the source's operator did not confirm within %s that it leaves %d configs alone: it is down, or too old to know %s", m.Acknowledge, deaf, v1alpha1.PausedAnnotation))
	}
	return ctx.Err()
}

func (m *mover) acknowledged(ctx context.Context, c *config) bool {
	for {
		cfg, err := typed(c.source)
		if err != nil || cfg.ConfigStatus().State == "" {
			return true // no operator has ever looked at it
		}
		ready := meta.FindStatusCondition(cfg.ConfigStatus().Conditions, v1alpha1.ConditionReady)
		if ready != nil && ready.Reason == v1alpha1.ReasonPaused {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(200 * time.Millisecond):
		}
		live, err := m.source.read(ctx, c.key)
		if err != nil || live == nil {
			return false
		}
		c.source = live
	}
}

func (m *mover) createNamespaces(ctx context.Context, p *plan) error {
	for _, ns := range p.namespaces {
		err := m.target.Create(ctx, ns.DeepCopy(), client.FieldOwner(FieldManager))
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating namespace %s on the target: %w", ns.Name, err)
		}
		m.Log("  %s", ns.Name)
	}
	return nil
}

// copySecrets gives the target each Secret that it lacks, once however many
// configs name it.
func (m *mover) copySecrets(ctx context.Context, p *plan) error {
	for _, s := range p.secrets {
		if s.onTarget {
			continue
		}
		u := copyOf(s.source)
		setAnnotation(u, MovedFromAnnotation, secretMark(s.source))
		if err := m.create(ctx, s.source, u); err != nil {
			return err
		}
		target, err := m.target.must(ctx, s.key)
		if err != nil {
			return err
		}
		if !onTarget(s.source, target) {
			return fmt.Errorf("%s appeared on the target with other content during the move: delete it there, or make both equal", s.key)
		}
		s.onTarget = true
	}
	return nil
}

// create creates the copy of a source object, with the owners that the target
// has already. That one of this name exists is no error.
func (m *mover) create(ctx context.Context, source, u *unstructured.Unstructured) error {
	owners, _, err := m.ownersOn(ctx, source)
	if err != nil {
		return err
	}
	u.SetOwnerReferences(owners)
	err = m.target.Create(ctx, u, client.FieldValidation(metav1.FieldValidationStrict), client.FieldOwner(FieldManager))
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating %s on the target: %w", keyOf(source), err)
	}
	m.Log("  %s", keyOf(source))
	return nil
}

// copyConfigs gives the target each config, paused, and what is known of its
// machine's boots.
func (m *mover) copyConfigs(ctx context.Context, p *plan) error {
	for _, c := range p.configs {
		if c.stage == stageTaken {
			continue
		}
		if err := m.copyConfig(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// copyConfig makes the target's config, its status too, equal to the source's.
func (m *mover) copyConfig(ctx context.Context, c *config) error {
	if c.stage == stageNew {
		u := copyOf(c.source)
		if before, paused := c.source.GetAnnotations()[PausedBeforeAnnotation]; paused {
			setAnnotation(u, PausedBeforeAnnotation, before)
		}
		setAnnotation(u, v1alpha1.PausedAnnotation, m.id)
		if err := m.create(ctx, c.source, u); err != nil {
			return err
		}
	}
	adopt := c.stage == stageEqual
	_, err := m.target.amend(ctx, c.key, func(u *unstructured.Unstructured) (bool, error) {
		by, _ := pausedBy(u)
		switch {
		case by == m.id:
		case adopt && contradicts(c.source, u) == "":
			update(u, c.source)
			pauseFor(u, m.id)
			return true, nil
		default:
			return false, fmt.Errorf("%s on the target was changed by someone else during the move", c.key)
		}
		return update(u, c.source), nil
	})
	if err != nil {
		return err
	}
	c.stage, c.copied = stageBegun, c.source.GetGeneration()
	return m.writeStatus(ctx, c.source)
}

// update makes a paused target object say what the source's says, and returns
// whether there was anything to change.
func update(target, source *unstructured.Unstructured) bool {
	labels, newLabels := merge(target.GetLabels(), labelsOf(source))
	annotations, newAnnotations := merge(target.GetAnnotations(), annotationsOf(source))
	if before, paused := source.GetAnnotations()[PausedBeforeAnnotation]; paused && annotations[PausedBeforeAnnotation] != before {
		annotations[PausedBeforeAnnotation], newAnnotations = before, true
	}
	target.SetLabels(labels)
	target.SetAnnotations(annotations)
	if equality.Semantic.DeepEqual(target.Object["spec"], source.Object["spec"]) {
		return newLabels || newAnnotations
	}
	target.Object["spec"] = source.DeepCopy().Object["spec"]
	return true
}

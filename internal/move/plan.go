package move

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Refused says why nothing was written.
type Refused struct {
	// Problems are all that have to be put right, one line each.
	Problems []string
}

func (r *Refused) Error() string {
	return "nothing was changed, because\n  - " + strings.Join(r.Problems, "\n  - ")
}

// config is an HTTPBootConfig or IPXEBootConfig of the source.
type config struct {
	key
	stage stage
	// source is the object as it was read last.
	source *unstructured.Unstructured
	// copied is the generation of the source that the target was given.
	copied int64
}

// secret is a Secret of the source that configs name, or that an earlier run
// copied.
type secret struct {
	key
	source *unstructured.Unstructured
	// onTarget: there is one already that need not be made.
	onTarget bool
	// users are the configs that name it.
	users []key
	// needed: a config that the target has not taken over yet names it.
	needed bool
	// field says which one, and where.
	field string
	// keep says why it stays on the source.
	keep string
	// later: what keeps it is being deleted.
	later bool
}

// plan is everything that a move will do.
type plan struct {
	configs []*config
	secrets []*secret
	// named are all Secrets that configs name, also those that only the target has.
	named map[key]bool
	// namespaces are those that the target lacks, as they will be there.
	namespaces []*corev1.Namespace
	notes      []Row
	problems   []string
}

func (p *plan) refuse(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

func (p *plan) note(k key, format string, args ...any) {
	p.notes = append(p.notes, Row{Kind: k.kind, Namespace: k.namespace, Name: k.name, Action: "note", Note: fmt.Sprintf(format, args...)})
}

// moves says whether a config of this key is moved.
func (p *plan) moves(k key) bool {
	return slices.ContainsFunc(p.configs, func(c *config) bool { return c.key == k })
}

// plan reads both clusters and says what there is to do, or returns a *Refused
// with everything that has to be put right.
func (m *mover) plan(ctx context.Context) (*plan, error) {
	p := &plan{named: map[key]bool{}}
	for _, step := range []func(context.Context, *plan) error{
		m.findConfigs, m.findSecrets, m.findLeftovers, m.findNamespaces,
		m.checkIdentities, m.checkOwners, m.checkAdmission, m.findUses,
	} {
		if err := step(ctx, p); err != nil {
			return nil, err
		}
	}
	if len(p.problems) > 0 {
		return nil, &Refused{Problems: p.problems}
	}
	return p, nil
}

// findConfigs lists the configs, the oldest first: where two claim one machine
// the older wins, and that must not change.
func (m *mover) findConfigs(ctx context.Context, p *plan) error {
	served := false
	for _, kind := range kinds {
		var found []*unstructured.Unstructured
		known, err := m.source.list(ctx, key{kind: kind}.gvk(), m.Namespaces, func(u *unstructured.Unstructured) {
			found = append(found, u.DeepCopy())
		})
		if err != nil {
			return err
		}
		served = served || known
		if len(found) == 0 {
			continue
		}
		if served, err := m.targetServes(kind); err != nil {
			return err
		} else if !served {
			p.refuse("the target does not serve %s: install the boot-operator's CustomResourceDefinitions there", kind)
			continue
		}
		for _, u := range found {
			if err := m.addConfig(ctx, p, u); err != nil {
				return err
			}
		}
	}
	if !served {
		p.refuse("the source serves neither HTTPBootConfig nor IPXEBootConfig: is it the right cluster?")
	}
	slices.SortStableFunc(p.configs, func(a, b *config) int {
		if d := a.source.GetCreationTimestamp().Compare(b.source.GetCreationTimestamp().Time); d != 0 {
			return d
		}
		return compareKeys(a.key, b.key)
	})
	return nil
}

func (m *mover) targetServes(kind string) (bool, error) {
	gvk := key{kind: kind}.gvk()
	_, err := m.target.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking the target whether it serves %s: %w", kind, err)
	}
	return true, nil
}

func (m *mover) addConfig(ctx context.Context, p *plan, source *unstructured.Unstructured) error {
	k := keyOf(source)
	target, err := m.target.read(ctx, k)
	if err != nil {
		return err
	}
	stage, problem := decide(source, target, m.id)
	switch {
	case problem != "":
		p.refuse("%s", problem)
		// So that what it names is looked at too: all problems are told at once.
		p.configs = append(p.configs, &config{key: k, stage: stageEqual, source: source})
	case stage == stageSkipped:
		p.note(k, "is being deleted on the source and is not moved; waits for finalizers %v", source.GetFinalizers())
		if target != nil {
			if by, _ := pausedBy(target); by == m.id {
				p.note(k, "an earlier run left a paused copy on the target: delete it, or remove its annotations to keep it")
			}
		}
	default:
		p.configs = append(p.configs, &config{key: k, stage: stage, source: source})
	}
	return nil
}

// findSecrets reads every Secret that the configs name, once.
func (m *mover) findSecrets(ctx context.Context, p *plan) error {
	found := map[key]*secret{}
	for _, c := range p.configs {
		names := secretsOf(c.source)
		for _, field := range slices.Sorted(maps.Keys(names)) {
			k := key{kindSecret, c.namespace, names[field]}
			s := found[k]
			if s == nil {
				s = &secret{key: k}
				found[k], p.named[k] = s, true
			}
			if c.stage != stageTaken && !s.needed {
				s.needed, s.field = true, c.key.String()+" names it in "+field
			}
			if !slices.Contains(s.users, c.key) {
				s.users = append(s.users, c.key)
			}
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(found), compareKeys) {
		if err := m.readSecret(ctx, p, found[k]); err != nil {
			return err
		}
		if found[k].source != nil {
			p.secrets = append(p.secrets, found[k])
		}
	}
	return nil
}

// readSecret reads a Secret on both sides. One whose configs have all been taken
// over is the target's own business.
func (m *mover) readSecret(ctx context.Context, p *plan, s *secret) error {
	var err error
	if s.source, err = m.source.read(ctx, s.key); err != nil {
		return err
	}
	target, err := m.target.read(ctx, s.key)
	if err != nil {
		return err
	}
	switch {
	case !s.needed:
	case s.source == nil && target == nil:
		p.refuse("%s is missing on the source, and %s: create it, or correct the name", s.key, s.field)
	case s.source == nil || target == nil:
	case target.GetDeletionTimestamp() != nil:
		p.refuse("%s is being deleted on the target: wait until it is gone, or remove its finalizers %v", s.key, target.GetFinalizers())
	case !onTarget(s.source, target):
		p.refuse("%s exists on the target with other content: delete it there, or make both equal", s.key)
	}
	s.onTarget = target != nil || !s.needed
	return nil
}

// onTarget says whether the target has this Secret: as it is on the source, or
// as it was there when it was copied, whatever the target made of it since.
func onTarget(source, target *unstructured.Unstructured) bool {
	return target.GetAnnotations()[MovedFromAnnotation] == secretMark(source) || sameSecret(source, target)
}

// findLeftovers finds the Secrets of configs that an earlier run has deleted.
func (m *mover) findLeftovers(ctx context.Context, p *plan) error {
	_, err := m.source.list(ctx, key{kind: kindSecret}.gvk(), m.Namespaces, func(u *unstructured.Unstructured) {
		if k := keyOf(u); !slices.ContainsFunc(p.secrets, func(s *secret) bool { return s.key == k }) {
			p.secrets = append(p.secrets, &secret{key: k, source: u.DeepCopy(), onTarget: true})
		}
	}, client.MatchingLabels{MovingLabel: m.id})
	return err
}

// findNamespaces finds those that the target lacks.
func (m *mover) findNamespaces(ctx context.Context, p *plan) error {
	wanted := map[string]bool{}
	for _, c := range p.configs {
		wanted[c.namespace] = true
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		k := key{kind: "Namespace", name: name}
		target, err := m.target.read(ctx, k)
		if err != nil {
			return err
		}
		if target != nil {
			if target.GetDeletionTimestamp() != nil {
				p.refuse("namespace %s is being deleted on the target: wait until it is gone", name)
			}
			continue
		}
		source, err := m.source.must(ctx, k)
		if err != nil {
			return err
		}
		ns := &corev1.Namespace{}
		ns.Name, ns.Labels = name, labelsOf(source)
		delete(ns.Labels, corev1.LabelMetadataName)
		p.namespaces = append(p.namespaces, ns)
	}
	return m.checkNamespaces(ctx, p)
}

// checkNamespaces refuses a misspelt namespace, which would look like one that
// has been moved.
func (m *mover) checkNamespaces(ctx context.Context, p *plan) error {
	for _, name := range m.Namespaces {
		u, err := m.source.read(ctx, key{kind: "Namespace", name: name})
		if err != nil {
			return err
		}
		if u == nil {
			p.refuse("the source has no namespace %s: correct --namespace", name)
		}
	}
	return nil
}

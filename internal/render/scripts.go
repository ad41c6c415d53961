package render

import (
	_ "embed" // the built-in template
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Default is the built-in template. Operators start from it when they write
// their own.
//
//go:embed default.ipxe
var Default string

// Bounds of the templates of plans that are kept compiled.
const (
	maxCached      = 256
	maxCachedBytes = 2 << 20
)

// Scripts renders iPXE scripts from the operator's template, or a plan's own.
// It may be used by any number of goroutines at once.
type Scripts struct {
	operator atomic.Pointer[script]

	mu     sync.Mutex
	cached map[string]*script
	bytes  int
}

// builtIn is the built-in template, compiled.
var builtIn = sync.OnceValue(func() *script {
	s, err := compile(Default)
	if err != nil {
		panic(fmt.Sprintf("the built-in script template: %v", err))
	}
	s.builtIn = true
	return s
})

// NewScripts returns scripts from the built-in template.
func NewScripts() *Scripts {
	s := &Scripts{cached: map[string]*script{}}
	s.operator.Store(builtIn())
	return s
}

// Replace takes another template for the whole operator; the empty one means
// the built-in. A template that CheckTemplate refuses changes nothing: the last
// good one stays in force. It returns ErrInvalid.
func (s *Scripts) Replace(template string) error {
	if template == "" {
		s.operator.Store(builtIn())
		return nil
	}
	compiled, err := compile(template)
	if err != nil {
		return fmt.Errorf("replacing the script template: %w", err)
	}
	s.operator.Store(compiled)
	return nil
}

// CheckTemplate says whether a template is right: it parses, uses nothing but
// Data, and yields scripts of at most MaxScript bytes that begin with #!ipxe, for
// plans with and without each of the things that a plan may lack. It returns
// ErrInvalid with the line.
func CheckTemplate(template string) error {
	_, err := compile(template)
	return err
}

// Script returns the script of a plan: from its own template, else from the
// operator's where it has a kernel. A plan of a UKI gets a script that starts
// that. It returns ErrInvalid when something in the plan cannot be said in a
// script, and ErrNotFound when the plan has nothing that iPXE could boot.
func (s *Scripts) Script(p *boot.Plan, l Links) ([]byte, error) {
	l, err := l.checked()
	if err != nil {
		return nil, fmt.Errorf("rendering the script of %s: %w", p.Object, err)
	}
	out, err := s.render(p, l)
	if err != nil {
		return nil, fmt.Errorf("rendering the script of %s: %w", p.Object, err)
	}
	return out, nil
}

func (s *Scripts) render(p *boot.Plan, l Links) ([]byte, error) {
	t := s.operator.Load()
	switch {
	case p.ScriptTemplate != "":
		var err error
		if t, err = s.own(p.ScriptTemplate); err != nil {
			return nil, err
		}
	case p.Composes:
		return ukiScript(p, l)
	case has(p, boot.RoleKernel):
	case has(p, boot.RoleUKI):
		return ukiScript(p, l)
	default:
		return nil, fmt.Errorf("%w: there is neither a kernel nor a UKI", boot.ErrNotFound)
	}
	data, err := newData(p, l, !t.builtIn)
	if err != nil {
		return nil, err
	}
	if t.builtIn {
		return data.defaultScript(), nil
	}
	return t.execute(data)
}

func has(p *boot.Plan, role boot.Role) bool {
	_, ok := p.Artifact(role)
	return ok || p.Foreign[role] != ""
}

// own returns a plan's own template, compiled. When the cache is full it starts
// afresh: templates are few, and compiling one takes less than a millisecond.
func (s *Scripts) own(template string) (*script, error) {
	s.mu.Lock()
	t, ok := s.cached[template]
	s.mu.Unlock()
	if ok {
		return t, nil
	}
	t, err := compile(template)
	if err != nil {
		return nil, fmt.Errorf("scriptTemplate: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cached) >= maxCached || s.bytes+len(template) > maxCachedBytes {
		clear(s.cached)
		s.bytes = 0
	}
	if _, ok := s.cached[template]; !ok {
		s.cached[template] = t
		s.bytes += len(template)
	}
	return t, nil
}

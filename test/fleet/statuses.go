package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// statuses are the configs as the API server tells them to whoever watches.
type statuses struct {
	mu      sync.Mutex
	configs map[string]*v1alpha1.HTTPBootConfig
	changed map[string]chan struct{}
}

// watchStatuses watches the configs of a namespace until ctx ends.
func watchStatuses(ctx context.Context, api client.WithWatch, namespace string) (*statuses, error) {
	s := &statuses{configs: map[string]*v1alpha1.HTTPBootConfig{}, changed: map[string]chan struct{}{}}
	in := func(o metav1.ListOptions) *client.ListOptions {
		return &client.ListOptions{Namespace: namespace, Raw: &o}
	}
	lw := &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &v1alpha1.HTTPBootConfigList{}
			return list, api.List(ctx, list, in(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, &v1alpha1.HTTPBootConfigList{}, in(o))
		},
	}
	informer := toolscache.NewSharedInformer(lw, &v1alpha1.HTTPBootConfig{}, 0)
	if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: s.set, UpdateFunc: func(_, now any) { s.set(now) },
	}); err != nil {
		return nil, fmt.Errorf("watching configs: %w", err)
	}
	go informer.RunWithContext(ctx)
	return s, nil
}

func (s *statuses) set(object any) {
	c, ok := object.(*v1alpha1.HTTPBootConfig)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configs[c.Name] = c
	if changed := s.changed[c.Name]; changed != nil {
		close(changed)
		delete(s.changed, c.Name)
	}
}

// await waits until a config is as wanted, and returns it; what it returns is shared.
func (s *statuses) await(ctx context.Context, name string, is func(*v1alpha1.HTTPBootConfig) bool) (*v1alpha1.HTTPBootConfig, error) {
	for {
		s.mu.Lock()
		c := s.configs[name]
		changed := s.changed[name]
		if changed == nil {
			changed = make(chan struct{})
			s.changed[name] = changed
		}
		s.mu.Unlock()
		if c != nil && is(c) {
			return c, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return c, ctx.Err()
		}
	}
}

// tells says whether a config's status tells of a boot that began then and was
// complete.
func tells(c *v1alpha1.HTTPBootConfig, m *Machine, began time.Time) error {
	b := c.Status.Boot
	if b == nil {
		return fmt.Errorf("%s has no status.boot", m.Name)
	}
	began = began.Truncate(time.Microsecond)
	for _, name := range []v1alpha1.BootStageName{"UKI", "Ignition"} {
		st := stageOf(b, name)
		switch {
		case st == nil:
			return fmt.Errorf("%s: no stage %s in attempt %d", m.Name, name, b.Attempt)
		case st.Attempt != b.Attempt:
			return fmt.Errorf("%s: stage %s is of attempt %d, the last is %d", m.Name, name, st.Attempt, b.Attempt)
		case st.CompletedTime == nil || st.CompletedTime.Time.Before(began):
			return fmt.Errorf("%s: stage %s of attempt %d was not completed since %s: %v", m.Name, name, b.Attempt, began.Format(time.TimeOnly), st.CompletedTime)
		case st.ClientAddress != m.Addr.String():
			return fmt.Errorf("%s: stage %s was at %s", m.Name, name, st.ClientAddress)
		case name == "UKI" && st.Digest != m.Image.Digest:
			return fmt.Errorf("%s: stage %s has the digest %s", m.Name, name, st.Digest)
		}
	}
	if b.LastClientAddress != m.Addr.String() {
		return fmt.Errorf("%s: status.boot.lastClientAddress is %s", m.Name, b.LastClientAddress)
	}
	if m.Policy == v1alpha1.BootPolicyOnce && (b.Served == nil || b.Served.Attempt != b.Attempt) {
		return fmt.Errorf("%s: attempt %d was delivered and is not spent", m.Name, b.Attempt)
	}
	return nil
}

func stageOf(b *v1alpha1.BootStatus, name v1alpha1.BootStageName) *v1alpha1.BootStage {
	if b == nil {
		return nil
	}
	for i := range b.Stages {
		if b.Stages[i].Name == name {
			return &b.Stages[i]
		}
	}
	return nil
}

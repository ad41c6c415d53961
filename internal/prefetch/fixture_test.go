package prefetch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

var epoch = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// errBroken is what broken parts answer.
var errBroken = errors.New("connection refused")

// fakeStore pulls at once unless it is told otherwise.
type fakeStore struct {
	mu    sync.Mutex
	here  map[boot.Digest]bool
	fail  map[string]error // by source
	gate  chan struct{}    // a pull takes one, if set
	order []string
	auths []string
	now   atomic.Int32
	most  atomic.Int32
}

func newFakeStore() *fakeStore {
	return &fakeStore{here: map[boot.Digest]bool{}, fail: map[string]error{}}
}

func (s *fakeStore) Pull(ctx context.Context, a boot.Artifact, auth artifact.Credentials) error {
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
	}
	s.mu.Lock()
	s.order = append(s.order, a.Source)
	s.auths = append(s.auths, auth.String())
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail[a.Source]; err != nil {
		return err
	}
	s.here[a.Digest] = true
	return nil
}

func (s *fakeStore) Has(d boot.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.here[d]
}

// Open makes the fake a boot.Blobs of blobs without content.
func (s *fakeStore) Open(context.Context, boot.Digest) (boot.Blob, error) { panic("not used") }

func (s *fakeStore) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *fakeStore) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.order...)
}

// fakeReader is an API server that only answers Get.
type fakeReader struct {
	mu      sync.Mutex
	secrets map[string]*corev1.Secret
	broken  bool
	slow    chan struct{} // a read waits for it, if set
	stuck   bool          // and ignores its context
	reads   int
}

func (r *fakeReader) Get(ctx context.Context, k client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	r.mu.Lock()
	r.reads++
	broken, slow, stuck, found := r.broken, r.slow, r.stuck, r.secrets[k.String()]
	r.mu.Unlock()
	if slow != nil {
		done := ctx.Done()
		if stuck {
			done = nil
		}
		select {
		case <-slow:
		case <-done:
			return ctx.Err()
		}
	}
	switch {
	case broken:
		return errBroken
	case found == nil:
		return apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, k.Name)
	}
	found.DeepCopyInto(obj.(*corev1.Secret))
	return nil
}

func (r *fakeReader) List(context.Context, client.ObjectList, ...client.ListOption) error {
	panic("Secrets must never be listed")
}

func (r *fakeReader) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *fakeReader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reads
}

// holding puts a document into a Secret.
func (r *fakeReader) holding(name, text string) {
	r.put(name, map[string][]byte{v1alpha1.SecretKeyIgnition: []byte(text)})
}

func (r *fakeReader) put(name string, data map[string][]byte) {
	r.set(func() { r.secrets["default/"+name] = &corev1.Secret{Data: data} })
}

type fixture struct {
	*Prefetch
	store  *fakeStore
	reader *fakeReader
	clock  *clocktesting.FakeClock
}

func newFixture(t *testing.T, edits ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{store: newFakeStore(), reader: &fakeReader{secrets: map[string]*corev1.Secret{}}, clock: clocktesting.NewFakeClock(epoch)}
	o := Options{
		Store: f.store, Reader: f.reader, Clock: f.clock, ReadTimeout: 10 * time.Second,
		Convert: func(data []byte, format string) ([]byte, error) {
			switch string(data) {
			case "bad":
				return nil, fmt.Errorf("%w: line 1: nonsense", boot.ErrInvalid)
			case "poison":
				panic("converter")
			}
			return []byte(strings.TrimSpace(format + " " + string(data))), nil
		},
	}
	for _, e := range edits {
		e(&o)
	}
	p, err := New(o)
	require.NoError(t, err)
	f.Prefetch = p
	return f
}

// begin starts pulling, as Run does when the informers have synced.
func (f *fixture) begin(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f.pulls.start(ctx)
	t.Cleanup(func() { cancel(); f.pulls.wait() })
}

func config(name, secret string, edits ...func(*v1alpha1.HTTPBootConfig)) *v1alpha1.HTTPBootConfig {
	c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name), Generation: 1}}
	if secret != "" {
		c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: secret}
	}
	for _, e := range edits {
		e(c)
	}
	return c
}

func digest(n int) boot.Digest { return boot.Digest(fmt.Sprintf("sha256:%064x", n)) }

// naming lets a status name a blob.
func naming(n int, source string) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) {
		c.Status.Artifacts = []v1alpha1.Artifact{{Role: "UKI", Digest: string(digest(n)), Size: 1, Source: source}}
	}
}

func withPullSecret(name string) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) { c.Spec.PullSecretRef = &corev1.LocalObjectReference{Name: name} }
}

func once(c *v1alpha1.HTTPBootConfig) { c.Spec.BootPolicy = v1alpha1.BootPolicyOnce }

func attempted(n int64, served time.Time) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) {
		opened := metav1.NewMicroTime(epoch)
		c.Status.Boot = &v1alpha1.BootStatus{Attempt: n, OpenedTime: &opened}
		if !served.IsZero() {
			at := metav1.NewMicroTime(served)
			c.Status.Boot.Stages = []v1alpha1.BootStage{{Name: "Ignition", Attempt: n, CompletedTime: &at}}
		}
	}
}

func plan(name string) *boot.Plan {
	return &boot.Plan{Object: boot.Ref{Kind: "HTTPBootConfig", Namespace: "default", Name: name, UID: "uid-" + name}, HasIgnition: true}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 10*time.Second, time.Millisecond)
}

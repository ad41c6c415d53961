package presence

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// server is an API server with a knob: the kinds that it serves.
type server struct {
	*httptest.Server
	kinds  atomic.Pointer[[]string]
	broken atomic.Bool
	looks  chan struct{} // gets one for each answer, before it is sent
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{looks: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.Close)
	return s
}

func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	select {
	case s.looks <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	kinds := s.kinds.Load()
	switch {
	case s.broken.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case kinds == nil || r.URL.Path != "/apis/example.com/v1":
		w.WriteHeader(http.StatusNotFound)
	default:
		list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}}
		for _, k := range *kinds {
			list.APIResources = append(list.APIResources, metav1.APIResource{Kind: k})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(list)
	}
}

func (s *server) serve(kinds ...string) { s.kinds.Store(&kinds) }

// run is what is run while the kinds are there: it tells when it begins and
// when it ends, and ends by itself when it is told to.
type run struct {
	begun, ended chan struct{}
	fail         chan error
}

func newRun() *run {
	return &run{begun: make(chan struct{}, 8), ended: make(chan struct{}, 8), fail: make(chan error)}
}

func (r *run) do(ctx context.Context) error {
	r.begun <- struct{}{}
	defer func() { r.ended <- struct{}{} }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-r.fail:
		return err
	}
}

// start starts a Watcher that looks only when it is asked to.
func start(t *testing.T, s *server, r *run) (*Watcher, func()) {
	t.Helper()
	w, err := New(options(s, r))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Start(ctx) }()
	stop := func() {
		cancel()
		require.NoError(t, receive(t, done))
	}
	return w, stop
}

func options(s *server, r *run) Options {
	return Options{
		Config: &rest.Config{Host: s.URL}, HTTPClient: s.Client(),
		GroupVersion: schema.GroupVersion{Group: "example.com", Version: "v1"}, Kinds: []string{"A", "B"},
		Run: r.do, Doing: "testing", Interval: time.Hour, Active: prometheus.NewGauge(prometheus.GaugeOpts{Name: "a"}),
	}
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing came within a minute")
		panic("unreachable")
	}
}

func TestItRunsWhileEveryKindIsThere(t *testing.T) {
	s, r := newServer(t), newRun()
	w, stop := start(t, s, r)
	receive(t, s.looks) // none
	look := func() { w.Ask(); receive(t, s.looks) }

	s.serve("A")
	look()
	s.serve("A", "B")
	require.Empty(t, r.begun, "one of the two is not enough")
	require.Zero(t, testutil.ToFloat64(w.Active))
	look()
	receive(t, r.begun)
	require.Equal(t, 1., testutil.ToFloat64(w.Active))

	s.broken.Store(true)
	look()
	look() // the look before it is over
	require.Empty(t, r.ended, "an API server that does not answer changes nothing")
	s.broken.Store(false)

	s.serve("B")
	look()
	receive(t, r.ended)
	s.serve("A", "B", "C")
	look()
	require.Zero(t, testutil.ToFloat64(w.Active))
	receive(t, r.begun)
	stop()
	require.Len(t, r.ended, 1, "nothing is left of it")
	require.Zero(t, testutil.ToFloat64(w.Active))
}

func TestWhatEndsByItselfIsBegunAnew(t *testing.T) {
	s, r := newServer(t), newRun()
	s.serve("A", "B")
	w, stop := start(t, s, r)
	receive(t, s.looks)
	receive(t, r.begun)
	r.fail <- errors.New("broken")
	receive(t, r.ended)
	for len(r.begun) == 0 { // a look may be at its end before the end is known
		w.Ask()
		receive(t, s.looks)
	}
	stop()
}

func TestAKindThatAWatchMissesIsLookedForAtOnce(t *testing.T) {
	s, r := newServer(t), newRun()
	w, stop := start(t, s, r)
	receive(t, s.looks)
	gone := apierrors.NewNotFound(schema.GroupResource{Group: "example.com", Resource: "as"}, "")
	w.WatchFailed(t.Context(), nil, gone)
	w.WatchFailed(t.Context(), nil, gone) // never waits
	receive(t, s.looks)
	stop()
}

func TestOptionsAreChecked(t *testing.T) {
	s := newServer(t)
	for name, change := range map[string]func(*Options){
		"no Run":      func(o *Options) { o.Run = nil },
		"no Kinds":    func(o *Options) { o.Kinds = nil },
		"no Interval": func(o *Options) { o.Interval = 0 },
	} {
		o := options(s, newRun())
		change(&o)
		_, err := New(o)
		require.Error(t, err, name)
	}
}

func TestTheGaugeOfAnEarlierManagerIsFoundAgain(t *testing.T) {
	r := prometheus.NewRegistry()
	first, err := Gauge(r, "active", "help")
	require.NoError(t, err)
	second, err := Gauge(r, "active", "help")
	require.NoError(t, err)
	require.Same(t, first, second)
	_, err = Gauge(r, "active", "other help")
	require.Error(t, err)
	loose, err := Gauge(nil, "active", "help")
	require.NoError(t, err)
	require.NotSame(t, first, loose)
}

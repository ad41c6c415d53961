// Package presence runs something for as long as kinds of somebody else's are
// served by the API server: it begins when they come, ends when they go, and
// waits for them otherwise.
package presence

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
)

// discoveryTimeout bounds one question to the API server.
const discoveryTimeout = 10 * time.Second

// Options of a Watcher. All but Active and Logger are required.
type Options struct {
	// Config and HTTPClient are the connection to the API server.
	Config     *rest.Config
	HTTPClient *http.Client

	// GroupVersion has the kinds.
	GroupVersion schema.GroupVersion
	// Kinds are those that are all needed, such as Server.
	Kinds []string

	// Run is what is done while the kinds are there. It returns when its context
	// ends; where it returns before, it is begun anew at the next look.
	Run func(context.Context) error
	// Doing says what Run does, for the log: "translating ServerBootConfigurations".
	Doing string

	// Interval is how often the API server is asked whether the kinds are there.
	Interval time.Duration
	// Active is 1 while Run runs and 0 otherwise. See Gauge.
	Active prometheus.Gauge
	Logger logr.Logger
}

// Watcher looks whether the kinds are there. It is a manager's Runnable, and
// needs its leadership.
type Watcher struct {
	Options
	discovery *discovery.DiscoveryClient
	// asked has the kinds looked for before it is time.
	asked chan struct{}
}

// New returns a Watcher that has not started.
func New(o Options) (*Watcher, error) {
	if o.Config == nil || o.HTTPClient == nil || o.Run == nil || len(o.Kinds) == 0 || o.GroupVersion.Empty() {
		return nil, errors.New("presence needs Config, HTTPClient, GroupVersion, Kinds and Run")
	}
	if o.Interval <= 0 {
		return nil, fmt.Errorf("the Interval of presence is %s; it must be positive", o.Interval)
	}
	if o.Active == nil {
		o.Active = prometheus.NewGauge(prometheus.GaugeOpts{Name: "active"}) // that nobody collects
	}
	d, err := discovery.NewDiscoveryClientForConfigAndClient(o.Config, o.HTTPClient)
	if err != nil {
		return nil, fmt.Errorf("setting up the discovery of %s: %w", o.GroupVersion, err)
	}
	return &Watcher{Options: o, discovery: d, asked: make(chan struct{}, 1)}, nil
}

// Start looks for the kinds until ctx ends, and runs what is to be run while
// they are there. An API server that does not answer changes nothing.
func (w *Watcher) Start(ctx context.Context) error {
	w.Active.Set(0)
	var s *session
	defer func() { w.end(s) }()
	for ctx.Err() == nil {
		missing, err := w.missing(ctx)
		switch {
		case err != nil:
			w.Logger.V(1).Info("could not look for kinds", "apiVersion", w.GroupVersion.String(), "error", err.Error())
		case len(missing) == 0 && s == nil:
			w.Logger.Info("began "+w.Doing, "apiVersion", w.GroupVersion.String())
			s = w.begin(ctx)
		case len(missing) > 0 && s != nil:
			w.Logger.Info("ended "+w.Doing, "apiVersion", w.GroupVersion.String(), "missing", missing)
			w.end(s)
			s = nil
		}
		s = w.pause(ctx, s)
	}
	return nil
}

// missing returns those of the needed kinds that the API server does not serve.
func (w *Watcher) missing(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	var list metav1.APIResourceList
	path := "/apis/" + w.GroupVersion.String()
	err := w.discovery.RESTClient().Get().AbsPath(path).Do(ctx).Into(&list)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	served := map[string]bool{}
	for _, r := range list.APIResources {
		served[r.Kind] = true
	}
	var missing []string
	for _, k := range w.Kinds {
		if !served[k] {
			missing = append(missing, k)
		}
	}
	return missing, nil
}

// pause waits until it is time to look again, and returns the session, or nil
// when that ended by itself meanwhile.
func (w *Watcher) pause(ctx context.Context, s *session) *session {
	var ended <-chan struct{}
	if s != nil {
		ended = s.done
	}
	timer := time.NewTimer(w.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return s
		case <-timer.C:
			return s
		case <-w.asked:
			return s
		case <-ended:
			if ctx.Err() == nil {
				w.Logger.Error(s.err, w.Doing+" stopped; it is begun anew", "after", w.Interval)
			}
			s.cancel()
			w.Active.Set(0)
			s, ended = nil, nil
		}
	}
}

// Ask has the kinds looked for now.
func (w *Watcher) Ask() {
	select {
	case w.asked <- struct{}{}:
	default:
	}
}

// WatchFailed is told why a list or watch of an informer ended. That a kind is
// gone is no news for the log: what runs is about to end.
func (w *Watcher) WatchFailed(ctx context.Context, r *toolscache.Reflector, err error) {
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		w.Ask()
		return
	}
	toolscache.DefaultWatchErrorHandler(ctx, r, err)
}

// session is one time in which the kinds were there.
type session struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of a session that is done
}

func (w *Watcher) begin(ctx context.Context) *session {
	ctx, cancel := context.WithCancel(ctx)
	s := &session{cancel: cancel, done: make(chan struct{})}
	w.Active.Set(1)
	go func() {
		defer close(s.done)
		s.err = w.Run(ctx)
	}()
	return s
}

// end stops a session and returns when nothing of it is left.
func (w *Watcher) end(s *session) {
	if s == nil {
		return
	}
	s.cancel()
	<-s.done
	w.Active.Set(0)
}

// Gauge registers the gauge of Options, or finds that of an earlier manager of
// this process. r is optional.
func Gauge(r prometheus.Registerer, name, help string) (prometheus.Gauge, error) {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	if r == nil {
		return g, nil
	}
	err := r.Register(g)
	var again prometheus.AlreadyRegisteredError
	if errors.As(err, &again) {
		if earlier, ok := again.ExistingCollector.(prometheus.Gauge); ok {
			return earlier, nil
		}
	}
	return g, err
}

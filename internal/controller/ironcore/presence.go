package ironcore

import (
	"context"
	"fmt"
	"time"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// discoveryTimeout bounds one question to the API server.
const discoveryTimeout = 10 * time.Second

// neededKinds are those without which there is nothing to translate.
var neededKinds = []string{"Server", "ServerBootConfiguration"}

// Start looks for metal-operator's kinds until ctx ends, and translates while
// they are there. An API server that does not answer changes nothing.
func (t *translator) Start(ctx context.Context) error {
	var s *session
	defer func() { t.end(s) }()
	for ctx.Err() == nil {
		missing, err := t.missing(ctx)
		switch {
		case err != nil:
			t.Logger.V(1).Info("could not look for metal-operator's kinds", "error", err.Error())
		case len(missing) == 0 && s == nil:
			t.Logger.Info("began to translate ServerBootConfigurations")
			s = t.begin(ctx)
		case len(missing) > 0 && s != nil:
			t.Logger.Info("ended to translate ServerBootConfigurations", "missing", missing)
			t.end(s)
			s = nil
		}
		if s = t.pause(ctx, s); s == nil {
			t.active.Set(0)
		}
	}
	return nil
}

// missing returns those of the needed kinds that the API server does not serve.
func (t *translator) missing(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	var list metav1.APIResourceList
	path := "/apis/" + metalv1alpha1.SchemeGroupVersion.String()
	err := t.discovery.RESTClient().Get().AbsPath(path).Do(ctx).Into(&list)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	served := map[string]bool{}
	for _, r := range list.APIResources {
		served[r.Kind] = true
	}
	var missing []string
	for _, k := range neededKinds {
		if !served[k] {
			missing = append(missing, k)
		}
	}
	return missing, nil
}

// pause waits until it is time to look again, and returns the session, or nil
// when that ended by itself meanwhile.
func (t *translator) pause(ctx context.Context, s *session) *session {
	var ended <-chan struct{}
	if s != nil {
		ended = s.done
	}
	timer := time.NewTimer(t.DiscoveryInterval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return s
		case <-timer.C:
			return s
		case <-t.asked:
			return s
		case <-ended:
			if ctx.Err() == nil {
				t.Logger.Error(s.err, "translating ServerBootConfigurations stopped; it is begun anew", "after", t.DiscoveryInterval)
			}
			s, ended = nil, nil
		}
	}
}

// ask has the kinds looked for now: a list or watch says that one is gone.
func (t *translator) ask() {
	select {
	case t.asked <- struct{}{}:
	default:
	}
}

// session is one time in which metal-operator's kinds were there.
type session struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of a session that is done
}

func (t *translator) begin(ctx context.Context) *session {
	ctx, cancel := context.WithCancel(ctx)
	s := &session{cancel: cancel, done: make(chan struct{})}
	t.active.Set(1)
	go func() {
		defer close(s.done)
		s.err = t.run(ctx)
	}()
	return s
}

// end stops a session and returns when nothing of it is left.
func (t *translator) end(s *session) {
	if s == nil {
		return
	}
	s.cancel()
	<-s.done
	t.active.Set(0)
}

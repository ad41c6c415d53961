package bootconfig

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	crcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// pollers is how many requests of a poll may be under way at once.
const pollers = 8

// purpose is what a config names a Secret for.
type purpose string

const (
	forIgnition    purpose = "ignition"
	forMetaData    purpose = "metaData"
	forNetworkData purpose = "networkData"
	forScript      purpose = "script"
	forPull        purpose = "pull"
	// forKeys, forTrustedRoot and forCertificates: to verify signatures with.
	forKeys         purpose = "keys"
	forTrustedRoot  purpose = "trustedRoot"
	forCertificates purpose = "certificates"
	// forSigning: to sign what is composed.
	forSigning purpose = "signing"
)

var purposes = []purpose{
	forIgnition, forMetaData, forNetworkData, forScript, forPull, forKeys, forTrustedRoot, forCertificates, forSigning,
}

// secretUse is one place where a config names a Secret.
type secretUse struct {
	config  configKey
	purpose purpose
}

// version tells one content of a Secret from the next; zero is a Secret that
// does not exist.
type version struct {
	uid             types.UID
	resourceVersion string
}

// secrets knows which Secrets configs name, which version each config has seen
// and what it made of it: never their content. It learns of new versions by
// polling the metadata of those Secrets, or by a watch, and wakes the configs.
type secrets struct {
	reader client.Reader
	wake   func(configKey)
	watch  bool
	period time.Duration
	budget float64
	clock  clock.WithTicker
	gauge  prometheus.Gauge
	grown  chan struct{}

	mu      sync.Mutex
	uses    map[secretUse]*use
	entries map[types.NamespacedName]*secretEntry
	order   []types.NamespacedName // the one polled longest ago is first
	queued  map[types.NamespacedName]bool
}

type use struct {
	secret     types.NamespacedName
	seen       bool
	version    version
	generation int64
	verdict    error
	remembered bool
}

type secretEntry struct {
	users map[secretUse]struct{}
	// latest is the version that was heard of last; news counts how often.
	latest version
	heard  bool
	news   uint64
}

func newSecrets(reader client.Reader, wake func(configKey), o Options) (*secrets, error) {
	s := &secrets{
		reader: reader, wake: wake, watch: o.SecretWatch, period: o.SecretPollPeriod, budget: o.SecretPollBudget, clock: o.Clock,
		grown: make(chan struct{}, 1), uses: map[secretUse]*use{}, entries: map[types.NamespacedName]*secretEntry{}, queued: map[types.NamespacedName]bool{},
		gauge: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "boot_operator_secret_poll_period_seconds",
			Help: "How long it takes to poll every Secret that configs name once; 0 where none is polled.",
		}),
	}
	if o.Registerer == nil {
		return s, nil
	}
	err := o.Registerer.Register(s.gauge)
	var again prometheus.AlreadyRegisteredError
	if errors.As(err, &again) { // by an earlier manager
		if g, ok := again.ExistingCollector.(prometheus.Gauge); ok {
			s.gauge = g
			err = nil
		}
	}
	return s, err
}

// name says that a config names a Secret for a purpose; an empty name, none.
func (s *secrets) name(u secretUse, name string) types.NamespacedName {
	return s.point(u, types.NamespacedName{Namespace: u.config.Namespace, Name: name})
}

// point is name for a Secret of any namespace: the operator's own.
func (s *secrets) point(u secretUse, secret types.NamespacedName) types.NamespacedName {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.uses[u]; old != nil {
		if old.secret == secret {
			return secret
		}
		s.drop(u, old)
	}
	if secret.Name == "" {
		return secret
	}
	s.uses[u] = &use{secret: secret}
	e := s.entries[secret]
	if e == nil {
		e = &secretEntry{users: map[secretUse]struct{}{}}
		s.entries[secret] = e
		s.enqueue(secret)
	}
	e.users[u] = struct{}{}
	return secret
}

func (s *secrets) enqueue(secret types.NamespacedName) {
	if !s.queued[secret] {
		s.queued[secret] = true
		s.order = append(s.order, secret)
	}
	select {
	case s.grown <- struct{}{}:
	default:
	}
}

func (s *secrets) drop(u secretUse, old *use) {
	delete(s.uses, u)
	e := s.entries[old.secret]
	delete(e.users, u)
	if len(e.users) == 0 {
		delete(s.entries, old.secret) // and from the order when its turn comes
	}
}

// forget drops everything that a config names.
func (s *secrets) forget(k configKey) {
	for _, p := range purposes {
		s.name(secretUse{k, p}, "")
	}
}

// recall returns what a config of this generation made of the latest version of
// its Secret, if that is known.
func (s *secrets) recall(u secretUse, generation int64) (error, bool) { //nolint:revive // the error is a value here
	s.mu.Lock()
	defer s.mu.Unlock()
	use := s.uses[u]
	if use == nil || !use.remembered || use.generation != generation {
		return nil, false
	}
	e := s.entries[use.secret]
	return use.verdict, e.latest == use.version
}

// sight is a read of a Secret that is under way.
type sight struct {
	secret types.NamespacedName
	news   uint64
}

func (s *secrets) look(secret types.NamespacedName) sight {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[secret]; e != nil {
		return sight{secret, e.news}
	}
	return sight{secret: secret}
}

// found takes in the version that a read found. What was heard while it was
// under way may be newer, and counts.
func (s *secrets) found(at sight, v version) {
	s.mu.Lock()
	var stale []configKey
	if e := s.entries[at.secret]; e != nil && e.news == at.news {
		stale = e.hear(v, s.uses)
	}
	s.mu.Unlock()
	for _, k := range stale {
		s.wake(k)
	}
}

// mark notes the version that a config has seen, and says whether it is the
// latest: where it is not, the config has to look again.
func (s *secrets) mark(u secretUse, v version) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	use := s.uses[u]
	if use == nil {
		return true
	}
	use.seen, use.version, use.remembered = true, v, false
	e := s.entries[use.secret]
	return !e.heard || e.latest == v
}

// remember keeps what a config made of the version that it saw.
func (s *secrets) remember(u secretUse, generation int64, verdict error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if use := s.uses[u]; use != nil && use.seen {
		use.remembered, use.generation, use.verdict = true, generation, verdict
	}
}

// latest returns the version that was heard of last.
func (s *secrets) latest(secret types.NamespacedName) (version, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[secret]
	if e == nil || !e.heard {
		return version{}, false
	}
	return e.latest, true
}

// observe takes in what a poll or the watch says of a Secret.
func (s *secrets) observe(secret types.NamespacedName, v version) {
	s.mu.Lock()
	var stale []configKey
	if e := s.entries[secret]; e != nil {
		stale = e.hear(v, s.uses)
	}
	s.mu.Unlock()
	for _, k := range stale {
		s.wake(k)
	}
}

// hear notes a version and returns the configs that have seen another one.
func (e *secretEntry) hear(v version, uses map[secretUse]*use) []configKey {
	if e.heard && e.latest == v {
		return nil
	}
	e.latest, e.heard = v, true
	e.news++
	var stale []configKey
	for u := range e.users {
		if use := uses[u]; use.seen && use.version != v {
			stale = append(stale, u.config)
		}
	}
	return stale
}

// get reads a Secret whose content nobody keeps.
func (s *secrets) get(ctx context.Context, name types.NamespacedName) (*corev1.Secret, version, error) {
	var secret corev1.Secret
	if err := s.reader.Get(ctx, name, &secret); err != nil {
		return nil, version{}, err
	}
	return &secret, versionOf(&secret), nil
}

func versionOf(o metav1.Object) version {
	return version{o.GetUID(), o.GetResourceVersion()}
}

// runnable learns of changes for as long as the manager leads.
func (s *secrets) runnable(c crcache.Cache) manager.Runnable {
	if s.watch {
		return manager.RunnableFunc(func(ctx context.Context) error { return s.watchAll(ctx, c) })
	}
	return manager.RunnableFunc(s.poll)
}

// poll reads the metadata of every Secret that is named once in each period,
// one after the other at an even pace.
func (s *secrets) poll(ctx context.Context) error {
	defer s.gauge.Set(0)
	slots := make(chan struct{}, pollers)
	last := s.clock.Now()
	for {
		pace := s.pace()
		select {
		case <-ctx.Done():
			return nil
		case <-s.grown: // the pace is another now
			continue
		case <-s.clock.After(last.Add(pace).Sub(s.clock.Now())):
		}
		last = s.clock.Now()
		name, ok := s.next()
		if !ok {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case slots <- struct{}{}:
		}
		go func() {
			defer func() { <-slots }()
			s.pollOne(ctx, name)
		}()
	}
}

// pace is the time from one request to the next.
func (s *secrets) pace() time.Duration {
	s.mu.Lock()
	n := len(s.entries)
	s.mu.Unlock()
	if n == 0 {
		s.gauge.Set(0)
		return s.period
	}
	period := max(s.period, time.Duration(float64(n)/s.budget*float64(time.Second)))
	s.gauge.Set(period.Seconds())
	return period / time.Duration(n)
}

// next takes the Secret whose turn it is and puts it last.
func (s *secrets) next() (types.NamespacedName, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 {
		name := s.order[0]
		s.order = s.order[1:]
		if s.entries[name] != nil {
			s.order = append(s.order, name)
			return name, true
		}
		delete(s.queued, name)
	}
	return types.NamespacedName{}, false
}

func (s *secrets) pollOne(ctx context.Context, name types.NamespacedName) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	meta := secretMetadata()
	switch err := s.reader.Get(ctx, name, meta); {
	case err == nil:
		s.observe(name, versionOf(meta))
	case apierrors.IsNotFound(err):
		s.observe(name, version{})
	case ctx.Err() == nil:
		log.FromContext(ctx).V(1).Info("secret not polled", "secret", name, "error", err.Error())
	}
}

func secretMetadata() *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return m
}

// watchAll follows the metadata of all Secrets.
func (s *secrets) watchAll(ctx context.Context, c crcache.Cache) error {
	observe := func(obj any, gone bool) {
		if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = d.Obj
		}
		o, ok := obj.(client.Object)
		if !ok {
			return
		}
		v := versionOf(o)
		if gone {
			v = version{}
		}
		s.observe(client.ObjectKeyFromObject(o), v)
	}
	if err := follow(ctx, c, secretMetadata(), cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { observe(obj, false) },
		UpdateFunc: func(_, obj any) { observe(obj, false) },
		DeleteFunc: func(obj any) { observe(obj, true) },
	}); err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	return nil
}

package bootconfig

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// resolvers is how many registries' answers may be waited for at once; how
	// many pulls run at once is for the store to say.
	resolvers = 16
	// firstRetry and maxRetry bound the backoff after what may pass.
	firstRetry = 2 * time.Second
	maxRetry   = time.Minute
)

// What is wrong with a pull secret, besides artifact.ErrPullSecret.
var (
	errSecretNotFound = errors.New("does not exist")
	errSecretKey      = errors.New("has no key")
)

// target is what to fetch; configs that want the same share one fetch.
type target struct {
	// image is an OCI reference; without one, url is that of a UKI.
	image, url string
	arch       boot.Architecture
	pullSecret types.NamespacedName
	// ipxe wants kernel, initrd and squashfs in place of a UKI.
	ipxe bool
}

func (t target) String() string {
	if t.image == "" {
		return t.url
	}
	return t.image + " for " + string(t.arch)
}

// fetched is what a fetch found and pulled.
type fetched struct {
	image     string
	artifacts []boot.Artifact
}

// view is what is known of a fetch.
type view struct {
	// result is the last that was complete; nil before the first.
	result *fetched
	// err is why the last try failed; nil when it did not, or none has ended.
	err error
	// next is when to look again; 0 when the fetch wakes whoever asked.
	next time.Duration
	// secret is the version of the pull secret that was used last.
	secret     version
	secretSeen bool
}

// fetches resolves and pulls in the background, each target once however many
// configs want it, and wakes those configs when there is news. A target that no
// config wants any more is given up, even in the middle of a pull.
type fetches struct {
	store    Store
	madeFor  func(context.Context, boot.Digest) (boot.Architecture, error)
	defaults artifact.Credentials
	secrets  *secrets
	wake     func(configKey)
	clock    clock.WithTicker
	interval time.Duration
	slots    chan struct{}

	mu     sync.Mutex
	ctx    context.Context //nolint:containedctx // the manager's, which pulls live as long as
	wanted map[configKey]target
	all    map[target]*fetch
}

type fetch struct {
	cancel   context.CancelFunc
	running  bool
	users    map[configKey]struct{}
	pinned   *boot.Artifact
	failures int
	due      time.Time
	view
}

func newFetches(o Options, s *secrets, wake func(configKey)) *fetches {
	return &fetches{
		store: o.Store, madeFor: o.MadeFor, defaults: o.Credentials, secrets: s, wake: wake, clock: o.Clock, interval: o.ResolveInterval,
		slots: make(chan struct{}, resolvers), wanted: map[configKey]target{}, all: map[target]*fetch{},
	}
}

// Start lets fetches run until ctx ends.
func (f *fetches) Start(ctx context.Context) error {
	f.mu.Lock()
	f.ctx = ctx
	for t, e := range f.all {
		f.refresh(t, e) // asked for before this was started
	}
	f.mu.Unlock()
	<-ctx.Done()
	return nil
}

// want says that a config wants a target, now in place of any other, and returns
// what is known. pinned is what a URL was found to be earlier.
func (f *fetches) want(k configKey, t target, pinned *boot.Artifact) view {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.wanted[k]; ok && old != t {
		f.leave(k, old)
	}
	f.wanted[k] = t
	e := f.all[t]
	if e == nil {
		e = &fetch{users: map[configKey]struct{}{}, pinned: pinned}
		f.all[t] = e
	}
	e.users[k] = struct{}{}
	f.refresh(t, e)
	v := e.view
	if !e.running {
		v.next = max(e.due.Sub(f.clock.Now()), time.Second)
	}
	return v
}

// forget says that a config wants nothing.
func (f *fetches) forget(k configKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := f.wanted[k]; ok {
		f.leave(k, t)
		delete(f.wanted, k)
	}
}

func (f *fetches) leave(k configKey, t target) {
	e := f.all[t]
	delete(e.users, k)
	if len(e.users) > 0 {
		return
	}
	if e.cancel != nil {
		e.cancel()
	}
	delete(f.all, t)
}

// refresh starts a fetch when it is time for one.
func (f *fetches) refresh(t target, e *fetch) {
	if e.running || f.ctx == nil || f.ctx.Err() != nil || !f.isDue(t, e) {
		return
	}
	if f.holds(t, e) {
		e.due = f.clock.Now().Add(f.pause(e))
		return
	}
	ctx, cancel := context.WithCancel(f.ctx)
	e.running, e.cancel = true, cancel
	go func() {
		defer cancel()
		result, secret, seen, err := f.fetch(ctx, t, e.pinned)
		f.finish(t, e, func() {
			e.secret, e.secretSeen, e.err = secret, seen, err
			if err == nil {
				e.result = result
			}
		})
	}()
}

func (f *fetches) isDue(t target, e *fetch) bool {
	if e.due.IsZero() {
		return true
	}
	if latest, heard := f.secrets.latest(t.pullSecret); heard && e.secretSeen && latest != e.secret {
		return true
	}
	return !f.clock.Now().Before(e.due)
}

// holds says that a target is what it will always be, and in the store.
func (f *fetches) holds(t target, e *fetch) bool {
	return e.result != nil && e.err == nil && t.fixed() && f.has(e.result.artifacts)
}

// fixed says that the target is never something else later on: it names a
// digest, or a URL, whose content was pinned.
func (t target) fixed() bool {
	if t.image == "" {
		return true
	}
	ref, err := artifact.ParseReference(t.image)
	return err == nil && ref.Digest != ""
}

func (f *fetches) has(artifacts []boot.Artifact) bool {
	for _, a := range artifacts {
		if !f.store.Has(a.Digest) {
			return false
		}
	}
	return true
}

// finish takes in how a fetch ended, and wakes whoever wants it.
func (f *fetches) finish(t target, e *fetch, take func()) {
	f.mu.Lock()
	e.running, e.cancel = false, nil
	if f.all[t] != e || f.ctx.Err() != nil {
		f.mu.Unlock()
		return
	}
	take()
	e.due = f.clock.Now().Add(f.pause(e))
	users := make([]configKey, 0, len(e.users))
	for k := range e.users {
		users = append(users, k)
	}
	f.mu.Unlock()
	for _, k := range users {
		f.wake(k)
	}
}

// pause is how long to leave a target alone: its registry is asked again at an
// interval, or, after an error that may pass, with backoff.
func (f *fetches) pause(e *fetch) time.Duration {
	if e.err == nil || artifact.Terminal(e.err) {
		e.failures = 0
		return wait.Jitter(f.interval, 0.05)
	}
	d := min(firstRetry<<min(e.failures, 10), maxRetry, f.interval)
	e.failures++
	return d
}

// fetch resolves and pulls.
func (f *fetches) fetch(ctx context.Context, t target, pinned *boot.Artifact) (*fetched, version, bool, error) {
	if t.image == "" {
		result, err := f.fetchURL(ctx, t.url, pinned)
		if err == nil {
			err = f.fits(ctx, result.artifacts, t.arch)
		}
		return result, version{}, false, err
	}
	auth, secret, seen, err := f.credentials(ctx, t.pullSecret)
	if err != nil {
		return nil, secret, seen, err
	}
	image, err := f.resolve(ctx, t, auth)
	if err != nil {
		return nil, secret, seen, err
	}
	result, err := choose(image, t)
	if err != nil {
		return nil, secret, seen, err
	}
	for _, a := range result.artifacts {
		if err := f.store.Pull(ctx, a, auth); err != nil {
			return nil, secret, seen, fmt.Errorf("image %s: %w", image.Source, err) // Pull says what it pulled
		}
	}
	return result, secret, seen, f.fits(ctx, result.artifacts, t.arch)
}

// fits returns artifact.ErrNoPlatform for a UKI that the machine's firmware would
// refuse: what an image says of its architecture is only what its author wrote.
func (f *fetches) fits(ctx context.Context, artifacts []boot.Artifact, arch boot.Architecture) error {
	for _, a := range artifacts {
		if a.Role != boot.RoleUKI || f.madeFor == nil {
			continue
		}
		is, err := f.madeFor(ctx, a.Digest)
		if err != nil {
			return fmt.Errorf("reading what UKI %s of %s is made for: %w", a.Digest, a.Source, err)
		}
		if is != arch {
			return fmt.Errorf("%w: UKI %s of %s is a program for %s, and the machine is %s", artifact.ErrNoPlatform, a.Digest, a.Source, is, arch)
		}
	}
	return nil
}

// fetchURL pulls a UKI from a URL; one that was pinned stays what it was.
func (f *fetches) fetchURL(ctx context.Context, url string, pinned *boot.Artifact) (*fetched, error) {
	if pinned != nil {
		if err := f.store.Pull(ctx, *pinned, artifact.Credentials{}); err != nil {
			return nil, fmt.Errorf("%s, pinned to what it was at first: %w", url, err)
		}
		return &fetched{artifacts: []boot.Artifact{*pinned}}, nil
	}
	a, err := f.store.PullURL(ctx, url)
	if err != nil {
		return nil, err
	}
	return &fetched{artifacts: []boot.Artifact{a}}, nil
}

func (f *fetches) resolve(ctx context.Context, t target, auth artifact.Credentials) (artifact.Image, error) {
	select {
	case <-ctx.Done():
		return artifact.Image{}, ctx.Err()
	case f.slots <- struct{}{}:
	}
	defer func() { <-f.slots }()
	return f.store.Resolve(ctx, t.image, t.arch, auth)
}

// choose picks what this target boots.
func choose(image artifact.Image, t target) (*fetched, error) {
	required, optional := []boot.Role{boot.RoleUKI}, []boot.Role(nil)
	if t.ipxe {
		required, optional = []boot.Role{boot.RoleKernel, boot.RoleInitrd}, []boot.Role{boot.RoleSquashfs}
	}
	result := &fetched{image: image.Name}
	for _, role := range required {
		a, err := image.Artifact(role)
		if err != nil {
			return nil, err
		}
		result.artifacts = append(result.artifacts, a)
	}
	for _, role := range optional {
		if a, err := image.Artifact(role); err == nil {
			result.artifacts = append(result.artifacts, a)
		}
	}
	return result, nil
}

// credentials reads the pull secret, which nobody keeps.
func (f *fetches) credentials(ctx context.Context, name types.NamespacedName) (artifact.Credentials, version, bool, error) {
	if name.Name == "" {
		return f.defaults, version{}, false, nil
	}
	at := f.secrets.look(name)
	secret, v, err := f.secrets.get(ctx, name)
	if err == nil || apierrors.IsNotFound(err) {
		f.secrets.found(at, v)
	}
	if apierrors.IsNotFound(err) {
		return artifact.Credentials{}, version{}, true, fmt.Errorf("pull secret %s %w", name, errSecretNotFound)
	}
	if err != nil {
		return artifact.Credentials{}, version{}, false, fmt.Errorf("reading pull secret %s: %w", name, err)
	}
	data, ok := secret.Data[corev1.DockerConfigJsonKey]
	if !ok {
		return artifact.Credentials{}, v, true, fmt.Errorf("pull secret %s %w %s; kubectl create secret docker-registry makes one that has", name, errSecretKey, corev1.DockerConfigJsonKey)
	}
	auth, err := artifact.ParsePullSecret(data)
	if err != nil {
		return artifact.Credentials{}, v, true, fmt.Errorf("reading pull secret %s: %w", name, err)
	}
	return auth, v, true, nil
}

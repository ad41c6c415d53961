package bootconfig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/clock"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
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

// What is wrong with a Secret, besides artifact.ErrPullSecret.
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
	// parts wants what a UKI is composed of, also where the image has a UKI, and
	// initrd, an image, a second initrd.
	parts  bool
	initrd string
	// demand is what has to be signed.
	demand demand
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
	// verified is what was checked besides digests; nil where nobody asks for it.
	verified *v1alpha1.VerificationStatus
}

// view is what is known of a fetch.
type view struct {
	// result is the last that was complete; nil before the first.
	result *fetched
	// err is why the last try failed; nil when it did not, or none has ended.
	err error
	// next is when to look again; 0 when the fetch wakes whoever asked.
	next time.Duration
	// seen are the versions of the Secrets that were read last.
	seen versions
}

// fetches resolves and pulls in the background, each target once however many
// configs want it, and wakes those configs when there is news. A target that no
// config wants any more is given up, even in the middle of a pull.
type fetches struct {
	store    Store
	verifier Verifier
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
	// steps tell what the last fetch did that had news, untold who has not heard.
	steps  []boot.Span
	untold map[configKey]struct{}
}

func newFetches(o Options, s *secrets, wake func(configKey)) *fetches {
	return &fetches{
		store: o.Store, verifier: o.Verifier, madeFor: o.MadeFor, defaults: o.Credentials, secrets: s, wake: wake, clock: o.Clock, interval: o.ResolveInterval,
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
	delete(e.untold, k)
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
	if e.running || f.ctx == nil || f.ctx.Err() != nil || !f.isDue(e) {
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
		seen, told := versions{}, &story{}
		result, err := f.fetch(context.WithValue(ctx, storyKey{}, told), t, e.pinned, seen)
		f.finish(t, e, func() {
			e.remember(told, result, err)
			e.seen, e.err = seen, err
			if err == nil {
				e.result = result
			}
		})
	}()
}

func (f *fetches) isDue(e *fetch) bool {
	if e.due.IsZero() {
		return true
	}
	for name, v := range e.seen {
		if latest, heard := f.secrets.latest(name); heard && latest != v {
			return true
		}
	}
	return !f.clock.Now().Before(e.due)
}

// holds says that a target is what it will always be, and in the store. What is
// signed may be revoked: that is looked at again.
func (f *fetches) holds(t target, e *fetch) bool {
	return t.demand == (demand{}) && e.result != nil && e.result.verified == nil && e.err == nil && t.fixed() && f.has(e.result.artifacts)
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

// fetch resolves, verifies and pulls. What was verified is what is pulled: both are
// named by the digests that the reference was resolved to.
func (f *fetches) fetch(ctx context.Context, t target, pinned *boot.Artifact, seen versions) (*fetched, error) {
	demands, err := f.demands(ctx, t.demand, seen)
	if err != nil {
		return nil, err
	}
	auth, err := f.credentials(ctx, t.pullSecret, seen)
	if err != nil {
		return nil, err
	}
	result, err := f.pull(ctx, t, pinned, demands, auth)
	if err != nil {
		return nil, err
	}
	if err := f.fits(ctx, result.artifacts, t.arch); err != nil {
		return nil, err
	}
	return result, f.verifyFile(ctx, result, demands)
}

// pull brings everything that a target names into the store.
func (f *fetches) pull(ctx context.Context, t target, pinned *boot.Artifact, d Demands, auth artifact.Credentials) (*fetched, error) {
	if t.image == "" {
		return f.fetchURL(ctx, t, pinned, d)
	}
	result, err := f.pullImage(ctx, t, t.image, d, auth, choose)
	if err != nil || t.initrd == "" {
		return result, err
	}
	extra, err := f.pullImage(ctx, t, t.initrd, d, auth, chooseInitrd)
	if err != nil {
		return nil, fmt.Errorf("spec.compose.initrdImage: %w", err)
	}
	result.artifacts = append(result.artifacts, extra.artifacts...)
	return result, nil
}

// pullImage resolves an image, has its signatures checked, and pulls what is chosen
// of it.
func (f *fetches) pullImage(ctx context.Context, t target, reference string, d Demands, auth artifact.Credentials, choose func(artifact.Image, target) (*fetched, error)) (*fetched, error) {
	image, err := f.resolve(ctx, t, reference, auth)
	if err != nil {
		return nil, err
	}
	result, err := choose(image, t)
	if err != nil {
		return nil, err
	}
	if err := f.verifyImage(ctx, result, image, d, auth); err != nil {
		return nil, err
	}
	for _, a := range result.artifacts {
		if err := f.pullNoted(ctx, a, auth); err != nil {
			return nil, fmt.Errorf("image %s: %w", image.Source, err) // Pull says what it pulled
		}
	}
	return result, nil
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
func (f *fetches) fetchURL(ctx context.Context, t target, pinned *boot.Artifact, d Demands) (*fetched, error) {
	switch {
	case t.parts:
		return nil, fmt.Errorf("%w: spec.ukiURL names a finished UKI; name an image with a stub, a kernel and an initrd in spec.image", errFinished)
	case d.Image != nil:
		return nil, fmt.Errorf("%w: spec.verification.image asks for signatures of an image, and %s is none: ask for spec.verification.uki", ErrDemand, t.url)
	}
	result := &fetched{}
	if err := f.verifyImage(ctx, result, artifact.Image{Source: t.url}, d, artifact.Credentials{}); err != nil {
		return nil, err // the operator's policy asks for an image
	}
	if pinned != nil {
		result.artifacts = []boot.Artifact{*pinned}
		if err := f.pullNoted(ctx, *pinned, artifact.Credentials{}); err != nil {
			return nil, fmt.Errorf("%s, pinned to what it was at first: %w", t.url, err)
		}
		return result, nil
	}
	start := f.clock.Now()
	a, err := f.store.PullURL(ctx, t.url)
	f.note(ctx, boot.SpanPull, start, err, "digest", string(a.Digest))
	if err != nil {
		return nil, err
	}
	result.artifacts = []boot.Artifact{a}
	return result, nil
}

func (f *fetches) resolve(ctx context.Context, t target, reference string, auth artifact.Credentials) (artifact.Image, error) {
	select {
	case <-ctx.Done():
		return artifact.Image{}, ctx.Err()
	case f.slots <- struct{}{}:
	}
	defer func() { <-f.slots }()
	start := f.clock.Now()
	image, err := f.store.Resolve(ctx, reference, t.arch, auth)
	f.note(ctx, boot.SpanResolve, start, err, "image", reference)
	return image, err
}

// errFinished: a UKI is never altered.
var errFinished = errors.New("a finished UKI is never altered")

// choose picks what this target boots.
func choose(image artifact.Image, t target) (*fetched, error) {
	if t.ipxe {
		return pick(image, []boot.Role{boot.RoleKernel, boot.RoleInitrd}, boot.RoleSquashfs)
	}
	parts, err := pick(image, []boot.Role{boot.RoleStub, boot.RoleKernel, boot.RoleInitrd})
	uki, missing := pick(image, []boot.Role{boot.RoleUKI})
	switch {
	case missing != nil && err != nil: // a UKI is what there should be
		return nil, missing
	case !t.parts && missing == nil:
		return uki, nil
	case err == nil:
		return parts, nil
	}
	return nil, fmt.Errorf("%w, so that it cannot be given spec.kernelArguments or spec.compose: %s carries no stub, kernel and initrd to compose one of; publish them beside it (bootctl image push --stub --kernel --initrd)", errFinished, image.Source)
}

// chooseInitrd picks the initrd that is appended to another image's.
func chooseInitrd(image artifact.Image, _ target) (*fetched, error) {
	result, err := pick(image, []boot.Role{boot.RoleInitrd})
	if err == nil {
		result.artifacts[0].Role = boot.RoleExtraInitrd
	}
	return result, err
}

// pick takes these roles from an image.
func pick(image artifact.Image, required []boot.Role, optional ...boot.Role) (*fetched, error) {
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

// verifyImage has the signatures of an image checked.
func (f *fetches) verifyImage(ctx context.Context, result *fetched, image artifact.Image, d Demands, auth artifact.Credentials) error {
	if f.verifier == nil {
		return demandsNothing(d.Image == nil)
	}
	start := f.clock.Now()
	found, err := f.verifier.Image(ctx, image, d, auth)
	if found != nil || err != nil {
		f.note(ctx, boot.SpanVerify, start, err, "image", result.image)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", image.Source, err)
	}
	if found != nil {
		result.verified = &v1alpha1.VerificationStatus{Image: found}
	}
	return nil
}

// verifyFile has the signature of what firmware starts checked. A UKI that is
// composed is signed later.
func (f *fetches) verifyFile(ctx context.Context, result *fetched, d Demands) error {
	if f.verifier == nil {
		return demandsNothing(d.File == nil)
	}
	for _, a := range result.artifacts {
		if a.Role != boot.RoleUKI && (a.Role != boot.RoleKernel || result.composes()) {
			continue
		}
		start := f.clock.Now()
		found, err := f.verifier.File(ctx, a, result.image, d)
		if found != nil || err != nil {
			f.note(ctx, boot.SpanVerify, start, err, "digest", string(a.Digest))
		}
		if err != nil {
			return fmt.Errorf("%s of %s: %w", a.Role, a.Source, err) // File says which digest
		}
		if found != nil && result.verified == nil {
			result.verified = &v1alpha1.VerificationStatus{}
		}
		if found != nil {
			result.verified.UKI = found
		}
	}
	return nil
}

// demandsNothing fails closed where nobody can check what is demanded.
func demandsNothing(nothing bool) error {
	if nothing {
		return nil
	}
	return fmt.Errorf("%w: this operator verifies no signatures", ErrDemand)
}

// composes says whether a UKI is composed of what was fetched.
func (f *fetched) composes() bool {
	return slices.ContainsFunc(f.artifacts, func(a boot.Artifact) bool { return a.Role == boot.RoleStub })
}

// credentials reads the pull secret.
func (f *fetches) credentials(ctx context.Context, name types.NamespacedName, seen versions) (artifact.Credentials, error) {
	secret, err := f.read(ctx, name, seen)
	if err != nil {
		return artifact.Credentials{}, fmt.Errorf("pull secret: %w", err)
	}
	if secret == nil {
		return f.defaults, nil
	}
	data, ok := secret.Data[corev1.DockerConfigJsonKey]
	if !ok {
		return artifact.Credentials{}, fmt.Errorf("pull secret %s %w %s; kubectl create secret docker-registry makes one that has", name, errSecretKey, corev1.DockerConfigJsonKey)
	}
	auth, err := artifact.ParsePullSecret(data)
	if err != nil {
		return artifact.Credentials{}, fmt.Errorf("reading pull secret %s: %w", name, err)
	}
	return auth, nil
}

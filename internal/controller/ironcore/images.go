package ironcore

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// maxLookups is how many registries are asked at a time.
const maxLookups = 8

// images knows what the images of configurations hold. Each image is looked up
// once however many configurations name it, again and again as long as one does,
// and no reconcile waits for a registry.
type images struct {
	Options
	ctx     context.Context
	wake    func(types.NamespacedName)
	running sync.WaitGroup
	slots   chan struct{}

	mu  sync.Mutex
	all map[imageKey]*lookup
	of  map[types.NamespacedName]imageKey
}

type imageKey struct {
	reference string
	arch      boot.Architecture
}

// lookup is one image.
type lookup struct {
	answer
	cancel context.CancelFunc
	users  map[types.NamespacedName]struct{}
}

// answer is what is known of an image.
type answer struct {
	// asked says that the registry has been asked once at least.
	asked bool
	// artifacts are those that were found last; nil if none ever were.
	artifacts []boot.Artifact
	// err is why the last time nothing was found.
	err error
}

func newImages(ctx context.Context, o Options, wake func(types.NamespacedName)) *images {
	return &images{
		Options: o, ctx: ctx, wake: wake, slots: make(chan struct{}, maxLookups),
		all: map[imageKey]*lookup{}, of: map[types.NamespacedName]imageKey{},
	}
}

// want says what is known of the image that a configuration names from now on,
// which is woken when that changes.
func (i *images) want(user types.NamespacedName, reference string, arch boot.Architecture) answer {
	key := imageKey{reference, arch}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.of[user] != key {
		i.drop(user)
	}
	l := i.all[key]
	if l == nil {
		l = &lookup{users: map[types.NamespacedName]struct{}{}}
		var ctx context.Context
		ctx, l.cancel = context.WithCancel(i.ctx)
		i.all[key] = l
		i.running.Add(1)
		go i.follow(ctx, key, l)
	}
	l.users[user] = struct{}{}
	i.of[user] = key
	return l.answer
}

// forget is for a configuration that names no image any more.
func (i *images) forget(user types.NamespacedName) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.drop(user)
}

func (i *images) drop(user types.NamespacedName) {
	key, ok := i.of[user]
	if !ok {
		return
	}
	delete(i.of, user)
	l := i.all[key]
	delete(l.users, user)
	if len(l.users) == 0 {
		l.cancel()
		delete(i.all, key)
	}
}

// end returns when nothing is looked up any more; i's context has ended.
func (i *images) end() { i.running.Wait() }

// follow looks an image up until ctx ends.
func (i *images) follow(ctx context.Context, key imageKey, l *lookup) {
	defer i.running.Done()
	first := min(i.RetryInterval, i.ResolveInterval)
	delay := first
	for {
		img, err := i.resolve(ctx, key)
		if ctx.Err() != nil {
			return
		}
		for _, user := range i.record(l, img, err) {
			i.wake(user)
		}
		pause := i.ResolveInterval
		if err != nil {
			pause, delay = delay, min(2*delay, i.ResolveInterval)
		} else {
			delay = first
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (i *images) resolve(ctx context.Context, key imageKey) (artifact.Image, error) {
	select {
	case i.slots <- struct{}{}:
	case <-ctx.Done():
		return artifact.Image{}, ctx.Err()
	}
	defer func() { <-i.slots }()
	return i.Resolver.Resolve(ctx, key.reference, key.arch, i.Credentials)
}

// record keeps an answer and returns whom it is news for.
func (i *images) record(l *lookup, img artifact.Image, err error) []types.NamespacedName {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := answer{asked: true, artifacts: l.artifacts, err: err}
	if err == nil {
		next.artifacts = slices.Clone(img.Artifacts)
	}
	same := l.asked && text(l.err) == text(err) && slices.Equal(l.artifacts, next.artifacts)
	l.answer = next
	if same {
		return nil
	}
	users := make([]types.NamespacedName, 0, len(l.users))
	for u := range l.users {
		users = append(users, u)
	}
	return users
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// sleep says whether ctx lasted that long.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

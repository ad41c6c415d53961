package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// tokenKeys keeps the keys of boot tokens as a Secret tells them. Keys that
// cannot be read leave the last good ones in force.
type tokenKeys struct {
	reader client.Reader
	// writer makes the Secret where there is none; nil where no tokens are handed
	// out.
	writer client.Writer
	// waits is set where tokens are handed out whose keys another process makes.
	waits   bool
	secret  types.NamespacedName
	logger  logr.Logger
	keyring *boot.Keyring
	// now is the clock that the API server writes times by; nil is this machine's.
	now func() time.Time
	// loading is held by whoever reads the Secret: what was read first must not take
	// the place of what was read after it.
	loading sync.Mutex
}

const (
	tokenPeriod = time.Minute
	// tokenRetry is how soon keys are asked for again that could not be read.
	tokenRetry = 5 * time.Second
	// tokenSpread is how long after a change of the Secret every replica has read
	// it: only then does a new key sign.
	tokenSpread = 2 * tokenPeriod
	keyBytes    = 32
)

// Run reads the Secret every minute until ctx ends.
func (t *tokenKeys) Run(ctx context.Context) error {
	if t.secret.Name == "" {
		return nil
	}
	for ctx.Err() == nil {
		wait := tokenPeriod
		if err := t.load(ctx); err != nil && ctx.Err() == nil {
			t.logger.Error(err, "token keys not read", "secret", t.secret)
			wait = tokenRetry
		}
		pause(ctx, wait)
	}
	return nil
}

// load reads the Secret once. Others may call it too, for a token of a key that is
// not known here.
func (t *tokenKeys) load(ctx context.Context) error {
	t.loading.Lock()
	defer t.loading.Unlock()
	return t.read(ctx)
}

func (t *tokenKeys) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var s corev1.Secret
	err := t.reader.Get(ctx, t.secret, &s)
	switch {
	case apierrors.IsNotFound(err) && t.waits:
		return fmt.Errorf("reading token keys: %w; a boot-operator that serves with --ipxe-service-url makes it", err)
	case apierrors.IsNotFound(err) && t.writer == nil:
		return nil
	case apierrors.IsNotFound(err):
		return t.create(ctx)
	case err != nil:
		return fmt.Errorf("reading token keys: %w", err)
	}
	now := time.Now
	if t.now != nil {
		now = t.now
	}
	keys, err := keysFrom(s.Data, now().Sub(lastChange(&s)) >= tokenSpread)
	if err == nil {
		err = t.keyring.Replace(keys...)
	}
	if err != nil {
		return fmt.Errorf("reading token keys: %w", err)
	}
	return nil
}

// create makes the Secret; it is read at the next turn, whichever replica was
// first.
func (t *tokenKeys) create(ctx context.Context) error {
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: t.secret.Namespace, Name: t.secret.Name, Labels: map[string]string{"app.kubernetes.io/managed-by": "boot-operator"}},
		Data:       map[string][]byte{"key-1": key},
	}
	err := t.writer.Create(ctx, s)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("making a Secret with a token key: %w", err)
	}
	if err == nil {
		t.logger.Info("made a Secret with a token key", "secret", t.secret)
	}
	return t.read(ctx)
}

// lastChange is when a Secret was written last, as its managed fields tell.
func lastChange(s *corev1.Secret) time.Time {
	last := s.CreationTimestamp.Time
	for _, f := range s.ManagedFields {
		if f.Time != nil && f.Time.After(last) {
			last = f.Time.Time
		}
	}
	return last
}

// keysFrom reads entries key-<id>; the first of the result signs. That is the key
// with the highest ID once every replica knows it, until then the other: a
// rotation adds a key, and removes the old one when its tokens have expired.
func keysFrom(data map[string][]byte, settled bool) ([]boot.TokenKey, error) {
	var keys []boot.TokenKey
	for name, secret := range data {
		id, err := strconv.ParseUint(strings.TrimPrefix(name, "key-"), 10, 8)
		if err != nil || !strings.HasPrefix(name, "key-") {
			return nil, fmt.Errorf("%w: entry %q is not key-<0..255>", boot.ErrInvalid, name)
		}
		keys = append(keys, boot.TokenKey{ID: byte(id), Secret: secret})
	}
	slices.SortFunc(keys, func(a, b boot.TokenKey) int { return cmp.Compare(b.ID, a.ID) })
	if !settled {
		slices.Reverse(keys)
	}
	return keys, nil
}

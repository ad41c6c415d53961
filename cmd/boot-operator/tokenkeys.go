package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// tokenKeys keeps the keys of boot tokens as a Secret tells them. Keys that
// cannot be read leave the last good ones in force.
type tokenKeys struct {
	reader  client.Reader
	secret  types.NamespacedName
	logger  logr.Logger
	keyring *boot.Keyring
}

const (
	tokenPeriod = time.Minute
	// tokenRetry is how soon keys are asked for again that could not be read.
	tokenRetry = 5 * time.Second
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

func (t *tokenKeys) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var s corev1.Secret
	if err := t.reader.Get(ctx, t.secret, &s); err != nil {
		return fmt.Errorf("reading token keys: %w", err)
	}
	keys, err := keysFrom(s.Data)
	if err == nil {
		err = t.keyring.Replace(keys...)
	}
	if err != nil {
		return fmt.Errorf("reading token keys: %w", err)
	}
	return nil
}

// keysFrom reads entries key-<id>. The key with the highest ID signs; both
// are accepted, so a rotation adds a key and removes the old one later.
func keysFrom(data map[string][]byte) ([]boot.TokenKey, error) {
	var keys []boot.TokenKey
	for name, secret := range data {
		id, err := strconv.ParseUint(strings.TrimPrefix(name, "key-"), 10, 8)
		if err != nil || !strings.HasPrefix(name, "key-") {
			return nil, fmt.Errorf("%w: entry %q is not key-<0..255>", boot.ErrInvalid, name)
		}
		keys = append(keys, boot.TokenKey{ID: byte(id), Secret: secret})
	}
	slices.SortFunc(keys, func(a, b boot.TokenKey) int { return cmp.Compare(b.ID, a.ID) })
	return keys, nil
}

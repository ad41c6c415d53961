package main

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// secretReader holds one Secret, behind an API server that may be away.
type secretReader struct {
	client.Reader
	away atomic.Bool
	data map[string][]byte
}

func (r *secretReader) Get(_ context.Context, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	if r.away.Load() {
		return errors.New("dial tcp: connection refused")
	}
	obj.(*corev1.Secret).Data = r.data
	return nil
}

// A process that starts while the API server is away serves as soon as it is
// back; a machine that comes with a token then must not be a stranger.
func TestTokenKeysAreReadSoonAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &secretReader{data: map[string][]byte{"key-1": bytes.Repeat([]byte{1}, 32)}}
		r.away.Store(true)
		k := &tokenKeys{reader: r, secret: types.NamespacedName{Name: "keys"}, logger: logr.Discard(), keyring: &boot.Keyring{}}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = k.Run(ctx) }()
		mint := func() error {
			_, err := k.keyring.Mint(boot.Token{Object: "00112233-4455-6677-8899-aabbccddeeff", Attempt: 1, Expires: time.Unix(1<<31, 0)})
			return err
		}
		time.Sleep(time.Second)
		require.ErrorIs(t, mint(), boot.ErrNotReady)
		r.away.Store(false)
		time.Sleep(tokenRetry)
		synctest.Wait()
		require.NoError(t, mint())
		cancel()
		synctest.Wait()
	})
}

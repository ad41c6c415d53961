package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

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

// A replica that does not know a key yet refuses the tokens that it signed: for
// as long as that may be, the old key signs.
func TestANewKeySignsOnceEveryReplicaKnowsIt(t *testing.T) {
	data := map[string][]byte{"key-1": bytes.Repeat([]byte{1}, 32), "key-2": bytes.Repeat([]byte{2}, 32)}
	for settled, signs := range map[bool]byte{false: 1, true: 2} {
		keys, err := keysFrom(data, settled)
		require.NoError(t, err)
		require.Len(t, keys, 2, "both are accepted")
		require.Equal(t, signs, keys[0].ID)
	}
	written := metav1.NewTime(time.Now())
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		CreationTimestamp: metav1.NewTime(written.Add(-time.Hour)),
		ManagedFields:     []metav1.ManagedFieldsEntry{{Time: &written}, {}},
	}}
	require.Equal(t, written.Time, lastChange(s))
	s.ManagedFields = nil
	require.Equal(t, s.CreationTimestamp.Time, lastChange(s))
}

func TestTheSecretWithTheKeysIsMadeWhereTokensAreHandedOut(t *testing.T) {
	api := fake.NewClientBuilder().Build()
	name := types.NamespacedName{Namespace: "system", Name: "keys"}
	k := &tokenKeys{reader: api, secret: name, logger: logr.Discard(), keyring: &boot.Keyring{}}
	require.NoError(t, k.load(t.Context()), "an operator that hands out no tokens needs no keys")
	require.Error(t, api.Get(t.Context(), name, &corev1.Secret{}))

	k.writer = api
	require.NoError(t, k.load(t.Context()))
	var made corev1.Secret
	require.NoError(t, api.Get(t.Context(), name, &made))
	require.Len(t, made.Data["key-1"], keyBytes)
	token := boot.Token{Object: "00112233-4455-6677-8899-aabbccddeeff", Attempt: 1, Audience: boot.AudienceBoot, Proof: boot.Proxy, Expires: time.Unix(1<<31, 0)}
	text, err := k.keyring.Mint(token)
	require.NoError(t, err)

	other := &tokenKeys{reader: api, writer: api, secret: name, logger: logr.Discard(), keyring: &boot.Keyring{}}
	require.NoError(t, other.load(t.Context()))
	_, err = other.keyring.Verify(text, boot.AudienceBoot, netip.Addr{}, time.Now())
	require.NoError(t, err, "replicas share the key")
}

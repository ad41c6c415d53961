package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// skewed is the clock of a replica whose machine's clock is off, after one answer of
// the API server.
func skewed(t *testing.T, api string, by time.Duration) *clusterClock {
	t.Helper()
	c := newClusterClock(logr.Discard())
	c.local = func() time.Time { return time.Now().Add(by) }
	resp, err := (&http.Client{Transport: c.follow(http.DefaultTransport)}).Get(api)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return c
}

// changedSecret is a Secret with two keys that was written at a time.
type changedSecret struct {
	client.Reader
	at time.Time
}

func (r changedSecret) Get(_ context.Context, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	s := obj.(*corev1.Secret)
	written := metav1.NewTime(r.at)
	s.ManagedFields = []metav1.ManagedFieldsEntry{{Time: &written}}
	s.Data = map[string][]byte{"key-1": bytes.Repeat([]byte{1}, 32), "key-2": bytes.Repeat([]byte{2}, 32)}
	return nil
}

// comingAttempts knows of one attempt.
type comingAttempts struct{ boot.Attempts }

func (comingAttempts) Current(*boot.Plan) boot.Attempt         { return boot.Attempt{Number: 1} }
func (comingAttempts) Coming(*boot.Plan) (boot.Attempt, error) { return boot.Attempt{Number: 1}, nil }

// Replicas on machines whose clocks are minutes apart must agree on what is open,
// closed, expired and settled.
func TestReplicasWithSkewedClocksAgree(t *testing.T) {
	api := httptest.NewServer(http.NotFoundHandler())
	defer api.Close()
	const minutes = 10 * time.Minute
	for _, writes := range []time.Duration{-minutes, 0, minutes} {
		for _, reads := range []time.Duration{-minutes, 0, minutes} {
			t.Run(fmt.Sprintf("written %s, read %s", writes, reads), func(t *testing.T) {
				writer, reader := skewed(t, api.URL, writes), skewed(t, api.URL, reads)
				now := reader.Now()
				opened := boot.Attempt{Number: 1, OpenedAt: writer.Now()}
				require.True(t, opened.Open(now.Add(boot.AttemptLifetime-time.Minute)))
				require.False(t, opened.Open(now.Add(boot.AttemptLifetime+time.Minute)))
				served := opened
				served.SecretServedAt = writer.Now()
				require.True(t, served.Open(now.Add(time.Minute)), "cloud-init still asks for its other files")
				require.False(t, served.Open(now.Add(boot.SecretGrace+time.Minute)), "nobody gets it a week later")

				keys, err := boot.NewKeyring(boot.TokenKey{ID: 1, Secret: bytes.Repeat([]byte{1}, 32)})
				require.NoError(t, err)
				plan := &boot.Plan{Object: boot.Ref{UID: "00112233-4455-6677-8899-aabbccddeeff"}}
				text, err := boot.NewIssuer(keys, comingAttempts{}, writer.Now).Boot(plan, boot.Client{Proof: boot.Proxy})
				require.NoError(t, err)
				for after, good := range map[time.Duration]bool{0: true, 14 * time.Minute: true, 31 * time.Minute: false} {
					_, err = keys.Verify(text, boot.AudienceBoot, netip.Addr{}, now.Add(after))
					require.Equal(t, good, err == nil, after)
				}

				for age, signs := range map[time.Duration]byte{tokenSpread - 10*time.Second: 1, tokenSpread + 10*time.Second: 2} {
					k := &tokenKeys{
						reader: changedSecret{at: time.Now().Add(-age)}, now: reader.Now,
						secret: types.NamespacedName{Name: "keys"}, logger: logr.Discard(), keyring: &boot.Keyring{},
					}
					require.NoError(t, k.load(t.Context()))
					id, _ := k.keyring.Active()
					require.Equal(t, signs, id, "a key that was written %s ago", age)
				}
			})
		}
	}

	// The negative control: by the machines' own clocks they would not.
	fast := func() time.Time { return time.Now().Add(minutes) }
	require.False(t, boot.Attempt{Number: 1, OpenedAt: time.Now(), SecretServedAt: time.Now()}.Open(fast().Add(time.Minute)))
}

func TestTheClustersClock(t *testing.T) {
	base := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	c := newClusterClock(logr.Discard())
	learn := func(ahead, took time.Duration) time.Duration {
		got := base.Add(took)
		c.learn(base.Add(took/2).Add(ahead).Truncate(time.Second), base, got)
		return time.Duration(c.offset.Load())
	}
	require.Zero(t, learn(0, 20*time.Millisecond))
	require.Zero(t, learn(1500*time.Millisecond, 20*time.Millisecond), "clocks are never quite the same")
	require.InDelta(t, 600, learn(10*time.Minute, 20*time.Millisecond).Seconds(), 1)
	at := c.offset.Load()
	require.Equal(t, time.Duration(at), learn(10*time.Minute+time.Second, 20*time.Millisecond), "no jitter")
	require.Equal(t, time.Duration(at), learn(-time.Hour, time.Minute), "an answer that took so long tells no time")
	require.InDelta(t, 600, testutil.ToFloat64(c.metric()), 1)
	require.InDelta(t, -3600, learn(-time.Hour, 20*time.Millisecond).Seconds(), 1)
	require.Zero(t, learn(0, 20*time.Millisecond), "the machine's clock was set right")
}

// What has no date, or a wrong one, is passed on and says nothing.
func TestAnswersWithoutADateSayNothing(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		if r.URL.Path == "/junk" {
			w.Header()["Date"] = []string{"yesterday"}
		}
	}))
	defer api.Close()
	for _, path := range []string{"/", "/junk"} {
		require.InDelta(t, 600, time.Until(skewed(t, api.URL+path, 10*time.Minute).Now()).Seconds(), 5)
	}
	require.InDelta(t, 0, time.Until(skewed(t, "http"+api.URL[4:]+"/none", 0).Now()).Seconds(), 5)
	c := newClusterClock(logr.Discard())
	_, err := (&http.Client{Transport: c.follow(http.DefaultTransport)}).Get("http://127.0.0.1:1/")
	require.Error(t, err, "nor does what never came")
}

package prefetch

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestIgnitionIsConvertedAndKept(t *testing.T) {
	f := newFixture(t)
	f.reader.put("secret", map[string][]byte{"ignition": []byte("text"), "format": []byte("fcos")})
	f.put(config("one", "secret"))
	for range 3 {
		got, err := f.Ignition(t.Context(), plan("one"))
		require.NoError(t, err)
		require.Equal(t, "fcos text", string(got))
	}
	require.Equal(t, 1, f.reader.count())
}

func TestNoDocumentIsNotFoundAndTroubleIsUnavailable(t *testing.T) {
	for _, tc := range []struct {
		name   string
		edit   func(*fixture, *boot.Plan)
		want   error
		text   string
		secret string
	}{
		{"the plan names none", func(_ *fixture, p *boot.Plan) { p.HasIgnition = false }, boot.ErrNotFound, "names no Ignition document", "secret"},
		{"the config was not seen yet", func(_ *fixture, p *boot.Plan) { p.Object.UID = "other" }, boot.ErrUnavailable, "has just changed", "secret"},
		{"the config names none any more", func(*fixture, *boot.Plan) {}, boot.ErrUnavailable, "has just changed", ""},
		{"a plan of another namespace", func(_ *fixture, p *boot.Plan) { p.Object.Namespace = "other" }, boot.ErrUnavailable, "has just changed", "secret"},
		{"no such Secret", func(*fixture, *boot.Plan) {}, boot.ErrUnavailable, "there is no Secret default/missing", "missing"},
		{"no such key", func(f *fixture, _ *boot.Plan) { f.reader.put("secret", nil) }, boot.ErrUnavailable, `Secret default/secret: there is no key "ignition"`, "secret"},
		{"invalid", func(f *fixture, _ *boot.Plan) { f.reader.holding("secret", "bad") }, boot.ErrUnavailable, "line 1: nonsense", "secret"},
		{"a converter that panics", func(f *fixture, _ *boot.Plan) { f.reader.holding("secret", "poison") }, boot.ErrUnavailable, "cannot be converted", "secret"},
		{"an API server that is away", func(f *fixture, _ *boot.Plan) { f.reader.broken = true }, boot.ErrUnavailable, "connection refused", "secret"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			f.reader.holding("secret", "text")
			f.Prefetch.put(config("one", tc.secret))
			p := plan("one")
			tc.edit(f, p)
			data, err := f.Ignition(t.Context(), p)
			require.ErrorIs(t, err, tc.want)
			require.ErrorContains(t, err, tc.text)
			require.Nil(t, data)
		})
	}
}

func TestANilSecretReferenceIsNoCrash(t *testing.T) {
	f := newFixture(t)
	f.put(config("one", ""))
	f.Prefetch.put(&v1alpha1.IPXEBootConfig{})
	f.Warm(plan("one"))
	_, err := f.Ignition(t.Context(), plan("one"))
	require.ErrorIs(t, err, boot.ErrUnavailable)
	require.Zero(t, f.reader.count())
}

func TestNoMachineGetsAnothersDocument(t *testing.T) {
	f := newFixture(t)
	for n := range 20 {
		name := fmt.Sprint("machine-", n)
		f.reader.holding(name, "of "+name)
		f.put(config(name, name))
	}
	var all sync.WaitGroup
	for range 4 {
		for n := range 20 {
			all.Go(func() {
				name := fmt.Sprint("machine-", n)
				f.Warm(plan(name))
				got, err := f.Ignition(t.Context(), plan(name))
				if err != nil || string(got) != "of "+name {
					t.Errorf("%s got %q, %v", name, got, err)
				}
			})
		}
	}
	all.Wait()
}

func TestARecreatedConfigDoesNotInheritADocument(t *testing.T) {
	f := newFixture(t)
	f.reader.holding("secret", "first")
	f.put(config("one", "secret"))
	_, err := f.Ignition(t.Context(), plan("one"))
	require.NoError(t, err)
	c := config("one", "other")
	c.UID = "uid-again"
	f.put(c)
	_, err = f.Ignition(t.Context(), plan("one"))
	require.ErrorIs(t, err, boot.ErrUnavailable, "the old object is gone")
	n, bytes := f.secrets.size()
	require.Zero(t, n)
	require.Zero(t, bytes)
}

func TestManyRequestsAreOneRead(t *testing.T) {
	f := newFixture(t)
	f.reader.holding("secret", "text")
	f.reader.slow = make(chan struct{})
	f.put(config("one", "secret"))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, err := f.Ignition(t.Context(), plan("one"))
			if err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, func() bool { return f.reader.count() == 1 })
	close(f.reader.slow)
	all.Wait()
	require.Equal(t, 1, f.reader.count())
}

func TestAnAPIServerThatHangsIsWaitedForNoLongerThanSaid(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.ReadTimeout = 20 * time.Millisecond })
	f.reader.holding("secret", "text")
	f.reader.slow, f.reader.stuck = make(chan struct{}), true
	defer close(f.reader.slow)
	f.put(config("one", "secret"))
	_, err := f.Ignition(t.Context(), plan("one"))
	require.ErrorIs(t, err, boot.ErrUnavailable)
	require.ErrorContains(t, err, "did not answer within 20ms")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Ignition(ctx, plan("one"))
	require.ErrorIs(t, err, boot.ErrUnavailable)
}

func TestAnOldDocumentIsReadAgainOrServedWithoutAPIServer(t *testing.T) {
	f := newFixture(t)
	f.reader.holding("secret", "first")
	f.put(config("one", "secret"))
	get := func() string {
		got, err := f.Ignition(t.Context(), plan("one"))
		require.NoError(t, err)
		return string(got)
	}
	require.Equal(t, "first", get())
	f.reader.holding("secret", "second")
	f.clock.Step(time.Minute - time.Second)
	require.Equal(t, "first", get(), "young enough")
	f.clock.Step(2 * time.Second)
	require.Equal(t, "second", get())

	f.reader.holding("secret", "third")
	f.reader.set(func() { f.reader.broken = true })
	f.clock.Step(2 * time.Minute)
	require.Equal(t, "second", get(), "the API server is away")
	f.reader.set(func() { f.reader.broken = false; clear(f.reader.secrets) })
	_, err := f.Ignition(t.Context(), plan("one"))
	require.ErrorIs(t, err, boot.ErrUnavailable, "the API server says that it is gone")
	f.reader.set(func() { f.reader.broken = true })
	_, err = f.Ignition(t.Context(), plan("one"))
	require.ErrorIs(t, err, boot.ErrUnavailable, "and it stays so")
}

func TestAFailureIsNotAskedForInALoop(t *testing.T) {
	f := newFixture(t)
	f.put(config("one", "missing"))
	for range 10 {
		_, err := f.Ignition(t.Context(), plan("one"))
		require.ErrorIs(t, err, boot.ErrUnavailable)
	}
	require.Equal(t, 1, f.reader.count())
	f.reader.holding("missing", "here now")
	f.clock.Step(failureAge)
	got, err := f.Ignition(t.Context(), plan("one"))
	require.NoError(t, err)
	require.Equal(t, "here now", string(got))
}

func TestWhenADocumentIsDropped(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(f *fixture)
		left int
	}{
		{"nothing happened", func(*fixture) {}, 1},
		{"the time of an attempt is over", func(f *fixture) { f.clock.Step(boot.AttemptLifetime) }, 0},
		{"the machine began to boot again", func(f *fixture) {
			f.clock.Step(boot.AttemptLifetime - time.Second)
			f.Warm(plan("one"))
			eventually(current, func() bool { return f.reader.count() == 2 })
			f.clock.Step(2 * time.Second)
		}, 1},
		{"the secret was served", func(f *fixture) {
			f.put(config("one", "secret", once, attempted(1, epoch.Add(time.Second))))
			f.clock.Step(boot.SecretGrace + time.Second)
		}, 0},
		{"the secret was served just now", func(f *fixture) {
			f.put(config("one", "secret", once, attempted(1, epoch.Add(time.Second))))
			f.clock.Step(boot.SecretGrace)
		}, 1},
		{"the secret was served to a machine that boots whenever it likes", func(f *fixture) {
			f.put(config("one", "secret", attempted(1, epoch.Add(time.Second))))
			f.clock.Step(boot.AttemptLifetime - time.Second)
		}, 1},
		{"it was served in an attempt before", func(f *fixture) {
			f.put(config("one", "secret", once, attempted(1, epoch.Add(-time.Second))))
			f.clock.Step(2 * boot.SecretGrace)
		}, 1},
		{"the config is gone", func(f *fixture) { f.drop(objectKey{"HTTPBootConfig", "default", "one"}) }, 0},
		{"the config names another Secret", func(f *fixture) { f.put(config("one", "other")) }, 0},
		{"the config names none", func(f *fixture) { f.put(config("one", "")) }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			current = t
			f.reader.holding("secret", "text")
			f.put(config("one", "secret"))
			_, err := f.Ignition(t.Context(), plan("one"))
			require.NoError(t, err)
			tc.do(f)
			f.secrets.expire()
			n, _ := f.secrets.size()
			require.Equal(t, tc.left, n)
		})
	}
}

func TestANewAttemptGetsWhatTheSecretHoldsNow(t *testing.T) {
	for name, change := range map[string]func(*v1alpha1.HTTPBootConfig){
		"a new attempt": attempted(2, time.Time{}),
		"a new spec":    func(c *v1alpha1.HTTPBootConfig) { c.Generation = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.reader.holding("secret", "first")
			f.put(config("one", "secret", attempted(1, time.Time{})))
			_, err := f.Ignition(t.Context(), plan("one"))
			require.NoError(t, err)
			f.reader.holding("secret", "second")
			f.put(config("one", "secret", attempted(1, time.Time{}), change))
			got, err := f.Ignition(t.Context(), plan("one"))
			require.NoError(t, err)
			require.Equal(t, "second", string(got))
		})
	}
}

func TestAReadThatEndsAfterTheConfigChangedIsNotKept(t *testing.T) {
	f := newFixture(t)
	f.reader.holding("secret", "text")
	f.reader.slow = make(chan struct{})
	f.put(config("one", "secret"))
	result := make(chan error, 1)
	go func() {
		_, err := f.Ignition(t.Context(), plan("one"))
		result <- err
	}()
	eventually(t, func() bool { return f.reader.count() == 1 })
	f.put(config("one", "other"))
	close(f.reader.slow)
	require.ErrorIs(t, <-result, boot.ErrUnavailable)
	n, _ := f.secrets.size()
	require.Zero(t, n)
}

func TestDocumentsInMemoryAreBounded(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.MaxSecrets, o.MaxSecretBytes = 3, 100 })
	get := func(name string, size int) {
		f.reader.holding(name, string(make([]byte, size))+"x")
		f.put(config(name, name))
		_, err := f.Ignition(t.Context(), plan(name))
		require.NoError(t, err)
	}
	for n := range 10 {
		get(fmt.Sprint("machine-", n), 10)
	}
	n, bytes := f.secrets.size()
	require.Equal(t, 3, n)
	require.Equal(t, 33, bytes)
	get("large", 80)
	n, bytes = f.secrets.size()
	require.Equal(t, 2, n)
	require.LessOrEqual(t, bytes, 100)
	get("huge", 1000)
	n, bytes = f.secrets.size()
	require.Zero(t, n, "served, but not kept")
	require.Zero(t, bytes)
}

// current is the test that a table's row runs in.
var current *testing.T

func TestCloudInitAndScriptComeFromTheSecretsThatTheConfigNames(t *testing.T) {
	f := newFixture(t)
	f.reader.put("user", map[string][]byte{"format": []byte("cloud-config"), "ignition": []byte("#cloud-config\n"), "network-config": []byte("version: 2\n")})
	f.reader.put("script", map[string][]byte{"ipxe-script": []byte("#!ipxe\n")})
	cfg := &v1alpha1.IPXEBootConfig{ObjectMeta: config("one", "").ObjectMeta}
	cfg.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "user"}
	cfg.Spec.IPXEScriptSecretRef = &corev1.LocalObjectReference{Name: "script"}
	f.Prefetch.put(cfg)
	p := plan("one")
	p.HasIgnition, p.HasCloudInit, p.HasScript = true, true, true

	user, err := f.CloudInit(t.Context(), p)
	require.NoError(t, err)
	require.Equal(t, boot.CloudInit{UserData: []byte("#cloud-config\n"), NetworkConfig: []byte("version: 2\n")}, user)
	_, err = f.Ignition(t.Context(), p)
	require.ErrorIs(t, err, boot.ErrNotFound, "user data is never given out as Ignition")
	script, err := f.Script(t.Context(), p)
	require.NoError(t, err)
	require.Equal(t, "#!ipxe\n", string(script))
	count, size := f.secrets.size()
	require.Equal(t, 2, count)
	require.Equal(t, len("#cloud-config\n")+len("version: 2\n")+len("#!ipxe\n"), size)

	reads := f.reader.count()
	f.reader.broken = true
	_, err = f.Script(t.Context(), p)
	require.NoError(t, err, "from memory")
	require.Equal(t, reads, f.reader.count())
	f.Prefetch.drop(objectKey{v1alpha1.KindIPXEBootConfig, cfg.Namespace, cfg.Name})
	count, size = f.secrets.size()
	require.Zero(t, count)
	require.Zero(t, size)
}

func TestCloudInitAndScriptAreRefusedWhereThePlanHasNone(t *testing.T) {
	f := newFixture(t)
	f.reader.put("bad", map[string][]byte{"format": []byte("cloud-config"), "value": []byte("no header")})
	f.Prefetch.put(config("one", "bad"))
	p := plan("one")
	_, err := f.CloudInit(t.Context(), p)
	require.ErrorIs(t, err, boot.ErrNotFound)
	_, err = f.Script(t.Context(), p)
	require.ErrorIs(t, err, boot.ErrNotFound)
	p.HasCloudInit, p.HasScript = true, true
	_, err = f.CloudInit(t.Context(), p)
	require.ErrorIs(t, err, boot.ErrUnavailable)
	require.ErrorContains(t, err, "first line")
	_, err = f.Script(t.Context(), p)
	require.ErrorIs(t, err, boot.ErrUnavailable, "the config names no script any more")
	require.Equal(t, 1, f.reader.count())
}

// Machines that boot again and again while the API server is away have what was in
// memory when it went, for however long that is.
func TestNothingIsForgottenWhileTheAPIServerIsAway(t *testing.T) {
	f := newFixture(t)
	f.reader.holding("secret", "text")
	f.put(config("one", "secret"))
	_, err := f.Ignition(t.Context(), plan("one"))
	require.NoError(t, err)
	f.reader.set(func() { f.reader.broken = true })
	for range 5 {
		f.clock.Step(boot.AttemptLifetime)
		f.secrets.expire()
		document, err := f.Ignition(t.Context(), plan("one"))
		require.NoError(t, err)
		require.Equal(t, "text", string(document))
	}
	f.reader.set(func() { f.reader.broken = false })
	f.secrets.expire()
	n, _ := f.secrets.size()
	require.Zero(t, n, "it can be read again")
}

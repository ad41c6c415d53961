package bootconfig

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func digestOf(c *v1alpha1.HTTPBootConfig) string {
	if len(c.Status.Artifacts) != 1 {
		return ""
	}
	return c.Status.Artifacts[0].Digest
}

func TestATagShowsTheOldDigestUntilTheNewOneIsComplete(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.ResolveInterval = 100 * time.Millisecond })
	c := f.machine("m")
	f.ready(c)

	release := f.store.hangPull(newDigest)
	defer release()
	f.store.publish(imageTag, newDigest)
	resolved := f.store.count(imageTag)
	f.eventually(c, "resolved again", func() bool { return f.store.count(imageTag) > resolved })
	assert.True(t, meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionReady))
	assert.Equal(t, string(ukiDigest), digestOf(c))

	release()
	f.eventually(c, "moved", func() bool { return digestOf(c) == string(newDigest) })
	f.ready(c)
}

func TestAFailingRegistryTakesNothingBack(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.ResolveInterval = 100 * time.Millisecond })
	c := f.machine("m")
	f.ready(c)
	f.store.set(func() { f.store.fails[imageTag] = artifact.ErrNotFound })
	f.eventually(c, "told of", func() bool {
		a := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionArtifactsReady)
		return a.Status == isTrue && a.Message != "" && len(f.events("m")) > 0 && f.events("m")[v1alpha1.ReasonArtifactsVerified] == "Warning"
	})
	f.ready(c)
	a := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionArtifactsReady)
	assert.Contains(t, a.Message, "looking again failed: resolving "+imageTag)
	assert.Equal(t, string(ukiDigest), digestOf(c))
}

func TestANewLeaderWhoseRegistryIsDownKeepsWhatIsInItsStore(t *testing.T) {
	f := newFixture(t)
	stop := f.run()
	c := f.machine("m")
	f.ready(c)
	stop()
	f.store.set(func() { f.store.fails[imageTag] = errors.New("connection refused") })
	stop = f.run()
	f.eventually(c, "told of", func() bool {
		return f.store.count(imageTag) >= 2 && meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionReady) && digestOf(c) == string(ukiDigest)
	})
	stop()
	f.store.set(func() { delete(f.store.has, ukiDigest) })
	f.run()
	f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonRegistryError)
	assert.Empty(t, c.Status.Artifacts, "Ready says that the leader has it")
}

func TestAChangedSpecInvalidatesAtOnce(t *testing.T) {
	f := newFixture(t)
	f.run()
	c := f.machine("m")
	f.ready(c)
	release := f.store.hangPull(newDigest)
	defer release()
	f.store.publish("registry.example.com/os/image:2", newDigest)
	f.update(c, func() { c.Spec.Image = "registry.example.com/os/image:2" })
	f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonProgressing)
	assert.Empty(t, c.Status.Artifacts)
	f.update(c, func() { c.Spec.Image = imageTag })
	f.ready(c)
	assert.Equal(t, string(ukiDigest), digestOf(c), "a pull that nobody wants any more holds nobody up")

	f.update(c, func() { c.Spec.SystemUUID = "00112233-4455-6677-8899-aabbccddeeff" })
	f.ready(c)
}

func TestDefaultImage(t *testing.T) {
	f := newFixture(t)
	f.run(func(o *Options) { o.DefaultImage = imageTag })
	c := f.machine("m", func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = "" })
	f.ready(c)
	f.shows(c, v1alpha1.ConditionArtifactsReady, isTrue, v1alpha1.ReasonDefaultImage)
	assert.Equal(t, string(ukiDigest), digestOf(c))
}

func TestAConfigMayBeThereForItsIgnitionAlone(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.secret("ign", map[string]string{"ignition": validJSON})
	c := f.machine("m", withIgnition("ign"), func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = "" })
	f.ready(c)
	f.shows(c, v1alpha1.ConditionArtifactsReady, isTrue, v1alpha1.ReasonNothingToBoot)
}

func TestAForeignURLIsPinnedOrOnlyTold(t *testing.T) {
	f := newFixture(t)
	const url = "https://images.example.com/os.efi"
	f.store.urls[url] = ukiDigest
	stop := f.run(func(o *Options) { o.ResolveInterval = 100 * time.Millisecond })
	at := func(url string) func(*v1alpha1.HTTPBootConfig) {
		return func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image, c.Spec.UKIURL = "", url }
	}
	pinned, told := f.machine("pinned", at(url)), f.machine("told", at("https://elsewhere.example.com/os.efi"))
	f.ready(pinned)
	assert.Equal(t, string(ukiDigest), digestOf(pinned))
	assert.Equal(t, url, pinned.Status.Artifacts[0].Source)
	f.ready(told)
	f.shows(told, v1alpha1.ConditionArtifactsReady, isTrue, v1alpha1.ReasonForeignURL)
	assert.Empty(t, told.Status.Artifacts)
	stop()

	f.store.set(func() { f.store.urls[url] = newDigest; delete(f.store.has, ukiDigest) })
	f.run()
	f.eventually(pinned, "pulled again by its digest", func() bool { return f.store.Has(ukiDigest) })
	f.ready(pinned)
	assert.Equal(t, string(ukiDigest), digestOf(pinned), "what a URL was at first it stays")
	assert.Equal(t, 1, f.store.count(url))
}

// background is fetches by themselves, on a clock that stands still.
func background(t *testing.T, store *fakeStore) (*fetches, *clocktesting.FakeClock, chan configKey) {
	t.Helper()
	c := clocktesting.NewFakeClock(time.Now())
	woken := make(chan configKey, 100)
	wake := func(k configKey) { woken <- k }
	o := Options{Store: store, Clock: c, ResolveInterval: 5 * time.Minute}
	s, err := newSecrets(nil, wake, o)
	require.NoError(t, err)
	f := newFetches(o, s, wake)
	go func() { _ = f.Start(t.Context()) }()
	require.Eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.ctx != nil }, deadline, time.Millisecond)
	return f, c, woken
}

func TestADigestIsNotResolvedAgain(t *testing.T) {
	store := newStore()
	byDigest := "registry.example.com/os/image@" + string(ukiDigest)
	store.publish(byDigest, ukiDigest)
	f, clock, woken := background(t, store)
	key := configKey{kind: "HTTPBootConfig"}
	want := target{image: byDigest, arch: boot.AMD64}
	f.want(key, want, nil)
	<-woken
	for range 10 {
		clock.Step(time.Hour)
		v := f.want(key, want, nil)
		require.NotNil(t, v.result)
		assert.Greater(t, v.next, time.Minute, "there is nothing to come back for soon")
	}
	assert.Equal(t, 1, store.count(byDigest))

	store.set(func() { delete(store.has, ukiDigest) })
	clock.Step(time.Hour)
	f.want(key, want, nil)
	<-woken
	assert.True(t, store.Has(ukiDigest), "what is gone from the store is pulled again")
}

func TestWhatIsFinalIsNotTriedAgainAndWhatPassesIs(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		pause []time.Duration
	}{
		"final":  {artifact.ErrNoPlatform, []time.Duration{5 * time.Minute, 5 * time.Minute}},
		"passes": {errors.New("connection refused"), []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore()
			store.fails[imageTag] = c.err
			f, clock, woken := background(t, store)
			key := configKey{kind: "HTTPBootConfig"}
			want := target{image: imageTag, arch: boot.AMD64}
			f.want(key, want, nil)
			for i, pause := range c.pause {
				<-woken
				v := f.want(key, want, nil)
				require.ErrorIs(t, v.err, c.err)
				assert.InEpsilon(t, pause, v.next, 0.06)
				for range 10 {
					f.want(key, want, nil)
				}
				assert.Equal(t, i+1, store.count(imageTag), "asking often does not try often")
				clock.Step(v.next)
				f.want(key, want, nil)
			}
		})
	}
}

func TestAPullThatNobodyWantsAnyMoreIsGivenUp(t *testing.T) {
	store := newStore()
	release := store.hangPull(ukiDigest)
	defer release()
	f, _, woken := background(t, store)
	a, b := configKey{kind: "HTTPBootConfig"}, configKey{kind: "IPXEBootConfig"}
	want := target{image: imageTag, arch: boot.AMD64}
	f.want(a, want, nil)
	f.want(b, want, nil)
	require.Eventually(t, func() bool { return store.count(imageTag) == 1 }, deadline, time.Millisecond)
	f.forget(a)
	assert.Len(t, f.all, 1, "b still wants it")
	f.forget(b)
	assert.Empty(t, f.all)
	require.Eventually(t, func() bool { store.mu.Lock(); defer store.mu.Unlock(); return store.gaveUp == 1 }, deadline, time.Millisecond)
	release()
	f.want(a, target{image: imageTag, arch: boot.ARM64}, nil)
	assert.Equal(t, a, <-woken)
	assert.Empty(t, woken)
}

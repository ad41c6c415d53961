package ironcore

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

// On a plane of their own, since kinds come and go there.
func TestMetalOperatorsKinds(t *testing.T) {
	plane, err := controlplane.Launch(t.Context(), controlplane.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, plane.Stop()) })
	for _, test := range []struct {
		name string
		run  func(*testing.T, *controlplane.ControlPlane)
	}{
		{"that come and go are followed", comeAndGo},
		{"are both needed", bothNeeded},
		{"that vanish under way hurt nobody", vanish},
		{"stay while the API server is away", apiServerAway},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, plane) })
		uninstall(t, plane)
	}
}

// uninstall deletes metal-operator's kinds and returns when they are gone: a
// CRD stays, and is served, for a while after it is deleted.
func uninstall(t *testing.T, plane *controlplane.ControlPlane) {
	t.Helper()
	require.NoError(t, envtest.UninstallCRDs(plane.Config, metalCRDs(t)))
	c, err := discovery.NewDiscoveryClientForConfig(plane.Config)
	require.NoError(t, err)
	gone := func(path string) bool {
		return apierrors.IsNotFound(c.RESTClient().Get().AbsPath(path).Do(t.Context()).Error())
	}
	const crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
	require.Eventually(t, func() bool {
		return gone(crds+"servers.metal.ironcore.dev") && gone(crds+"serverbootconfigurations.metal.ironcore.dev") &&
			gone("/apis/metal.ironcore.dev/v1alpha1")
	}, deadline, 20*time.Millisecond)
}

func active(r *prometheus.Registry, want string) func() bool {
	return func() bool {
		err := testutil.GatherAndCompare(r, strings.NewReader("# HELP boot_operator_ironcore_active 1 while this replica translates ServerBootConfigurations, 0 while it does not lead or metal-operator's kinds are missing.\n# TYPE boot_operator_ironcore_active gauge\nboot_operator_ironcore_active "+want+"\n"))
		return err == nil
	}
}

func comeAndGo(t *testing.T, plane *controlplane.ControlPlane) {
	t.Helper()
	f := fixtureOn(t, plane)
	metrics := prometheus.NewRegistry()
	const syncTimeout = time.Second
	started := time.Now()
	stop := f.run(func(o *Options) { o.Registerer, o.CacheSyncTimeout = metrics, syncTimeout })

	f.poll(func() string { return "" }, func() bool { return time.Since(started) > 2*syncTimeout })
	require.Zero(t, f.requests.Load(), "a kind that is missing is not asked for")
	var idle int

	for round := range 2 {
		if round > 0 {
			idle = runtime.NumGoroutine()
		}
		_, err := envtest.InstallCRDs(plane.Config, metalCRDs(t))
		require.NoError(t, err)
		f.poll(func() string { return "not picked up" }, active(metrics, "1"))
		f.server("s", serverUUID)
		c := f.configuration("c", "s", ukiImage)
		h := httpOf(c) // that of the round before may have outlived its owner
		f.made(h, func() bool { return metav1.IsControlledBy(h, c) })
		f.ready(h)
		f.shows(c, sbcReady, "Ready", isTrue, "Ready")

		uninstall(t, plane)
		f.poll(func() string { return "not let go" }, active(metrics, "0"))
		asked, since := f.requests.Load(), time.Now()
		f.poll(func() string { return "" }, func() bool { return time.Since(since) > 2*syncTimeout })
		require.Equal(t, asked, f.requests.Load(), "nobody asks for kinds that are gone")
		if round > 0 {
			f.poll(func() string { return "goroutines of a session that ended are left" }, func() bool { return runtime.NumGoroutine() <= idle+2 })
		}
	}
	stop() // fails if the manager ended by itself
}

func bothNeeded(t *testing.T, plane *controlplane.ControlPlane) {
	t.Helper()
	f := fixtureOn(t, plane)
	metrics := prometheus.NewRegistry()
	f.run(func(o *Options) { o.Registerer = metrics })
	one := metalCRDs(t)
	one.Paths = one.Paths[:1]
	_, err := envtest.InstallCRDs(plane.Config, one)
	require.NoError(t, err)
	f.server("s", serverUUID)
	since := time.Now()
	f.poll(func() string { return "" }, func() bool { return time.Since(since) > 5*f.options.DiscoveryInterval })
	require.True(t, active(metrics, "0")())
	_, err = envtest.InstallCRDs(plane.Config, metalCRDs(t))
	require.NoError(t, err)
	f.ready(httpOf(f.configuration("c", "s", ukiImage)))
}

func vanish(t *testing.T, plane *controlplane.ControlPlane) {
	t.Helper()
	f := fixtureOn(t, plane)
	metrics := prometheus.NewRegistry()
	_, err := envtest.InstallCRDs(plane.Config, metalCRDs(t))
	require.NoError(t, err)
	f.registry.set(func() { f.registry.hangs["registry.example.com/slow:1"] = true })
	for i := range 30 {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26))
		f.server(name, "")
		f.configuration(name, name, []string{ukiImage, pxeImage, "registry.example.com/slow:1"}[i%3])
	}
	stop := f.run(func(o *Options) { o.Registerer, o.ResolveInterval = metrics, 10*time.Millisecond })
	f.poll(func() string { return "nothing was begun" }, func() bool { return f.registry.count(ukiImage) > 0 })
	require.NoError(t, envtest.UninstallCRDs(plane.Config, metalCRDs(t)))
	f.poll(func() string { return "not let go" }, active(metrics, "0"))
	stop()
}

func apiServerAway(t *testing.T, plane *controlplane.ControlPlane) {
	t.Helper()
	_, err := envtest.InstallCRDs(plane.Config, metalCRDs(t))
	require.NoError(t, err)
	f := fixtureOn(t, plane)
	metrics := prometheus.NewRegistry()
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	f.run(func(o *Options) { o.Registerer = metrics })
	f.ready(httpOf(c))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	require.NoError(t, plane.StopAPIServer())
	since := time.Now()
	f.poll(func() string { return "" }, func() bool { return time.Since(since) > 10*f.options.DiscoveryInterval })
	require.True(t, active(metrics, "1")())
	require.NoError(t, plane.StartAPIServer())
	f.update(c, func() { c.Spec.Image = pxeImage })
	f.exists(ipxeOf(c))
}

// What comes after a lost lease: another manager in the same process.
func TestANewManagerGoesOnWhereTheOtherEnded(t *testing.T) {
	f := newFixture(t)
	metrics := prometheus.NewRegistry()
	register := func(o *Options) { o.Registerer = metrics }
	stop := f.run(register)
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	f.ready(httpOf(c))
	f.shows(c, sbcReady, "Ready", isTrue, "Ready")
	f.quiet(c)
	version := c.ResourceVersion
	stop()
	require.True(t, active(metrics, "0")())

	f.registry.set(func() { f.registry.hangs[ukiImage] = true }) // the next has not heard of the image for a while
	stop = f.run(register)
	f.poll(func() string { return "never asked" }, func() bool { return f.registry.count(ukiImage) > 1 })
	f.quiet(c)
	require.Equal(t, version, c.ResourceVersion, "Ready stays Ready")
	stop()

	f.registry.set(func() {
		f.registry.hangs[ukiImage] = false
		f.registry.images[ukiImage] = []boot.Role{boot.RoleKernel, boot.RoleInitrd}
	})
	f.run(register)
	f.exists(ipxeOf(c))
	f.gone(httpOf(c))
}

func TestOptionsAreChecked(t *testing.T) {
	good := func() Options {
		return Options{Controllers: []string{ControllerHTTP}, Resolver: newRegistry()}
	}
	for text, change := range map[string]func(*Options){
		`there is no controller "pxe"; there are serverbootconfighttp and serverbootconfigpxe`: func(o *Options) { o.Controllers = []string{"pxe"} },
		"needs a Resolver": func(o *Options) { o.Resolver = nil },
		"DiscoveryInterval is -1s; it must be positive, or 0 for 30s": func(o *Options) { o.DiscoveryInterval = -time.Second },
	} {
		o := good()
		change(&o)
		_, err := o.complete()
		require.ErrorContains(t, err, text)
	}
	o := good()
	enabled, err := o.complete()
	require.NoError(t, err)
	require.True(t, enabled.HTTP)
	require.False(t, enabled.PXE)
	require.Equal(t, 5*time.Minute, o.ResolveInterval)
	require.Equal(t, boot.AMD64, o.Architecture)
}

func TestWithNoControllerNothingIsAsked(t *testing.T) {
	f := newFixture(t)
	f.server("s", serverUUID)
	c := f.configuration("c", "s", ukiImage)
	f.run(func(o *Options) { o.Controllers = nil })
	f.quiet(c)
	require.Zero(t, f.requests.Load())
	require.False(t, f.has(httpOf(c)))
}

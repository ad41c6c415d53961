package host

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/redfish"
	"github.com/boot-operator/boot-operator/test/controlplane"
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	controlplane.Main(m)
}

const (
	ukiImage  = "registry.example.com/os/uki:1"
	pxeImage  = "registry.example.com/os/pxe:1"
	bothImage = "registry.example.com/os/both:1"

	deadline = time.Minute
	username = "operator"
	password = "correct horse"

	isTrue  = metav1.ConditionTrue
	isFalse = metav1.ConditionFalse
)

// installed installs Metal3's CRD on the shared API server, once. Users are added one
// at a time.
var (
	installed sync.Once
	adding    sync.Mutex
)

type fixture struct {
	t        *testing.T
	ns       string
	client   client.Client
	operator *rest.Config
	scheme   *runtime.Scheme
	options  Options
	registry *registry
	site     *site
	bmcs     *redfish.Clients
	// machines by the name of their host.
	mu       sync.Mutex
	machines map[string]*machine
}

// newFixture is a namespace of its own on the shared API server, which knows
// Metal3's hosts, with a site around it that does what the rest of the operator
// does. The controller does not run yet.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	t.Parallel()
	plane := controlplane.Shared(t)
	installed.Do(func() {
		options, err := controlplane.Metal3CRDs()
		require.NoError(t, err)
		options.MaxTime = deadline
		_, err = envtest.InstallCRDs(plane.Config, options)
		require.NoError(t, err)
	})
	f := &fixture{t: t, ns: controlplane.Namespace(t, plane.Config), scheme: runtime.NewScheme(), registry: newRegistry(), machines: map[string]*machine{}}
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, eventsv1.AddToScheme, rbacv1.AddToScheme, v1alpha1.AddToScheme, metal3.AddToScheme} {
		require.NoError(t, add(f.scheme))
	}
	config := rest.CopyConfig(plane.Config)
	config.QPS, config.Burst = 1000, 2000
	var err error
	f.client, err = client.New(config, client.Options{Scheme: f.scheme})
	require.NoError(t, err)
	watcher, err := client.NewWithWatch(config, client.Options{Scheme: f.scheme})
	require.NoError(t, err)
	f.site = newSite(t, watcher, f.ns)
	f.site.machine = f.machine
	f.bmcs = redfish.New(redfish.Options{Limits: redfish.Limits{
		PerSecond: 5000, Timeout: 2 * time.Second, Operation: 10 * time.Second, BreakAfter: 3, BreakFor: 100 * time.Millisecond,
	}})
	f.options = Options{
		Mode: ModeDrive, Namespaces: []string{f.ns}, BMCs: f.bmcs, Resolver: f.registry, Links: f.site, AllowPXE: true,
		FetchTimeout: deadline, PowerOffTimeout: 6 * time.Second, PowerInterval: 150 * time.Millisecond,
		PollInterval: 20 * time.Millisecond, RetryInterval: 50 * time.Millisecond, DiscoveryInterval: 100 * time.Millisecond,
	}
	f.operator = f.user(plane)
	return f
}

// user may do what the markers in this package ask for.
func (f *fixture) user(plane *controlplane.ControlPlane) *rest.Config {
	f.t.Helper()
	name := "operator-" + f.ns
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"metal3.io"}, Resources: []string{"baremetalhosts"}, Verbs: []string{"get", "list", "watch", "update", "patch"}},
		{APIGroups: []string{"metal3.io"}, Resources: []string{"baremetalhosts/status"}, Verbs: []string{"get", "update", "patch"}},
		{APIGroups: []string{"boot.ironcore.dev"}, Resources: []string{"httpbootconfigs", "ipxebootconfigs"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"}},
		{APIGroups: []string{"boot.ironcore.dev"}, Resources: []string{"httpbootconfigs/status", "ipxebootconfigs/status"}, Verbs: []string{"get", "update", "patch"}},
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}}
	f.create(role, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	})
	adding.Lock()
	defer adding.Unlock()
	user, err := plane.AddUser(name)
	require.NoError(f.t, err)
	return user
}

// run starts a manager, as a user with no more rights than it needs, and returns
// what ends it.
func (f *fixture) run(change ...func(*Options)) (stop func()) {
	f.t.Helper()
	o := f.options
	for _, c := range change {
		c(&o)
	}
	scheme := runtime.NewScheme()
	require.NoError(f.t, v1alpha1.AddToScheme(scheme))
	again := true
	mgr, err := ctrl.NewManager(f.operator, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		Controller: ctrlconfig.Controller{SkipNameValidation: &again},
	})
	require.NoError(f.t, err)
	require.NoError(f.t, Setup(mgr, o))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				f.t.Error("manager:", err)
			}
		case <-time.After(deadline):
			f.t.Error("the manager does not end")
		}
	})
	f.t.Cleanup(stop)
	return stop
}

func (f *fixture) create(all ...client.Object) {
	f.t.Helper()
	for _, o := range all {
		require.NoError(f.t, f.client.Create(f.t.Context(), o))
	}
}

// machine is the one of a host.
func (f *fixture) machine(name string) *machine {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.machines[name]
}

// machine is a simulated machine with its BMC, and the firmware and the operating
// system that it plays.
type machine struct {
	*bmcsim.MemoryMachine
	*firmware
	bmc    *bmcsim.BMC
	server *httptest.Server
	uuid   string
}

// bmcOptions say how a machine differs from the usual one.
type bmcOptions struct {
	profile   string
	bootOrder bool
	tls       bool
	change    func(*bmcsim.Options)
	// between stands between the operator and the BMC.
	between func(http.Handler) http.Handler
}

// newMachine makes a machine that is off, for the host of this name.
func (f *fixture) newMachine(name string, o bmcOptions) *machine {
	f.t.Helper()
	f.mu.Lock()
	n := len(f.machines) + 1
	f.mu.Unlock()
	m := &machine{firmware: &firmware{site: f.site, host: name}, uuid: fmt.Sprintf("00112233-4455-6677-8899-aabbccddee%02x", n)}
	mac := fmt.Sprintf("52:54:00:aa:bb:%02x", n)
	var order []bmcsim.BootOption
	if o.bootOrder {
		order = []bmcsim.BootOption{
			{Reference: "Boot0001", Name: "Disk", Kind: bmcsim.KindDisk, DevicePath: "PciRoot(0x0)/Pci(0x1,0x0)"},
			{Reference: "Boot0002", Name: "UEFI HTTPv4", Kind: bmcsim.KindHTTP, MAC: mac, DevicePath: "PciRoot(0x0)/Pci(0x2,0x0)/MAC(" + strings.ReplaceAll(mac, ":", "") + ",0x1)/IPv4(0.0.0.0)/Uri()"},
			{Reference: "Boot0003", Name: "UEFI PXEv4", Kind: bmcsim.KindPXE, MAC: mac, DevicePath: "PciRoot(0x0)/Pci(0x2,0x0)/MAC(" + strings.ReplaceAll(mac, ":", "") + ",0x1)/IPv4(0.0.0.0)"},
		}
	}
	m.MemoryMachine = bmcsim.NewMemoryMachine(m.boots, order...)
	m.power = m.MemoryMachine
	options := bmcsim.Options{
		Profile: o.profile, Machine: m.MemoryMachine, Username: username, Password: password, UUID: m.uuid, Serial: "SN-" + name,
		Hardware: bmcsim.Hardware{
			CPU: "Simulated CPU", Cores: 4, Threads: 8, MemoryMiB: 32768, BIOSVersion: "2.3.4",
			NICs:  []bmcsim.NIC{{MAC: mac}},
			Disks: []bmcsim.Disk{{Name: "disk0", Serial: "D1", Model: "Fast", Type: "SSD", Protocol: "NVMe", Bytes: 1 << 40}},
		},
	}
	if o.change != nil {
		o.change(&options)
	}
	var err error
	m.bmc, err = bmcsim.New(options)
	require.NoError(f.t, err)
	var handler http.Handler = m.bmc
	if o.between != nil {
		handler = o.between(handler)
	}
	m.server = httptest.NewUnstartedServer(handler)
	m.server.Listener = m.bmc.Listener(m.server.Listener)
	m.server.Config.ErrorLog = nil
	if o.tls {
		m.server.StartTLS()
	} else {
		m.server.Start()
	}
	f.t.Cleanup(m.server.Close)
	f.t.Cleanup(m.server.CloseClientConnections)
	f.t.Cleanup(m.bmc.Close)
	f.mu.Lock()
	f.machines[name] = m
	f.mu.Unlock()
	return m
}

func (m *machine) address() string {
	scheme, host, _ := strings.Cut(m.server.URL, "://")
	return "redfish+" + scheme + "://" + host + m.bmc.SystemPath()
}

// executed are the types of the resets that were done, in their order.
func (m *machine) executed() []string {
	var all []string
	for _, r := range m.bmc.Resets() {
		all = append(all, r.Type)
	}
	return all
}

// sent are the requests that a BMC got with this method and in whose path this is.
func (m *machine) sent(method, path string) []bmcsim.Request {
	var all []bmcsim.Request
	for _, r := range m.bmc.Log() {
		if r.Method == method && strings.Contains(r.Path, path) {
			all = append(all, r)
		}
	}
	return all
}

// powerOns are the requests that switched the machine on or reset it.
func (m *machine) powerOns() int {
	n := 0
	for _, r := range m.bmc.Resets() {
		if r.Boots && !r.ByHand && r.Type != "Inside" {
			n++
		}
	}
	return n
}

// host makes a BareMetalHost for a machine, as a user does.
func (f *fixture) host(name string, m *machine, change ...func(*metal3.BareMetalHost)) *metal3.BareMetalHost {
	f.t.Helper()
	f.secret(name+"-bmc", map[string]string{"username": username, "password": password})
	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: name}}
	h.Spec.BMC = metal3.BMCDetails{Address: m.address(), CredentialsName: name + "-bmc"}
	for _, c := range change {
		c(h)
	}
	f.create(h)
	return h
}

func (f *fixture) secret(name string, data map[string]string) *corev1.Secret {
	f.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: name}, StringData: data}
	f.create(s)
	return s
}

// boots has a host boot an image with user data.
func boots(image string) func(*metal3.BareMetalHost) {
	return func(h *metal3.BareMetalHost) {
		raw := "raw"
		h.Spec.Online = true
		h.Spec.Image = &metal3.Image{URL: "oci://" + image, DiskFormat: &raw}
	}
}

func withUserData(name string) func(*metal3.BareMetalHost) {
	return func(h *metal3.BareMetalHost) { h.Spec.UserData = &corev1.SecretReference{Name: name} }
}

func diskless(h *metal3.BareMetalHost) {
	live := "live-iso"
	h.Spec.Image.DiskFormat = &live
}

func annotated(key, value string) func(*metal3.BareMetalHost) {
	return func(h *metal3.BareMetalHost) {
		if h.Annotations == nil {
			h.Annotations = map[string]string{}
		}
		h.Annotations[key] = value
	}
}

func withAddress(h *metal3.BareMetalHost) {
	annotated(v1alpha1.HostAddressesAnnotation, "10.0.0.5")(h)
}

func (f *fixture) reread(o client.Object) {
	f.t.Helper()
	require.NoError(f.t, f.client.Get(f.t.Context(), client.ObjectKeyFromObject(o), o))
}

// change changes a host, again while somebody else does so too.
func (f *fixture) change(h *metal3.BareMetalHost, changes ...func(*metal3.BareMetalHost)) {
	f.t.Helper()
	for {
		f.reread(h)
		for _, c := range changes {
			c(h)
		}
		err := f.client.Update(f.t.Context(), h)
		if apierrors.IsConflict(err) {
			continue
		}
		require.NoError(f.t, err)
		return
	}
}

// poll waits for a condition.
func (f *fixture) poll(what func() string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(deadline); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatal(what())
		}
	}
}

// until waits until something is true of a host.
func (f *fixture) until(h *metal3.BareMetalHost, what string, ok func() bool) {
	f.t.Helper()
	f.poll(func() string {
		return fmt.Sprintf("%s never was so: %s\nstate %q, error %q %q\nrecord %+v\nconditions %s\nBMC %v", h.Name, what,
			h.Status.Provisioning.State, h.Status.ErrorType, h.Status.ErrorMessage, f.record(h), conditionsText(h), f.bmcText(h.Name))
	}, func() bool {
		f.reread(h)
		return ok()
	})
}

func conditionsText(h *metal3.BareMetalHost) string {
	var b strings.Builder
	for _, c := range h.Status.Conditions {
		fmt.Fprintf(&b, "\n  %s=%s/%s %s", c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}

func (f *fixture) bmcText(name string) string {
	m := f.machine(name)
	if m == nil {
		return "none"
	}
	var b strings.Builder
	all := m.bmc.Log()
	for _, r := range all[max(0, len(all)-15):] {
		fmt.Fprintf(&b, "\n  %s %s %s -> %d", r.Method, r.Path, r.Body, r.Status)
	}
	return fmt.Sprintf("%v%s", m.executed(), b.String())
}

// is waits for a host's state, without an error.
func (f *fixture) is(h *metal3.BareMetalHost, state metal3.ProvisioningState) {
	f.t.Helper()
	f.until(h, "it is "+string(state), func() bool {
		return h.Status.Provisioning.State == state && h.Status.ErrorMessage == ""
	})
}

// fails waits for an error with this reason.
func (f *fixture) fails(h *metal3.BareMetalHost, kind metal3.ErrorType, reason string) string {
	f.t.Helper()
	f.until(h, "it failed by "+reason, func() bool {
		c := meta.FindStatusCondition(h.Status.Conditions, metal3.ReadyCondition)
		return h.Status.ErrorType == kind && c != nil && c.Status == isFalse && c.Reason == reason
	})
	return h.Status.ErrorMessage
}

// shows waits for a condition of a host.
func (f *fixture) shows(h *metal3.BareMetalHost, name string, status metav1.ConditionStatus, reason string) string {
	f.t.Helper()
	message := ""
	f.until(h, name+"="+string(status)+"/"+reason, func() bool {
		c := meta.FindStatusCondition(h.Status.Conditions, name)
		if c == nil || c.Status != status || c.Reason != reason {
			return false
		}
		message = c.Message
		return true
	})
	return message
}

// waits waits until a host's progress says what it waits for.
func (f *fixture) waits(h *metal3.BareMetalHost, what string) {
	f.t.Helper()
	f.until(h, "it waits for "+what, func() bool {
		c := meta.FindStatusCondition(h.Status.Conditions, metal3.ProgressingCondition)
		return c != nil && c.Status == isTrue && strings.Contains(c.Message, what)
	})
}

// quiet waits until nothing was written to a host and to its configs for a while.
func (f *fixture) quiet(h *metal3.BareMetalHost) {
	f.t.Helper()
	version, since := "", time.Now()
	f.until(h, "it is left alone", func() bool {
		now := h.ResourceVersion
		for _, c := range f.children(h) {
			now += "," + c.GetResourceVersion()
		}
		if now != version {
			version, since = now, time.Now()
		}
		return time.Since(since) > 600*time.Millisecond
	})
}

func (f *fixture) children(h *metal3.BareMetalHost) children {
	f.t.Helper()
	var all children
	for _, kind := range childKinds {
		c := kind()
		err := f.client.Get(f.t.Context(), client.ObjectKeyFromObject(h), c)
		if !apierrors.IsNotFound(err) {
			require.NoError(f.t, err)
			all = append(all, c)
		}
	}
	return all
}

func (f *fixture) record(h *metal3.BareMetalHost) *v1alpha1.NetworkBoot {
	return f.children(h).record()
}

// gone waits until a host is not there any more.
func (f *fixture) gone(h *metal3.BareMetalHost) {
	f.t.Helper()
	f.poll(func() string { return fmt.Sprintf("%s never went: %+v", h.Name, h.Status) }, func() bool {
		err := f.client.Get(f.t.Context(), client.ObjectKeyFromObject(h), h)
		if !apierrors.IsNotFound(err) {
			require.NoError(f.t, err)
		}
		return err != nil
	})
}

// events returns how often each event of a host was told, by reason.
func (f *fixture) events(name string) map[string]int {
	f.t.Helper()
	var list eventsv1.EventList
	require.NoError(f.t, f.client.List(f.t.Context(), &list, client.InNamespace(f.ns)))
	out := map[string]int{}
	for _, e := range list.Items {
		if e.Regarding.Name == name && e.Regarding.Kind == "BareMetalHost" {
			out[e.Reason]++
		}
	}
	return out
}

// told waits for an event of a host.
func (f *fixture) told(name, reason string) {
	f.t.Helper()
	f.poll(func() string { return fmt.Sprintf("no event %s: %v", reason, f.events(name)) }, func() bool {
		return f.events(name)[reason] > 0
	})
}

package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/controlplane"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/registry"
)

// Options of a fleet. Dir, Binary and Machines are required.
type Options struct {
	// Dir is for control plane, stores and journals.
	Dir string
	// Binary is the operator.
	Binary string
	// Machines is how many there are.
	Machines int
	// Replicas is how many processes can run; 0 is three.
	Replicas int
	// Cycle is how often a machine boots; 0 is 15 s. Under ten seconds no machine
	// boots twice: within that time replicas take two boots for one.
	Cycle time.Duration
	// IgnitionPatience is how long an operating system tries to get its Ignition; 0
	// is 30 s. (Ignition itself tries forever.)
	IgnitionPatience time.Duration
	// Plain leaves out the PROXY protocol between balancer and replicas.
	Plain bool
	// Flags go to every replica.
	Flags []string
}

func (o Options) withDefaults() Options {
	if o.Replicas == 0 {
		o.Replicas = 3
	}
	if o.Cycle == 0 {
		o.Cycle = 15 * time.Second
	}
	if o.IgnitionPatience == 0 {
		o.IgnitionPatience = 30 * time.Second
	}
	return o
}

// Image is what some of the machines boot.
type Image struct {
	Digest    string
	reference string
	bytes     []byte
}

// Machine is one machine with its config.
type Machine struct {
	Name, UUID, MAC string
	// Addr is the address that replicas are told.
	Addr   netip.Addr
	Image  *Image
	Policy v1alpha1.BootPolicy
	// ByToken says that its config lists no address: a DHCP server asks on its behalf
	// for a URL with a token.
	ByToken bool
	// speed is how fast it reads, in bytes per second.
	speed int
}

// Fleet is machines, replicas, their balancer and their API server.
type Fleet struct {
	Machines []*Machine
	Replicas []*Replica

	o         Options
	balancer  *Balancer
	plane     *controlplane.ControlPlane
	client    client.Client
	namespace string
	registry  *httptest.Server
	statuses  *statuses
	cancel    context.CancelFunc
	// slow lets operating systems start slowly.
	slow atomic.Bool
}

// imageSizes are those of the images that machines share: small, since a test reads
// them by the thousand, and larger than what a replica's kernel takes at once (a
// megabyte over loopback), so that something is left to cut.
var imageSizes = []int{1280 << 10, 1536 << 10, 2 << 20, 2560 << 10}

// New launches the control plane and makes everything but the replicas' processes.
// Close ends it.
func New(ctx context.Context, o Options) (_ *Fleet, err error) {
	f := &Fleet{o: o.withDefaults()}
	ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	f.plane, err = controlplane.Launch(ctx, controlplane.Options{Dir: filepath.Join(o.Dir, "controlplane")})
	if err != nil {
		return nil, err
	}
	if err := f.connectAPI(ctx); err != nil {
		return nil, err
	}
	images, err := f.publish()
	if err != nil {
		return nil, err
	}
	for i := range f.o.Machines {
		f.Machines = append(f.Machines, newMachine(i, images[i%len(images)]))
	}
	if f.balancer, err = NewBalancer(ctx, o.Plain); err != nil {
		return nil, err
	}
	for i := range f.o.Replicas {
		if err := f.addReplica(ctx, i); err != nil {
			return nil, err
		}
	}
	return f, f.declare(ctx)
}

func (f *Fleet) connectAPI(ctx context.Context) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	config := rest.CopyConfig(f.plane.Config)
	config.QPS = -1
	api, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	f.client = api
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "fleet-"}}
	if err := f.client.Create(ctx, ns); err != nil {
		return err
	}
	f.namespace = ns.Name
	f.statuses, err = watchStatuses(ctx, api, f.namespace)
	return err
}

// publish serves a registry with the images.
func (f *Fleet) publish() ([]*Image, error) {
	r := registry.New(registry.Options{})
	f.registry = httptest.NewServer(r)
	var images []*Image
	for i, size := range imageSizes {
		uki, err := demoimage.Padded("amd64", fmt.Sprintf("image %d", i), size)
		if err != nil {
			return nil, err
		}
		repository := fmt.Sprintf("os/image-%d", i)
		if _, err := r.Publish(repository, "1", map[string][]byte{"amd64": uki}); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(uki)
		images = append(images, &Image{Digest: "sha256:" + hex.EncodeToString(sum[:]), reference: f.registryHost() + "/" + repository + ":1", bytes: uki})
	}
	return images, nil
}

func (f *Fleet) registryHost() string { return strings.TrimPrefix(f.registry.URL, "http://") }

// newMachine makes machine i: of ten, one is installed once, and two have only a MAC
// in their config.
func newMachine(i int, image *Image) *Machine {
	m := &Machine{
		Name: fmt.Sprintf("machine-%03d", i), UUID: fmt.Sprintf("0a1b2c3d-4e5f-4a6b-8c7d-%012x", i), MAC: fmt.Sprintf("52:54:00:64:%02x:%02x", i>>8, i&255),
		Addr: netip.AddrFrom4([4]byte{10, 64, byte(i >> 8), byte(i)}), Image: image, Policy: v1alpha1.BootPolicyAlways,
		speed: 2 << 20,
	}
	switch i % 10 {
	case 3:
		m.Policy = v1alpha1.BootPolicyOnce
	case 6, 9:
		m.ByToken = true
	}
	return m
}

func (f *Fleet) addReplica(ctx context.Context, i int) error {
	gate, err := NewGate(ctx, f.plane.Config)
	if err != nil {
		return err
	}
	flags := append([]string{
		"--namespace=" + f.namespace, "--claim-namespaces=" + f.namespace,
		"--allowed-registries=" + f.registryHost(), "--plain-http-registries=" + f.registryHost(),
		"--ipxe-service-url=http://" + f.balancer.Address(), "--trusted-dhcp=" + dhcpPrefix,
	}, f.o.Flags...)
	if !f.o.Plain {
		flags = append(flags, "--proxy-protocol-from=127.0.0.1/32")
	}
	r, err := newReplica(string(rune('a'+i)), fmt.Sprintf("127.0.0.%d", 2+i), f.o.Binary, f.o.Dir, gate, flags)
	if err != nil {
		return err
	}
	f.Replicas = append(f.Replicas, r)
	f.balancer.Add(ctx, r.Name, r.Boot, "http://"+r.Probe+"/readyz")
	return nil
}

// declare creates the configs of all machines and their Secrets.
func (f *Fleet) declare(ctx context.Context) error {
	return f.each(func(m *Machine) error { return f.create(ctx, m) })
}

func (f *Fleet) create(ctx context.Context, m *Machine) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: m.Name}, StringData: map[string]string{v1alpha1.SecretKeyIgnition: document(m.Name)}}
	if err := f.client.Create(ctx, secret); err != nil {
		return err
	}
	return f.client.Create(ctx, m.config(f.namespace))
}

// Declare creates a config of one more machine, which never boots, at this address, and
// waits until it is ready.
func (f *Fleet) Declare(ctx context.Context, name string, at netip.Addr) error {
	m := newMachine(len(f.Machines), f.Machines[0].Image)
	m.Name, m.Addr, m.Policy, m.ByToken = name, at, v1alpha1.BootPolicyAlways, false
	if err := f.create(ctx, m); err != nil {
		return err
	}
	_, err := f.statuses.await(ctx, name, ready)
	return err
}

func (m *Machine) config(namespace string) *v1alpha1.HTTPBootConfig {
	c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: m.Name}}
	c.Spec.SystemUUID, c.Spec.NetworkIdentifiers = m.UUID, []string{m.MAC}
	if !m.ByToken {
		c.Spec.NetworkIdentifiers = append(c.Spec.NetworkIdentifiers, m.Addr.String())
	}
	c.Spec.Image, c.Spec.BootPolicy = m.Image.reference, m.Policy
	c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: m.Name}
	return c
}

// each does something for every machine, a few at once.
func (f *Fleet) each(do func(*Machine) error) error {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	errs := make([]error, len(f.Machines))
	for i, m := range f.Machines {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = do(m)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Up starts replicas that do not run, and waits until the balancer sends machines to
// them.
func (f *Fleet) Up(ctx context.Context, replicas ...*Replica) error {
	for _, r := range replicas {
		if !r.Running() {
			if err := r.Start(); err != nil {
				return err
			}
		}
	}
	for _, r := range replicas {
		if err := f.until(ctx, "replica "+r.Name+" is ready", func() bool { return f.balancer.Ready(r.Name) }); err != nil {
			return fmt.Errorf("%w; its log ends:\n%s", err, tail(r.Log.String(), 4000))
		}
	}
	return nil
}

// AwaitConfigs waits until every machine may boot, two minutes at most.
func (f *Fleet) AwaitConfigs(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, m := range f.Machines {
		if _, err := f.statuses.await(ctx, m.Name, ready); err != nil {
			return fmt.Errorf("waiting until the config of %s is ready: %w", m.Name, err)
		}
	}
	return nil
}

func ready(c *v1alpha1.HTTPBootConfig) bool {
	return c.Status.State == v1alpha1.StateReady && c.Status.Boot != nil && c.Status.Boot.Attempt > 0
}

// Leader is the replica that leads: the one that wrote the election's Lease last, if
// it did so since then. It is nil where there is none.
func (f *Fleet) Leader(since time.Time) *Replica {
	var leader *Replica
	for _, r := range f.Replicas {
		if at := r.Gate.Renewed(); at.After(since) && (leader == nil || at.After(leader.Gate.Renewed())) {
			leader = r
		}
	}
	return leader
}

// AwaitLeader waits until a replica leads that has written the Lease from now on.
func (f *Fleet) AwaitLeader(ctx context.Context) (leader *Replica, err error) {
	since := time.Now()
	err = f.until(ctx, "a replica leads", func() bool {
		leader = f.Leader(since)
		return leader != nil
	})
	return leader, err
}

// Balancer is in front of the replicas.
func (f *Fleet) Balancer() *Balancer { return f.balancer }

// RotateTo replaces the keys of tokens, by entry of their Secret.
func (f *Fleet) RotateTo(ctx context.Context, keys map[string][]byte) error {
	s, err := f.tokenKeys(ctx)
	if err != nil {
		return err
	}
	s.Data = keys
	return f.client.Update(ctx, s)
}

// TokenKeys are the keys of tokens as replicas find them.
func (f *Fleet) TokenKeys(ctx context.Context) (map[string][]byte, error) {
	s, err := f.tokenKeys(ctx)
	if err != nil {
		return nil, err
	}
	return s.Data, nil
}

func (f *Fleet) tokenKeys(ctx context.Context) (*corev1.Secret, error) {
	s := &corev1.Secret{}
	err := f.client.Get(ctx, client.ObjectKey{Namespace: f.namespace, Name: "boot-operator-token-keys"}, s)
	return s, err
}

// until waits for something to be true, for as long as ctx lasts and a minute at most.
func (f *Fleet) until(ctx context.Context, what string, is func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !is() {
		if ctx.Err() != nil {
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		}
		pause(ctx, 50*time.Millisecond)
	}
	return nil
}

// Await waits for something to be true, a minute at most.
func (f *Fleet) Await(ctx context.Context, what string, is func() bool) error {
	return f.until(ctx, what, is)
}

// Close kills all processes and removes what the control plane left.
func (f *Fleet) Close() error {
	f.cancel()
	for _, r := range f.Replicas {
		r.Kill()
		r.Gate.Close() //nolint:errcheck // nothing is left to be told
	}
	if f.balancer != nil {
		f.balancer.Close() //nolint:errcheck // as above
	}
	if f.registry != nil {
		f.registry.CloseClientConnections()
		f.registry.Close()
	}
	if f.plane != nil {
		return f.plane.Stop()
	}
	return nil
}

// tail is the end of a text.
func tail(s string, n int) string { return s[max(0, len(s)-n):] }

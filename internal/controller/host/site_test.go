package host

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// site is the rest of the operator, as far as a host needs it: what reconciles
// configs, what opens attempts and notes what was served, and what hands out URLs.
// Its fields are knobs.
type site struct {
	t      *testing.T
	client client.WithWatch
	ns     string
	// machine finds the machine of a host.
	machine func(string) *machine

	mu sync.Mutex
	// unready says why the config of a host is not ready; error: it is wrong, and
	// not only waiting.
	unready map[string]string
	error   map[string]bool
	// reason is why it is not ready, in one word; empty: Pulling.
	reason map[string]string
	// unidentified: nothing names a machine but a URL in its BMC.
	unidentified bool
	// proof is what a URL in a BMC proves.
	proof boot.Proof
	// dies is how many deliveries to a host are spent, and end with the operator
	// before their last bytes.
	dies map[string]int
	// attempts are what the servers know, by UID.
	attempts map[types.UID]int64
	// served counts what was delivered, by host: of boot bytes, and of secrets.
	served, secrets map[string]int
}

func newSite(t *testing.T, c client.WithWatch, ns string) *site {
	s := &site{
		t: t, client: c, ns: ns, proof: boot.Proxy, unready: map[string]string{}, error: map[string]bool{}, reason: map[string]string{}, dies: map[string]int{},
		attempts: map[types.UID]int64{}, served: map[string]int{}, secrets: map[string]int{},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { s.watch(ctx, &v1alpha1.HTTPBootConfigList{}) })
	group.Go(func() { s.watch(ctx, &v1alpha1.IPXEBootConfigList{}) })
	t.Cleanup(func() { cancel(); group.Wait() })
	return s
}

func (s *site) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// watch reconciles configs as they change.
func (s *site) watch(ctx context.Context, list client.ObjectList) {
	for ctx.Err() == nil {
		w, err := s.client.Watch(ctx, list, client.InNamespace(s.ns))
		if err != nil {
			continue
		}
		for e := range w.ResultChan() {
			if c, ok := e.Object.(child); ok && e.Type != "DELETED" {
				s.reconcile(ctx, c.Kind(), c.GetName())
			}
		}
		w.Stop()
	}
}

// again reconciles the configs of a host, as when a knob was turned.
func (s *site) again(name string) {
	for _, kind := range childKinds {
		s.reconcile(context.Background(), kind().Kind(), name)
	}
}

func (s *site) reconcile(ctx context.Context, kind, name string) {
	for ctx.Err() == nil {
		c := s.read(ctx, kind, name)
		if c == nil || isPausedConfig(c) {
			return
		}
		if err := s.judge(ctx, c); err != nil {
			continue
		}
		c = s.read(ctx, kind, name)
		if c == nil {
			return
		}
		if err := s.open(ctx, c); err == nil {
			return
		}
	}
}

func isPausedConfig(c child) bool {
	_, paused := c.GetAnnotations()[v1alpha1.PausedAnnotation]
	return paused
}

func (s *site) read(ctx context.Context, kind, name string) child {
	for _, k := range childKinds {
		c := k()
		if c.Kind() == kind && s.client.Get(ctx, types.NamespacedName{Namespace: s.ns, Name: name}, c) == nil {
			return c
		}
	}
	return nil
}

// judge plays controller/bootconfig.
func (s *site) judge(ctx context.Context, c child) error {
	s.mu.Lock()
	why, wrong, unidentified := s.unready[c.GetName()], s.error[c.GetName()], s.unidentified
	notReady := cmp.Or(s.reason[c.GetName()], "Pulling")
	s.mu.Unlock()
	status := v1alpha1.ConfigStatus{State: v1alpha1.StateReady, ObservedGeneration: c.GetGeneration()}
	set := func(name string, ok bool, reason, message string) {
		condition := metav1.Condition{Type: name, Status: isTrue, Reason: reason, Message: message, ObservedGeneration: c.GetGeneration()}
		if !ok {
			condition.Status, status.State = isFalse, v1alpha1.StatePending
		}
		old := meta.FindStatusCondition(c.ConfigStatus().Conditions, name)
		condition.LastTransitionTime = metav1.Now()
		if old != nil && old.Status == condition.Status {
			condition.LastTransitionTime = old.LastTransitionTime
		}
		status.Conditions = append(status.Conditions, condition)
	}
	set(v1alpha1.ConditionArtifactsReady, true, "Resolved", "")
	set(v1alpha1.ConditionIgnitionValid, true, "IgnitionValid", "")
	reason, message := v1alpha1.ReasonIdentifiable, "by its address"
	known := !unidentified
	if b := c.ConfigStatus().Boot; !known && b != nil && b.PinsURL != "" {
		known, reason, message = true, v1alpha1.ReasonIdentifiedByBMC, "by the URL in its BMC"
	}
	if !known {
		reason, message = v1alpha1.ReasonNoPathNamesThisMachine, "no path names this machine"
	}
	set(v1alpha1.ConditionIdentifiable, known, reason, message)
	switch {
	case !known:
		set(v1alpha1.ConditionReady, false, reason, message)
		status.State = v1alpha1.StateError
	case why != "":
		set(v1alpha1.ConditionReady, false, notReady, why)
		if wrong {
			status.State = v1alpha1.StateError
		}
	default:
		set(v1alpha1.ConditionReady, true, "Ready", "")
	}
	return s.apply(ctx, c, &status, "boot-operator")
}

// open plays the observer: it opens attempts.
func (s *site) open(ctx context.Context, c child) error {
	b, asked := observed(c), c.GetAnnotations()[v1alpha1.RequestBootAnnotation]
	if b.OpenedGeneration == c.GetGeneration() && b.Request == asked {
		if c.GetAnnotations()[v1alpha1.AbortBootAnnotation] == fmt.Sprint(b.Attempt) && b.Aborted != b.Attempt {
			b.Aborted = b.Attempt
			return s.observe(ctx, c, b)
		}
		s.learn(c.GetUID(), b.Attempt)
		return nil
	}
	by := "SpecChanged"
	if asked != b.Request {
		by = "Requested"
	}
	now := metav1.NowMicro()
	b.Attempt, b.OpenedTime, b.OpenedBy, b.OpenedGeneration, b.Request, b.SecretAddress, b.Aborted = b.Attempt+1, &now, by, c.GetGeneration(), asked, "", 0
	if err := s.observe(ctx, c, b); err != nil {
		return err
	}
	s.learn(c.GetUID(), b.Attempt)
	return nil
}

func (s *site) learn(uid types.UID, attempt int64) {
	s.set(func() { s.attempts[uid] = attempt })
}

// observed is what the observer owns of a config's status.boot.
func observed(c child) *v1alpha1.BootStatus {
	b := c.ConfigStatus().Boot.DeepCopy()
	if b == nil {
		return &v1alpha1.BootStatus{}
	}
	b.Armed, b.NetworkBoot, b.PinsURL, b.PinsProof = nil, nil, "", ""
	return b
}

func (s *site) observe(ctx context.Context, c child, b *v1alpha1.BootStatus) error {
	return s.apply(ctx, c, &v1alpha1.ConfigStatus{Boot: b}, "boot-operator-observer")
}

func (s *site) apply(ctx context.Context, c child, status *v1alpha1.ConfigStatus, owner string) error {
	body, err := runtime.DefaultUnstructuredConverter.ToUnstructured(status)
	if err != nil {
		return err
	}
	u := &unstructured.Unstructured{Object: map[string]any{"status": body}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(c.Kind()))
	u.SetNamespace(c.GetNamespace())
	u.SetName(c.GetName())
	u.SetResourceVersion(c.GetResourceVersion())
	err = s.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(owner), client.ForceOwnership)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Proof implements Links.
func (s *site) Proof(bool) boot.Proof {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proof
}

// Boot implements Links.
func (s *site) Boot(uid string, _ bool) (string, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	attempt := s.attempts[types.UID(uid)]
	if attempt == 0 {
		return "", 0, boot.ErrNotReady
	}
	return fmt.Sprintf("http://boot.example.com/httpboot/t/%s.%d/uki.efi", uid, attempt), attempt, nil
}

// serve plays the boot server to a machine that asks for a stage of its config: it
// says whether the machine got all of it.
func (s *site) serve(kind, name string, stage boot.Stage, complete bool) bool {
	for {
		c := s.read(context.Background(), kind, name)
		if c == nil || isPausedConfig(c) || !meta.IsStatusConditionTrue(c.ConfigStatus().Conditions, v1alpha1.ConditionReady) {
			return false
		}
		b := observed(c)
		secret := stage == boot.StageIgnition || stage == boot.StageCloudInit
		once := c.Common().BootPolicy == v1alpha1.BootPolicyOnce
		now := metav1.NowMicro()
		spent := b.Served != nil && b.Served.Attempt == b.Attempt
		switch {
		case b.Attempt == 0 || b.Aborted == b.Attempt || once && spent && !secret:
			return false
		case !once && spent && !secret:
			b.Attempt, b.OpenedTime, b.OpenedBy = b.Attempt+1, &now, "BootDelivery"
		}
		if complete && !secret {
			b.Served = &v1alpha1.BootServed{Attempt: b.Attempt, Digest: "sha256:1", Delivery: "d", Time: now}
		}
		dies := false
		s.set(func() { dies = s.dies[name] > 0 })
		entry := v1alpha1.BootStage{Name: v1alpha1.BootStageName(stage), Attempt: b.Attempt, StartedTime: &now}
		if complete && !dies {
			entry.CompletedTime = &now
		}
		b.Stages = append(without(b.Stages, entry.Name), entry)
		if err := s.observe(context.Background(), c, b); err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		s.learn(c.GetUID(), b.Attempt)
		s.set(func() {
			switch {
			case dies:
				s.dies[name]--
			case secret:
				s.secrets[name]++
			case complete:
				s.served[name]++
			}
		})
		return complete && !dies
	}
}

func without(all []v1alpha1.BootStage, name v1alpha1.BootStageName) []v1alpha1.BootStage {
	var rest []v1alpha1.BootStage
	for _, s := range all {
		if s.Name != name {
			rest = append(rest, s)
		}
	}
	return rest
}

func (s *site) count(name string) (served, secrets int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served[name], s.secrets[name]
}

// firmware is what a machine does when it is switched on, and then what its
// operating system does. Its fields but site, host and power are knobs.
type firmware struct {
	site  *site
	host  string
	power *bmcsim.MemoryMachine

	mu sync.Mutex
	// deaf: it fetches nothing for so many boots, with what kind of boot it does.
	deaf map[bmcsim.Kind]int
	// cuts is how many of its fetches are cut.
	cuts int
	// noData: its operating system never asks for its user data.
	noData bool
	// dies: it goes off before it fetches anything, so many times.
	dies int
	// started are the boots that it did.
	started []bmcsim.NextBoot
	// disk counts the boots that did not come from the network.
	disk int
}

func (w *firmware) knob(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// boots is called when the machine has begun to boot.
func (w *firmware) boots(next bmcsim.NextBoot) {
	w.knob(func() { w.started = append(w.started, next) })
	go w.run(next)
}

func (w *firmware) run(next bmcsim.NextBoot) {
	kind := next.Kind
	if kind == bmcsim.KindDefault {
		if order := w.power.BootOrder(); len(order) > 0 {
			kind = order[0].Kind
		}
	}
	var deaf, dies, cut, noData bool
	w.knob(func() {
		deaf, dies, noData = w.deaf[kind] > 0, w.dies > 0, w.noData
		w.deaf = map[bmcsim.Kind]int{kind: w.deaf[kind] - 1, other(kind): w.deaf[other(kind)]}
		w.dies--
		if cut = w.cuts > 0 && !deaf; cut {
			w.cuts--
		}
	})
	switch {
	case dies:
		_ = w.power.Off()
		return
	case kind != bmcsim.KindHTTP && kind != bmcsim.KindPXE:
		w.knob(func() { w.disk++ })
		return
	case deaf:
		return
	}
	config, stage := v1alpha1.KindHTTPBootConfig, boot.StageUKI
	if kind == bmcsim.KindPXE && w.site.read(context.Background(), v1alpha1.KindIPXEBootConfig, w.host) != nil {
		config, stage = v1alpha1.KindIPXEBootConfig, boot.StageIPXEScript
	}
	if !w.site.serve(config, w.host, stage, !cut) {
		w.knob(func() { w.disk++ })
		return
	}
	c := w.site.read(context.Background(), config, w.host)
	if c != nil && c.Common().IgnitionSecretRef != nil && !noData {
		w.site.serve(config, w.host, boot.StageIgnition, true)
	}
}

func other(k bmcsim.Kind) bmcsim.Kind {
	if k == bmcsim.KindHTTP {
		return bmcsim.KindPXE
	}
	return bmcsim.KindHTTP
}

// starts is how often the machine began to boot, and from disk of these.
func (w *firmware) starts() (all []bmcsim.NextBoot, disk int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append(all, w.started...), w.disk
}

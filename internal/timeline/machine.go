package timeline

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// Machine is what a cluster knows of one machine: at most one config of each kind, and
// the BareMetalHost, where there is one.
type Machine struct {
	Namespace, Name string
	Configs         []v1alpha1.Config
	Host            *metal3.BareMetalHost
	// Events are those of these objects, in any order.
	Events []Event
}

// Event is what a Kubernetes event says.
type Event struct {
	Time time.Time
	// Object is the kind and the name, such as "HTTPBootConfig machine-8".
	Object          string
	Reason, Message string
	Warning         bool
	// Count is how often it happened; 0 means once.
	Count int
}

// Group makes machines of objects, sorted by namespace and name. A host and its configs
// are one machine, as are configs of both kinds that have one name or one UUID. Two
// configs of one kind are two machines, whatever they claim: one of them conflicts.
func Group(configs []v1alpha1.Config, hosts []*metal3.BareMetalHost) []Machine {
	g := grouping{machines: map[*Machine]bool{}, byKey: map[string]*Machine{}}
	for _, h := range hosts {
		m := &Machine{Namespace: h.Namespace, Name: h.Name, Host: h}
		g.add(m, h.Namespace+"/name/"+h.Name, h.Namespace+"/uid/"+string(h.UID))
	}
	configs = slices.Clone(configs)
	slices.SortStableFunc(configs, func(a, b v1alpha1.Config) int {
		return cmp.Or(strings.Compare(a.Kind(), b.Kind()), strings.Compare(a.GetNamespace(), b.GetNamespace()), strings.Compare(a.GetName(), b.GetName()))
	})
	for _, c := range configs {
		g.place(c)
	}
	all := make([]Machine, 0, len(g.machines))
	for m := range g.machines {
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b Machine) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.kinds(), b.kinds()))
	})
	return all
}

type grouping struct {
	machines map[*Machine]bool
	byKey    map[string]*Machine
}

// add takes in a machine; the first that has a key keeps it.
func (g *grouping) add(m *Machine, keys ...string) {
	g.machines[m] = true
	for _, k := range keys {
		if g.byKey[k] == nil {
			g.byKey[k] = m
		}
	}
}

// place finds the machine of a config, or makes one.
func (g *grouping) place(c v1alpha1.Config) {
	keys := keysOf(c)
	for _, k := range keys {
		if m := g.byKey[k]; m != nil && m.config(c.Kind()) == nil {
			m.Configs = append(m.Configs, c)
			g.add(m, keys...)
			return
		}
	}
	g.add(&Machine{Namespace: c.GetNamespace(), Name: c.GetName(), Configs: []v1alpha1.Config{c}}, keys...)
}

// keysOf are what tells that objects are about one machine, the surest first.
func keysOf(c v1alpha1.Config) []string {
	ns := c.GetNamespace()
	var keys []string
	for _, o := range c.GetOwnerReferences() {
		if o.Kind == "BareMetalHost" {
			keys = append(keys, ns+"/uid/"+string(o.UID))
		}
	}
	keys = append(keys, ns+"/name/"+c.GetName())
	if uuid, err := boot.ParseUUID(c.Common().SystemUUID); err == nil {
		keys = append(keys, ns+"/uuid/"+string(min(uuid, uuid.Swapped())))
	}
	return keys
}

// config returns the machine's config of a kind, or nil.
func (m *Machine) config(kind string) v1alpha1.Config {
	for _, c := range m.Configs {
		if c.Kind() == kind {
			return c
		}
	}
	return nil
}

// kinds are the kinds of the machine's objects.
func (m *Machine) kinds() string {
	var all []string
	for _, c := range m.Configs {
		all = append(all, c.Kind())
	}
	return strings.Join(all, " ")
}

// Is says whether what a person wrote names this machine: the name of one of its
// objects, its UUID in either byte order, or a MAC or IP address of it.
func (m *Machine) Is(text string) bool {
	if m.Named(text) {
		return true
	}
	if uuid, err := boot.ParseUUID(text); err == nil {
		return slices.ContainsFunc(m.uuids(), func(u boot.UUID) bool { return u == uuid || u == uuid.Swapped() })
	}
	addr, mac, err := boot.ParseIdentifier(text)
	if err != nil {
		return false
	}
	macs, addrs := m.Identifiers()
	return mac != "" && slices.Contains(macs, mac) || addr.IsValid() && slices.Contains(addrs, addr)
}

// Named says whether this is the name of one of the machine's objects.
func (m *Machine) Named(name string) bool {
	return m.Name == name || slices.ContainsFunc(m.Configs, func(c v1alpha1.Config) bool { return c.GetName() == name })
}

func (m *Machine) uuids() []boot.UUID {
	var all []boot.UUID
	texts := []string{}
	for _, c := range m.Configs {
		texts = append(texts, c.Common().SystemUUID)
	}
	if m.Host != nil {
		texts = append(texts, m.Host.Annotations[v1alpha1.HostSystemUUIDAnnotation])
	}
	for _, t := range texts {
		if uuid, err := boot.ParseUUID(t); err == nil {
			all = append(all, uuid)
		}
	}
	return all
}

// Identifiers returns the MAC and IP addresses that the machine's objects list, and the
// address from which it was seen last. What cannot be read is left out.
func (m *Machine) Identifiers() ([]boot.MAC, []netip.Addr) {
	var macs []boot.MAC
	var addrs []netip.Addr
	for _, text := range m.identifiers() {
		addr, mac, err := boot.ParseIdentifier(text)
		switch {
		case err != nil:
		case mac != "" && !slices.Contains(macs, mac):
			macs = append(macs, mac)
		case addr.IsValid() && !slices.Contains(addrs, addr):
			addrs = append(addrs, addr)
		}
	}
	return macs, addrs
}

// identifiers are the addresses as they are written.
func (m *Machine) identifiers() []string {
	var texts []string
	for _, c := range m.Configs {
		texts = append(texts, c.Common().Identifiers...)
		if b := c.ConfigStatus().Boot; b != nil {
			texts = append(texts, b.LastClientAddress)
		}
	}
	if m.Host == nil {
		return texts
	}
	texts = append(texts, m.Host.Spec.BootMACAddress)
	if d := m.Host.Status.HardwareDetails; d != nil {
		for _, n := range d.NIC {
			texts = append(texts, n.MAC, n.IP)
		}
	}
	return texts
}

// UIDs are those of the machine's objects.
func (m *Machine) UIDs() []types.UID {
	var all []types.UID
	for _, c := range m.Configs {
		all = append(all, c.GetUID())
	}
	if m.Host != nil {
		all = append(all, m.Host.UID)
	}
	return all
}

// Active returns the config that the machine boots, or did last; nil where it has none.
// One that is paused is not, where another is there: a host pauses what it is not told
// to boot.
func (m *Machine) Active() v1alpha1.Config {
	var won v1alpha1.Config
	for _, c := range m.Configs {
		if won == nil || isPaused(won) && !isPaused(c) || isPaused(won) == isPaused(c) && lastSeen(c).After(lastSeen(won)) {
			won = c
		}
	}
	return won
}

func isPaused(c v1alpha1.Config) bool {
	_, paused := c.GetAnnotations()[v1alpha1.PausedAnnotation]
	return paused
}

// lastSeen is when something happened last in a boot of a config.
func lastSeen(c v1alpha1.Config) time.Time {
	b := c.ConfigStatus().Boot
	if b == nil {
		return time.Time{}
	}
	var last time.Time
	see := func(t time.Time) {
		if t.After(last) {
			last = t
		}
	}
	if b.OpenedTime != nil {
		see(b.OpenedTime.Time)
	}
	if b.Offer != nil {
		see(b.Offer.Time.Time)
	}
	if b.NetworkBoot != nil {
		see(b.NetworkBoot.Since.Time)
	}
	for _, s := range b.Stages {
		if s.StartedTime != nil {
			see(s.StartedTime.Time)
		}
		if s.CompletedTime != nil {
			see(s.CompletedTime.Time)
		}
	}
	return last
}

// Record returns the last boot that was asked for through the machine's BMC; nil where
// there was none.
func (m *Machine) Record() *v1alpha1.NetworkBoot {
	var last *v1alpha1.NetworkBoot
	for _, c := range m.Configs {
		if b := c.ConfigStatus().Boot; b != nil && b.NetworkBoot != nil && (last == nil || b.NetworkBoot.Since.After(last.Since.Time)) {
			last = b.NetworkBoot
		}
	}
	return last
}

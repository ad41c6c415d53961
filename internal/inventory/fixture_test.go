package inventory

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

var epoch = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

const (
	uuidA       = "00112233-4455-6677-8899-aabbccddeeff"
	uuidASwap   = "33221100-5544-7766-8899-aabbccddeeff"
	uuidB       = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
	macA        = "52:54:00:aa:bb:01"
	addrA       = "10.0.0.5"
	digestA     = boot.Digest("sha256:" + "aa00000000000000000000000000000000000000000000000000000000000000")
	digestB     = boot.Digest("sha256:" + "bb00000000000000000000000000000000000000000000000000000000000000")
	sourceA     = "registry.example.com/os/images@sha256:cc00000000000000000000000000000000000000000000000000000000000000"
	defaultName = "default"
)

// edit changes a config under construction.
type edit func(v1alpha1.Config)

// config returns a ready config, as the API server and the controller leave it.
func config(kind, name string, age int, edits ...edit) v1alpha1.Config {
	m := metav1.ObjectMeta{
		Namespace: defaultName, Name: name, UID: types.UID("uid-" + kind + "-" + name), Generation: 3,
		CreationTimestamp: metav1.NewTime(epoch.Add(time.Duration(age) * time.Second)),
	}
	var cfg v1alpha1.Config = &v1alpha1.HTTPBootConfig{ObjectMeta: m}
	if kind == v1alpha1.KindIPXEBootConfig {
		cfg = &v1alpha1.IPXEBootConfig{ObjectMeta: m}
	}
	*cfg.ConfigStatus() = v1alpha1.ConfigStatus{
		State: v1alpha1.StateReady, ObservedGeneration: 3,
		Conditions: []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady, ObservedGeneration: 3}},
		Artifacts:  []v1alpha1.Artifact{{Role: "UKI", Digest: string(digestA), Size: 4096, Source: sourceA}},
	}
	for _, e := range edits {
		e(cfg)
	}
	return cfg
}

func httpConfig(name string, age int, edits ...edit) v1alpha1.Config {
	return config(v1alpha1.KindHTTPBootConfig, name, age, edits...)
}

func ipxeConfig(name string, age int, edits ...edit) v1alpha1.Config {
	return config(v1alpha1.KindIPXEBootConfig, name, age, edits...)
}

// claiming sets UUID and identifiers; a UUID is what has 36 characters.
func claiming(identifiers ...string) edit {
	return func(cfg v1alpha1.Config) {
		uuid, rest := "", []string(nil)
		for _, id := range identifiers {
			switch len(id) {
			case 0:
			case 36:
				uuid = id
			default:
				rest = append(rest, id)
			}
		}
		switch c := cfg.(type) {
		case *v1alpha1.HTTPBootConfig:
			c.Spec.SystemUUID, c.Spec.NetworkIdentifiers = uuid, rest
		case *v1alpha1.IPXEBootConfig:
			c.Spec.SystemUUID, c.Spec.NetworkIdentifiers = uuid, rest
		}
	}
}

func inNamespace(ns string) edit {
	return func(cfg v1alpha1.Config) { cfg.SetNamespace(ns) }
}

func deleting(cfg v1alpha1.Config) {
	now := metav1.NewTime(epoch)
	cfg.SetDeletionTimestamp(&now)
}

func notReadyYet(cfg v1alpha1.Config) { cfg.ConfigStatus().Conditions = nil }

func withUID(uid string) edit {
	return func(cfg v1alpha1.Config) { cfg.SetUID(types.UID(uid)) }
}

func withDigest(d boot.Digest) edit {
	return func(cfg v1alpha1.Config) { cfg.ConfigStatus().Artifacts[0].Digest = string(d) }
}

func withBoot(b v1alpha1.BootStatus) edit {
	return func(cfg v1alpha1.Config) { cfg.ConfigStatus().Boot = &b }
}

func spec(change func(*v1alpha1.HTTPBootConfigSpec)) edit {
	return func(cfg v1alpha1.Config) { change(&cfg.(*v1alpha1.HTTPBootConfig).Spec) }
}

func ipxeSpec(change func(*v1alpha1.IPXEBootConfigSpec)) edit {
	return func(cfg v1alpha1.Config) { change(&cfg.(*v1alpha1.IPXEBootConfig).Spec) }
}

// bootedAt is the status of a machine whose attempt was opened at this time and
// whose boot bytes went to this address.
func bootedAt(addr, proof string, at time.Time) edit {
	return func(cfg v1alpha1.Config) {
		stage := v1alpha1.BootStageName(boot.StageUKI)
		if cfg.Kind() == v1alpha1.KindIPXEBootConfig {
			stage = v1alpha1.BootStageName(boot.StageIPXEScript)
		}
		cfg.ConfigStatus().Boot = &v1alpha1.BootStatus{Attempt: 2, OpenedTime: micro(at), Stages: []v1alpha1.BootStage{
			{Name: stage, Attempt: 2, ClientAddress: addr, Proof: proof, StartedTime: micro(at)},
		}}
	}
}

func micro(t time.Time) *metav1.MicroTime {
	m := metav1.NewMicroTime(t)
	return &m
}

// filled returns an inventory that has seen these configs.
func filled(o Options, configs ...v1alpha1.Config) *Inventory {
	i := New(o)
	for _, c := range configs {
		i.put(c)
	}
	i.settleAll()
	i.synced.Store(true)
	return i
}

// names says which plans a lookup found, or its error.
func names(plans []*boot.Plan, err error) string {
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, p := range plans {
		all = append(all, p.Object.Kind+" "+p.Object.Name)
	}
	return strings.Join(all, ", ")
}

func node(name string, podCIDR string, addresses ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: podCIDR, PodCIDRs: []string{podCIDR}}}
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: name})
	return n
}

// rack returns n configs of as many machines.
func rack(n int) []v1alpha1.Config {
	all := make([]v1alpha1.Config, n)
	for k := range all {
		all[k] = httpConfig(fmt.Sprintf("machine-%05d", k), k, claiming(rackUUID(k), rackMAC(k), rackAddr(k)))
	}
	return all
}

func rackUUID(k int) string { return fmt.Sprintf("%08x-4455-6677-8899-aabbccddeeff", k+1) }
func rackMAC(k int) string  { return fmt.Sprintf("52:54:00:%02x:%02x:%02x", k>>16&255, k>>8&255, k&255) }
func rackAddr(k int) string { return fmt.Sprintf("10.%d.%d.%d", k>>16&255, k>>8&255, k&255) }

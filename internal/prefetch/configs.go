package prefetch

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
)

// record is what prefetch remembers of a config.
type record struct {
	uid string
	// documents are where the machine's documents are read from, by purpose.
	documents [purposes]documentKey
	ways      []way
	// generation and attempt: a change of either makes what is in memory doubtful.
	generation int64
	attempt    boot.Attempt
	// once: the machine boots once, and not whenever it likes.
	once bool
}

// purpose is what a document is for.
type purpose uint8

const (
	// forMachine: Ignition, or user data for cloud-init.
	forMachine purpose = iota
	// forScript: the machine's own iPXE script.
	forScript
	purposes
)

// documentKey is whose document it is, what for, and where it is read from.
// Documents are only ever found by all of it; without a Secret there is none.
type documentKey struct {
	object            string
	purpose           purpose
	namespace, secret string
	// metaData and networkData are Secrets that go with the machine's document.
	metaData, networkData string
}

// way is one way to get a blob: what it is, and whose credentials to use.
type way struct {
	artifact              boot.Artifact
	namespace, pullSecret string
}

// configs are all configs, by name and by UID.
type configs struct {
	mu     sync.RWMutex
	byName map[objectKey]*record
	byUID  map[string]*record
}

type objectKey struct{ kind, namespace, name string }

func newConfigs() *configs {
	return &configs{byName: map[objectKey]*record{}, byUID: map[string]*record{}}
}

// put takes in a config and returns what was known before, and what is now.
func (c *configs) put(cfg v1alpha1.Config) (before, after *record) {
	after = recordOf(cfg)
	k := objectKey{cfg.Kind(), cfg.GetNamespace(), cfg.GetName()}
	c.mu.Lock()
	defer c.mu.Unlock()
	before = c.byName[k]
	c.forget(before)
	c.byName[k], c.byUID[after.uid] = after, after
	return before, after
}

// drop forgets a config and returns what was known of it.
func (c *configs) drop(k objectKey) *record {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.byName[k]
	c.forget(r)
	delete(c.byName, k)
	return r
}

func (c *configs) forget(r *record) {
	if r != nil && c.byUID[r.uid] == r {
		delete(c.byUID, r.uid)
	}
}

// document says which Secret holds this document of an object, if any does.
func (c *configs) document(uid string, p purpose) (documentKey, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	r := c.byUID[uid]
	if r == nil {
		return documentKey{}, false
	}
	return r.documents[p], r.documents[p].secret != ""
}

func recordOf(cfg v1alpha1.Config) *record {
	c := cfg.Common()
	r := &record{uid: string(cfg.GetUID()), generation: cfg.GetGeneration(), attempt: claim.Attempt(cfg), once: c.BootPolicy == v1alpha1.BootPolicyOnce}
	r.documents[forMachine] = documentKey{
		object: r.uid, purpose: forMachine, namespace: cfg.GetNamespace(),
		secret: nameOf(c.IgnitionSecretRef), metaData: nameOf(c.MetaDataSecretRef), networkData: nameOf(c.NetworkDataSecretRef),
	}
	if ipxe, ok := cfg.(*v1alpha1.IPXEBootConfig); ok {
		r.documents[forScript] = documentKey{object: r.uid, purpose: forScript, namespace: cfg.GetNamespace(), secret: nameOf(ipxe.Spec.IPXEScriptSecretRef)}
	}
	for _, a := range cfg.ConfigStatus().Artifacts {
		// Without a source nobody can pull it; the controller never says so.
		if d, err := boot.ParseDigest(a.Digest); err == nil && a.Source != "" {
			r.ways = append(r.ways, way{
				artifact:  boot.Artifact{Role: boot.Role(a.Role), Digest: d, Size: a.Size, Source: a.Source},
				namespace: cfg.GetNamespace(), pullSecret: nameOf(c.PullSecretRef),
			})
		}
	}
	for n := range r.ways {
		if r.ways[n].pullSecret == "" {
			r.ways[n].namespace = "" // the same way for everyone
		}
	}
	return r
}

func nameOf(ref *corev1.LocalObjectReference) string {
	if ref == nil {
		return ""
	}
	return ref.Name
}

// Register subscribes to the informers of both kinds. It does not wait for
// them; the cache may be started before or after.
func (p *Prefetch) Register(ctx context.Context, informers cache.Informers) error {
	p.register.Lock()
	defer p.register.Unlock()
	for kind, object := range map[string]client.Object{
		v1alpha1.KindHTTPBootConfig: &v1alpha1.HTTPBootConfig{},
		v1alpha1.KindIPXEBootConfig: &v1alpha1.IPXEBootConfig{},
	} {
		informer, err := informers.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("getting the informer of %s: %w", kind, err)
		}
		h, err := informer.AddEventHandler(p.handler(kind))
		if err != nil {
			return fmt.Errorf("subscribing to the informer of %s: %w", kind, err)
		}
		p.handlers = append(p.handlers, h)
	}
	return nil
}

// HasSynced says whether every config that there was at the start was seen.
func (p *Prefetch) HasSynced() bool {
	p.register.Lock()
	defer p.register.Unlock()
	return len(p.handlers) > 0 && !slices.ContainsFunc(p.handlers, func(h toolscache.ResourceEventHandlerRegistration) bool { return !h.HasSynced() })
}

func (p *Prefetch) handler(kind string) toolscache.ResourceEventHandler {
	put := func(obj any) {
		if cfg, ok := obj.(v1alpha1.Config); ok {
			p.put(cfg)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    put,
		UpdateFunc: func(_, obj any) { put(obj) },
		DeleteFunc: func(obj any) {
			k, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(obj)
			if err != nil {
				return
			}
			if namespace, name, err := toolscache.SplitMetaNamespaceKey(k); err == nil {
				p.drop(objectKey{kind, namespace, name})
			}
		},
	}
}

func (p *Prefetch) put(cfg v1alpha1.Config) {
	before, after := p.configs.put(cfg)
	var old []way
	if before != nil {
		old = before.ways
	}
	if !slices.Equal(old, after.ways) {
		p.pulls.replace(old, after.ways)
	}
	p.secrets.changed(before, after)
}

func (p *Prefetch) drop(k objectKey) {
	if r := p.configs.drop(k); r != nil {
		p.pulls.replace(r.ways, nil)
		p.secrets.changed(r, nil)
	}
}

package move

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

const (
	// requestTimeout ends a request to an API server that does not answer.
	requestTimeout = 30 * time.Second
	// pageSize is how many objects are listed at once.
	pageSize = 500
	// amendTries bounds how often a change is made again because someone else
	// was faster.
	amendTries = 20
)

// Connect returns a client as Run needs it: without a cache, patient for 30 s.
func Connect(config *rest.Config) (client.Client, error) {
	config = rest.CopyConfig(config)
	config.Timeout = requestTimeout
	config.QPS, config.Burst = 200, 400
	config.WarningHandler = rest.NoWarnings{}
	if config.UserAgent == "" {
		config.UserAgent = FieldManager
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: scheme})
}

// cluster is one of the two, and its name in messages.
type cluster struct {
	client.Client
	name string
}

// uid identifies a cluster for as long as it lives.
func (c cluster) uid(ctx context.Context) (string, error) {
	var ns corev1.Namespace
	if err := c.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &ns); err != nil {
		return "", fmt.Errorf("reading namespace %s of the %s, whose UID identifies the cluster: %w", metav1.NamespaceSystem, c.name, err)
	}
	return string(ns.UID), nil
}

// identify names the move after both clusters.
func (m *mover) identify(ctx context.Context) error {
	from, err := m.source.uid(ctx)
	if err != nil {
		return err
	}
	to, err := m.target.uid(ctx)
	if err != nil {
		return err
	}
	if from == to {
		return &Refused{Problems: []string{"source and target are the same cluster; give two different kubeconfigs or contexts"}}
	}
	m.id = movePrefix + clip(from, 8) + "-" + clip(to, 8)
	return nil
}

// read returns an object, or nil when there is none.
func (c cluster) read(ctx context.Context, k key) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(k.gvk())
	err := c.Get(ctx, client.ObjectKey{Namespace: k.namespace, Name: k.name}, u)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // no object is what was asked about
	case err != nil:
		return nil, fmt.Errorf("reading %s on the %s: %w", k, c.name, err)
	}
	return u, nil
}

// must is read for what has to be there.
func (c cluster) must(ctx context.Context, k key) (*unstructured.Unstructured, error) {
	u, err := c.read(ctx, k)
	if err == nil && u == nil {
		err = fmt.Errorf("%s is not on the %s any more: someone deleted it during the move", k, c.name)
	}
	return u, err
}

// list calls each with every object of a kind in these namespaces, page by page;
// none means all. A kind that is not served has no objects, and known is false.
func (c cluster) list(ctx context.Context, gvk schema.GroupVersionKind, namespaces []string, each func(*unstructured.Unstructured), opts ...client.ListOption) (known bool, err error) {
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, ns := range namespaces {
		page := &unstructured.UnstructuredList{}
		page.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		for more := true; more; more = page.GetContinue() != "" {
			err := c.List(ctx, page, append([]client.ListOption{client.InNamespace(ns), client.Limit(pageSize), client.Continue(page.GetContinue())}, opts...)...)
			if meta.IsNoMatchError(err) {
				return false, nil
			}
			if err != nil {
				return false, fmt.Errorf("listing %s on the %s: %w", gvk.Kind, c.name, err)
			}
			for i := range page.Items {
				each(&page.Items[i])
			}
		}
	}
	return true, nil
}

// amend reads an object and writes what change makes of it, again while others
// are faster. change returns false when there is nothing to write. It returns
// the object as it is then.
func (c cluster) amend(ctx context.Context, k key, change func(*unstructured.Unstructured) (bool, error)) (*unstructured.Unstructured, error) {
	for try := 1; ; try++ {
		live, err := c.must(ctx, k)
		if err != nil {
			return nil, err
		}
		changed, err := change(live)
		if err != nil || !changed {
			return live, err
		}
		err = c.Update(ctx, live, client.FieldOwner(FieldManager))
		if err == nil {
			return live, nil
		}
		if !apierrors.IsConflict(err) || try == amendTries {
			return nil, fmt.Errorf("changing %s on the %s: %w", k, c.name, err)
		}
	}
}

// remove deletes this very object, unless it was changed since it was read; then
// the error is a conflict.
func (c cluster) remove(ctx context.Context, u *unstructured.Unstructured) error {
	uid, version := u.GetUID(), u.GetResourceVersion()
	return c.Delete(ctx, u, client.Preconditions{UID: &uid, ResourceVersion: &version})
}

func clip(s string, n int) string { return s[:min(n, len(s))] }

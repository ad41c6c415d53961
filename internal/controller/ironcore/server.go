package ironcore

import (
	"context"
	"encoding/json"
	"fmt"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

var (
	serverKind        = metalv1alpha1.SchemeGroupVersion.WithKind("Server")
	configurationKind = metalv1alpha1.SchemeGroupVersion.WithKind("ServerBootConfiguration")
)

// newServer is a Server as the cache holds it. A typed informer fails as a whole
// when one Server has an address that does not parse; this one does not look.
func newServer() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(serverKind)
	return u
}

// strip takes from an object what is not needed here, before the cache keeps it.
func strip(o any) (any, error) {
	switch o := o.(type) {
	case *unstructured.Unstructured:
		stripServer(o)
	case *metalv1alpha1.ServerBootConfiguration:
		o.ManagedFields = nil
	case *v1alpha1.HTTPBootConfig:
		o.ManagedFields, o.Status.Artifacts, o.Status.Boot = nil, nil, nil
	case *v1alpha1.IPXEBootConfig:
		o.ManagedFields, o.Status.Artifacts, o.Status.Boot = nil, nil, nil
	}
	return o, nil
}

func stripServer(u *unstructured.Unstructured) {
	u.SetManagedFields(nil)
	status, ok := pick(u.Object["status"], "state", "networkInterfaces", "processors").(map[string]any)
	if ok {
		pickEach(status, "networkInterfaces", "name", "ip", "ips", "macAddress")
		pickEach(status, "processors", "type", "architecture", "instructionSet")
	}
	u.Object = map[string]any{
		"apiVersion": u.Object["apiVersion"], "kind": u.Object["kind"], "metadata": u.Object["metadata"],
		"spec":   pick(u.Object["spec"], "systemUUID", "bootConfigurationRef", "maintenanceBootConfigurationRef"),
		"status": status,
	}
}

// pick keeps these keys of an object. What is no object stays as it is, for the
// reader to complain of.
func pick(v any, keys ...string) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	kept := map[string]any{}
	for _, k := range keys {
		if x, there := m[k]; there {
			kept[k] = x
		}
	}
	return kept
}

func pickEach(m map[string]any, list string, keys ...string) {
	items, ok := m[list].([]any)
	if !ok {
		return
	}
	for i := range items {
		items[i] = pick(items[i], keys...)
	}
}

// rawServer is a Server whose lists are read item by item.
type rawServer struct {
	Spec struct {
		SystemUUID                      string                         `json:"systemUUID"`
		BootConfigurationRef            *metalv1alpha1.ObjectReference `json:"bootConfigurationRef"`
		MaintenanceBootConfigurationRef *metalv1alpha1.ObjectReference `json:"maintenanceBootConfigurationRef"`
	} `json:"spec"`
	Status struct {
		State             metalv1alpha1.ServerState `json:"state"`
		NetworkInterfaces []json.RawMessage         `json:"networkInterfaces"`
		Processors        []metalv1alpha1.Processor `json:"processors"`
	} `json:"status"`
}

// server reads a Server from the cache. A network interface that cannot be read
// is left out, with a line in the log; the error NotFound is the API's.
func (r *reconciler) server(ctx context.Context, name string) (*metalv1alpha1.Server, error) {
	u := newServer()
	if err := r.cache.Get(ctx, types.NamespacedName{Name: name}, u); err != nil {
		return nil, err
	}
	s, skipped, err := readServer(u)
	if len(skipped) > 0 {
		r.Logger.V(1).Info("skipped network interfaces that cannot be read", "server", name, "why", skipped)
	}
	return s, err
}

func readServer(u *unstructured.Unstructured) (*metalv1alpha1.Server, []string, error) {
	text, err := json.Marshal(u.Object)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: Server %s: %w", errUnreadable, u.GetName(), err)
	}
	var raw rawServer
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, nil, fmt.Errorf("%w: Server %s: %w", errUnreadable, u.GetName(), err)
	}
	s := &metalv1alpha1.Server{}
	s.Name, s.UID = u.GetName(), u.GetUID()
	s.Spec.SystemUUID = raw.Spec.SystemUUID
	s.Spec.BootConfigurationRef = raw.Spec.BootConfigurationRef
	s.Spec.MaintenanceBootConfigurationRef = raw.Spec.MaintenanceBootConfigurationRef
	s.Status.State = raw.Status.State
	s.Status.Processors = raw.Status.Processors
	var skipped []string
	for _, text := range raw.Status.NetworkInterfaces {
		var nic metalv1alpha1.NetworkInterface
		if err := json.Unmarshal(text, &nic); err != nil {
			skipped = append(skipped, err.Error())
			continue
		}
		s.Status.NetworkInterfaces = append(s.Status.NetworkInterfaces, nic)
	}
	return s, skipped, nil
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// apiServer answers as much of the Kubernetes API as a replica that serves
// needs: lists and watches of configs, status applies, one Secret for all, and a
// Lease that somebody else holds. It lets a replica see 50,000 configs without
// the minutes that it takes to create them.
type apiServer struct {
	mu      sync.Mutex
	configs map[string]*v1alpha1.HTTPBootConfig
	// ipxe are the other kind, which nothing changes.
	ipxe     []v1alpha1.IPXEBootConfig
	version  int
	ignition []byte
	watchers map[chan watchEvent]struct{}
}

type watchEvent struct {
	Type   string                   `json:"type"`
	Object *v1alpha1.HTTPBootConfig `json:"object"`
}

// newIPXEAPIServer serves n configs of the other kind, made by config.
func newIPXEAPIServer(n int, config func(i int) v1alpha1.IPXEBootConfig) *apiServer {
	a := newAPIServer(0, nil, nil)
	for i := range n {
		c := config(i)
		identify(&c.ObjectMeta, i)
		a.ipxe = append(a.ipxe, c)
	}
	return a
}

// identify fills what the API server itself would.
func identify(m *metav1.ObjectMeta, i int) {
	m.Name, m.Namespace, m.ResourceVersion, m.Generation = fmt.Sprintf("machine-%d", i), "bench", "1", 1
	m.UID = types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012x", i))
	m.CreationTimestamp = metav1.NewTime(time.Unix(1700000000, 0))
}

// newAPIServer serves n configs, made by config.
func newAPIServer(n int, ignition []byte, config func(i int) *v1alpha1.HTTPBootConfig) *apiServer {
	a := &apiServer{configs: map[string]*v1alpha1.HTTPBootConfig{}, version: 1, ignition: ignition, watchers: map[chan watchEvent]struct{}{}}
	for i := range n {
		c := config(i)
		c.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.KindHTTPBootConfig}
		identify(&c.ObjectMeta, i)
		a.configs[c.Name] = c
	}
	return a
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, name := r.URL.Path, r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	switch {
	case strings.HasSuffix(path, "/httpbootconfigs") && r.URL.Query().Get("watch") != "":
		a.watch(w, r)
	case strings.HasSuffix(path, "/httpbootconfigs"):
		a.list(w)
	case strings.Contains(path, "/httpbootconfigs/"):
		a.config(w, r, strings.Split(path, "/")[7])
	case strings.Contains(path, "/secrets/"):
		answer(w, http.StatusOK, map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": meta(name), "data": map[string][]byte{v1alpha1.SecretKeyIgnition: a.ignition}})
	case strings.Contains(path, "/leases") && r.Method == http.MethodGet:
		answer(w, http.StatusOK, map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta(name), "spec": map[string]any{"holderIdentity": "another replica", "leaseDurationSeconds": 3600, "renewTime": time.Now().UTC().Format("2006-01-02T15:04:05.000000Z")}})
	case r.URL.Query().Get("watch") != "":
		refuseStreamedList(w, r)
	case strings.HasSuffix(path, "/ipxebootconfigs"):
		answer(w, http.StatusOK, v1alpha1.IPXEBootConfigList{
			TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "IPXEBootConfigList"},
			ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: a.ipxe,
		})
	case r.Method == http.MethodGet:
		answer(w, http.StatusOK, map[string]any{"apiVersion": "v1", "kind": "NodeList", "metadata": map[string]any{"resourceVersion": "1"}, "items": []any{}})
	case strings.Contains(path, "/events"):
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.Copy(w, r.Body)
	default:
		status(w, http.StatusConflict, "Conflict")
	}
}

func (a *apiServer) list(w http.ResponseWriter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	items := make([]v1alpha1.HTTPBootConfig, 0, len(a.configs))
	for _, c := range a.configs {
		items = append(items, *c)
	}
	answer(w, http.StatusOK, v1alpha1.HTTPBootConfigList{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "HTTPBootConfigList"},
		ListMeta: metav1.ListMeta{ResourceVersion: fmt.Sprint(a.version)}, Items: items,
	})
}

// watch streams every change that is made from now on.
func (a *apiServer) watch(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("sendInitialEvents") != "" {
		status(w, http.StatusUnprocessableEntity, "Invalid")
		return
	}
	events := make(chan watchEvent, 1<<16)
	a.mu.Lock()
	a.watchers[events] = struct{}{}
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.watchers, events)
		a.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-events:
			_ = json.NewEncoder(w).Encode(e)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// config reads one config, or applies a status to it.
func (a *apiServer) config(w http.ResponseWriter, r *http.Request, name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.configs[name]
	if !ok {
		status(w, http.StatusNotFound, "NotFound")
		return
	}
	if r.Method == http.MethodPatch {
		changed := c.DeepCopy()
		if err := json.NewDecoder(r.Body).Decode(changed); err != nil {
			status(w, http.StatusBadRequest, "BadRequest")
			return
		}
		a.version++
		changed.ResourceVersion = fmt.Sprint(a.version)
		changed.Status.Conditions = c.Status.Conditions
		a.configs[name] = changed
		c = changed
		for events := range a.watchers {
			events <- watchEvent{Type: "MODIFIED", Object: changed}
		}
	}
	answer(w, http.StatusOK, c)
}

// refuseStreamedList makes clients fall back to a list, and holds their watch.
func refuseStreamedList(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("sendInitialEvents") != "" {
		status(w, http.StatusUnprocessableEntity, "Invalid")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func meta(name string) map[string]any {
	return map[string]any{"name": name, "namespace": "bench", "resourceVersion": "1", "uid": "00000000-0000-4000-9000-000000000000"}
}

func status(w http.ResponseWriter, code int, reason string) {
	answer(w, code, map[string]any{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": code})
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

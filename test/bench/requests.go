package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

const ignitionDocument = `{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/motd","contents":{"source":"data:,hello"}}]}}`

// machineConfig is a ready config of one machine at an address of 127.0.0.0/8,
// with an open attempt, and the UKI of that digest.
func machineConfig(i int, digest string, size int64, source string) *v1alpha1.HTTPBootConfig {
	now := metav1.NowMicro()
	c := &v1alpha1.HTTPBootConfig{
		Spec: v1alpha1.HTTPBootConfigSpec{
			SystemUUID:         fmt.Sprintf("0a1b2c3d-4e5f-4a6b-8c7d-%012x", i),
			NetworkIdentifiers: []string{machineAddress(i).String(), fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255)},
			Image:              strings.SplitN(source, "@", 2)[0] + ":1",
			IgnitionSecretRef:  &corev1.LocalObjectReference{Name: "ignition"},
			BootPolicy:         v1alpha1.BootPolicyAlways,
		},
		Status: v1alpha1.ConfigStatus{
			State: v1alpha1.StateReady, ObservedGeneration: 1,
			Boot: &v1alpha1.BootStatus{Attempt: 1, OpenedTime: &now, OpenedBy: "SpecChanged", OpenedGeneration: 1},
		},
	}
	for _, t := range []string{v1alpha1.ConditionArtifactsReady, v1alpha1.ConditionIgnitionValid, v1alpha1.ConditionIdentifiable, v1alpha1.ConditionReady} {
		c.Status.Conditions = append(c.Status.Conditions, metav1.Condition{Type: t, Status: metav1.ConditionTrue, Reason: t, ObservedGeneration: 1, LastTransitionTime: metav1.Now()})
	}
	if digest != "" {
		c.Status.Artifacts = []v1alpha1.Artifact{{Role: "UKI", Digest: digest, Size: size, Source: source}}
	}
	return c
}

func machineAddress(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + i>>16), byte(i >> 8), byte(i)}) //nolint:gosec // the benchmark's own numbers
}

// endpoints are what machines and DHCP servers ask by the thousand.
var endpoints = []struct{ name, path, headers string }{
	{"httpboot-json", "/httpboot", "Accept: application/json\r\n"},
	{"ignition", "/ignition", ""},
}

// requests measures the endpoints beside a bare handler that writes the same
// bytes, with few and with many configs; few beside many; and the memory that
// many take. Both replicas run all the time, so that each ratio is of figures
// taken within seconds of each other.
func requests(ctx context.Context, binary, dir string) error {
	few, stopFew, err := replicaOf(ctx, binary, filepath.Join(dir, "few"), machines(1000))
	if err != nil {
		return err
	}
	defer stopFew()
	many, stopMany, err := replicaOf(ctx, binary, filepath.Join(dir, "many"), machines(50000))
	if err != nil {
		return err
	}
	defer stopMany()
	for _, e := range endpoints {
		asking := func(r *replica) func(int) target {
			return func(i int) target {
				return target{from: machineAddress(i), to: r.boot, path: e.path, headers: e.headers, right: decodable}
			}
		}
		a, err := besideBare(ctx, dir, 1000, e.name, ">=0.70", asking(few))
		if err != nil {
			return err
		}
		b, err := besideBare(ctx, dir, 50000, e.name, ">=0.70", asking(many))
		if err != nil {
			return err
		}
		v, err := paired(7, b, a)
		if err != nil {
			return err
		}
		ratio(e.name+"-50000-vs-1000", v, ">=0.90")
	}
	mib, err := many.memory("VmRSS")
	if err != nil {
		return err
	}
	ratio("memory-50000-configs-MiB", mib, "<=1024")
	return nil
}

// machines is an API server with n configs.
func machines(n int) *apiServer {
	return newAPIServer(n, []byte(ignitionDocument), func(i int) *v1alpha1.HTTPBootConfig {
		return machineConfig(i, "sha256:"+strings.Repeat("ab", 32), 1<<20, "127.0.0.1:1/os/uki@sha256:"+strings.Repeat("cd", 32))
	})
}

// replicaOf runs a replica that sees what an API server has.
func replicaOf(ctx context.Context, binary, dir string, server *apiServer) (*replica, func(), error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	api := httptest.NewServer(server)
	stop := func() { api.CloseClientConnections(); api.Close() }
	r, err := startReplica(ctx, binary, dir, api)
	if err != nil {
		stop()
		return nil, nil, err
	}
	return r, func() { r.stop(); stop() }, nil
}

// besideBare prints an endpoint's ratio and returns what measures it again.
func besideBare(ctx context.Context, dir string, n int, name, goal string, machine func(i int) target) (func() (float64, error), error) {
	bodies, targets, err := targetsOf(n, machine)
	if err != nil {
		return nil, err
	}
	address, stop, err := startBare(ctx, dir, bodies[0])
	if err != nil {
		return nil, err
	}
	defer stop()
	ours, bare := measurements(targets, bodies, address)
	v, err := paired(5, ours, bare)
	if err != nil {
		return nil, fmt.Errorf("%s with %d configs: %w", name, n, err)
	}
	ratio(fmt.Sprintf("%s-%d-vs-bare-handler", name, n), v, goal)
	return ours, nil
}

// targetsOf returns eight machines spread over the configs, and what each of
// them is answered.
func targetsOf(n int, machine func(i int) target) ([][]byte, []target, error) {
	var bodies [][]byte
	var targets []target
	for k := range 8 {
		t := machine(k * (n / 8))
		body, err := t.first()
		if err != nil {
			return nil, nil, err
		}
		bodies, targets = append(bodies, body), append(targets, t)
	}
	return bodies, targets, nil
}

// measurements returns what measures the operator and what measures the bare
// handler, with the same number of connections.
func measurements(targets []target, bodies [][]byte, bareAddress string) (ours, bare func() (float64, error)) {
	toBare := make([]target, len(targets))
	same := make([][]byte, len(targets))
	for i, t := range targets {
		t.to = bareAddress
		toBare[i], same[i] = t, bodies[0]
	}
	const d = 2 * time.Second
	return func() (float64, error) { return requestsPerSecond(targets, bodies, d) },
		func() (float64, error) { return requestsPerSecond(toBare, same, d) }
}

// decodable is right for JSON.
func decodable(resp *http.Response, body []byte) error {
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.300s", resp.Status, body)
	}
	return nil
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// scripts measures /ipxe/{mac}, asked by whoever claims to be that machine,
// beside a bare handler that writes the same bytes.
func scripts(ctx context.Context, binary, dir string) error {
	for _, n := range []int{1000, 50000} {
		if err := scriptsOf(ctx, binary, filepath.Join(dir, fmt.Sprint(n)), n); err != nil {
			return err
		}
	}
	return nil
}

func scriptsOf(ctx context.Context, binary, dir string, n int) error {
	r, stop, err := replicaOf(ctx, binary, dir, newIPXEAPIServer(n, ipxeConfig))
	if err != nil {
		return err
	}
	defer stop()
	_, err = besideBare(ctx, dir, n, "ipxe-script", ">=0.60", func(i int) target {
		return target{from: stranger(i), to: r.boot, path: "/ipxe/" + mac(i), right: func(resp *http.Response, body []byte) error {
			return isScriptOf(i, resp, body)
		}}
	})
	return err
}

// stranger is an address that no config lists.
func stranger(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 200, byte(i >> 8), byte(i)}) //nolint:gosec // the benchmark's own numbers
}

func mac(i int) string { return fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255) }

// argument is what tells the scripts of machines apart.
func argument(i int) string { return fmt.Sprintf("machine=%d", i) }

// ipxeConfig is a ready config of one machine.
func ipxeConfig(i int) v1alpha1.IPXEBootConfig {
	source := "127.0.0.1:1/os/pxe@sha256:" + strings.Repeat("cd", 32)
	now := metav1.NowMicro()
	c := v1alpha1.IPXEBootConfig{
		Spec: v1alpha1.IPXEBootConfigSpec{
			SystemUUID: fmt.Sprintf("0a1b2c3d-4e5f-4a6b-8c7d-%012x", i), NetworkIdentifiers: []string{machineAddress(i).String(), mac(i)},
			Image: "127.0.0.1:1/os/pxe:1", KernelArguments: []string{"quiet", argument(i)}, BootPolicy: v1alpha1.BootPolicyAlways,
		},
		Status: v1alpha1.ConfigStatus{
			State: v1alpha1.StateReady, ObservedGeneration: 1,
			Boot: &v1alpha1.BootStatus{Attempt: 1, OpenedTime: &now, OpenedBy: "SpecChanged", OpenedGeneration: 1},
			Artifacts: []v1alpha1.Artifact{
				{Role: "Kernel", Digest: "sha256:" + strings.Repeat("ab", 32), Size: 1 << 20, Source: source},
				{Role: "Initrd", Digest: "sha256:" + strings.Repeat("ef", 32), Size: 1 << 20, Source: source},
			},
		},
	}
	for _, t := range []string{v1alpha1.ConditionArtifactsReady, v1alpha1.ConditionIgnitionValid, v1alpha1.ConditionIdentifiable, v1alpha1.ConditionReady} {
		c.Status.Conditions = append(c.Status.Conditions, metav1.Condition{Type: t, Status: metav1.ConditionTrue, Reason: t, ObservedGeneration: 1, LastTransitionTime: metav1.Now()})
	}
	return c
}

// isScriptOf is right for the script of a machine.
func isScriptOf(i int, resp *http.Response, body []byte) error {
	if resp.StatusCode != http.StatusOK || !bytes.HasPrefix(body, []byte("#!ipxe\n")) || !bytes.Contains(body, []byte(argument(i))) {
		return fmt.Errorf("%s: not the script of machine %d: %.300s", resp.Status, i, body)
	}
	return nil
}

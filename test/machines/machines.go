// Package machines has machines in every stage of a boot, as a cluster would show them
// at one moment, for tests of what tells of them.
package machines

import (
	"bytes"
	_ "embed"
	"fmt"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/timeline"
)

//go:embed machines.yaml
var manifest []byte

// Now is the moment.
var Now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// All returns the machines. Most are named after what is the matter with them.
func All() ([]timeline.Machine, error) {
	var configs []v1alpha1.Config
	var hosts []*metal3.BareMetalHost
	for i, document := range bytes.Split(manifest, []byte("\n---\n")) {
		var head struct{ Kind string }
		if err := yaml.Unmarshal(document, &head); err != nil {
			return nil, fmt.Errorf("reading object %d: %w", i, err)
		}
		var err error
		switch head.Kind {
		case v1alpha1.KindHTTPBootConfig:
			configs, err = read(configs, document, &v1alpha1.HTTPBootConfig{})
		case v1alpha1.KindIPXEBootConfig:
			configs, err = read(configs, document, &v1alpha1.IPXEBootConfig{})
		default:
			h := &metal3.BareMetalHost{}
			err = yaml.UnmarshalStrict(document, h)
			hosts = append(hosts, h)
		}
		if err != nil {
			return nil, fmt.Errorf("reading object %d, a %s: %w", i, head.Kind, err)
		}
	}
	return timeline.Group(configs, hosts), nil
}

func read(to []v1alpha1.Config, document []byte, c v1alpha1.Config) ([]v1alpha1.Config, error) {
	err := yaml.UnmarshalStrict(document, c)
	return append(to, c), err
}

// Named returns one of them.
func Named(name string) (timeline.Machine, error) {
	all, err := All()
	for _, m := range all {
		if m.Name == name {
			return m, err
		}
	}
	return timeline.Machine{}, fmt.Errorf("there is no machine %s: %w", name, err)
}

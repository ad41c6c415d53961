package ironcore

import (
	"fmt"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"

	"github.com/boot-operator/boot-operator/internal/presence"
)

// neededKinds are those without which there is nothing to translate.
var neededKinds = []string{"Server", "ServerBootConfiguration"}

// watch has t translate while metal-operator's kinds are served.
func (t *translator) watch() error {
	active, err := presence.Gauge(t.Registerer, "boot_operator_ironcore_active",
		"1 while this replica translates ServerBootConfigurations, 0 while it does not lead or metal-operator's kinds are missing.")
	if err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	t.presence, err = presence.New(presence.Options{
		Config: t.config, HTTPClient: t.http,
		GroupVersion: metalv1alpha1.SchemeGroupVersion, Kinds: neededKinds,
		Run: t.run, Doing: "translating ServerBootConfigurations",
		Interval: t.DiscoveryInterval, Active: active, Logger: t.Logger,
	})
	return err
}

package bootconfig

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/phase"
)

// anybody may claim anything.
type anybody struct{}

func (anybody) MayClaim(string) bool { return true }

func (anybody) Conflict(v1alpha1.Config) (boot.Ref, string, bool) { return boot.Ref{}, "", false }

// A URL that the machine's BMC can hold names the machine as far as that URL is worth;
// whether anything else does, the reason says.
func TestAURLInABMCNamesTheMachine(t *testing.T) {
	for _, c := range []struct {
		name            string
		proof           string
		minimum         v1alpha1.Proof
		identifiers     []string
		netboot, known  bool
		reason, message string
	}{
		{"nothing else does", "Proxy", "", []string{"52:54:00:aa:bb:01"}, false, true, v1alpha1.ReasonIdentifiedByBMC, "HttpBootUri"},
		{"its network does too", "BMC", "", []string{"52:54:00:aa:bb:01"}, true, true, v1alpha1.ReasonIdentifiable, "HttpBootUri"},
		{"an address does too", "BMC", "", []string{"10.0.0.5"}, false, true, v1alpha1.ReasonIdentifiable, "HttpBootUri"},
		{"no BMC can", "", "", []string{"52:54:00:aa:bb:01"}, false, false, "", "does not show who is asking"},
		{"it is worth less than what is asked for", "Proxy", "BMC", []string{"10.0.0.5"}, false, false, "", "minimumProof is BMC"},
		{"a word that is no proof", "Certainly", "", []string{"52:54:00:aa:bb:01"}, false, false, "", "does not show who is asking"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &reconciler{Options: Options{Claims: anybody{}, MinimumProof: boot.Address, Architecture: boot.AMD64, Netboot: c.netboot}}
			cfg := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m"}}
			cfg.Spec.NetworkIdentifiers, cfg.Spec.MinimumProof = c.identifiers, c.minimum
			cfg.Status.Boot = &v1alpha1.BootStatus{PinsProof: c.proof}
			if c.proof != "" {
				cfg.Status.Boot.PinsURL = "HttpBootUri"
			}
			err := r.identify(context.Background(), cfg)
			require.Equal(t, c.known, phase.IsDone(err), "%v", err)
			require.ErrorContains(t, err, c.message)
			if c.known {
				require.Equal(t, phase.Done(c.reason, "%s", err.Error()), err)
			}
		})
	}
}

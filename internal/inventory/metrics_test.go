package inventory

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func readyIs(status metav1.ConditionStatus, reason string) edit {
	return func(cfg v1alpha1.Config) {
		c := &cfg.ConfigStatus().Conditions[0]
		c.Status, c.Reason = status, reason
	}
}

func TestConfigsAreCountedByWhatTheyAreNow(t *testing.T) {
	i := filled(Options{}, httpConfig("a", 0), httpConfig("b", 1), ipxeConfig("c", 2, notReadyYet),
		httpConfig("d", 3, readyIs("False", v1alpha1.ReasonImageNotFound)), httpConfig("e", 4, readyIs("Perhaps", "attacker-chosen-"+strings.Repeat("x", 500))))
	expect := func(want string) {
		t.Helper()
		require.NoError(t, testutil.CollectAndCompare(collector{i, time.Now}, strings.NewReader("# HELP boot_operator_configs HTTPBootConfigs and IPXEBootConfigs, by kind, by the status of their condition Ready (true, false or unknown) and by its reason. Every replica counts them all.\n# TYPE boot_operator_configs gauge\n"+want), "boot_operator_configs"))
	}
	expect(`boot_operator_configs{kind="HTTPBootConfig",ready="true",reason="Ready"} 2
boot_operator_configs{kind="HTTPBootConfig",ready="false",reason="ImageNotFound"} 1
boot_operator_configs{kind="HTTPBootConfig",ready="unknown",reason="other"} 1
boot_operator_configs{kind="IPXEBootConfig",ready="unknown",reason="none"} 1
`)
	i.put(httpConfig("d", 3))                      // ready now, the same claim
	i.put(httpConfig("b", 1, claiming("9.9.9.9"))) // another claim
	i.drop(objectKey{0, defaultName, "e"})
	i.drop(objectKey{1, defaultName, "c"})
	expect("boot_operator_configs{kind=\"HTTPBootConfig\",ready=\"true\",reason=\"Ready\"} 3\n")
}

func TestMachinesThatBootAreThoseWhoseBytesAreNotDelivered(t *testing.T) {
	began := func(*v1alpha1.BootStatus) {}
	done := func(c *v1alpha1.BootStatus) {
		c.Stages = []v1alpha1.BootStage{{Name: v1alpha1.BootStageName(boot.StageUKI), Attempt: 2, CompletedTime: micro(epoch)}}
	}
	attempt := func(opened time.Time, change func(*v1alpha1.BootStatus)) edit {
		b := v1alpha1.BootStatus{Attempt: 2, OpenedTime: micro(opened)}
		change(&b)
		return withBoot(b)
	}
	i := filled(Options{}, httpConfig("idle", 0), httpConfig("booting", 1, attempt(epoch, began)), httpConfig("booted", 2, attempt(epoch, done)),
		httpConfig("lapsed", 3, attempt(epoch.Add(-time.Hour), began)))
	require.NoError(t, testutil.CollectAndCompare(collector{i, func() time.Time { return epoch.Add(time.Minute) }}, strings.NewReader(
		"# HELP boot_operator_machines_booting Boot attempts that are open and in which the boot bytes (UKI or iPXE script) were not delivered completely yet. Every replica counts them all.\n# TYPE boot_operator_machines_booting gauge\nboot_operator_machines_booting 1\n"), "boot_operator_machines_booting"))
}

// The reasons of what machines did, of steps that went well, and of events: Ready
// never has them.
var neverReady = setOf(
	"ArtifactsVerified", "DefaultImage", "ForeignURL", "IgnitionValid", "CloudConfig", "NoIgnition", "Identifiable", "IdentifiedByClaim", "IdentifiedByBMC",
	"SeveralMachinesFromOneAddress", "ClientAddressTranslated", "OneMachine", "UKIDelivered", "UKIDeliveryIncomplete", "IPXEScriptDelivered",
	"IPXEScriptDeliveryIncomplete", "IgnitionDataDelivered", "IgnitionDeliveryIncomplete", "CloudInitDataDelivered", "CloudInitDeliveryIncomplete",
	"NewAttempt", "AttemptOpened", "BootAborted", "BootInterfaceChanged", "SecretContested", "BootOffered", "ForeignBootOffer", "NoForeignBootOffer", "NoBootProgram", "RelayPortChanged",
)

// A reason that is added to the API has to be put into one list or the other, or
// dashboards show it as "other".
func TestEveryReasonOfTheAPIIsKnown(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../api/v1alpha1/conditions.go", nil, 0)
	require.NoError(t, err)
	seen := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		require.NoError(t, err)
		require.True(t, readyReasons[value] != neverReady[value], "put %s into readyReasons or, in this test, into neverReady", value)
		seen++
		return true
	})
	require.Greater(t, seen, 50)
	require.Len(t, readyReasons, seen-len(neverReady), "a reason is listed that the API does not have")
}

package httpserver

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Where the network translates addresses every machine comes from a node. That has to
// be told, and may take nothing away: any workload there can ask the same.
func TestRequestsFromANodeAreToldOf(t *testing.T) {
	const firmware = "UefiHttpBoot/1.0"
	w := newWorld(t, func(w *world) {
		w.options.IsNode = func(a netip.Addr) bool { return a == addrC }
		w.plan.MinimumProof = boot.Address
	})
	w.source.cluster = []netip.Addr{addrC, addrB} // B is a pod's
	base := w.bootServer()
	named := []string{"/ipxe/" + string(macA), "/ipxe?uuid=" + string(uuidA), "/ignition/" + string(uuidA), "/grub/grub.cfg-01-52-54-00-aa-bb-01"}
	for _, path := range named {
		ask(t, addrC, http.MethodGet, base+path)
	}
	o := w.attempts.observed(boot.StageTranslated)
	require.Len(t, o, len(named))
	require.Equal(t, boot.Observation{Object: w.plan.Object, Attempt: 1, Stage: boot.StageTranslated, Addr: addrC, Time: w.clock.now()}, o[0])
	require.Empty(t, w.attempts.observed(boot.StageAmbiguous))

	for _, path := range named { // none of these
		ask(t, addrB, http.MethodGet, base+path)
		ask(t, addrA, http.MethodGet, base+path)
		ask(t, addrC, http.MethodHead, base+path)
	}
	ask(t, addrC, http.MethodGet, base+"/ipxe?uuid="+string(uuidB))
	require.Len(t, w.attempts.observed(boot.StageTranslated), len(named))

	require.Zero(t, testutil.ToFloat64(w.server.metrics.byNode))
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, base+"/httpboot", "User-Agent", firmware).StatusCode)
	require.InDelta(t, 1, testutil.ToFloat64(w.server.metrics.byNode), 0)
	ask(t, addrC, http.MethodGet, base+"/httpboot", "User-Agent", "curl/8")
	ask(t, addrB, http.MethodGet, base+"/httpboot", "User-Agent", firmware)
	ask(t, addrA, http.MethodGet, base+"/httpboot", "User-Agent", firmware)
	require.InDelta(t, 1, testutil.ToFloat64(w.server.metrics.byNode), 0)
	require.Equal(t, 1, strings.Count(w.log.String(), "externalTrafficPolicy: Local"), "said once a minute, with what to do")
	require.Equal(t, 200, get(t, base+"/ignition").StatusCode, "the machine itself is served as ever")
}

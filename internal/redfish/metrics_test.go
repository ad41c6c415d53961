package redfish_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// figures are the series of a metric, by the values of their labels.
func figures(t *testing.T, c prometheus.Collector, name string) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(c))
	all, err := registry.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, family := range all {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			out[strings.Join(labels, " ")] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func TestRequestsAreCountedByVendor(t *testing.T) {
	for profile, vendor := range map[string]string{
		"idrac9": "dell", "ilo5": "hpe", "xcc": "lenovo", "openbmc": "openbmc", "sushy-tools": "sushy", "generic": "other",
	} {
		t.Run(profile, func(t *testing.T) {
			s := simulate(t, profile)
			require.NoError(t, s.on())
			requests := figures(t, s.clients, "boot_operator_bmc_requests_total")
			require.Len(t, requests, 1)
			for labels, n := range requests {
				require.Equal(t, "ok "+vendor, labels)
				require.EqualValues(t, len(s.Log()), n)
				require.Equal(t, n, figures(t, s.clients, "boot_operator_bmc_request_duration_seconds")[vendor])
			}
			require.Empty(t, figures(t, s.clients, "boot_operator_bmc_errors_total"))
		})
	}
}

func TestErrorsOfBMCsAreCountedByReason(t *testing.T) {
	const name = "boot_operator_bmc_errors_total"
	s := simulate(t, "idrac9")
	require.NoError(t, s.on())
	remove := s.Inject(bmcsim.Fault{Method: http.MethodPost, Path: "ComputerSystem.Reset", Answer: &bmcsim.Answer{Status: http.StatusServiceUnavailable}})
	require.ErrorIs(t, s.off(), redfish.ErrBusy)
	remove()
	require.Equal(t, map[string]float64{"busy dell": 1}, figures(t, s.clients, name))
	require.Equal(t, 1.0, figures(t, s.clients, "boot_operator_bmc_requests_total")["failed dell"])

	mine := errors.New("what the borrower made of it")
	fine := simulate(t, "idrac9")
	require.ErrorIs(t, fine.do(func(context.Context, redfish.BMC) error { return mine }), mine)
	require.Empty(t, figures(t, fine.clients, name), "that is no error of a BMC")

	other := simulate(t, "generic")
	other.con.Password = "wrong"
	require.ErrorIs(t, other.on(), redfish.ErrUnauthorized)
	require.ErrorIs(t, other.on(), redfish.ErrUnauthorized)
	require.Equal(t, map[string]float64{"unauthorized other": 2}, figures(t, other.clients, name), "also where it was not tried again")

	gone := simulate(t, "generic")
	gone.server.Close()
	for range 4 {
		require.Error(t, gone.on())
	}
	require.Equal(t, map[string]float64{"unreachable other": 3, "circuit-open other": 1}, figures(t, gone.clients, name))
	require.Equal(t, map[string]float64{"none other": 3}, figures(t, gone.clients, "boot_operator_bmc_requests_total"))
}

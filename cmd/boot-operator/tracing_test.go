package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheEndpointOfTracesIsChecked(t *testing.T) {
	s, err := parse(t, nil)
	require.NoError(t, err)
	require.Empty(t, s.otlpEndpoint, "off by default")
	s, err = parse(t, nil, "--otlp-endpoint=http://collector:4318")
	require.NoError(t, err)
	require.Equal(t, "http://collector:4318/v1/traces", s.otlpEndpoint)
	for _, wrong := range []string{"collector:4318", "grpc://collector:4317", "http://me:hush@collector:4318"} {
		_, err := parse(t, nil, "--otlp-endpoint="+wrong)
		require.ErrorContains(t, err, "--otlp-endpoint")
		require.NotContains(t, err.Error(), "hush")
	}
}

func TestAReplicaIsNamedByItsPod(t *testing.T) {
	t.Setenv("POD_NAME", "boot-operator-7d9f-x2x7")
	require.Equal(t, "boot-operator-7d9f-x2x7", instance())
	t.Setenv("POD_NAME", "")
	require.NotEmpty(t, instance())
}

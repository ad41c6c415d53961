package main

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

func TestSecretBodiesAreNotLoggedHoweverVerboseTheLogIs(t *testing.T) {
	var out bytes.Buffer
	var o options
	require.NoError(t, o.flags().Parse([]string{"--zap-log-level=20", "--zap-devel"}))
	o.zap.DestWriter = &out
	l := discreet(zap.New(zap.UseFlagOptions(&o.zap))).WithName("a").WithValues("k", "v").WithCallDepth(0)
	for level := range 15 {
		l.V(level).Info("said", "level", level)
	}
	require.Contains(t, out.String(), `"level": 7`)
	require.NotContains(t, out.String(), `"level": 8`)
	require.Equal(t, mostVerbose+1, bytes.Count(out.Bytes(), []byte("said")))
	l.Error(errors.New("broken"), "failed")
	require.Contains(t, out.String(), "broken")
	require.NotContains(t, out.String(), "cmd/boot-operator/logging.go", "the line that is named is the caller's")
}

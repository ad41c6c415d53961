package boot

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProofsAreOrdered(t *testing.T) {
	order := []Proof{Unproven, Claimed, Address, Proxy, Relay, BMC}
	for i := 1; i < len(order); i++ {
		require.Greater(t, order[i], order[i-1], "%s is stronger than %s", order[i], order[i-1])
	}
}

func TestParseProof(t *testing.T) {
	for _, p := range []Proof{Claimed, Address, Proxy, Relay, BMC} {
		got, err := ParseProof(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
	}
	for _, s := range []string{"", "Unproven", "address", "Address ", "Proof(9)"} {
		p, err := ParseProof(s)
		require.ErrorIs(t, err, ErrInvalid, s)
		require.ErrorContains(t, err, "Claimed, Address, Proxy, Relay, BMC")
		require.Equal(t, Unproven, p)
	}
	require.Equal(t, "Proof(9)", Proof(9).String())
}

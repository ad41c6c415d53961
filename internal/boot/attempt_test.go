package boot

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAttemptAdmits(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	mine, other := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.6")
	tests := []struct {
		name string
		a    Attempt
		want error
	}{
		{"none yet", Attempt{}, ErrNotReady},
		{"none yet, whatever else is set", Attempt{OpenedAt: now, SecretAddr: other}, ErrNotReady},
		{"just opened", Attempt{Number: 1, OpenedAt: now}, nil},
		{"opened by a clock that is ahead", Attempt{Number: 1, OpenedAt: now.Add(time.Minute)}, nil},
		{"at its last moment", Attempt{Number: 1, OpenedAt: now.Add(-AttemptLifetime)}, nil},
		{"after it", Attempt{Number: 1, OpenedAt: now.Add(-AttemptLifetime - time.Nanosecond)}, ErrClosed},
		{"served to me just now", Attempt{Number: 1, OpenedAt: now, SecretServedAt: now, SecretAddr: mine}, nil},
		{"served to me within the grace", Attempt{Number: 1, OpenedAt: now, SecretServedAt: now.Add(-SecretGrace + time.Nanosecond), SecretAddr: mine}, nil},
		{"served to me before", Attempt{Number: 1, OpenedAt: now, SecretServedAt: now.Add(-SecretGrace), SecretAddr: mine}, ErrClosed},
		{"served to another", Attempt{Number: 1, OpenedAt: now, SecretServedAt: now, SecretAddr: other}, ErrContested},
		{"spent says nothing of secrets", Attempt{Number: 1, OpenedAt: now, Spent: true, BootServedAt: now}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.a.Admit(mine, now)
			if tt.want == nil {
				require.NoError(t, err)
				require.True(t, tt.a.Open(now))
				return
			}
			require.ErrorIs(t, err, tt.want)
			if tt.want != ErrContested { //nolint:errorlint // a table's own value
				require.False(t, tt.a.Open(now))
			}
		})
	}
}

package observe

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Another replica, cut off from the API server, is asked again with the token of
// a boot that is over: that must not open an attempt in which secrets are served.
func TestABootByATokenOpensNoAttemptButTheTokens(t *testing.T) {
	over := boot.Attempt{Number: 3, OpenedAt: after(10 * time.Minute), BootServedAt: after(11 * time.Minute), SecretServedAt: after(12 * time.Minute), SecretAddr: addrA}
	later := over
	later.Number = 5
	for name, c := range map[string]struct {
		told   boot.Attempt
		token  int64
		number int64
		opens  bool
	}{
		"the token's attempt is over":            {over, 3, 3, false},
		"later ones have come and gone":          {later, 3, 3, false},
		"the object has not heard of it":         {boot.Attempt{Number: 2, OpenedAt: t0, BootServedAt: t0}, 3, 3, true},
		"a boot that was known by its address":   {over, 0, 4, true},
		"a token of an attempt that moved since": {over, 2, 4, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := &entry{}
			e.learn(boot.Attempt{Number: 2, OpenedAt: t0, BootServedAt: t0}, boot.Always)
			a := e.open(boot.Client{Addr: addrA, Proof: boot.Proxy, Attempt: c.token}, after(20*time.Minute))
			require.EqualValues(t, 3, a.Number)
			now := e.learn(c.told, boot.Always)
			require.Equal(t, c.opens, e.pending.Opening != nil)
			if c.opens {
				require.Equal(t, c.number, e.pending.Opening.Number)
				require.Equal(t, c.number, now.Number)
				return
			}
			require.Equal(t, c.told.Number, now.Number)
			require.False(t, now.Open(after(20*time.Minute)), "no secret is served again")
		})
	}
}

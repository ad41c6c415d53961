package boot

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseUUID(t *testing.T) {
	const want = UUID("00112233-4455-6677-8899-aabbccddeeff")
	for _, s := range []string{
		"00112233-4455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-AABBCCDDEEFF", "00112233445566778899aabbccddeeff",
		"{00112233-4455-6677-8899-AABBCCDDEEFF}", "urn:uuid:00112233-4455-6677-8899-aabbccddeeff", "URN:UUID:00112233-4455-6677-8899-aabbccddeeff", " 00112233-4455-6677-8899-aabbccddeeff\n",
	} {
		u, err := ParseUUID(s)
		require.NoError(t, err, s)
		require.Equal(t, want, u, s)
	}
	for _, s := range []string{
		"", "0", "00112233-4455-6677-8899-aabbccddeef", "00112233-4455-6677-8899-aabbccddeeffa", "00112233-4455-6677-8899-aabbccddeefg",
		"0011223-34455-6677-8899-aabbccddeeff", "00112233_4455_6677_8899_aabbccddeeff", "{00112233-4455-6677-8899-aabbccddeeff", "00112233-4455-6677-8899-aabbccddee\x00f",
		strings.Repeat("0", 1<<16),
	} {
		_, err := ParseUUID(s)
		require.ErrorIs(t, err, ErrInvalid, s)
		require.Less(t, len(err.Error()), 300, "an error repeats only a little of its input")
	}
}

// Known defect 28.
func TestPlaceholderUUIDsIdentifyNobody(t *testing.T) {
	for _, s := range []string{
		"00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "03000200-0400-0500-0006-000700080009",
		"00020003-0004-0005-0006-000700080009",
	} {
		_, err := ParseUUID(s)
		require.ErrorIs(t, err, ErrInvalid, s)
	}
	for u := range placeholders {
		require.True(t, placeholders[u.Swapped()], "in the other byte order too: %s", u)
	}
}

func TestUUIDByteOrder(t *testing.T) {
	require.Equal(t, UUID("33221100-5544-7766-8899-aabbccddeeff"), UUID("00112233-4455-6677-8899-aabbccddeeff").Swapped())
	require.Equal(t, UUID("not a UUID"), UUID("not a UUID").Swapped())
	_, err := UUID("junk").Bytes()
	require.ErrorIs(t, err, ErrInvalid)
}

func TestParseMAC(t *testing.T) {
	for _, s := range []string{
		"52:54:00:aa:bb:01", "52:54:00:AA:BB:01", "52-54-00-aa-bb-01", "5254.00aa.bb01", "525400aabb01", "525400AABB01", "01-52-54-00-aa-bb-01", " 52:54:00:aa:bb:01 ",
	} {
		m, err := ParseMAC(s)
		require.NoError(t, err, s)
		require.Equal(t, MAC("52:54:00:aa:bb:01"), m, s)
	}
	for _, s := range []string{
		"", "52:54:00:aa:bb", "52:54:00:aa:bb:01:02", "52:54:00:aa:bb:0", "5:254:00:aa:bb:01", "52:54:00:aa:bb:0g", "52-54:00-aa:bb-01", "02-52-54-00-aa-bb-01",
		"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "525400aabb0", "5254.00aa", "10.0.0.5", "::1", strings.Repeat("a:", 1<<15),
	} {
		_, err := ParseMAC(s)
		require.ErrorIs(t, err, ErrInvalid, s)
		require.Less(t, len(err.Error()), 300)
	}
}

// Known defect 30.
func TestParseAddr(t *testing.T) {
	for s, want := range map[string]string{
		"10.0.0.5": "10.0.0.5", "::ffff:10.0.0.5": "10.0.0.5", "::FFFF:0a00:0005": "10.0.0.5", "2001:DB8:0:0::5": "2001:db8::5", "fe80::1%eth0": "fe80::1", "\t10.0.0.5": "10.0.0.5",
	} {
		a, err := ParseAddr(s)
		require.NoError(t, err, s)
		require.Equal(t, netip.MustParseAddr(want), a, s)
	}
	for _, s := range []string{"", "10.0.0", "10.0.0.5/24", "010.0.0.5", "10.0.0.5:80", "0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "host"} {
		_, err := ParseAddr(s)
		require.ErrorIs(t, err, ErrInvalid, s)
	}
}

func TestParseIdentifier(t *testing.T) {
	a, m, err := ParseIdentifier("::ffff:10.0.0.5")
	require.NoError(t, err)
	require.Equal(t, "10.0.0.5", a.String())
	require.Empty(t, m)
	a, m, err = ParseIdentifier("5254.00AA.BB01")
	require.NoError(t, err)
	require.False(t, a.IsValid())
	require.Equal(t, MAC("52:54:00:aa:bb:01"), m)
	_, _, err = ParseIdentifier("machine-7")
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "machine-7")
}

func FuzzParseUUID(f *testing.F) {
	for _, s := range []string{"00112233-4455-6677-8899-aabbccddeeff", "{00112233-4455-6677-8899-AABBCCDDEEFF}", "urn:uuid:00112233445566778899aabbccddeeff", "{}", "-", "É"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUUID(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			require.Empty(t, u)
			return
		}
		again, err := ParseUUID(string(u))
		require.NoError(t, err)
		require.Equal(t, u, again, "the canonical form is its own")
		require.Equal(t, u, u.Swapped().Swapped())
		_, err = u.Bytes()
		require.NoError(t, err)
		upper, err := ParseUUID(strings.ToUpper(string(u)))
		require.NoError(t, err)
		require.Equal(t, u, upper)
	})
}

func FuzzParseMAC(f *testing.F) {
	for _, s := range []string{"52:54:00:aa:bb:01", "01-52-54-00-aa-bb-01", "5254.00aa.bb01", "525400AABB01", ":::::", "......"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMAC(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			require.Empty(t, m)
			return
		}
		require.Len(t, m, 17)
		for _, form := range []string{string(m), strings.ToUpper(string(m)), strings.ReplaceAll(string(m), ":", "-"), strings.ReplaceAll(string(m), ":", "")} {
			again, err := ParseMAC(form)
			require.NoError(t, err, form)
			require.Equal(t, m, again)
		}
	})
}

func FuzzParseIdentifier(f *testing.F) {
	for _, s := range []string{"10.0.0.5", "::ffff:10.0.0.5", "fe80::1%eth0", "52:54:00:aa:bb:01", "::", "00-00-00-00-00-00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, m, err := ParseIdentifier(s)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		require.NotEqual(t, a.IsValid(), m != "", "exactly one is set")
		canonical := string(m)
		if a.IsValid() {
			require.Equal(t, a, CanonicalAddr(a))
			canonical = a.String()
		}
		b, n, err := ParseIdentifier(canonical)
		require.NoError(t, err)
		require.Equal(t, a, b)
		require.Equal(t, m, n)
	})
}

package translate

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const uuid = "00112233-4455-6677-8899-aabbccddeeff"

func nic(mac string, ips ...string) metalv1alpha1.NetworkInterface {
	n := metalv1alpha1.NetworkInterface{Name: "eth-" + mac, MACAddress: mac}
	for _, ip := range ips {
		n.IPs = append(n.IPs, metalv1alpha1.MustParseIP(ip))
	}
	return n
}

func server(uuid string, nics ...metalv1alpha1.NetworkInterface) *metalv1alpha1.Server {
	return &metalv1alpha1.Server{
		ObjectMeta: metav1.ObjectMeta{Name: "node7"},
		Spec:       metalv1alpha1.ServerSpec{SystemUUID: uuid},
		Status:     metalv1alpha1.ServerStatus{NetworkInterfaces: nics},
	}
}

func TestAServersIdentityIsCanonical(t *testing.T) {
	older := nic("52:54:00:aa:bb:02")
	ip := metalv1alpha1.MustParseIP("10.0.0.2")
	older.IP = &ip //nolint:staticcheck // what older metal-operators wrote
	null := nic("52:54:00:aa:bb:03")
	null.IPs = []metalv1alpha1.IP{{}}
	for _, c := range []struct {
		name   string
		server *metalv1alpha1.Server
		uuid   boot.UUID
		addrs  []string
		macs   []boot.MAC
		skips  []string
	}{
		{"UUID in capitals", server("00112233-4455-6677-8899-AABBCCDDEEFF"), uuid, nil, nil, nil},
		{"no UUID", server("", nic("52:54:00:aa:bb:01", "10.0.0.1")), "", []string{"10.0.0.1"}, []boot.MAC{"52:54:00:aa:bb:01"}, nil},
		{"no NIC", server(uuid), uuid, nil, nil, nil},
		{"one machine in five notations", server(uuid,
			nic("52:54:00:aa:bb:01"), nic("52-54-00-AA-BB-01"), nic("5254.00aa.bb01"), nic("525400AABB01"), nic("01-52-54-00-aa-bb-01")),
			uuid, nil, []boot.MAC{"52:54:00:aa:bb:01"}, nil},
		{"IPv6, mapped IPv4 and repetitions, sorted", server(uuid,
			nic("52:54:00:aa:bb:02", "2001:DB8::5", "10.0.0.9"), nic("52:54:00:aa:bb:01", "::ffff:10.0.0.9", "10.0.0.10", "2001:db8:0::5")),
			uuid, []string{"10.0.0.9", "10.0.0.10", "2001:db8::5"}, []boot.MAC{"52:54:00:aa:bb:01", "52:54:00:aa:bb:02"}, nil},
		{"the older field", server(uuid, older), uuid, []string{"10.0.0.2"}, []boot.MAC{"52:54:00:aa:bb:02"}, nil},
		{"null", server(uuid, null), uuid, nil, []boot.MAC{"52:54:00:aa:bb:03"}, nil},
		{"what names nobody", server(uuid, nic("52:54:00:aa:bb:01", "127.0.0.1", "::1", "fe80::1%eth0", "169.254.1.1", "0.0.0.0", "ff02::1", "10.0.0.1")),
			uuid, []string{"10.0.0.1"}, []boot.MAC{"52:54:00:aa:bb:01"},
			[]string{"loopback", "loopback", "own link", "own link", "one machine", "one machine"}},
		{"NICs that are not Ethernet", server(uuid, nic("80:00:02:08:fe:80:00:00:00:00:00:00:00:11:22:33:44:55:66:77"), nic(""), nic("00:00:00:00:00:00")),
			uuid, nil, nil, []string{"is not a MAC", "is not a MAC", "multicast or zero"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := ReadMachine(c.server)
			require.NoError(t, err)
			require.Equal(t, c.uuid, m.UUID)
			require.Equal(t, c.addrs, texts(m.Addrs))
			require.Equal(t, c.macs, m.MACs)
			require.Len(t, m.Skipped, len(c.skips))
			for i, s := range c.skips {
				require.Contains(t, m.Skipped[i], s)
			}
		})
	}
}

func TestTheOrderOfNICsIsNoChange(t *testing.T) {
	nics := []metalv1alpha1.NetworkInterface{nic("52:54:00:aa:bb:03", "10.0.0.3"), nic("52:54:00:aa:bb:01", "10.0.0.1", "10.0.0.2"), nic("52:54:00:aa:bb:02")}
	first, err := ReadMachine(server(uuid, nics...))
	require.NoError(t, err)
	slices.Reverse(nics)
	second, err := ReadMachine(server(uuid, nics...))
	require.NoError(t, err)
	require.Equal(t, first, second)
}

func TestAServerWithManyAddressesFitsIntoAConfig(t *testing.T) {
	many := func(macs, ips int) *metalv1alpha1.Server {
		s := server(uuid)
		for i := range macs {
			s.Status.NetworkInterfaces = append(s.Status.NetworkInterfaces, nic(fmt.Sprintf("52:54:00:00:00:%02x", i)))
		}
		n := nic("52:54:00:00:00:00")
		for i := range ips {
			n.IPs = append(n.IPs, metalv1alpha1.NewIP(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})))
		}
		s.Status.NetworkInterfaces = append(s.Status.NetworkInterfaces, n)
		return s
	}
	for _, c := range []struct{ macs, ips, wantMACs, wantIPs int }{
		{32, 32, 32, 32}, {1, 100, 1, 63}, {100, 1, 63, 1}, {100, 100, 32, 32}, {40, 30, 34, 30},
	} {
		m, err := ReadMachine(many(c.macs, c.ips))
		require.NoError(t, err)
		require.Len(t, m.MACs, c.wantMACs, "%+v", c)
		require.Len(t, m.Addrs, c.wantIPs, "%+v", c)
		require.Equal(t, c.macs+c.ips > maxIdentifiers, len(m.Skipped) > 0, "what is left out is told")
	}
}

func TestAServerThatNamesNoMachineIsRefused(t *testing.T) {
	for text, s := range map[string]*metalv1alpha1.Server{
		`spec.systemUUID of Server node7: invalid: "node-7" is not a UUID`: server("node-7"),
		"is a placeholder": server("00000000-0000-0000-0000-000000000000", nic("52:54:00:aa:bb:01")),
		"neither spec.systemUUID nor a usable address":                                         server(""),
		`network interface "eth-": invalid: "" is not a MAC address such as 52:54:00:aa:bb:01`: server("", nic("")),
	} {
		_, err := ReadMachine(s)
		require.ErrorIs(t, err, boot.ErrInvalid)
		require.ErrorContains(t, err, text)
	}
}

func TestTheArchitectureIsWhatTheServersCPUsAre(t *testing.T) {
	cpu := func(architecture, instructions string) metalv1alpha1.Processor {
		return metalv1alpha1.Processor{Type: "CPU", Architecture: architecture, InstructionSet: instructions}
	}
	gpu := metalv1alpha1.Processor{Type: "GPU", Architecture: "OEM"}
	for _, c := range []struct {
		name string
		all  []metalv1alpha1.Processor
		want boot.Architecture
	}{
		{"none", nil, ""},
		{"x86-64", []metalv1alpha1.Processor{cpu("x86", "x86-64"), cpu("x86", "x86-64")}, boot.AMD64},
		{"x86 that says no more", []metalv1alpha1.Processor{cpu("x86", "")}, boot.AMD64},
		{"ARM", []metalv1alpha1.Processor{cpu("ARM", "ARM-A64"), gpu}, boot.ARM64},
		{"no type", []metalv1alpha1.Processor{{Architecture: "aarch64"}}, boot.ARM64},
		{"32 bits", []metalv1alpha1.Processor{cpu("ARM", "ARM-A32")}, ""},
		{"another", []metalv1alpha1.Processor{cpu("Power", "PowerISA")}, ""},
		{"two that differ", []metalv1alpha1.Processor{cpu("x86", ""), cpu("ARM", "")}, ""},
		{"only a GPU", []metalv1alpha1.Processor{gpu}, ""},
	} {
		s := server(uuid)
		s.Status.Processors = c.all
		m, err := ReadMachine(s)
		require.NoError(t, err)
		require.Equal(t, c.want, m.Architecture, c.name)
	}
}

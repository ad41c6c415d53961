package inventory

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1000, 50000} {
		i := filled(Options{}, rack(n)...)
		uuids, macs, addrs := make([]boot.UUID, 512), make([]boot.MAC, 512), make([]netip.Addr, 512)
		for k := range uuids {
			m := k * (n / 512)
			uuids[k], macs[k], addrs[k] = boot.UUID(rackUUID(m)), boot.MAC(rackMAC(m)), netip.MustParseAddr(rackAddr(m))
		}
		bench := func(name string, find func(k int) error) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for k := 0; b.Loop(); k++ {
					if err := find(k % 512); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		bench("UUID", func(k int) error { _, err := i.ByUUID(uuids[k]); return err })
		bench("MAC", func(k int) error { _, err := i.ByMAC(macs[k]); return err })
		bench("Addr", func(k int) error { _, err := i.ByAddr(addrs[k]); return err })
	}
}

func BenchmarkEvent(b *testing.B) {
	for _, n := range []int{1000, 50000} {
		i := filled(Options{}, rack(n)...)
		b.Run(fmt.Sprintf("status/%d", n), func(b *testing.B) {
			c := httpConfig("machine-00007", 7, claiming(rackUUID(7), rackMAC(7), rackAddr(7)))
			for b.Loop() {
				i.put(c)
			}
		})
		b.Run(fmt.Sprintf("claim/%d", n), func(b *testing.B) {
			for k := 0; b.Loop(); k++ {
				i.put(httpConfig("probe", k%2, claiming(uuidB, "10.255.0.1")))
			}
		})
	}
}

func TestLookupsAllocateNothing(t *testing.T) {
	i := filled(Options{}, append(rack(100), httpConfig("booted", 0, claiming(uuidB), bootedAt("10.9.9.9", "Proxy", epoch)))...)
	booted := netip.MustParseAddr("10.9.9.9")
	i.putNode(node("n", "10.244.0.0/16", "172.16.0.1"))
	uuid, mac, addr := boot.UUID(rackUUID(7)), boot.MAC(rackMAC(7)), netip.MustParseAddr(rackAddr(7))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, a := i.ByUUID(uuid)
		_, b := i.ByMAC(mac)
		_, c := i.ByAddr(addr)
		_, d := i.ByObject("uid-HTTPBootConfig-machine-00007")
		_, e := i.PublicArtifact(digestA)
		if _, err := i.ByBootAddr(booted); err != nil {
			panic(err)
		}
		if a != nil || b != nil || c != nil || d != nil || e != nil || i.ProvesNothing(addr) {
			panic("not found")
		}
	}))
}

func TestAConfigCostsLittleMemory(t *testing.T) {
	t.Run("never booted", func(t *testing.T) { costsLittleMemory(t, rack(20000)) })
	t.Run("booted", func(t *testing.T) {
		configs := rack(20000)
		for k, c := range configs {
			bootedAt(rackAddr(k), "Proxy", epoch.Add(time.Duration(k)*time.Second))(c)
		}
		costsLittleMemory(t, configs)
	})
}

func costsLittleMemory(t *testing.T, configs []v1alpha1.Config) {
	n := uint64(len(configs))
	before := heapBytes()
	i := filled(Options{}, configs...)
	each := (heapBytes() - before) / n
	runtime.KeepAlive(configs)
	runtime.KeepAlive(i)
	t.Logf("%d bytes for each config beside the informer's own", each)
	require.Less(t, each, uint64(3<<10))
}

func heapBytes() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Everyone claims one UUID, and arrives in the worst order.
func TestAHotIdentifierDoesNotStallTheOperator(t *testing.T) {
	const n = 5000
	i := New(Options{})
	for k := n; k > 0; k-- {
		i.put(httpConfig(fmt.Sprintf("c%05d", k), k, claiming(uuidA)))
	}
	i.settleAll()
	i.synced.Store(true)
	require.Equal(t, "HTTPBootConfig c00001", lookup(t, i, uuidA))
	for k := range n {
		i.drop(objectKey{kindNumber(v1alpha1.KindHTTPBootConfig), defaultName, fmt.Sprintf("c%05d", k+1)})
	}
	require.Equal(t, "not found", lookup(t, i, uuidA))
}

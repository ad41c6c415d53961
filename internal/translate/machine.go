package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// maxIdentifiers is how many addresses a config takes; minMACs of them are kept
// for MAC addresses where a Server has more than that of both.
const (
	maxIdentifiers = 64
	minMACs        = 32
)

// Machine is what a Server tells of the machine that it stands for. Addresses
// are canonical, sorted and there once, so that the order in which NICs were
// found is no change; together they are 64 at most.
type Machine struct {
	// UUID is empty where the Server has none.
	UUID  boot.UUID
	Addrs []netip.Addr
	MACs  []boot.MAC
	// Architecture is empty where the Server does not tell it.
	Architecture boot.Architecture
	// Skipped says what of the Server's network interfaces was of no use, and why.
	Skipped []string
}

// ReadMachine reads a Server. It returns boot.ErrInvalid for a systemUUID that
// is none, and for a Server with neither a UUID nor a usable address. A network
// interface that is of no use is skipped: not every one is Ethernet.
func ReadMachine(s *metalv1alpha1.Server) (Machine, error) {
	m := Machine{Architecture: architecture(s.Status.Processors)}
	if s.Spec.SystemUUID != "" {
		uuid, err := boot.ParseUUID(s.Spec.SystemUUID)
		if err != nil {
			return m, fmt.Errorf("spec.systemUUID of Server %s: %w", s.Name, err)
		}
		m.UUID = uuid
	}
	for _, nic := range s.Status.NetworkInterfaces {
		m.addNIC(nic)
	}
	m.bound(Machine{})
	if m.UUID == "" && len(m.Addrs) == 0 && len(m.MACs) == 0 {
		return m, fmt.Errorf("%w identity: Server %s has neither spec.systemUUID nor a usable address in status.networkInterfaces%s", boot.ErrInvalid, s.Name, m.why())
	}
	return m, nil
}

// why is what was skipped, in parentheses, for an error; empty where nothing was.
func (m *Machine) why() string {
	if len(m.Skipped) == 0 {
		return ""
	}
	return " (" + strings.Join(m.Skipped, "; ") + ")"
}

func (m *Machine) addNIC(nic metalv1alpha1.NetworkInterface) {
	where := interfaceNamed(nic.Name)
	m.addMAC(where, nic.MACAddress)
	if nic.IP != nil { //nolint:staticcheck // older metal-operators fill only this
		m.addAddr(where, nic.IP.Addr) //nolint:staticcheck // as above
	}
	for _, ip := range nic.IPs {
		m.addAddr(where, ip.Addr)
	}
}

func interfaceNamed(name string) string { return fmt.Sprintf("network interface %q", clip(name)) }

func (m *Machine) addMAC(where, text string) {
	mac, err := boot.ParseMAC(text)
	if err != nil {
		m.skip(where, err)
		return
	}
	m.MACs = append(m.MACs, mac)
}

func (m *Machine) addAddr(where string, a netip.Addr) {
	if !a.IsValid() {
		return // null
	}
	a = boot.CanonicalAddr(a)
	switch {
	case a.IsUnspecified() || a.IsMulticast():
		m.skip(where, fmt.Errorf("%s is not the address of one machine", a))
	case a.IsLoopback():
		m.skip(where, fmt.Errorf("%s is every machine's loopback address", a))
	case a.IsLinkLocalUnicast():
		m.skip(where, fmt.Errorf("%s names a machine on its own link only", a))
	default:
		m.Addrs = append(m.Addrs, a)
	}
}

func (m *Machine) skip(where string, why error) {
	if len(m.Skipped) < 8 {
		m.Skipped = append(m.Skipped, fmt.Sprintf("%s: %s", where, why))
	}
}

// bound sorts, drops repetitions, and keeps what a config has room for, those of
// first before others.
func (m *Machine) bound(first Machine) {
	m.Addrs = ordered(first.Addrs, m.Addrs, netip.Addr.Compare)
	m.MACs = ordered(first.MACs, m.MACs, cmp.Compare[boot.MAC])
	all := len(m.Addrs) + len(m.MACs)
	if all > maxIdentifiers {
		m.MACs = m.MACs[:min(len(m.MACs), max(minMACs, maxIdentifiers-len(m.Addrs)))]
		m.Addrs = m.Addrs[:min(len(m.Addrs), maxIdentifiers-len(m.MACs))]
		m.Skipped = append(m.Skipped, fmt.Sprintf("%d of %d addresses: a config takes %d", all-len(m.Addrs)-len(m.MACs), all, maxIdentifiers))
	}
	slices.SortFunc(m.Addrs, netip.Addr.Compare)
	slices.Sort(m.MACs)
}

// ordered is each of first, sorted, and then each of the others, sorted.
func ordered[T comparable](first, others []T, compare func(a, b T) int) []T {
	first, others = sorted(first, compare), sorted(others, compare)
	others = slices.DeleteFunc(others, func(v T) bool { return slices.Contains(first, v) })
	return append(first, others...)
}

func sorted[T comparable](s []T, compare func(a, b T) int) []T {
	slices.SortFunc(s, compare)
	return slices.Compact(s)
}

// architecture is what a Server's processors are, if all CPUs agree. Redfish has
// an instruction set and a coarser architecture for each processor (DSP0268,
// Processor); GPUs and the like are processors there too.
func architecture(processors []metalv1alpha1.Processor) boot.Architecture {
	var found boot.Architecture
	for _, p := range processors {
		if p.Type != "" && !strings.EqualFold(p.Type, "CPU") {
			continue
		}
		a := architectures[strings.ToLower(cmp.Or(p.InstructionSet, p.Architecture))]
		if a == "" || found != "" && found != a {
			return ""
		}
		found = a
	}
	return found
}

// architectures has Redfish's words first, then those of operating systems. A
// server that is "x86" or "ARM" without an instruction set is a 64-bit one.
var architectures = map[string]boot.Architecture{
	"x86-64": boot.AMD64, "x86": boot.AMD64, "x86_64": boot.AMD64, "amd64": boot.AMD64,
	"arm-a64": boot.ARM64, "arm": boot.ARM64, "aarch64": boot.ARM64, "arm64": boot.ARM64,
}

// clip bounds what a message repeats of text that others wrote.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

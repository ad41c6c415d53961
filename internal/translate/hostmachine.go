package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	metal3v1alpha1 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// HostUUID is the SMBIOS UUID that is recorded in a BareMetalHost's annotation
// boot.ironcore.dev/system-uuid, or empty where there is none. It returns
// boot.ErrInvalid for text that is no UUID of one machine.
func HostUUID(h *metal3v1alpha1.BareMetalHost) (boot.UUID, error) {
	text := h.Annotations[v1alpha1.HostSystemUUIDAnnotation]
	if text == "" {
		return "", nil
	}
	uuid, err := boot.ParseUUID(text)
	if err != nil {
		return "", fmt.Errorf("annotation %s of BareMetalHost %s: %w", v1alpha1.HostSystemUUIDAnnotation, h.Name, err)
	}
	return uuid, nil
}

// ReadHost reads the machine of a BareMetalHost, which itself has no field for
// the machine's UUID; that is empty where nobody knows it. Where there are more
// addresses than a config takes, spec.bootMACAddress and those of the annotation
// boot.ironcore.dev/addresses are kept before those of status.hardware. A network
// interface that is of no use is skipped.
//
// It returns boot.ErrInvalid where what the host's author wrote is not an address
// or an architecture, where spec.architecture is not what the machine is, and for
// a host that names no machine.
func ReadHost(h *metal3v1alpha1.BareMetalHost, uuid boot.UUID) (Machine, error) {
	m := Machine{UUID: uuid}
	var err error
	if m.Architecture, err = hostArchitecture(h); err != nil {
		return m, err
	}
	first, err := declared(h)
	if err != nil {
		return m, err
	}
	m.Skipped = first.Skipped
	if h.Status.HardwareDetails != nil {
		for _, nic := range h.Status.HardwareDetails.NIC {
			m.addHostNIC(nic)
		}
	}
	m.bound(first)
	if m.UUID == "" && len(m.Addrs) == 0 && len(m.MACs) == 0 {
		return m, fmt.Errorf("%w identity: BareMetalHost %s has no spec.bootMACAddress, no annotation %s or %s, and no usable address in status.hardware.nics%s",
			boot.ErrInvalid, h.Name, v1alpha1.HostSystemUUIDAnnotation, v1alpha1.HostAddressesAnnotation, m.why())
	}
	return m, nil
}

// declared has the addresses that the host's author wrote.
func declared(h *metal3v1alpha1.BareMetalHost) (Machine, error) {
	var m Machine
	if text := h.Spec.BootMACAddress; text != "" {
		mac, err := boot.ParseMAC(text)
		if err != nil {
			return m, fmt.Errorf("spec.bootMACAddress of BareMetalHost %s: %w", h.Name, err)
		}
		m.MACs = append(m.MACs, mac)
	}
	where := "annotation " + v1alpha1.HostAddressesAnnotation
	for text := range strings.SplitSeq(h.Annotations[v1alpha1.HostAddressesAnnotation], ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		addr, err := boot.ParseAddr(text)
		if err != nil {
			return m, fmt.Errorf("%s of BareMetalHost %s: %w", where, h.Name, err)
		}
		m.addAddr(where, addr)
	}
	return m, nil
}

func (m *Machine) addHostNIC(nic metal3v1alpha1.NIC) {
	where := interfaceNamed(nic.Name)
	m.addMAC(where, nic.MAC)
	if nic.IP == "" {
		return
	}
	addr, err := netip.ParseAddr(nic.IP)
	if err != nil {
		m.skip(where, fmt.Errorf("%q is not an IP address", clip(nic.IP)))
		return
	}
	m.addAddr(where, addr)
}

// declaredArchitectures are the words for spec.architecture: Metal3's, which are
// the kernel's, and those of OCI images.
var declaredArchitectures = map[string]boot.Architecture{
	"x86_64": boot.AMD64, "amd64": boot.AMD64, "aarch64": boot.ARM64, "arm64": boot.ARM64,
}

// hostArchitecture is empty where neither the host nor its hardware tells it.
func hostArchitecture(h *metal3v1alpha1.BareMetalHost) (boot.Architecture, error) {
	var found boot.Architecture
	if hw := h.Status.HardwareDetails; hw != nil {
		found = architectures[strings.ToLower(hw.CPU.Arch)]
	}
	text := h.Spec.Architecture
	if text == "" {
		return found, nil
	}
	want := declaredArchitectures[strings.ToLower(text)]
	if want == "" {
		return "", fmt.Errorf("%w spec.architecture of BareMetalHost %s: %q is none that can be booted; there are x86_64 and aarch64", boot.ErrInvalid, h.Name, clip(text))
	}
	if want != cmp.Or(found, want) {
		return "", fmt.Errorf("%w spec.architecture of BareMetalHost %s: it is %s, but the machine is %s (status.hardware.cpu.arch); correct it, or leave it out",
			boot.ErrInvalid, h.Name, clip(text), clip(h.Status.HardwareDetails.CPU.Arch))
	}
	return want, nil
}

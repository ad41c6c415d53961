package host

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// register tries the credentials, and records which machine this is.
func (v *visit) register(ctx context.Context) error {
	var id redfish.Identity
	var power redfish.PowerReading
	err := v.bmc(ctx, metal3.RegistrationError, func(ctx context.Context, bmc redfish.BMC) (err error) {
		if id, err = bmc.Identity(ctx); err == nil {
			power, err = bmc.Power(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := v.recordIdentity(ctx, id); err != nil {
		return err
	}
	v.host.Status.PoweredOn = isOn(power)
	switch {
	case v.host.Spec.ExternallyProvisioned:
		return v.enter(metal3.StateExternallyProvisioned)
	case v.host.WasProvisioned():
		return v.enter(metal3.StateProvisioned)
	}
	return v.enter(metal3.StateInspecting)
}

// recordIdentity writes the machine's UUID to the host, once: from then on another
// machine behind this BMC is refused. A UUID that many machines share names none.
func (v *visit) recordIdentity(ctx context.Context, id redfish.Identity) error {
	uuid, err := boot.ParseUUID(id.UUID)
	if err != nil || v.host.Annotations[v1alpha1.HostSystemUUIDAnnotation] != "" {
		return nil //nolint:nilerr // a machine without a UUID is known by its addresses
	}
	return v.change(ctx, func(h *metal3.BareMetalHost) {
		if h.Annotations == nil {
			h.Annotations = map[string]string{}
		}
		h.Annotations[v1alpha1.HostSystemUUIDAnnotation] = string(uuid)
	})
}

// inspect finds out what the machine is made of: from the annotation, or from the
// BMC.
func (v *visit) inspect(ctx context.Context) error {
	if text, ok := v.host.Annotations[metal3.HardwareDetailsAnnotation]; ok && v.host.Status.HardwareDetails == nil {
		var h metal3.HardwareDetails
		if err := json.Unmarshal([]byte(text), &h); err != nil {
			return wrong(metal3.InspectionError, ReasonInvalidAnnotation, fmt.Errorf("the annotation %s is not hardware details as JSON: %w", metal3.HardwareDetailsAnnotation, err))
		}
		v.host.Status.HardwareDetails = &h
		return v.enter(metal3.StatePreparing)
	}
	if v.host.InspectionDisabled() {
		return v.enter(metal3.StatePreparing)
	}
	var hw redfish.Hardware
	var id redfish.Identity
	err := v.bmc(ctx, metal3.InspectionError, func(ctx context.Context, bmc redfish.BMC) (err error) {
		if id, err = bmc.Identity(ctx); err == nil {
			hw, err = bmc.Hardware(ctx)
		}
		return err
	})
	if err != nil {
		return err
	}
	v.host.Status.HardwareDetails = hardwareDetails(id, hw, v.host.Spec.BootMACAddress)
	if len(hw.Missing) > 0 {
		v.event("Normal", ReasonInspectionIncomplete, "The BMC did not tell everything: %s", strings.Join(hw.Missing, "; "))
	}
	return v.forgetInspection(ctx)
}

// forgetInspection takes away the annotation that asked for an inspection, once
// the status holds its result.
func (v *visit) forgetInspection(ctx context.Context) error {
	if err := v.enter(metal3.StatePreparing); err != nil {
		return err
	}
	if _, asked := v.host.Annotations[metal3.InspectAnnotationPrefix]; !asked || v.host.InspectionDisabled() {
		return nil
	}
	v.conditions(nil)
	if err := v.save(ctx); err != nil {
		return err
	}
	return v.change(ctx, func(h *metal3.BareMetalHost) { delete(h.Annotations, metal3.InspectAnnotationPrefix) })
}

// wantsInspection says whether the annotation asks for another inspection.
func (v *visit) wantsInspection() bool {
	_, asked := v.host.Annotations[metal3.InspectAnnotationPrefix]
	return asked && !v.host.InspectionDisabled()
}

// prepare does what the spec asks of firmware and disks before a host is offered:
// nothing, and conditions say which fields that is about.
func (v *visit) prepare() error { return v.enter(metal3.StateAvailable) }

// hardwareDetails is what Metal3 calls it.
func hardwareDetails(id redfish.Identity, hw redfish.Hardware, bootMAC string) *metal3.HardwareDetails {
	h := &metal3.HardwareDetails{
		SystemVendor: metal3.HardwareSystemVendor{Manufacturer: id.Manufacturer, ProductName: id.Model, SerialNumber: id.Serial},
		Firmware:     metal3.Firmware{BIOS: metal3.BIOS{Version: hw.BIOSVersion, Vendor: id.Manufacturer}},
		RAMMebibytes: hw.MemoryMiB,
		Hostname:     id.HostName,
		CPU: metal3.CPU{
			Arch: linuxArchitecture(hw.CPU.Architecture), Model: hw.CPU.Model, Count: hw.CPU.Count,
			ClockMegahertz: metal3.ClockSpeed(hw.CPU.MaxMHz),
		},
	}
	boots, _ := boot.ParseMAC(bootMAC) // what is no address is no NIC's
	for _, n := range hw.NICs {
		h.NIC = append(h.NIC, nics(n, string(boots))...)
	}
	for _, d := range hw.Disks {
		h.Storage = append(h.Storage, metal3.Storage{
			Name: d.Name, Vendor: d.Vendor, Model: d.Model, SerialNumber: d.Serial, WWN: d.WWN,
			SizeBytes: metal3.Capacity(d.Bytes), Type: metal3.DiskType(d.Type), Rotational: d.Rotational,
		})
	}
	return h
}

// nics are the entries of one NIC: Metal3 has one for each of its addresses.
func nics(n redfish.NIC, bootMAC string) []metal3.NIC {
	nic := metal3.NIC{Name: n.Name, Model: n.Model, MAC: n.MAC, SpeedGbps: n.SpeedMbs / 1000, PXE: n.MAC != "" && n.MAC == bootMAC}
	if len(n.Addrs) == 0 {
		return []metal3.NIC{nic}
	}
	var all []metal3.NIC
	for _, a := range n.Addrs {
		nic.IP = a
		all = append(all, nic)
	}
	return all
}

// linuxArchitecture is an architecture as Metal3 and uname write it.
func linuxArchitecture(a string) string {
	switch boot.Architecture(a) {
	case boot.AMD64:
		return "x86_64"
	case boot.ARM64:
		return "aarch64"
	}
	return a
}

func isOn(p redfish.PowerReading) bool {
	return p.State == redfish.PowerOn || p.State == redfish.PowerPoweringOn || p.State == redfish.PowerPoweringOff
}

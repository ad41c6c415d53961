package redfish

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/stmcginnis/gofish/schemas"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// maxMissing bounds how many missing parts are told.
	maxMissing = 32
	// maxAddrs bounds how many addresses of a NIC are kept.
	maxAddrs = 16
)

// Identity reads which machine this is.
func (b *bmc) Identity(ctx context.Context) (Identity, error) {
	s, err := b.system(b.conn.with(ctx))
	if err != nil {
		return Identity{}, err
	}
	text := func(name string) string { return clip(strings.TrimSpace(s.text(name))) }
	return Identity{
		SystemPath: b.path, UUID: text("UUID"), Serial: text("SerialNumber"), SKU: text("SKU"),
		Manufacturer: text("Manufacturer"), Model: text("Model"), HostName: text("HostName"),
		BMCModel: b.manager.Model, BMCFirmware: b.manager.Firmware,
		RedfishVersion: clip(b.service.RedfishVersion), Vendor: clip(b.service.Vendor),
	}, nil
}

// survey collects what a machine is made of.
type survey struct {
	*bmc
	conn *conn
	hw   Hardware
	// stop is an error after which nothing more is asked.
	stop error
}

// Hardware reads what the machine is made of.
func (b *bmc) Hardware(ctx context.Context) (Hardware, error) {
	v := &survey{bmc: b, conn: b.conn.with(ctx)}
	s, err := b.system(v.conn)
	if err != nil {
		return Hardware{}, err
	}
	v.summary(s)
	v.part("processors", func() error { return v.processors(s.link("Processors")) })
	v.part("network interfaces", func() error { return v.nics(s) })
	v.part("drives", func() error { return v.drives(s) })
	slices.SortFunc(v.hw.NICs, func(x, y NIC) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(v.hw.Disks, func(x, y Disk) int { return strings.Compare(x.Name, y.Name) })
	if errors.Is(v.stop, ErrUnauthorized) || errors.Is(v.stop, ErrLeavesHost) {
		return Hardware{}, v.stop
	}
	return v.hw, nil
}

// part reads one part of the machine; what cannot be read is told. After a BMC
// that is gone or busy nothing more is asked.
func (v *survey) part(name string, read func() error) {
	if v.stop != nil {
		v.missing(name, v.stop)
		return
	}
	if err := read(); err != nil {
		v.missing(name, err)
	}
}

func (v *survey) missing(name string, err error) {
	for _, final := range []error{ErrUnauthorized, ErrLeavesHost, ErrUnreachable, ErrBusy, ErrCertificate} {
		if errors.Is(err, final) {
			v.stop = err
		}
	}
	if len(v.hw.Missing) < maxMissing {
		v.hw.Missing = append(v.hw.Missing, fmt.Sprintf("%s: %v", name, err))
	}
}

// summary takes what the system itself says.
func (v *survey) summary(s resource) {
	v.hw.BIOSVersion = clip(s.text("BiosVersion"))
	sys, err := as[schemas.ComputerSystem](v.conn, s)
	if err != nil {
		v.missing("summary", err)
		return
	}
	if gib := sys.MemorySummary.TotalSystemMemoryGiB; gib != nil && *gib > 0 && *gib < 1<<20 {
		v.hw.MemoryMiB = int(math.Round(*gib * 1024))
	} else {
		v.missing("memory", errors.New("the system does not say how much it has"))
	}
	v.hw.CPU.Model = clip(strings.TrimSpace(sys.ProcessorSummary.Model))
	v.hw.CPU.Count = count(sys.ProcessorSummary.LogicalProcessorCount)
	if v.hw.CPU.Count == 0 {
		v.hw.CPU.Count = count(sys.ProcessorSummary.CoreCount)
	}
}

func count[T int | uint](n *T) int {
	if n == nil || *n > 1<<20 {
		return 0
	}
	return max(int(*n), 0)
}

// each reads the members of a collection, and tells those that cannot be read.
func each[T any, P schemas.GenericSchemaObjectPointer[T]](v *survey, path string, use func(*T)) error {
	if path == "" {
		return errors.New("the system names none")
	}
	paths, err := v.conn.members(path)
	if err != nil {
		return err
	}
	for _, p := range paths {
		if v.stop != nil {
			return v.stop
		}
		o, err := read[T, P](v.conn, p)
		if err != nil {
			v.missing(clip(p), err)
			continue
		}
		use(o)
	}
	return nil
}

func (v *survey) processors(path string) error {
	threads, cores := 0, 0
	err := each(v, path, func(p *schemas.Processor) {
		if (p.ProcessorType != "" && p.ProcessorType != schemas.CPUProcessorType) || p.Status.State == schemas.AbsentState {
			return
		}
		threads += count(p.TotalThreads)
		cores += count(p.TotalCores)
		v.hw.CPU.MaxMHz = max(v.hw.CPU.MaxMHz, count(p.MaxSpeedMHz))
		v.hw.CPU.Model = first(v.hw.CPU.Model, clip(strings.TrimSpace(p.Model)))
		v.hw.CPU.Architecture = first(v.hw.CPU.Architecture, architecture(p))
	})
	switch {
	case threads > 0:
		v.hw.CPU.Count = threads
	case v.hw.CPU.Count == 0:
		v.hw.CPU.Count = cores
	}
	return err
}

// architecture is Go's name of a processor's architecture; x86 alone says nothing
// of 64 bits, but no server of today is without.
func architecture(p *schemas.Processor) string {
	switch p.InstructionSet {
	case schemas.X8664InstructionSet:
		return "amd64"
	case schemas.ARMA64InstructionSet:
		return "arm64"
	case "":
		switch p.ProcessorArchitecture {
		case schemas.X86ProcessorArchitecture:
			return "amd64"
		case schemas.ARMProcessorArchitecture:
			return "arm64"
		}
	}
	return ""
}

func (v *survey) nics(s resource) error {
	return each(v, s.link("EthernetInterfaces"), func(e *schemas.EthernetInterface) {
		mac, err := boot.ParseMAC(first(e.MACAddress, e.PermanentMACAddress))
		if err != nil || e.Status.State == schemas.AbsentState {
			return
		}
		v.hw.NICs = append(v.hw.NICs, NIC{
			Name: clip(first(e.ID, e.Name)), Model: clip(e.Description), MAC: string(mac), Addrs: addrsOf(e),
			SpeedMbs: count(e.SpeedMbps), LinkUp: e.LinkStatus == schemas.LinkUpLinkStatus,
		})
	})
}

func addrsOf(e *schemas.EthernetInterface) []string {
	var all []string
	add := func(s string) {
		if a, err := boot.ParseAddr(s); err == nil && !a.IsLinkLocalUnicast() && len(all) < maxAddrs && !slices.Contains(all, a.String()) {
			all = append(all, a.String())
		}
	}
	for _, a := range e.IPv4Addresses {
		add(a.Address)
	}
	for _, a := range e.IPv6Addresses {
		add(a.Address)
	}
	return all
}

// drives reads the drives of Storage, else of SimpleStorage.
func (v *survey) drives(s resource) error {
	if path := s.link("Storage"); path != "" {
		return v.storage(path)
	}
	return each(v, s.link("SimpleStorage"), func(x *schemas.SimpleStorage) {
		for _, d := range x.Devices {
			if d.Status.State != schemas.AbsentState && len(v.hw.Disks) < 4*maxMembers {
				v.hw.Disks = append(v.hw.Disks, Disk{Name: clip(d.Name), Vendor: clip(d.Manufacturer), Model: clip(d.Model), Bytes: int64(count64(d.CapacityBytes))})
			}
		}
	})
}

func (v *survey) storage(path string) error {
	controllers, err := v.conn.members(path)
	if err != nil {
		return err
	}
	for _, p := range controllers {
		if v.stop == nil {
			v.controller(p)
		}
	}
	return nil
}

// controller reads the drives of one storage controller.
func (v *survey) controller(path string) {
	r, err := v.conn.get(path)
	if err != nil {
		v.missing(clip(path), err)
		return
	}
	drives := r.links("Drives")
	for _, d := range drives[:min(len(drives), maxMembers)] {
		if v.stop == nil && len(v.hw.Disks) < 4*maxMembers {
			v.drive(d)
		}
	}
}

func (v *survey) drive(path string) {
	d, err := read[schemas.Drive](v.conn, path)
	if err != nil {
		v.missing(clip(path), err)
		return
	}
	if d.Status.State == schemas.AbsentState {
		return
	}
	disk := Disk{
		Name: clip(first(d.ID, d.Name)), Vendor: clip(d.Manufacturer), Model: clip(d.Model), Serial: clip(strings.TrimSpace(d.SerialNumber)),
		Bytes: int64(count64(d.CapacityBytes)), Rotational: d.MediaType == schemas.HDDMediaType,
	}
	switch {
	case d.Protocol == schemas.NVMeProtocol:
		disk.Type = "NVME"
	case d.MediaType == schemas.HDDMediaType, d.MediaType == schemas.SSDMediaType:
		disk.Type = string(d.MediaType)
	}
	for _, id := range d.Identifiers {
		if id.DurableNameFormat == schemas.NAADurableNameFormat || id.DurableNameFormat == schemas.EUIDurableNameFormat {
			disk.WWN = clip(id.DurableName)
		}
	}
	v.hw.Disks = append(v.hw.Disks, disk)
}

func count64[T int | int64 | uint](n *T) T {
	if n == nil {
		return 0
	}
	return max(*n, 0)
}

package redfish

import (
	"context"
	"slices"
	"strings"

	"github.com/stmcginnis/gofish/schemas"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// bootOption is one UEFI boot option of a system (BootOption, DSP0268).
type bootOption struct {
	reference, device string
	http, pxe         bool
	// target is how it is booted once: UefiBootNext or UefiTarget.
	target string
}

// bootOptions reads a system's boot options in the order of its boot order.
func (b *bmc) bootOptions(c *conn, now object) ([]bootOption, error) {
	path := now.link("BootOptions")
	if path == "" {
		return nil, b.cannot("its system lists no boot options")
	}
	paths, err := c.members(path)
	if err != nil {
		return nil, unsupported(err)
	}
	var all []bootOption
	for _, p := range paths {
		o, err := read[schemas.BootOption](c, p)
		if err != nil {
			if ignoreRefusal(err) == nil {
				continue
			}
			return nil, err
		}
		all = append(all, optionOf(o))
	}
	order := now.texts("BootOrder")
	rank := func(o bootOption) int {
		if i := slices.Index(order, o.reference); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(all, func(x, y bootOption) int { return rank(x) - rank(y) })
	return all, nil
}

// optionOf tells what an option boots: by its alias, its UEFI device path (UEFI
// 2.10 section 10.3.4: Uri() is HTTP boot), or its name.
func optionOf(o *schemas.BootOption) bootOption {
	name, device := strings.ToLower(o.DisplayName+" "+o.Name), strings.ToLower(o.UefiDevicePath)
	network := strings.Contains(device, "mac(") || strings.Contains(name, "pxe") || o.Alias == schemas.PxeBootSource
	x := bootOption{reference: o.BootOptionReference, device: o.UefiDevicePath}
	x.http = o.Alias == schemas.UefiHTTPBootSource || strings.Contains(device, "uri(") || (strings.Contains(device, "mac(") && strings.Contains(name, "http"))
	x.pxe = network && !x.http
	return x
}

// isOf says whether an option may be of the NIC with a MAC address (empty: any): a
// device path without a MAC address does not say.
func (o bootOption) isOf(mac string) bool {
	m, err := boot.ParseMAC(mac)
	device := strings.ToLower(o.device)
	if err != nil || !strings.Contains(device, "mac(") {
		return err == nil || mac == ""
	}
	return strings.Contains(device, "mac("+strings.ReplaceAll(string(m), ":", ""))
}

// httpOption is an option that boots over HTTP and how it can be booted once. It
// returns ErrUnsupported where there is none.
func (b *bmc) httpOption(c *conn, now object, mac string) (bootOption, error) {
	all, err := b.bootOptions(c, now)
	if err != nil {
		return bootOption{}, err
	}
	for _, o := range all {
		if !o.http || !o.isOf(mac) {
			continue
		}
		switch {
		case o.reference != "" && (offers(now, targetBootNext) || now.has("BootNext")):
			o.target = targetBootNext
		case o.device != "" && (offers(now, targetDevice) || now.has("UefiTargetBootSourceOverride")):
			o.target = targetDevice
		default:
			continue
		}
		return o, nil
	}
	return bootOption{}, b.cannot("it has neither UefiHttp nor an HTTP boot option that can be booted once")
}

// PreferNetwork puts network boot first in the persistent boot order.
func (b *bmc) PreferNetwork(ctx context.Context, mac string, http bool) error {
	c := b.conn.with(ctx)
	p, err := b.places(c)
	if err != nil {
		return err
	}
	now := p.system.at("Boot")
	order := now.texts("BootOrder")
	if len(order) == 0 || len(order) > 4*maxMembers {
		return b.cannot("its boot order cannot be read, so it cannot be written")
	}
	all, err := b.bootOptions(c, now)
	if err != nil {
		return err
	}
	wanted := networkFirst(order, all, mac, http)
	if wanted == nil {
		return b.cannot("no boot option of its boot order boots this NIC from the network")
	}
	if slices.Equal(wanted, order) {
		return nil
	}
	b.unused = false
	return unsupportedBySystem(b.writeBoot(c, p, map[string]any{"BootOrder": wanted}))
}

// networkFirst is the boot order with the network options of a NIC first; nil
// where it has none.
func networkFirst(order []string, all []bootOption, mac string, http bool) []string {
	var first []string
	add := func(kind func(bootOption) bool) {
		for _, o := range all {
			if kind(o) && o.isOf(mac) && slices.Contains(order, o.reference) && !slices.Contains(first, o.reference) {
				first = append(first, o.reference)
			}
		}
	}
	if http {
		add(func(o bootOption) bool { return o.http })
	}
	add(func(o bootOption) bool { return o.pxe })
	if len(first) == 0 {
		return nil
	}
	for _, r := range order {
		if !slices.Contains(first, r) {
			first = append(first, r)
		}
	}
	return first
}

package bmcsim

import (
	"context"
	"net/url"
	"slices"
	"strings"
)

// override is ComputerSystem.Boot, as far as it can be written.
type override struct {
	Enabled, Target, Mode string
	URI                   string // HttpBootUri
	UEFITarget, BootNext  string
}

// clear is no override.
func (b *BMC) clear() override {
	return override{Enabled: "Disabled", Target: "None", Mode: "UEFI"}
}

// changeBoot applies a Boot property to next; done is called if all of it is right.
func (b *BMC) changeBoot(p *patch, value any, next *override, done func()) {
	if m := b.refusal(); m != nil {
		p.refuse(*m)
		return
	}
	sent, _ := value.(object)
	forgotten(b.profile, sent, next)
	p.object("Boot", value, func(name, pointer string, value any) { b.changeBootProperty(p, name, pointer, value, next) })
	if sent["BootSourceOverrideTarget"] == "None" && b.profile.noneRefused {
		p.refuse(say("PropertyValueNotInList", "None", "BootSourceOverrideTarget").about("Boot/BootSourceOverrideTarget"))
	}
	if len(p.changes) > 0 {
		p.change(done)
	}
}

// refusal is why the whole override cannot be written now.
func (b *BMC) refusal() *message {
	var m message
	switch {
	case b.inPOST() && b.profile.posting != nil:
		m = *b.profile.posting
	case b.inPOST():
		m = say("ResourceInStandby")
	default:
		return nil
	}
	return &m
}

// forgotten resets what a request leaves out, where the firmware does that.
func forgotten(p *profile, sent object, next *override) {
	if _, named := sent["BootSourceOverrideTarget"]; !p.forgets || !named {
		return
	}
	if _, ok := sent["BootSourceOverrideEnabled"]; !ok {
		next.Enabled = "Disabled"
	}
	if _, ok := sent["BootSourceOverrideMode"]; !ok && p.mode == writable {
		next.Mode = "Legacy"
	}
}

// belongsTo are the properties that only come with a target.
var belongsTo = map[string]string{"BootNext": "UefiBootNext", "UefiTargetBootSourceOverride": "UefiTarget"}

// changeBootProperty checks one property of Boot.
func (b *BMC) changeBootProperty(p *patch, name, pointer string, value any, next *override) {
	if strings.HasPrefix(name, "BootSourceOverride") || name == "HttpBootUri" || name == "BootNext" || name == "UefiTargetBootSourceOverride" {
		switch b.profile.override {
		case absent:
			p.unknown(pointer)
			return
		case readOnly:
			p.refuse(hard(say("PropertyNotWritable", name).about(pointer)))
			return
		}
	}
	if owner := belongsTo[name]; owner != "" && !slices.Contains(b.profile.targets, owner) {
		p.unknown(pointer)
		return
	}
	switch name {
	case "BootSourceOverrideEnabled":
		p.choice(pointer, value, []string{"Disabled", "Once", "Continuous"}, func(s string) { next.Enabled = s })
	case "BootSourceOverrideTarget":
		p.choice(pointer, value, append(slices.Clone(b.profile.targets), b.profile.unlisted...), func(s string) { next.Target = s })
	case "BootSourceOverrideMode":
		b.changeMode(p, pointer, value, next)
	case "HttpBootUri":
		b.changeURI(p, pointer, value, next)
	case "BootNext":
		p.text(pointer, orNull(value), 64, func(s string) { next.BootNext = s })
	case "UefiTargetBootSourceOverride":
		p.text(pointer, orNull(value), 1024, func(s string) { next.UEFITarget = s })
	case "BootOrder":
		b.changeOrder(p, pointer, value)
	case "BootOptions", "Certificates", "BootSourceOverrideTarget@Redfish.AllowableValues", "BootSourceOverrideMode@Redfish.AllowableValues":
		p.readOnly(pointer)
	default:
		p.unknown(pointer)
	}
}

// hard is a message that keeps the whole request from being taken: firmware that
// does not write a property seldom writes the rest.
func hard(m message) message {
	m.partial = false
	return m
}

// orNull makes null an empty string.
func orNull(value any) any {
	if value == nil {
		return ""
	}
	return value
}

func (b *BMC) changeMode(p *patch, pointer string, value any, next *override) {
	switch b.profile.mode {
	case absent:
		p.refuse(hard(say("PropertyUnknown", "BootSourceOverrideMode").about(pointer)))
	case readOnly:
		p.refuse(hard(say("PropertyNotWritable", "BootSourceOverrideMode").about(pointer)))
	default:
		p.choice(pointer, value, b.modes(), func(s string) { next.Mode = s })
	}
}

// changeURI checks HttpBootUri: a URI, or null or "" for none.
func (b *BMC) changeURI(p *patch, pointer string, value any, next *override) {
	text, isText := orNull(value).(string)
	u, err := url.Parse(text)
	switch {
	case b.profile.uri == absent:
		p.refuse(hard(say("PropertyUnknown", "HttpBootUri").about(pointer)))
	case b.profile.uri == readOnly:
		p.refuse(hard(say("PropertyNotWritable", "HttpBootUri").about(pointer)))
	case isText && text != "" && (err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https")):
		p.refuse(say("PropertyValueFormatError", "(a URI)", "HttpBootUri").about(pointer))
	default:
		p.text(pointer, orNull(value), 1024, func(s string) { next.URI = s })
	}
}

// changeOrder checks BootOrder: references of the machine's boot options.
func (b *BMC) changeOrder(p *patch, pointer string, value any) {
	list, ok := value.([]any)
	known := b.machine.BootOrder()
	var references []string
	for _, v := range list {
		s, isText := v.(string)
		ok = ok && isText
		if !slices.ContainsFunc(known, func(o BootOption) bool { return o.Reference == s }) || slices.Contains(references, s) {
			p.refuse(say("PropertyValueNotInList", show(v), "BootOrder").about(pointer))
			return
		}
		references = append(references, s)
	}
	switch {
	case known == nil:
		p.unknown(pointer)
	case !ok:
		p.refuse(say("PropertyValueTypeError", show(value), "BootOrder").about(pointer))
	default:
		p.change(func() { _ = b.machine.SetBootOrder(references) }) // checked above; what is left is the machine's own failure
	}
}

// written does what firmware does beside taking an override. The locks are held.
func (b *BMC) written(value any) {
	sent, _ := value.(object)
	_, mode := sent["BootSourceOverrideMode"]
	b.extraBoot = b.extraBoot || (mode && b.profile.modeJob)
	v := b.override
	if b.pending != nil {
		v = *b.pending
	}
	if b.profile.stays != "" && v.Enabled == "Once" {
		b.override.Enabled = b.profile.stays
	}
	if v.Enabled == "Disabled" || v.Target == "None" {
		b.repeat = b.clear()
	}
	if b.profile.reorders && v.Enabled == "Continuous" {
		b.putFirst(b.resolve(v))
	}
	if uri, _ := sent["HttpBootUri"].(string); b.profile.downloads && uri != "" {
		fetch, ctx := b.options.Fetch, b.ctx
		go func() { _ = fetch(ctx, uri) }() // such a BMC boots without the file if that fails
	}
}

// putFirst puts what next names first in the boot order.
func (b *BMC) putFirst(next NextBoot) {
	var first, rest []string
	for _, o := range b.machine.BootOrder() {
		if o.Kind == next.Kind && next.Kind != KindDefault {
			first = append(first, o.Reference)
		} else {
			rest = append(rest, o.Reference)
		}
	}
	if len(first) > 0 {
		_ = b.machine.SetBootOrder(append(first, rest...)) // a machine without an order has none to lose
	}
}

// consume is what the firmware does with the settings at a boot: it returns what
// is tried first, and an override that was for once is gone. The lock is held.
func (b *BMC) consume() NextBoot {
	if b.pending != nil {
		b.override, b.pending = *b.pending, nil
	}
	b.applySettings()
	v := b.override
	once := v.Enabled == "Once"
	switch {
	case b.profile.stays != "":
	case (b.profile.repeats || b.knobs.ignoreOnce) && once:
		b.repeat = v
	case v.Enabled == "Disabled" && b.repeat.Enabled == "Once" && (b.profile.repeats || b.knobs.ignoreOnce):
		return b.resolve(b.repeat)
	}
	if once && b.profile.stays == "" {
		b.override.Enabled, b.override.Target, b.override.BootNext = "Disabled", "None", ""
	}
	return b.resolve(v)
}

// kinds are the targets that a Machine can boot from.
var kinds = map[string]Kind{"Pxe": KindPXE, "Hdd": KindDisk, "Cd": KindCD, "UsbCd": KindCD, "BiosSetup": KindSetup, "UefiHttp": KindHTTP}

// resolve says what the firmware does with an override. The lock is held.
func (b *BMC) resolve(v override) NextBoot {
	if v.Enabled == "Disabled" {
		return NextBoot{}
	}
	next := NextBoot{Kind: kinds[v.Target]}
	switch v.Target {
	case "UefiHttp":
		next.URL = or(v.URI, b.pinned())
	case "Cd", "UsbCd":
		next.URL = b.media[0].image
	case "UefiBootNext":
		next = b.option(func(o BootOption) bool { return o.Reference == v.BootNext })
	case "UefiTarget":
		next = b.option(func(o BootOption) bool { return o.DevicePath != "" && o.DevicePath == v.UEFITarget })
	}
	if b.profile.downloads && next.Kind == KindHTTP && next.URL != "" {
		next.Kind = KindCD
	}
	if next.Kind != KindHTTP {
		return next
	}
	next.TLSOnly = b.profile.pinTLS != "" && b.bios[b.profile.pinTLS] != "None"
	if v.Mode == "Legacy" || (next.TLSOnly && strings.HasPrefix(next.URL, "http:")) {
		return NextBoot{} // the firmware fails and goes on to its boot order
	}
	return next
}

// option makes a NextBoot of the boot option that is wanted.
func (b *BMC) option(wanted func(BootOption) bool) NextBoot {
	options := b.machine.BootOrder()
	i := slices.IndexFunc(options, wanted)
	if i < 0 {
		return NextBoot{}
	}
	o := options[i]
	next := NextBoot{Kind: o.Kind, URL: o.URL, MAC: o.MAC}
	if next.Kind == KindHTTP && next.URL == "" {
		next.URL = b.pinned()
	}
	return next
}

// pinned is the URL that the BIOS attributes name; empty: none.
func (b *BMC) pinned() string {
	p := b.profile
	if p.pinURI == "" || (p.pinSwitch != "" && b.bios[p.pinSwitch] != "Enabled") {
		return ""
	}
	uri, _ := b.bios[p.pinURI].(string)
	return uri
}

// bootOptions adds the BootOptions, which follow the machine's boot order.
func (b *BMC) bootOptions() {
	options := b.machine.BootOrder()
	if options == nil {
		return
	}
	path := b.systemPath() + "/BootOptions"
	var ids []string
	for _, o := range options {
		ids = append(ids, o.Reference)
		b.fixed(path+"/"+o.Reference, func() object {
			enabled := slices.ContainsFunc(b.machine.BootOrder(), func(other BootOption) bool { return other.Reference == o.Reference })
			return object{
				"@odata.type": "#BootOption.v1_0_5.BootOption", "Id": o.Reference, "Name": "Boot Option", "BootOptionReference": o.Reference,
				"DisplayName": o.Name, "BootOptionEnabled": enabled, "UefiDevicePath": o.DevicePath, "Alias": alias(o.Kind),
			}
		})
	}
	b.collection("BootOption", path, ids...)
}

// alias is BootOption.Alias: a BootSource, or null.
func alias(k Kind) any {
	for _, target := range []string{"Pxe", "Hdd", "Cd", "UefiHttp"} {
		if kinds[target] == k {
			return target
		}
	}
	return nil
}

// boundedContext is for what must not end with the request that asked for it.
func (b *BMC) boundedContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.ctx, machineTimeout)
}

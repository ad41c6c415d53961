package bmcsim

import (
	"slices"
	"strings"
)

// systemPath is where the machine's ComputerSystem is.
func (b *BMC) systemPath() string { return root + "/Systems/" + b.systemID() }

func (b *BMC) systemID() string { return b.id(b.profile.system) }

// id writes an ID of the profile.
func (b *BMC) id(text string) string {
	return strings.ReplaceAll(text, "{uuid}", strings.ToLower(b.options.UUID))
}

func (b *BMC) managerPath() string { return root + "/Managers/" + b.id(b.profile.manager) }
func (b *BMC) chassisPath() string { return root + "/Chassis/" + b.id(b.profile.chassis) }
func (b *BMC) biosPath() string    { return b.systemPath() + "/" + or(b.profile.bios, "Bios") }

// system adds the ComputerSystems and what belongs to the Boot property.
func (b *BMC) system() {
	ids := append([]string{}, b.profile.siblings...)
	b.collection("ComputerSystem", root+"/Systems", append(ids, b.systemID())...)
	for _, id := range b.profile.siblings {
		b.fixed(root+"/Systems/"+id, func() object { return b.sibling(id) })
	}
	b.add(b.systemPath(), &resource{get: b.computerSystem, patch: b.patchSystem})
	b.add(b.systemPath()+"/Actions/ComputerSystem.Reset", &resource{action: true, post: b.resetAction})
	if !b.profile.inlineResets {
		b.fixed(b.systemPath()+"/ResetActionInfo", func() object {
			return object{
				"@odata.type": "#ActionInfo.v1_2_0.ActionInfo", "Id": "ResetActionInfo", "Name": "Reset Action Info",
				"Parameters": []object{{"Name": "ResetType", "Required": true, "DataType": "String", "AllowableValues": resetTypes}},
			}
		})
	}
	if b.profile.settings != "" {
		b.add(b.systemPath()+"/"+b.profile.settings, &resource{get: b.futureSystem, patch: b.patchFuture})
	}
}

// sibling is a system that is not the machine: a board beside it, which boots
// nothing.
func (b *BMC) sibling(id string) object {
	return object{
		"@odata.type": "#ComputerSystem.v1_20_1.ComputerSystem", "Id": id, "Name": id, "SystemType": "Physical", "Description": "A board beside the host",
		"UUID": swapLast(b.serviceUUID()[:34] + "ff"), "SerialNumber": "HGX" + b.options.Serial, "Manufacturer": b.profile.manufacturer, "PowerState": "On",
		"Status": healthy(), "Links": object{"ManagedBy": []object{link(b.managerPath())}, "Chassis": []object{link(b.chassisPath())}},
	}
}

// computerSystem is ComputerSystem 1.20.
func (b *BMC) computerSystem() object {
	p, path, h := b.profile, b.systemPath(), b.options.Hardware
	o := object{
		"@odata.type": "#ComputerSystem.v1_20_1.ComputerSystem", "@odata.context": root + "/$metadata#ComputerSystem.ComputerSystem",
		"Id": b.systemID(), "Name": "System", "Description": "The machine", "SystemType": "Physical",
		"Manufacturer": p.manufacturer, "Model": p.model, "SKU": "SKU-" + b.options.Serial, "SerialNumber": b.options.Serial,
		"PartNumber": "PN-1", "AssetTag": b.assetTag, "UUID": b.uuid, "HostName": "", "IndicatorLED": b.led, "BiosVersion": h.BIOSVersion,
		"PowerState": b.powerState(), "LastResetTime": stamp(b.lastReset), "BootProgress": b.bootProgress(), "Status": object{"State": "Enabled", "Health": "OK", "HealthRollup": "OK"},
		"ProcessorSummary": object{"Count": 1, "CoreCount": h.Cores, "LogicalProcessorCount": h.Threads, "Model": h.CPU, "Status": healthy()},
		"MemorySummary":    object{"TotalSystemMemoryGiB": float64(h.MemoryMiB) / 1024, "Status": object{"State": "Enabled", "Health": "OK", "HealthRollup": "OK"}},
		"Boot":             b.bootProperty(b.override),
		"Processors":       link(path + "/Processors"), "Memory": link(path + "/Memory"), "EthernetInterfaces": link(path + "/EthernetInterfaces"),
		"Storage": link(path + "/Storage"),
		"Links":   object{"Chassis": []object{link(b.chassisPath())}, "ManagedBy": []object{link(b.managerPath())}},
		"Actions": object{"#ComputerSystem.Reset": b.resetTarget()},
	}
	if p.attributes != nil {
		o["Bios"] = link(b.biosPath())
	}
	if b.keys != nil {
		o["SecureBoot"] = link(b.secureBootPath())
	}
	if p.settings != "" {
		o["@Redfish.Settings"] = object{
			"@odata.type": "#Settings.v1_3_5.Settings", "SettingsObject": link(path + "/" + p.settings), "SupportedApplyTimes": []string{"OnReset"},
		}
	}
	return o
}

// resetTarget is the action that switches the machine.
func (b *BMC) resetTarget() object {
	o := object{"target": b.systemPath() + "/Actions/ComputerSystem.Reset"}
	if b.profile.slashes {
		o["target"] = b.systemPath() + "/Actions/ComputerSystem.Reset/"
	}
	if b.profile.inlineResets {
		o["ResetType@Redfish.AllowableValues"] = resetTypes
	} else {
		o["@Redfish.ActionInfo"] = b.systemPath() + "/ResetActionInfo"
	}
	return o
}

// bootProperty is ComputerSystem.Boot with an override.
func (b *BMC) bootProperty(v override) object {
	p := b.profile
	o := object{}
	if p.override != absent {
		o["BootSourceOverrideEnabled"] = v.Enabled
		o["BootSourceOverrideTarget"] = v.Target
		if !p.hideTargets {
			o["BootSourceOverrideTarget@Redfish.AllowableValues"] = p.targets
		}
		if p.mode != absent {
			o["BootSourceOverrideMode"] = v.Mode
			o["BootSourceOverrideMode@Redfish.AllowableValues"] = b.modes()
		}
		if p.uri != absent {
			o["HttpBootUri"] = v.URI
		}
		if slices.Contains(p.targets, "UefiTarget") {
			o["UefiTargetBootSourceOverride"] = v.UEFITarget
		}
		if slices.Contains(p.targets, "UefiBootNext") {
			o["BootNext"] = v.BootNext
		}
	}
	if options := b.machine.BootOrder(); options != nil {
		references := make([]string, 0, len(options))
		for _, option := range options {
			references = append(references, option.Reference)
		}
		o["BootOrder"] = references
		o["BootOptions"] = link(b.systemPath() + "/BootOptions")
	}
	o["Certificates"] = link(b.bootCertificatesPath())
	return o
}

// modes are the boot modes that can be set.
func (b *BMC) modes() []string {
	if b.profile.forgets || b.profile.modeJob {
		return []string{"Legacy", "UEFI"}
	}
	return []string{"UEFI"}
}

// patchSystem changes what can be changed of a ComputerSystem.
func (b *BMC) patchSystem(c *call) reply {
	p := &patch{}
	p.object("", c.body, func(name, pointer string, value any) {
		switch name {
		case "AssetTag":
			p.text(pointer, value, 255, func(s string) { b.assetTag = s })
		case "IndicatorLED":
			p.choice(pointer, value, []string{"Lit", "Blinking", "Off"}, func(s string) { b.led = s })
		case "Boot":
			b.patchBoot(p, value)
		default:
			b.notWritable(p, name, pointer)
		}
	})
	return p.finish(b, func() object { return b.represent(b.static[b.systemPath()], b.systemPath()) })
}

// notWritable refuses a property: it is read-only, or it is unknown.
func (b *BMC) notWritable(p *patch, name, pointer string) {
	if _, ok := b.computerSystem()[name]; ok {
		p.readOnly(pointer)
		return
	}
	p.unknown(pointer)
}

// patchBoot changes Boot on the System, unless it is to be written elsewhere.
func (b *BMC) patchBoot(p *patch, value any) {
	switch {
	case b.profile.settings == "" || b.profile.lockSettings:
		next := b.override
		b.changeBoot(p, value, &next, func() { b.override = next; b.written(value) })
	case b.profile.needsMatch:
		p.refuse(amiFuture)
	default:
		p.readOnly("Boot")
	}
}

// futureSystem is the settings object of the System (DSP0266, section 9.10): the
// Boot that the next boot will find.
func (b *BMC) futureSystem() object {
	v := b.override
	if b.pending != nil {
		v = *b.pending
	}
	boot := b.bootProperty(v)
	delete(boot, "Certificates")
	delete(boot, "BootOptions")
	return object{
		"@odata.type": "#ComputerSystem.v1_20_1.ComputerSystem", "Id": b.profile.settings, "Name": "Pending settings of the system", "Boot": boot,
	}
}

func (b *BMC) patchFuture(c *call) reply {
	p := &patch{}
	p.object("", c.body, func(name, pointer string, value any) {
		switch {
		case name == "@Redfish.SettingsApplyTime":
		case name != "Boot":
			p.unknown(pointer)
		case b.profile.lockSettings:
			p.readOnly(pointer)
		default:
			next := b.override
			if b.pending != nil {
				next = *b.pending
			}
			b.changeBoot(p, value, &next, func() { b.pending = &next; b.written(value) })
		}
	})
	path := b.systemPath() + "/" + b.profile.settings
	return p.finish(b, func() object { return b.represent(b.static[path], path) })
}

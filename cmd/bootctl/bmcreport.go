package main

import "github.com/boot-operator/boot-operator/internal/redfish"

// probeReport is a probe as JSON.
type probeReport struct {
	Address    string        `json:"address"`
	Verified   bool          `json:"verified"`
	System     string        `json:"system"`
	Systems    []string      `json:"systems"`
	BMC        bmcReport     `json:"bmc"`
	Machine    machineReport `json:"machine"`
	ResetTypes []string      `json:"resetTypes,omitempty"`
	Override   struct {
		Enabled string   `json:"enabled,omitempty"`
		Target  string   `json:"target,omitempty"`
		Mode    string   `json:"mode,omitempty"`
		Targets []string `json:"targets,omitempty"`
	} `json:"override"`
	Can struct {
		HTTP        bool   `json:"http"`
		PXE         bool   `json:"pxe"`
		PinsURL     string `json:"pinsURL,omitempty"`
		BootOrder   bool   `json:"bootOrder"`
		IgnoresOnce bool   `json:"ignoresOnce"`
	} `json:"can"`
	SecureBoot *secureReport `json:"secureBoot,omitempty"`
	Quirks     []quirkReport `json:"quirks"`
	Plans      []planReport  `json:"plans"`
	Missing    []string      `json:"missing,omitempty"`
}

type bmcReport struct {
	Vendor   string `json:"vendor,omitempty"`
	Model    string `json:"model,omitempty"`
	Firmware string `json:"firmware,omitempty"`
	Redfish  string `json:"redfish,omitempty"`
}

type machineReport struct {
	Manufacturer string `json:"manufacturer,omitempty"`
	Model        string `json:"model,omitempty"`
	UUID         string `json:"uuid,omitempty"`
	Serial       string `json:"serial,omitempty"`
	SKU          string `json:"sku,omitempty"`
	Power        string `json:"power,omitempty"`
	LastReset    string `json:"lastReset,omitempty"`
	Progress     string `json:"progress,omitempty"`
}

type secureReport struct {
	Enabled bool   `json:"enabled"`
	Current string `json:"current,omitempty"`
	Mode    string `json:"mode,omitempty"`
	// Databases are those that can be read.
	Databases []string `json:"databases,omitempty"`
}

type quirkReport struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

type planReport struct {
	Tactic   string          `json:"tactic"`
	Error    string          `json:"error,omitempty"`
	Requests []requestReport `json:"requests,omitempty"`
}

type requestReport struct {
	Method  string `json:"method"`
	Path    string `json:"path"`
	IfMatch string `json:"ifMatch,omitempty"`
	Body    string `json:"body"`
}

func newProbeReport(con redfish.Connection, p redfish.Probe) probeReport {
	id := p.Identity
	r := probeReport{
		Address: con.Address.URL(), Verified: con.Verified(), System: id.SystemPath, Systems: p.Systems,
		BMC: bmcReport{id.Vendor, id.BMCModel, id.BMCFirmware, id.RedfishVersion},
		Machine: machineReport{
			Manufacturer: id.Manufacturer, Model: id.Model, UUID: id.UUID, Serial: id.Serial, SKU: id.SKU,
			Power: string(p.Power.State), LastReset: p.Power.LastReset, Progress: p.Power.Progress,
		},
		ResetTypes: p.ResetTypes, Missing: p.Missing, Quirks: []quirkReport{}, Plans: []planReport{},
	}
	r.Override.Enabled, r.Override.Target, r.Override.Mode, r.Override.Targets = p.Override.Enabled, p.Override.Target, p.Override.Mode, p.Override.Targets
	r.Can.HTTP, r.Can.PXE, r.Can.PinsURL, r.Can.BootOrder, r.Can.IgnoresOnce = p.Paths.HTTP, p.Paths.PXE, p.Paths.PinsURL, p.Paths.Order, p.Paths.IgnoresOnce
	if s := p.SecureBoot; s != nil {
		r.SecureBoot = &secureReport{s.Enabled, s.Current, s.Mode, p.Databases}
	}
	for _, q := range p.Quirks {
		r.Quirks = append(r.Quirks, quirkReport(q))
	}
	for _, plan := range p.Plans {
		one := planReport{Tactic: string(plan.Tactic), Error: plan.Error}
		for _, request := range plan.Requests {
			one.Requests = append(one.Requests, requestReport(request))
		}
		r.Plans = append(r.Plans, one)
	}
	return r
}

package redfish_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// What is written, as simulation.sent shows it.
const (
	onceHTTP = `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp"}}`
	onceURL  = `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","HttpBootUri":"` + simURL + `"}}`
	oncePXE  = `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe"}}`
	onceNext = `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiBootNext","BootNext":"Boot0002"}}`
	cleared  = `{"Boot":{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget":"None"}}`
	clearPXE = `{"Boot":{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget":"Pxe"}}`
	clearURL = `{"Boot":{"HttpBootUri":null}}`

	atReset   = `{"@Redfish.SettingsApplyTime":{"@odata.type":"#Settings.v1_3_0.PreferredApplyTime","ApplyTime":"OnReset"},"Attributes":`
	pinDell   = atReset + `{"HttpDev1EnDis":"Enabled","HttpDev1Uri":"` + simURL + `"}}`
	pinPlain  = atReset + `{"HttpDev1EnDis":"Enabled","HttpDev1TlsMode":"None","HttpDev1Uri":"` + simPlainURL + `"}}`
	unpinDell = atReset + `{"HttpDev1EnDis":"Disabled","HttpDev1Uri":""}}`
	unpinTLS  = atReset + `{"HttpDev1EnDis":"Disabled","HttpDev1TlsMode":"OneWay","HttpDev1Uri":""}}`
	pinHPE    = atReset + `{"UrlBootFile":"` + simURL + `"}}`
	unpinHPE  = atReset + `{"UrlBootFile":""}}`

	dell     = "PATCH System.Embedded.1"
	dellBIOS = dell + "/Bios/Settings strong "
)

// on is the request that switches the machine on.
func on(system, slash, status string) string {
	return "POST " + system + "/Actions/ComputerSystem.Reset" + slash + ` none {"ResetType":"On"} ` + status
}

// vendorRow is one row of the vendor table: what one boot from the network, asked
// for once, sends to such a BMC.
type vendorRow struct {
	profile string
	// before is what someone wrote to the System before.
	before  string
	request redfish.BootRequest
	// arm, on and disarm are the requests of each step; unused are those of Disarm
	// where the machine was not switched on in between.
	arm            []string
	on             string
	disarm, unused []string
	// pinned is Armed.PinnedBy, warning a part of the only warning.
	pinned, warning string
	// next is what the firmware tried first, again what it tried at the boot after.
	next, again bmcsim.NextBoot
	// resets are the boots that there were; empty: one by On.
	resets []string
}

var (
	byHTTP  = redfish.BootRequest{Tactic: redfish.TacticHTTP, URL: simURL, MAC: simMAC}
	byPlain = redfish.BootRequest{Tactic: redfish.TacticHTTP, URL: simPlainURL, MAC: simMAC}
	byDHCP  = redfish.BootRequest{Tactic: redfish.TacticHTTP, MAC: simMAC}
	byPXE   = redfish.BootRequest{Tactic: redfish.TacticPXE, MAC: simMAC}

	bootsURL   = bmcsim.NextBoot{Kind: bmcsim.KindHTTP, URL: simURL}
	bootsTLS   = bmcsim.NextBoot{Kind: bmcsim.KindHTTP, URL: simURL, TLSOnly: true}
	bootsPlain = bmcsim.NextBoot{Kind: bmcsim.KindHTTP, URL: simPlainURL}
	bootsHTTP  = bmcsim.NextBoot{Kind: bmcsim.KindHTTP}
	bootsPXE   = bmcsim.NextBoot{Kind: bmcsim.KindPXE}
)

var vendorRows = map[string]vendorRow{
	"what the specification says": {
		profile: "generic", request: byHTTP,
		arm: []string{"PATCH 1 strong " + onceURL + " 200"}, on: on("1", "", "204"), disarm: []string{"PATCH 1 strong " + clearURL + " 200"},
		unused: []string{"PATCH 1 strong " + cleared + " 200", "PATCH 1 strong " + clearURL + " 200"},
		pinned: "HttpBootUri", next: bootsURL,
	},
	"iDRAC 9: no HttpBootUri, the URL in BIOS attributes, cleared afterwards; no Mode, no Continuous": {
		profile: "idrac9", request: byHTTP,
		arm: []string{dell + " strong " + onceHTTP + " 200", dellBIOS + pinDell + " 202"}, on: on("System.Embedded.1", "", "204"),
		disarm: []string{dellBIOS + unpinDell + " 202"}, unused: []string{dell + " strong " + cleared + " 200", dellBIOS + unpinDell + " 202"},
		pinned: "HttpDev1Uri", next: bootsURL,
	},
	"iDRAC 9 whose URL comes from DHCP": {
		profile: "idrac9", request: byDHCP,
		arm: []string{dell + " strong " + onceHTTP + " 200"}, on: on("System.Embedded.1", "", "204"),
		unused: []string{dell + " strong " + cleared + " 200"}, next: bootsHTTP,
	},
	"iDRAC 9 by PXE": {
		profile: "idrac9", request: byPXE,
		arm: []string{dell + " strong " + oncePXE + " 200"}, on: on("System.Embedded.1", "", "204"),
		unused: []string{dell + " strong " + cleared + " 200"}, next: bootsPXE,
	},
	"iDRAC 9 in Legacy mode: Mode is sent since it differs, and costs a boot": {
		profile: "idrac9", request: byDHCP, before: `{"Boot":{"BootSourceOverrideMode":"Legacy"}}`,
		arm: []string{dell + ` strong {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","BootSourceOverrideMode":"UEFI"}} 200`},
		on:  on("System.Embedded.1", "", "204"), unused: []string{dell + " strong " + cleared + " 200"},
		next: bootsHTTP, resets: []string{"BIOSJob", "On"},
	},
	"iDRAC 9 in Legacy mode, without Mode: the firmware cannot": {
		profile: "idrac9", request: redfish.BootRequest{Tactic: redfish.TacticHTTPWithoutMode}, before: `{"Boot":{"BootSourceOverrideMode":"Legacy"}}`,
		arm: []string{dell + " strong " + onceHTTP + " 200"}, on: on("System.Embedded.1", "", "204"), unused: []string{dell + " strong " + cleared + " 200"},
		resets: []string{"BIOSJob", "On"},
	},
	"iDRAC 10: read-only on the System, so Settings; TlsMode is left for HTTPS; no If-Match on the action": {
		profile: "idrac10", request: byHTTP,
		arm: []string{dell + " strong " + onceHTTP + " 400", dell + "/Settings strong " + onceHTTP + " 200", dellBIOS + pinDell + " 202"},
		on:  on("System.Embedded.1", "", "204"), disarm: []string{dellBIOS + unpinDell + " 202"},
		unused: []string{dell + " strong " + cleared + " 400", dell + "/Settings strong " + cleared + " 200", dellBIOS + unpinDell + " 202"},
		pinned: "HttpDev1Uri", next: bootsTLS,
	},
	"iDRAC 10: TlsMode None for plain HTTP, and back": {
		profile: "idrac10", request: byPlain,
		arm: []string{dell + " strong " + onceHTTP + " 400", dell + "/Settings strong " + onceHTTP + " 200", dellBIOS + pinPlain + " 202"},
		on:  on("System.Embedded.1", "", "204"), disarm: []string{dellBIOS + unpinTLS + " 202"},
		unused: []string{dell + " strong " + cleared + " 400", dell + "/Settings strong " + cleared + " 200", dellBIOS + unpinTLS + " 202"},
		pinned: "HttpDev1Uri", next: bootsPlain,
	},
	"iDRAC 10 of a build that takes it on the System: Settings is not asked": {
		profile: "idrac10-system", request: byHTTP,
		arm: []string{dell + " strong " + onceHTTP + " 200", dellBIOS + pinDell + " 202"}, on: on("System.Embedded.1", "", "204"),
		disarm: []string{dellBIOS + unpinDell + " 202"}, unused: []string{dell + " strong " + cleared + " 200", dellBIOS + unpinDell + " 202"},
		pinned: "HttpDev1Uri", next: bootsTLS,
	},
	"iLO 5: no Mode; UrlBootFile; cleared with Disabled and Pxe": {
		profile: "ilo5", request: byHTTP,
		arm: []string{"PATCH 1 weak " + onceHTTP + " 200", "PATCH 1/bios/settings/ weak " + pinHPE + " 200"}, on: on("1", "/", "200"),
		disarm: []string{"PATCH 1/bios/settings/ weak " + unpinHPE + " 200"},
		unused: []string{"PATCH 1 weak " + clearPXE + " 200", "PATCH 1/bios/settings/ weak " + unpinHPE + " 200"},
		pinned: "UrlBootFile", next: bootsURL,
	},
	"iLO 6: HttpBootUri is shown and not written": {
		profile: "ilo6", request: byHTTP,
		arm: []string{"PATCH 1 weak " + onceHTTP + " 200", "PATCH 1/bios/settings/ weak " + pinHPE + " 200"}, on: on("1", "/", "200"),
		disarm: []string{"PATCH 1/bios/settings/ weak " + unpinHPE + " 200"},
		unused: []string{"PATCH 1 weak " + clearPXE + " 200", "PATCH 1/bios/settings/ weak " + unpinHPE + " 200"},
		pinned: "UrlBootFile", next: bootsURL,
	},
	"Supermicro: Enabled and Mode are always sent": {
		profile: "supermicro", request: byHTTP,
		arm: []string{`PATCH 1 strong {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","BootSourceOverrideMode":"UEFI","HttpBootUri":"` + simURL + `"}} 200`},
		on:  on("1", "", "204"), disarm: []string{"PATCH 1 strong " + clearURL + " 200"},
		unused: []string{"PATCH 1 strong " + cleared + " 200", "PATCH 1 strong " + clearURL + " 200"},
		pinned: "HttpBootUri", next: bootsURL,
	},
	"Supermicro X10 by PXE: no Mode": {
		profile: "supermicro-x10", request: byPXE,
		arm: []string{"PATCH 1 strong " + oncePXE + " 200"}, on: on("1", "", "204"), unused: []string{"PATCH 1 strong " + cleared + " 200"}, next: bootsPXE,
	},
	"Lenovo XCC: the HTTP boot option of the NIC; 412 to a fresh ETag, so without": {
		profile: "xcc", request: byHTTP,
		arm: []string{"PATCH 1 strong " + onceNext + " 412", "PATCH 1 strong " + onceNext + " 412", "PATCH 1 none " + onceNext + " 200"},
		on:  on("1", "", "204"), unused: []string{"PATCH 1 strong " + cleared + " 412", "PATCH 1 strong " + cleared + " 412", "PATCH 1 none " + cleared + " 200"},
		next: bmcsim.NextBoot{Kind: bmcsim.KindHTTP, MAC: simMAC},
	},
	"Lenovo XCC by PXE": {
		profile: "xcc", request: byPXE,
		arm: []string{"PATCH 1 strong " + oncePXE + " 412", "PATCH 1 strong " + oncePXE + " 412", "PATCH 1 none " + oncePXE + " 200"},
		on:  on("1", "", "204"), unused: []string{"PATCH 1 strong " + cleared + " 412", "PATCH 1 strong " + cleared + " 412", "PATCH 1 none " + cleared + " 200"},
		next: bootsPXE,
	},
	"AMI MegaRAC: SD with its own ETag": futureRow("megarac"),
	"ASRock: as MegaRAC":                futureRow("asrock"),
	"Lenovo TSM: as MegaRAC":            futureRow("tsm"),
	"OpenBMC without UefiHttp, by PXE": {
		profile: "openbmc", request: byPXE,
		arm: []string{"PATCH system strong " + oncePXE + " 204"}, on: on("system", "", "204"), unused: []string{"PATCH system strong " + cleared + " 204"}, next: bootsPXE,
	},
	"BlueField: the override stays, and is cleared after use": {
		profile: "bluefield", request: byHTTP,
		arm: []string{"PATCH Bluefield strong " + onceURL + " 204"}, on: on("Bluefield", "", "204"),
		disarm: []string{"PATCH Bluefield strong " + cleared + " 204", "PATCH Bluefield strong " + clearURL + " 204"},
		unused: []string{"PATCH Bluefield strong " + cleared + " 204", "PATCH Bluefield strong " + clearURL + " 204"},
		pinned: "HttpBootUri", next: bootsURL,
	},
	"sushy-tools: told no URL; Continuous is said, and cleared after use": {
		profile: "sushy-tools", request: byHTTP,
		arm: []string{"PATCH " + simUUID + " strong " + onceHTTP + " 204"}, on: on(simUUID, "", "204"),
		disarm: []string{"PATCH " + simUUID + " strong " + cleared + " 204"}, unused: []string{"PATCH " + simUUID + " strong " + cleared + " 204"},
		warning: "made Continuous of an override that was asked for once", next: bootsHTTP,
	},
	"one that shows Once as used up and uses it again: there is nothing to clear, and the boot server must refuse": {
		profile: "ignores-once", request: byDHCP,
		arm: []string{"PATCH 1 strong " + onceHTTP + " 200"}, on: on("1", "", "204"), unused: []string{"PATCH 1 strong " + cleared + " 200"},
		next: bootsHTTP, again: bootsHTTP,
	},
	"HGX: the host among several systems, by its path": {
		profile: "hgx", request: byHTTP,
		arm: []string{"PATCH System_0 strong " + onceURL + " 204"}, on: on("System_0", "", "204"), disarm: []string{"PATCH System_0 strong " + clearURL + " 204"},
		unused: []string{"PATCH System_0 strong " + cleared + " 204", "PATCH System_0 strong " + clearURL + " 204"},
		pinned: "HttpBootUri", next: bootsURL,
	},
}

// futureRow is a MegaRAC under one of its names.
func futureRow(profile string) vendorRow {
	return vendorRow{
		profile: profile, request: byHTTP,
		arm: []string{"PATCH Self/SD weak " + onceURL + " 204"}, on: on("Self", "", "204"), disarm: []string{"PATCH Self/SD weak " + clearURL + " 204"},
		unused: []string{"PATCH Self/SD weak " + cleared + " 204", "PATCH Self/SD weak " + clearURL + " 204"},
		pinned: "HttpBootUri", next: bootsURL,
	}
}

func (r vendorRow) begin(t *testing.T) *simulation {
	s := simulate(t, r.profile)
	if r.before != "" {
		s.seed(s.SystemPath(), r.before)
	}
	return s
}

// TestWhatIsSentToEachVendorForOneNetworkBoot holds the vendor table, against the
// simulator: arm, switch on, let the firmware use it up, take back what stays.
func TestWhatIsSentToEachVendorForOneNetworkBoot(t *testing.T) {
	for name, r := range vendorRows {
		t.Run(name, func(t *testing.T) {
			s := r.begin(t)
			armed, err := s.arm(r.request)
			require.NoError(t, err)
			require.Equal(t, r.arm, s.sent())
			require.Equal(t, redfish.Armed{Tactic: r.request.Tactic, PinnedBy: r.pinned, Confirmed: true, Warnings: armed.Warnings}, armed)
			require.Equal(t, r.warning != "", len(armed.Warnings) > 0, armed.Warnings)
			require.Contains(t, strings.Join(armed.Warnings, "\n"), r.warning)

			require.NoError(t, s.on())
			require.Equal(t, []string{r.on}, s.sent())
			_, next := s.machine.Boots()
			require.Equal(t, r.next, next)
			require.Equal(t, r.resets, r.unless(s))

			require.NoError(t, s.disarm(armed.PinnedBy))
			require.Equal(t, r.disarm, s.sent())
			require.Equal(t, r.again, s.boots(), "the boot after")
		})
	}
}

// unless lists the boots there were, where it is not the one that On makes.
func (r vendorRow) unless(s *simulation) []string {
	var all []string
	for _, reset := range s.Resets() {
		if reset.Boots {
			all = append(all, reset.Type)
		}
	}
	if len(all) == 1 && all[0] == "On" {
		return nil
	}
	return all
}

func TestWhatWasArmedAndNotUsedIsTakenBack(t *testing.T) {
	for name, r := range vendorRows {
		t.Run(name, func(t *testing.T) {
			s := r.begin(t)
			armed, err := s.arm(r.request)
			require.NoError(t, err)
			s.sent()
			require.NoError(t, s.disarm(armed.PinnedBy))
			require.Equal(t, r.unused, s.sent())
			require.NoError(t, s.disarm(armed.PinnedBy), "it is gone already")
			require.Empty(t, s.sent())
			require.Equal(t, bmcsim.NextBoot{}, s.boots())
		})
	}
}

// TestVendorsThatCannotSaySo holds the rows where there is no boot to be had by a
// tactic: ErrUnsupported, with no more asked than the table says.
func TestVendorsThatCannotSaySo(t *testing.T) {
	for name, c := range map[string]struct {
		profile string
		request redfish.BootRequest
		sent    []string
		says    string
	}{
		"iLO 6 that refuses the whole override": {"ilo6-no-override", byHTTP, []string{"PATCH 1 weak " + onceHTTP + " 400"}, "BootSourceOverrideTarget is a read-only"},
		"by PXE neither":                        {"ilo6-no-override", byPXE, []string{"PATCH 1 weak " + oncePXE + " 400"}, "BootSourceOverrideTarget is a read-only"},
		"Supermicro X10 has no UefiHttp":        {"supermicro-x10", byHTTP, []string{"PATCH 1 strong " + onceHTTP + " 400"}, "'UefiHttp'"},
		"an old OpenBMC has no UefiHttp":        {"openbmc", byHTTP, []string{"PATCH system strong " + onceHTTP + " 400"}, "'UefiHttp'"},
		"an OpenBMC without overrides":          {"openbmc-no-override", byHTTP, nil, "has no boot override"},
		"has none for PXE":                      {"openbmc-no-override", byPXE, nil, "has no boot override"},
	} {
		t.Run(name, func(t *testing.T) {
			s := simulate(t, c.profile)
			_, err := s.arm(c.request)
			require.ErrorIs(t, err, redfish.ErrUnsupported)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, c.sent, s.sent())
			require.Equal(t, bmcsim.NextBoot{}, s.boots())
		})
	}
}

// A profile that is added to the simulator needs a row here.
func TestEveryProfileHasARow(t *testing.T) {
	has := map[string]bool{"ilo6-no-override": true, "openbmc-no-override": true} // of TestVendorsThatCannotSaySo
	for _, r := range vendorRows {
		has[r.profile] = true
	}
	for _, p := range bmcsim.Profiles() {
		require.True(t, has[p.Name], p.Name)
	}
}

func TestSeveralSystemsAreToldApartBeforeAnythingIsWritten(t *testing.T) {
	s := simulate(t, "hgx")
	pinned := s.con.Address
	s.con.Address = s.address("")
	_, err := s.arm(byHTTP)
	require.ErrorIs(t, err, redfish.ErrSeveralSystems)
	require.ErrorContains(t, err, "/redfish/v1/Systems/HGX_Baseboard_0, /redfish/v1/Systems/System_0")

	s.con.Address = s.address("/redfish/v1/Systems/HGX_Baseboard_0")
	_, err = s.arm(byHTTP)
	require.ErrorIs(t, err, redfish.ErrWrongSystem, "the board beside the host has another UUID")
	require.Empty(t, s.sent())

	s.con.Address = pinned
	_, err = s.arm(byHTTP)
	require.NoError(t, err)
}

// What BootPaths says is what a preflight goes by.
func TestWhatEachVendorIsKnownToBeAbleTo(t *testing.T) {
	for profile, want := range map[string]redfish.BootPaths{
		"generic":             {HTTP: true, PXE: true, PinsURL: "HttpBootUri", Order: true},
		"idrac9":              {HTTP: true, PXE: true, PinsURL: "HttpDev1Uri", Order: true},
		"idrac10":             {HTTP: true, PXE: true, PinsURL: "HttpDev1Uri", Order: true},
		"ilo5":                {HTTP: true, PXE: true, PinsURL: "UrlBootFile", Order: true},
		"ilo6":                {HTTP: true, PXE: true, PinsURL: "UrlBootFile", Order: true},
		"supermicro":          {HTTP: true, PXE: true, PinsURL: "HttpBootUri", Order: true},
		"supermicro-x10":      {PXE: true, Order: true},
		"xcc":                 {HTTP: true, PXE: true, Order: true},
		"megarac":             {HTTP: true, PXE: true, PinsURL: "HttpBootUri", Order: true},
		"openbmc":             {PXE: true, Order: true},
		"openbmc-no-override": {Order: true},
		"bluefield":           {HTTP: true, PXE: true, PinsURL: "HttpBootUri", Order: true},
		"sushy-tools":         {HTTP: true, PXE: true, Order: true, IgnoresOnce: true},
	} {
		s := simulate(t, profile)
		probe, err := s.clients.Probe(t.Context(), s.con)
		require.NoError(t, err)
		require.Equal(t, want, probe.Paths, profile)
		require.Empty(t, s.sent(), "a probe writes nothing")
	}
}

// A BIOS setting that waits for the next boot is what that boot will find.
func TestAPlainURLIsPinnedAgainBeforeTheBootThatWouldForbidIt(t *testing.T) {
	s := simulate(t, "idrac10")
	for range 2 {
		_, err := s.arm(byPlain)
		require.NoError(t, err)
		require.Equal(t, bootsPlain, s.boots())
		require.NoError(t, s.disarm("HttpDev1Uri"))
	}
	s.boots()
	require.Equal(t, "OneWay", s.Attribute("HttpDev1TlsMode"))
	require.Empty(t, s.Attribute("HttpDev1Uri"))
}

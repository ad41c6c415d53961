package bmcsim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// etags is how a BMC writes and compares ETags.
type etags int

const (
	strongETags etags = iota
	weakETags         // W/"…", and takes back what it gave
	staleETags        // every If-Match is answered with 412, even a fresh one
)

// access is what a BMC makes of a property.
type access int

const (
	writable access = iota
	absent          // neither shown nor taken
	readOnly        // shown; a write is refused
)

// profile is how one vendor's BMCs are, and what they do wrong. The zero value of
// every field is what the specification says.
type profile struct {
	name string
	// about says in a line what is odd, for people.
	about string

	// vendor and product are ServiceRoot's; redfish and base are the versions of the
	// protocol and of the Base message registry.
	vendor, product, redfish, base string
	manufacturer, model            string
	managerModel, firmware         string
	// system, manager and chassis are the IDs; "{uuid}" is the machine's UUID.
	system, manager, chassis string
	// siblings are other systems behind the same BMC; they are listed first.
	siblings []string
	// slashes: paths end in a slash. bios is the name of the Bios resource.
	slashes bool
	bios    string

	// targets are BootSourceOverrideTarget@Redfish.AllowableValues; unlisted are
	// taken without being listed. hideTargets: the list is not published.
	targets, unlisted []string
	hideTargets       bool
	// override is all of the Boot override; mode, uri are BootSourceOverrideMode and
	// HttpBootUri.
	override, mode, uri access
	// attributes are what Bios has at first.
	attributes map[string]any
	// pins are the attributes that hold the URL of HTTP Boot, if their switch, where
	// they have one, is Enabled. tls is the attribute that refuses plain HTTP.
	pinURI, pinSwitch, pinTLS string

	tags etags
	// needsMatch: a PATCH without If-Match is answered with 428. actionMatch: an
	// action with If-Match is answered with 412.
	needsMatch, actionMatch bool
	// settings is where the override is written in place of the System: a resource
	// below it. lockSettings: it is shown and refuses the write.
	settings     string
	lockSettings bool

	// applyTime: Bios settings wait for a job, which a PATCH makes only with
	// @Redfish.SettingsApplyTime.
	applyTime bool
	// modeJob: a PATCH that names the mode queues a job that boots once more.
	// reorders: Continuous rewrites the boot order.
	modeJob, reorders bool
	// forgets: a PATCH that leaves out Enabled or Mode resets it.
	forgets bool
	// noneRefused: the override cannot be cleared with the target None.
	noneRefused bool
	// stays: Once is as Continuous, and shown as what stays says.
	stays string
	// repeats: after a boot Once is shown as used up, and used again at every boot.
	repeats bool
	// downloads: HttpBootUri is fetched by the BMC when it is written.
	downloads bool

	// keys is what becomes of changes of the Secure Boot databases.
	keys KeyChanges

	// sessions is how many can be open. full, posting, already are what is said when
	// there are no more, when the machine is in POST, and when it is already in the
	// power state wanted (nil: nothing is wrong with that).
	sessions               int
	full, posting, already *message
	// inlineResets: the reset types stand in the action, else in an ActionInfo.
	inlineResets bool
	// retry is Retry-After in seconds.
	retry int
	// patched is the status of a PATCH that was taken; acted that of an action.
	patched, acted int
}

// registry is the Base message registry's name and version.
func (p *profile) registry() string { return "Base." + or(p.base, "1.18") }

func (p *profile) retryAfter() int { return or(p.retry, 30) }

// or is the first of its values that is not the zero value.
func or[T comparable](values ...T) T {
	var zero T
	for _, v := range values {
		if v != zero {
			return v
		}
	}
	return zero
}

// ProfileInfo is what a person wants to know of a profile.
type ProfileInfo struct{ Name, About string }

// Profiles lists the profiles, generic first.
func Profiles() []ProfileInfo {
	list := make([]ProfileInfo, 0, len(profiles))
	for _, p := range profiles {
		list = append(list, ProfileInfo{Name: p.name, About: p.about})
	}
	return list
}

func findProfile(name string) (*profile, error) {
	i := slices.IndexFunc(profiles, func(p profile) bool { return p.name == name })
	if i < 0 {
		names := make([]string, 0, len(profiles))
		for _, p := range profiles {
			names = append(names, p.name)
		}
		return nil, fmt.Errorf("there is no profile %q; there are %s", name, strings.Join(names, ", "))
	}
	return &profiles[i], nil
}

// The messages of vendors' own registries.
var (
	dellFull    = message{status: 503, id: "IDRAC.2.8.RAC0218", text: "The maximum number of user sessions is reached.", advice: "Close other sessions, then retry the operation."}
	dellPosting = message{status: 503, id: "IDRAC.2.8.SYS518", text: "iDRAC is currently unable to display or use the data: it is not ready.", advice: "Wait for iDRAC to be ready, then retry the operation."}
	dellAlready = message{status: 409, id: "IDRAC.2.8.PSU501", text: "Unable to set the power state: the server is already in the requested one.", advice: "No response action is required."}
	hpePosting  = message{status: 400, id: "iLO.2.14.UnableToModifyDuringSystemPOST", text: "The value cannot be modified while the server is in POST.", severity: "Warning", advice: "Wait for POST to end, then retry the operation."}
	hpeAlready  = message{status: 400, id: "iLO.2.14.InvalidOperationForSystemState", text: "The operation was not successful due to the current power state.", severity: "Warning", advice: "Retry the operation when the server is in the right power state."}
	amiFuture   = message{status: 400, id: "Ami.1.0.OperationSupportedInFutureStateURI", text: "The operation is supported in the future state URI of this resource.", severity: "Warning", advice: "Send the request to the settings object with its ETag."}
)

var allTargets = []string{"None", "Pxe", "Hdd", "Cd", "Usb", "BiosSetup", "UefiHttp", "UefiTarget", "UefiBootNext"}

var oldTargets = []string{"None", "Pxe", "Hdd", "Cd", "Diags", "BiosSetup", "Usb"}

var dellTargets = []string{"None", "Pxe", "Floppy", "Cd", "Hdd", "BiosSetup", "Utilities", "UefiTarget", "SDCard", "UefiHttp"}

var dellAttributes = map[string]any{
	"BootMode": "Uefi", "ProcVirtualization": "Enabled", "HttpDev1EnDis": "Disabled", "HttpDev1Uri": "",
	"HttpDev1Interface": "NIC.Integrated.1-1-1", "HttpDev1Protocol": "IPv4", "HttpDev1DhcpEnDis": "Enabled", "HttpDev1TlsMode": "None",
}

var hpeAttributes = map[string]any{
	"BootMode": "Uefi", "ProcVirtualization": "Enabled", "UrlBootFile": "", "HttpSupport": "Auto", "Dhcpv4": "Enabled",
}

// profiles is the table. What a row says is what redfish clients report of such
// BMCs; where firmware differs, a vendor has several rows.
var profiles = []profile{
	{
		name: "generic", about: "what the specification says",
		vendor: "Boot Operator", product: "Redfish simulator", manufacturer: "Boot Operator", model: "Simulated machine",
		system: "1", manager: "1", chassis: "1", targets: allTargets, inlineResets: true,
		attributes: map[string]any{"BootMode": "Uefi", "ProcVirtualization": true, "BootTimeout": 5},
	},
	dell("idrac9", "no HttpBootUri: BIOS attributes HttpDev1* pin a URL; naming the mode boots twice; Continuous rewrites the boot order; RAC0218, SYS518", func(p *profile) {
		p.managerModel, p.firmware, p.model = "16G Monolithic", "7.10.50.00", "PowerEdge R660"
	}),
	dell("idrac10", "Boot is read-only on the System and written in Settings; plain HTTP Boot is refused; an action with If-Match answers 412", func(p *profile) {
		p.managerModel, p.firmware, p.model = "17G Monolithic", "1.20.50.50", "PowerEdge R670"
		p.settings, p.actionMatch, p.modeJob = "Settings", true, false
		p.attributes = with(dellAttributes, "HttpDev1TlsMode", "OneWay")
		p.pinTLS = "HttpDev1TlsMode"
	}),
	dell("idrac10-system", "an idrac10 whose firmware takes Boot on the System and refuses it in Settings", func(p *profile) {
		p.managerModel, p.firmware, p.model = "17G Monolithic", "1.10.17.00", "PowerEdge R670"
		p.settings, p.lockSettings, p.actionMatch, p.modeJob = "Settings", true, true, false
		p.attributes = with(dellAttributes, "HttpDev1TlsMode", "OneWay")
		p.pinTLS = "HttpDev1TlsMode"
	}),
	hpe("ilo5", "nothing is taken during POST; the mode is not writable; target None is refused; the BIOS attribute UrlBootFile pins a URL", func(p *profile) {
		p.managerModel, p.firmware, p.model, p.uri = "iLO 5", "iLO 5 v3.09", "ProLiant DL360 Gen10", absent
	}),
	hpe("ilo6", "as ilo5, and HttpBootUri is shown and refuses the write", func(p *profile) {
		p.managerModel, p.firmware, p.model, p.uri = "iLO 6", "iLO 6 v1.66", "ProLiant DL360 Gen11", readOnly
	}),
	hpe("ilo6-no-override", "an ilo6 that refuses the whole override", func(p *profile) {
		p.managerModel, p.firmware, p.model, p.uri = "iLO 6", "iLO 6 v1.51", "ProLiant DL360 Gen11", readOnly
		p.override = readOnly
	}),
	{
		name: "supermicro", about: "a PATCH that leaves out Enabled or Mode resets it",
		vendor: "Supermicro", product: "", redfish: "1.11.0", base: "v1_10_0", manufacturer: "Supermicro", model: "SYS-621P-TR",
		firmware: "01.03.10", system: "1", manager: "1", chassis: "1", inlineResets: true,
		targets: []string{"None", "Pxe", "Floppy", "Cd", "Usb", "Hdd", "BiosSetup", "UsbCd", "UefiBootNext", "UefiHttp"},
		forgets: true, attributes: map[string]any{"BootModeSelect": "UEFI"},
	},
	{
		name: "supermicro-x10", about: "has no BootSourceOverrideMode and no UefiHttp; refuses a PATCH that names the mode",
		vendor: "", product: "", redfish: "1.0.1", base: "1.0", manufacturer: "Supermicro", model: "X10DRT-P",
		firmware: "3.88", system: "1", manager: "1", chassis: "1", inlineResets: true,
		targets: []string{"None", "Pxe", "Floppy", "Cd", "Usb", "Hdd", "BiosSetup"}, mode: absent, uri: absent, forgets: true,
	},
	{
		name: "xcc", about: "no UefiHttp, but boot options for it; 412 to every If-Match",
		vendor: "Lenovo", product: "Lenovo XClarity Controller", redfish: "1.15.0", base: "1.16", manufacturer: "Lenovo", model: "ThinkSystem SR650 V2",
		managerModel: "XClarity Controller", firmware: "AFBT46M", system: "1", manager: "1", chassis: "1",
		targets: []string{"None", "Pxe", "Cd", "Usb", "Hdd", "BiosSetup", "Diags", "UefiTarget", "UefiBootNext"}, uri: absent, tags: staleETags,
	},
	ami("megarac", "the override is written in SD with its ETag, and the System shows it only after the boot; 428 without If-Match", "AMI", "AMI Redfish Server", "AMI", "MegaRAC SP-X"),
	ami("asrock", "as megarac", "AMI", "AMI Redfish Server", "ASRockRack", "1U2E-ROME/2T"),
	ami("tsm", "as megarac: Lenovo TSM", "AMI", "AMI Redfish Server", "Lenovo", "ThinkSystem SR645"),
	openbmc("openbmc", "an old build: no UefiHttp, no HttpBootUri", func(*profile) {}),
	openbmc("openbmc-no-override", "a build without boot overrides", func(p *profile) { p.override = absent }),
	openbmc("bluefield", "the override stays until it is set to None", func(p *profile) {
		p.vendor, p.manufacturer, p.model, p.firmware = "Nvidia", "Nvidia", "BlueField-3 DPU", "BF-24.10-17"
		p.system, p.manager, p.chassis = "Bluefield", "Bluefield_BMC", "Card1"
		p.targets, p.uri, p.stays = []string{"None", "Pxe", "UefiHttp", "UefiShell", "UefiTarget", "UefiBootNext"}, writable, "Once"
		p.keys = KeysStaged
	}),
	openbmc("hgx", "two systems: HGX_Baseboard_0 beside the host System_0", func(p *profile) {
		p.vendor, p.manufacturer, p.model, p.firmware = "NVIDIA", "NVIDIA", "GB200 NVL", "GB200Nvl-24.12"
		p.system, p.manager, p.chassis, p.siblings = "System_0", "BMC_0", "Chassis_0", []string{"HGX_Baseboard_0"}
		p.targets, p.uri, p.keys = allTargets, writable, KeysWritable
	}),
	{
		name: "sushy-tools", about: "ignores Once: reports Continuous and boots it every time; with HttpBootUri downloads the file itself and boots it as a CD",
		vendor: "", product: "", redfish: "1.5.0", base: "1.0", manufacturer: "Sushy Emulator", model: "",
		firmware: "1.0.0", system: "{uuid}", manager: "{uuid}", chassis: "15693887-7984-9484-3272-842188918912", inlineResets: true,
		targets: []string{"None", "Pxe", "Cd", "Hdd", "UefiHttp"}, stays: "Continuous", downloads: true, patched: 204,
		attributes: map[string]any{"BootMode": "Uefi", "EmbeddedSata": "Raid", "ProcTurboMode": "Enabled"},
	},
	{
		name: "ignores-once", about: "shows Once as used up after a boot, and uses it again at every boot",
		vendor: "Boot Operator", product: "Redfish simulator", manufacturer: "Boot Operator", model: "Simulated machine",
		system: "1", manager: "1", chassis: "1", targets: allTargets, inlineResets: true, repeats: true,
	},
}

func with(attributes map[string]any, name string, value any) map[string]any {
	m := maps.Clone(attributes)
	m[name] = value
	return m
}

func dell(name, about string, change func(*profile)) profile {
	p := profile{
		name: name, about: about, vendor: "Dell", product: "Integrated Dell Remote Access Controller",
		redfish: "1.20.1", base: "1.12", manufacturer: "Dell Inc.", system: "System.Embedded.1", manager: "iDRAC.Embedded.1", chassis: "System.Embedded.1",
		targets: dellTargets, uri: absent, attributes: dellAttributes, pinURI: "HttpDev1Uri", pinSwitch: "HttpDev1EnDis",
		applyTime: true, modeJob: true, reorders: true, sessions: 8, retry: 300, inlineResets: true,
		full: &dellFull, posting: &dellPosting, already: &dellAlready, keys: KeysStaged,
	}
	change(&p)
	return p
}

func hpe(name, about string, change func(*profile)) profile {
	p := profile{
		name: name, about: about, vendor: "HPE", product: "ProLiant", redfish: "1.20.0", base: "1.18", manufacturer: "HPE",
		system: "1", manager: "1", chassis: "1", slashes: true, bios: "bios", inlineResets: true, tags: weakETags,
		targets: []string{"None", "Cd", "Hdd", "Usb", "SDCard", "Utilities", "Diags", "BiosSetup", "Pxe", "UefiShell", "UefiHttp", "UefiTarget"},
		mode:    readOnly, noneRefused: true, attributes: hpeAttributes, pinURI: "UrlBootFile",
		posting: &hpePosting, already: &hpeAlready, patched: 200, acted: 200, keys: KeysStaged,
	}
	change(&p)
	return p
}

func ami(name, about, vendor, product, manufacturer, model string) profile {
	return profile{
		name: name, about: about, vendor: vendor, product: product, redfish: "1.15.1", base: "1.13", manufacturer: manufacturer, model: model,
		firmware: "12.61.04", system: "Self", manager: "Self", chassis: "Self", targets: allTargets,
		tags: weakETags, needsMatch: true, settings: "SD", patched: 204, acted: 204,
	}
}

func openbmc(name, about string, change func(*profile)) profile {
	p := profile{
		name: name, about: about, vendor: "", product: "", redfish: "1.17.0", base: "1.18", manufacturer: "OpenBMC", model: "Platform",
		managerModel: "OpenBmc", firmware: "2.14.0", system: "system", manager: "bmc", chassis: "chassis", targets: oldTargets, uri: absent, patched: 204, keys: keysAbsent,
	}
	change(&p)
	return p
}

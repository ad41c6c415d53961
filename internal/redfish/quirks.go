package redfish

import (
	"slices"
	"strings"
)

// trait is what a quirk changes in what is sent.
type trait uint32

const (
	// modeNever: BootSourceOverrideMode is never written.
	modeNever trait = 1 << iota
	// modeAlways: Mode is written whenever a GET shows it, else it resets.
	modeAlways
	// noURI: HttpBootUri is not written even where it is shown.
	noURI
	// noHTTP: UefiHttp is not known; an HTTP boot option may be.
	noHTTP
	// settingsFirst: the override is written to the settings object.
	settingsFirst
	// clearWithPxe: an override is cleared with Disabled and Pxe.
	clearWithPxe
	// ignoresOnce: what was asked once is booted again.
	ignoresOnce
	// tlsByDefault: plain HTTP boot is off by default, in the attribute that comes
	// with the pinned URL.
	tlsByDefault
)

// rule is one row of the quirks table: to which BMCs it applies, by what they say
// of themselves, and what it changes. All matchers that are set must match.
type rule struct {
	Quirk
	// vendor is a word of the service root's Vendor or Oem keys, the system's
	// Manufacturer or Oem keys, or the Manager's Manufacturer.
	vendor []string
	// model is a word of the service root's Product, or the Manager's or the
	// system's Model.
	model []string
	// firmware is how the Manager's FirmwareVersion begins.
	firmware []string
	trait    trait
}

// quirks is what is known of vendors. A quirk whose trait is 0 needs nothing of
// its own, since what is always done is right for it; it is listed so that a
// person sees it.
var quirks = []rule{
	{
		Quirk:  Quirk{"mode-only-if-different", "iDRAC: repeating BootSourceOverrideMode=UEFI queues a BIOS job and boots twice, so it is written only where it differs"},
		vendor: []string{"dell"},
	},
	{
		Quirk:  Quirk{"never-continuous", "iDRAC: Continuous rewrites the boot order; only Once is ever written"},
		vendor: []string{"dell"},
	},
	{
		Quirk:  Quirk{"url-by-bios-attribute", "iDRAC has no HttpBootUri: a URL is pinned by the BIOS attributes HttpDev1EnDis and HttpDev1Uri, which persist and are cleared after use"},
		vendor: []string{"dell"}, trait: noURI,
	},
	{
		Quirk:  Quirk{"refuses-what-it-did", "iDRAC of the 13th generation answers 400 although the state changed: the state is read before a refusal is believed"},
		vendor: []string{"dell"}, model: []string{"13g", "idrac 8", "idrac8"},
	},
	{
		Quirk:  Quirk{"system-then-settings", "iDRAC 10: Boot is read-only on the System in some builds and refused on Settings in others: the System is tried, then Settings"},
		vendor: []string{"dell"}, model: []string{"17g", "idrac 10", "idrac10"},
	},
	{
		Quirk:  Quirk{"https-boot-only", "iDRAC 10: plain HTTP boot is refused while HttpDev1TlsMode is OneWay, its default: for a plain URL it is set to None, and back after use"},
		vendor: []string{"dell"}, model: []string{"17g", "idrac 10", "idrac10"}, trait: tlsByDefault,
	},
	{
		Quirk:  Quirk{"no-if-match-on-actions", "iDRAC 10 answers 412 to an action with If-Match: actions are sent without"},
		vendor: []string{"dell"}, model: []string{"17g", "idrac 10", "idrac10"},
	},
	{
		Quirk:  Quirk{"no-mode-write", "iLO: BootSourceOverrideMode is not writable: it is left out"},
		vendor: []string{"hpe", "hewlett"}, trait: modeNever,
	},
	{
		Quirk:  Quirk{"url-by-bios-attribute", "iLO: HttpBootUri is shown and its write rejected; a URL is pinned by the BIOS attribute UrlBootFile, which persists and is cleared after use"},
		vendor: []string{"hpe", "hewlett"}, trait: noURI,
	},
	{
		Quirk:  Quirk{"clear-with-pxe", "iLO rejects the target None: an override is cleared with Disabled and Pxe"},
		vendor: []string{"hpe", "hewlett"}, trait: clearWithPxe,
	},
	{
		Quirk:  Quirk{"arm-while-off", "iLO refuses the override while the machine is in POST: arm it while it is off, once"},
		vendor: []string{"hpe", "hewlett"},
	},
	{
		Quirk:  Quirk{"mode-always", "Supermicro: Enabled and Mode reset unless they are sent: Mode is sent whenever a GET shows it, which X10 does not"},
		vendor: []string{"supermicro", "super micro"}, trait: modeAlways,
	},
	{
		Quirk:  Quirk{"no-uefihttp", "XCC has no UefiHttp: an HTTP boot option is used where there is one (UefiBootNext or UefiTarget), else Pxe"},
		vendor: []string{"lenovo"}, model: []string{"xclarity", "xcc"}, trait: noHTTP,
	},
	{
		Quirk:  Quirk{"if-match-ladder", "XCC answers 412 even to a fresh ETag: then without W/, then without the header, once each"},
		vendor: []string{"lenovo"}, model: []string{"xclarity", "xcc"},
	},
	{
		Quirk:  Quirk{"future-state", "MegaRAC answers OperationSupportedInFutureStateURI: the override belongs in the settings object, and a GET of the System stays unchanged until the reboot"},
		vendor: []string{"ami", "megarac", "asrock", "american megatrends"}, trait: settingsFirst,
	},
	{
		Quirk:  Quirk{"future-state", "TSM is a MegaRAC: the override belongs in the settings object"},
		vendor: []string{"lenovo"}, model: []string{"tsm"}, trait: settingsFirst,
	},
	{
		Quirk:  Quirk{"no-uefihttp", "builds of OpenBMC before 2.13 lack UefiHttp: Pxe is used"},
		vendor: []string{"openbmc"}, firmware: []string{"2.6", "2.7", "2.8", "2.9", "2.10", "2.11", "2.12", "v2.6", "v2.7", "v2.8", "v2.9", "v2.10", "v2.11", "v2.12"}, trait: noHTTP,
	},
	{
		Quirk: Quirk{"override-stays", "BlueField: the override stays until it is set to None: it is cleared after use"},
		model: []string{"bluefield"},
	},
	{
		Quirk:  Quirk{"ignores-once", "sushy-tools ignores Once and always reports Continuous; told an HttpBootUri, it downloads the file itself: it is told none"},
		vendor: []string{"sushy", "openstack"}, trait: ignoresOnce | noURI,
	},
}

// facts are what a BMC says of itself.
type facts struct{ vendors, models, firmware string }

func (b *bmc) facts() facts {
	join := func(s ...string) string { return " " + strings.ToLower(strings.Join(s, " ")) + " " }
	vendors := []string{b.conn.link.root.text("Vendor"), b.sys.text("Manufacturer"), b.manager.Manufacturer}
	vendors = append(vendors, keys(b.conn.link.root.at("Oem"))...)
	vendors = append(vendors, keys(b.sys.at("Oem"))...)
	vendors = append(vendors, b.manager.Oem...)
	return facts{
		vendors:  join(vendors...),
		models:   join(b.conn.link.root.text("Product"), b.manager.Model, b.sys.text("Model")),
		firmware: strings.ToLower(b.manager.Firmware),
	}
}

func keys(o object) []string {
	var all []string
	for k := range o {
		all = append(all, k)
	}
	slices.Sort(all)
	return all[:min(len(all), 16)]
}

func (r rule) applies(f facts) bool {
	return (len(r.vendor) == 0 || slices.ContainsFunc(r.vendor, word(f.vendors))) &&
		(len(r.model) == 0 || slices.ContainsFunc(r.model, word(f.models))) &&
		(len(r.firmware) == 0 || slices.ContainsFunc(r.firmware, version(f.firmware)))
}

// word says whether a text holds a word, at the beginning of one: ami is in
// "AMI" and "ami megarac", not in "dynamic".
func word(text string) func(string) bool {
	return func(w string) bool {
		for rest := text; ; {
			i := strings.Index(rest, w)
			if i < 0 {
				return false
			}
			if i > 0 && !alphanumeric(rest[i-1]) {
				return true
			}
			rest = rest[i+1:]
		}
	}
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
}

func version(text string) func(string) bool {
	return func(v string) bool {
		rest, ok := strings.CutPrefix(text, v)
		return ok && (rest == "" || rest[0] < '0' || rest[0] > '9')
	}
}

// Quirks are the rows of the quirks table that apply to this BMC.
func (b *bmc) Quirks() []Quirk {
	var all []Quirk
	f := b.facts()
	for _, r := range quirks {
		if r.applies(f) {
			all = append(all, r.Quirk)
		}
	}
	return all
}

func (b *bmc) traits() trait {
	var t trait
	f := b.facts()
	for _, r := range quirks {
		if r.applies(f) {
			t |= r.trait
		}
	}
	return t
}

func (t trait) has(other trait) bool { return t&other != 0 }

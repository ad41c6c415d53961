package redfish

import (
	"slices"
	"strings"
)

// The BIOS attributes that hold a URL to boot: Dell's and HPE's. They persist.
const (
	attributeDellURI     = "HttpDev1Uri"
	attributeDellEnabled = "HttpDev1EnDis"
	attributeDellTLS     = "HttpDev1TlsMode"
	attributeHPEURL      = "UrlBootFile"

	tlsNone, tlsOneWay = "None", "OneWay"
)

// bios is a system's Bios resource and its settings object, where changes go.
type bios struct {
	resource
	settings resource
	now      object
	pending  object
	traits   trait
}

// bios reads them. It returns ErrUnsupported where the system has none.
func (b *bmc) bios(c *conn) (bios, error) {
	path := b.sys.link("Bios")
	if path == "" {
		return bios{}, b.cannot("its system has no Bios")
	}
	r, err := c.get(path)
	if err != nil {
		return bios{}, unsupported(err)
	}
	x := bios{resource: r, now: r.at("Attributes"), settings: r, traits: b.traits()}
	pending, err := c.settings(r)
	if err != nil {
		return bios{}, unsupported(err)
	}
	if pending != nil {
		x.settings, x.pending = *pending, pending.at("Attributes")
	}
	return x, nil
}

// pins is the attribute that can hold a URL; empty where there is none.
func (x bios) pins() string {
	switch {
	case x.now.has(attributeDellURI) && x.now.has(attributeDellEnabled):
		return attributeDellURI
	case x.now.has(attributeHPEURL):
		return attributeHPEURL
	}
	return ""
}

// shows says whether an attribute has a value now and will keep it.
func (x bios) shows(name, value string) bool {
	if x.pending.has(name) {
		return x.pending.text(name) == value
	}
	return x.now.text(name) == value
}

// biosPatch is the body of a PATCH of a Bios settings object.
type biosPatch struct {
	ApplyTime  *applyTime        `json:"@Redfish.SettingsApplyTime,omitempty"`
	Attributes map[string]string `json:"Attributes"`
}

// applyTime is PreferredApplyTime (Settings, DSP0268). iDRAC makes its BIOS job
// only when it is told.
type applyTime struct {
	Type string `json:"@odata.type"`
	When string `json:"ApplyTime"`
}

func (x bios) body(attributes map[string]string) biosPatch {
	p := biosPatch{Attributes: attributes}
	if slices.Contains(x.at("@Redfish.Settings").texts("SupportedApplyTimes"), "OnReset") {
		p.ApplyTime = &applyTime{Type: "#Settings.v1_3_0.PreferredApplyTime", When: "OnReset"}
	}
	return p
}

// pinning are the attributes that pin a URL.
func (x bios) pinning(url string) map[string]string {
	if x.pins() == attributeHPEURL {
		return map[string]string{attributeHPEURL: url}
	}
	set := map[string]string{attributeDellEnabled: "Enabled", attributeDellURI: url}
	if x.refusesPlain(url) && x.traits.has(tlsByDefault) {
		set[attributeDellTLS] = tlsNone // Disarm sets it back
	}
	return set
}

func plain(url string) bool { return strings.HasPrefix(strings.ToLower(url), "http://") }

// refusesPlain says that the firmware, as it is set, refuses a URL because it is
// of plain HTTP.
func (x bios) refusesPlain(url string) bool {
	return plain(url) && x.shows(attributeDellTLS, tlsOneWay)
}

// pinByBIOS pins the URL by a BIOS attribute, where there is one. That it cannot
// be is a warning: DHCP can still say the URL.
func (a *arming) pinByBIOS() error {
	x, err := a.bios(a.conn)
	if err != nil {
		return ignoreRefusal(err)
	}
	attribute := x.pins()
	if attribute == "" {
		return nil
	}
	set := x.pinning(a.request.URL)
	if _, switched := set[attributeDellTLS]; x.refusesPlain(a.request.URL) && !switched {
		a.warn("The BIOS attribute %s is %s, which somebody chose: the firmware will refuse a URL of plain HTTP.", attributeDellTLS, tlsOneWay)
	}
	for name, value := range set {
		if x.shows(name, value) {
			delete(set, name)
		}
	}
	if len(set) > 0 {
		if err := a.conn.patch(x.settings, x.body(set)); err != nil {
			if ignoreRefusal(unsupported(err)) != nil {
				return err
			}
			a.warn("The BMC rejects the BIOS attribute %s, so the URL is not pinned.", attribute)
			return nil
		}
	}
	a.armed.PinnedBy = attribute
	return nil
}

// clearBIOS empties the attribute that pinned a URL.
func (b *bmc) clearBIOS(c *conn, attribute string) error {
	x, err := b.bios(c)
	if err != nil {
		return ignoreRefusal(err)
	}
	if !x.now.has(attribute) && !x.pending.has(attribute) {
		return nil
	}
	set := map[string]string{attribute: ""}
	if attribute == attributeDellURI {
		set[attributeDellEnabled] = disabled
		// It was switched for a URL of plain HTTP only.
		ours := x.traits.has(tlsByDefault) && plain(first(x.pending.text(attribute), x.now.text(attribute)))
		if ours && x.shows(attributeDellTLS, tlsNone) {
			set[attributeDellTLS] = tlsOneWay
		}
	}
	if x.shows(attribute, "") && (attribute != attributeDellURI || x.shows(attributeDellEnabled, disabled)) {
		return nil
	}
	return unsupported(c.patch(x.settings, x.body(set)))
}

package redfish

import (
	"net/http"
	"slices"
	"strings"
)

// The values of ComputerSystem.Boot (DSP0268) that are written.
const (
	targetHTTP     = "UefiHttp"
	targetPXE      = "Pxe"
	targetNone     = "None"
	targetBootNext = "UefiBootNext"
	targetDevice   = "UefiTarget"
	enabledOnce    = "Once"
	disabled       = "Disabled"
	modeUEFI       = "UEFI"

	propertyMode   = "BootSourceOverrideMode"
	propertyURI    = "HttpBootUri"
	propertyTarget = "BootSourceOverrideTarget"
)

// override is what is written to ComputerSystem.Boot.
type override struct {
	Enabled     string  `json:"BootSourceOverrideEnabled,omitempty"`
	Target      string  `json:"BootSourceOverrideTarget,omitempty"`
	Mode        string  `json:"BootSourceOverrideMode,omitempty"`
	HTTPBootURI *string `json:"HttpBootUri,omitempty"`
	BootNext    string  `json:"BootNext,omitempty"`
	Device      string  `json:"UefiTargetBootSourceOverride,omitempty"`
}

// bootPatch is the body of the PATCH.
type bootPatch struct {
	Boot any `json:"Boot"`
}

// patch writes to a resource by the If-Match ladder (RFC 9110 section 13.1.1):
// with its ETag; after 412 with the one that it has now; then without W/; then
// without the header, once each. 428 asks for the header where none was sent.
func (c *conn) patch(to resource, body any) error {
	err := c.patchIf(to.path, body, to.etag)
	switch {
	case status(err, http.StatusPreconditionRequired):
		fresh, getErr := c.get(to.path)
		if getErr != nil {
			return err
		}
		if fresh.etag == "" {
			fresh.etag = "*"
		}
		if err = c.patchIf(to.path, body, fresh.etag); !status(err, http.StatusPreconditionFailed) {
			return err
		}
		to.etag = fresh.etag
	case !status(err, http.StatusPreconditionFailed):
		return err
	default:
		fresh, getErr := c.get(to.path)
		if getErr != nil {
			return err
		}
		to.etag = fresh.etag
		if err = c.patchIf(to.path, body, to.etag); !status(err, http.StatusPreconditionFailed) {
			return err
		}
	}
	if strong, weak := strings.CutPrefix(to.etag, "W/"); weak {
		if err = c.patchIf(to.path, body, strong); !status(err, http.StatusPreconditionFailed) {
			return err
		}
	}
	return c.patchIf(to.path, body, "")
}

func (c *conn) patchIf(path string, body any, etag string) error {
	var header map[string]string
	if etag != "" {
		header = map[string]string{"If-Match": etag}
	}
	_, err := c.send(http.MethodPatch, path, body, header)
	return err
}

// settings reads the settings object of a resource (@Redfish.Settings); nil where
// it has none.
func (c *conn) settings(of resource) (*resource, error) {
	path := of.at("@Redfish.Settings").link("SettingsObject")
	if path == "" {
		return nil, nil
	}
	r, err := c.get(path)
	if err != nil {
		return nil, err
	}
	return &r, nil
}

// places are where a system's Boot can be written, in the order to try.
type places struct {
	system resource
	// settings is the settings object, where it is known and has Boot in it.
	settings *resource
	// first says that the settings object comes first.
	first bool
}

// places reads the system and its settings object.
func (b *bmc) places(c *conn) (places, error) {
	s, err := b.system(c)
	if err != nil {
		return places{}, err
	}
	p := places{system: s, first: b.traits().has(settingsFirst)}
	pending, err := c.settings(s)
	if err := ignoreRefusal(err); err != nil {
		return p, err
	}
	if pending == nil && (p.first || b.future) {
		pending = b.sd(c)
	}
	if pending != nil && (p.first || pending.has("Boot")) {
		p.settings = pending
	}
	return p, nil
}

// sd is the settings object that MegaRAC keeps at {id}/SD.
func (b *bmc) sd(c *conn) *resource {
	r, err := c.get(b.path + "/SD")
	if err != nil {
		return nil
	}
	return &r
}

func (p places) order() []resource {
	switch {
	case p.settings == nil:
		return []resource{p.system}
	case p.first:
		return []resource{*p.settings, p.system}
	}
	return []resource{p.system, *p.settings}
}

// shown are the Boot objects that can be read, the first place's first.
func (p places) shown() []object {
	var all []object
	for _, r := range p.order() {
		all = append(all, r.at("Boot"))
	}
	return all
}

// writeBoot writes Boot where the BMC takes it. Where a place refuses a single
// property of it, the next place is not asked.
func (b *bmc) writeBoot(c *conn, p places, boot any) error {
	todo := p.order()
	var firstErr error
	for i := 0; i < len(todo); i++ {
		err := c.patch(todo[i], bootPatch{Boot: boot})
		if err == nil {
			return nil
		}
		if firstErr == nil || !isRefusal(firstErr) {
			firstErr = err
		}
		e, no := refused(err)
		if !no || !belongsElsewhere(e) {
			return err
		}
		if i == len(todo)-1 && p.settings == nil && e.says(futureIDs) {
			if sd := b.sd(c); sd != nil {
				p.settings, b.future = sd, true
				todo = append(todo, *sd)
			}
		}
	}
	return firstErr
}

func isRefusal(err error) bool { _, no := refused(err); return no }

// belongsElsewhere says that a place does not take Boot at all.
func belongsElsewhere(e *Error) bool {
	if e.says(futureIDs) || e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusNotFound {
		return true
	}
	return e.says(readOnlyIDs) && e.names("Boot") && !e.names(propertyMode) && !e.names(propertyURI)
}

// refusesProperty says that a BMC refused a property that was sent: it names it,
// or it names none that was sent.
func refusesProperty(err error, property string) bool {
	e, no := refused(err)
	if !no || (!e.says(readOnlyIDs) && !e.says(valueIDs)) {
		return false
	}
	unnamed := e.says(readOnlyIDs) && !e.names("Boot") && !e.names(targetHTTP) && !e.names(targetPXE)
	return e.names(property) || unnamed
}

// mode is the BootSourceOverrideMode to send: UEFI where it differs (repeating it
// queues a BIOS job on iDRAC) or where it resets unless it is sent; empty: none.
func mode(boot object, t trait) string {
	switch {
	case !boot.has(propertyMode) || t.has(modeNever):
		return ""
	case boot.text(propertyMode) == modeUEFI && !t.has(modeAlways):
		return ""
	}
	return modeUEFI
}

// overridable says whether a Boot object has an override at all: some have no more
// than a boot order.
func overridable(boot object) bool {
	return boot.has("BootSourceOverrideEnabled") || boot.has(propertyTarget) || boot.has(propertyTarget+"@Redfish.AllowableValues")
}

// takesURI says whether HttpBootUri is there to be written.
func takesURI(boot object, t trait) bool { return boot.has(propertyURI) && !t.has(noURI) }

// offers says whether a BMC lists a value as allowable for the override's target.
func offers(boot object, target string) bool {
	return slices.Contains(boot.texts(propertyTarget+"@Redfish.AllowableValues"), target)
}

package redfish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// BootPaths reads what the BMC can be told.
func (b *bmc) BootPaths(ctx context.Context) (BootPaths, error) {
	c := b.conn.with(ctx)
	p, err := b.places(c)
	if err != nil {
		return BootPaths{}, err
	}
	t, now := b.traits(), p.system.at("Boot")
	paths := BootPaths{IgnoresOnce: t.has(ignoresOnce), Order: len(now.texts("BootOrder")) > 0}
	if !slices.ContainsFunc(p.shown(), overridable) {
		return paths, nil
	}
	if now.has(propertyTarget + "@Redfish.AllowableValues") {
		paths.HTTP, paths.PXE = offers(now, targetHTTP), offers(now, targetPXE)
	} else {
		paths.HTTP, paths.PXE = !t.has(noHTTP), true
	}
	if !paths.HTTP {
		option, err := b.httpOption(c, now, "")
		if err != nil && !errors.Is(err, ErrUnsupported) {
			return BootPaths{}, err
		}
		paths.HTTP = err == nil && option.target != ""
	}
	paths.PinsURL, err = b.pins(c, p, t)
	return paths, err
}

// pins is the property that can hold a URL; empty where there is none.
func (b *bmc) pins(c *conn, p places, t trait) (string, error) {
	for _, o := range p.shown() {
		if takesURI(o, t) {
			return propertyURI, nil
		}
	}
	bios, err := b.bios(c)
	if err != nil {
		return "", ignoreRefusal(err)
	}
	return bios.pins(), nil
}

// ignoreRefusal drops the error of a part that a BMC does not have.
func ignoreRefusal(err error) error {
	e, no := refused(err)
	if errors.Is(err, ErrUnsupported) || (no && errors.Is(e, ErrRefused)) {
		return nil
	}
	return err
}

// arming is one Arm.
type arming struct {
	*bmc
	conn     *conn
	request  BootRequest
	traits   trait
	places   places
	override override
	armed    Armed
}

func (a *arming) warn(format string, args ...any) {
	a.armed.Warnings = append(a.armed.Warnings, fmt.Sprintf(format, args...))
}

// Arm sets one network boot and reads it back.
func (b *bmc) Arm(ctx context.Context, r BootRequest) (Armed, error) {
	b.conn.link.url = r.URL
	a, err := b.plan(b.conn.with(ctx), r)
	if err != nil {
		return Armed{}, err
	}
	if err := a.write(); err != nil {
		return Armed{}, unsupportedBySystem(err)
	}
	a.confirm()
	if r.URL != "" && r.Tactic != TacticPXE && a.armed.PinnedBy == "" {
		if err := a.pinByBIOS(); err != nil {
			return Armed{}, err
		}
	}
	return a.armed, nil
}

// plan decides what will be written, and writes nothing.
func (b *bmc) plan(c *conn, r BootRequest) (*arming, error) {
	p, err := b.places(c)
	if err != nil {
		return nil, err
	}
	a := &arming{bmc: b, conn: c, request: r, traits: b.traits(), places: p, armed: Armed{Tactic: r.Tactic}}
	now := p.shown()[0]
	if now == nil {
		now = p.system.at("Boot")
	}
	if !slices.ContainsFunc(p.shown(), overridable) {
		return nil, a.cannot("its system has no boot override, so it cannot be told what to boot next")
	}
	a.override = override{Enabled: enabledOnce, Target: targetPXE}
	switch r.Tactic {
	case TacticHTTP, TacticHTTPWithoutMode:
		a.override.Target = targetHTTP
		if a.traits.has(noHTTP) && !offers(now, targetHTTP) {
			if err := a.useOption(now); err != nil {
				return nil, err
			}
		}
		if r.URL != "" && a.override.Target == targetHTTP && takesURI(now, a.traits) {
			a.override.HTTPBootURI, a.armed.PinnedBy = &r.URL, propertyURI
		}
	case TacticPXE:
	default:
		return nil, fmt.Errorf("%w: %q is no tactic; use %s, %s or %s", boot.ErrInvalid, clip(string(r.Tactic)), TacticHTTP, TacticHTTPWithoutMode, TacticPXE)
	}
	if r.Tactic != TacticHTTPWithoutMode {
		a.override.Mode = mode(now, a.traits)
	}
	return a, nil
}

func (b *bmc) cannot(why string) error {
	return &Error{BMC: b.host(), Request: "GET " + clip(b.path), Err: ErrUnsupported, Message: why}
}

// useOption boots an HTTP boot option once, where UefiHttp is not known.
func (a *arming) useOption(now object) error {
	option, err := a.httpOption(a.conn, now, a.request.MAC)
	if err != nil {
		return err
	}
	a.override.Target, a.override.BootNext, a.override.Device = option.target, "", ""
	if option.target == targetBootNext {
		a.override.BootNext = option.reference
	} else {
		a.override.Device = option.device
	}
	a.override.HTTPBootURI, a.armed.PinnedBy = nil, ""
	return nil
}

// write sends the override, without the properties that the BMC refuses, each
// dropped once.
func (a *arming) write() error {
	triedOption := a.override.Target != targetHTTP
	var before error // of UefiHttp, where an option was tried after it
	for {
		err := a.writeBoot(a.conn, a.places, a.override)
		switch {
		case err == nil:
			return nil
		case a.override.Mode != "" && refusesProperty(err, propertyMode):
			a.override.Mode = ""
			a.warn("The BMC does not let the boot mode be written; it was left as it is.")
		case a.override.HTTPBootURI != nil && refusesProperty(err, propertyURI):
			a.override.HTTPBootURI, a.armed.PinnedBy = nil, ""
			a.warn("The BMC shows HttpBootUri but rejects its write.")
		case isRefusal(err) && !errors.Is(err, ErrUnauthorized) && !errors.Is(err, ErrBusy) && a.tookEffect():
			a.warn("The BMC refused the override and shows it all the same.")
			return nil
		case !triedOption && a.refusesTarget(err):
			triedOption, before = true, err
			if a.useOption(a.places.system.at("Boot")) != nil {
				return err
			}
		case before != nil && a.refusesTarget(err):
			return before
		default:
			return err
		}
	}
}

func (a *arming) refusesTarget(err error) bool {
	e, no := refused(err)
	return no && e.says(valueIDs)
}

// tookEffect reads whether a refused override is there, where it was not before.
func (a *arming) tookEffect() bool {
	for _, o := range a.places.shown() {
		if a.matches(o) {
			return false
		}
	}
	now, err := a.bmc.places(a.conn)
	if err != nil {
		return false
	}
	for _, o := range now.shown() {
		if a.matches(o) {
			return true
		}
	}
	return false
}

// matches says that a Boot object shows what was written.
func (a *arming) matches(o object) bool {
	enabled := o.text("BootSourceOverrideEnabled")
	return o.text(propertyTarget) == a.override.Target && (enabled == enabledOnce || enabled == "Continuous")
}

// confirm reads back what was written: from the System, and from its settings
// object, since some show what is pending only there. What is amiss is a warning.
func (a *arming) confirm() {
	now, err := a.bmc.places(a.conn)
	if err != nil {
		a.warn("The override could not be read back: %v.", err)
		return
	}
	if !a.inAny(now) && now.settings != nil && a.override.Target != "" {
		now = a.writeAgain(now)
	}
	for _, o := range now.shown() {
		if a.matches(o) {
			a.armed.Confirmed = true
			a.check(o)
			return
		}
	}
	a.warn("Reading back does not show the override: the BMC says %s.", describe(now.shown()))
}

func (a *arming) inAny(p places) bool {
	for _, o := range p.shown() {
		if a.matches(o) {
			return true
		}
	}
	return false
}

// writeAgain writes to the other place what the first one silently ignored.
func (a *arming) writeAgain(p places) places {
	other := p.order()[1]
	if err := a.conn.patch(other, bootPatch{Boot: a.override}); err != nil {
		return p
	}
	a.warn("The BMC ignored the override at first; it was written to %s too.", clip(other.path))
	if again, err := a.bmc.places(a.conn); err == nil {
		return again
	}
	return p
}

// check looks at the rest of what a matching Boot object shows.
func (a *arming) check(o object) {
	if enabled := o.text("BootSourceOverrideEnabled"); enabled != enabledOnce {
		a.warn("The BMC made %s of an override that was asked for once.", clip(enabled))
	}
	if a.armed.PinnedBy != propertyURI {
		return
	}
	switch o.text(propertyURI) {
	case a.request.URL:
	case "":
		a.armed.PinnedBy = ""
		a.warn("The BMC took HttpBootUri and does not show it: the URL counts as not set.")
	default:
		a.armed.Confirmed = false
		a.warn("HttpBootUri reads back as another URL than was written.")
	}
}

func describe(all []object) string {
	var parts []string
	for _, o := range all {
		parts = append(parts, fmt.Sprintf("%q for %q", clip(o.text("BootSourceOverrideEnabled")), clip(o.text(propertyTarget))))
	}
	return strings.Join(parts, " and ")
}

// Disarm takes back what Arm left behind.
func (b *bmc) Disarm(ctx context.Context, pinnedBy string) error {
	c := b.conn.with(ctx)
	p, err := b.places(c)
	if err != nil {
		return err
	}
	if p.settings == nil {
		// What is pending may be seen there only, and whoever armed it may be gone.
		if sd := b.sd(c); sd != nil && sd.has("Boot") {
			p.settings = sd
		}
	}
	if err := b.clearOverride(c, p); err != nil {
		return err
	}
	switch pinnedBy {
	case "":
		return nil
	case propertyURI:
		return b.clearURI(c, p)
	case attributeDellURI, attributeHPEURL:
		return b.clearBIOS(c, pinnedBy)
	}
	return fmt.Errorf("%w: %q is no property that holds a URL", boot.ErrInvalid, clip(pinnedBy))
}

// clearOverride switches an override off, where one is shown.
func (b *bmc) clearOverride(c *conn, p places) error {
	armed := false
	for _, o := range p.shown() {
		enabled, target := o.text("BootSourceOverrideEnabled"), o.text(propertyTarget)
		armed = armed || (enabled != "" && enabled != disabled && target != targetNone)
	}
	if !armed {
		return nil
	}
	off := override{Enabled: disabled, Target: targetNone}
	if b.traits().has(clearWithPxe) {
		off.Target = targetPXE
	}
	err := b.writeBoot(c, p, off)
	if e, no := refused(err); no && off.Target == targetNone && (e.says(valueIDs) || e.says(readOnlyIDs)) {
		err = b.writeBoot(c, p, override{Enabled: disabled, Target: targetPXE})
	}
	b.unused = false
	return unsupportedBySystem(err)
}

// clearURI empties HttpBootUri: with null, as the schema has it, or else with an
// empty string.
func (b *bmc) clearURI(c *conn, p places) error {
	shown := false
	for _, o := range p.shown() {
		shown = shown || o.text(propertyURI) != ""
	}
	if !shown {
		return nil
	}
	p, err := b.places(c)
	if err != nil {
		return err
	}
	err = b.writeBoot(c, p, map[string]any{propertyURI: nil})
	if e, no := refused(err); no && e.says(valueIDs) {
		err = b.writeBoot(c, p, map[string]any{propertyURI: ""})
	}
	b.unused = false
	return unsupportedBySystem(err)
}

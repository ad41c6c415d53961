package redfish

import (
	"context"
	"encoding/json"
	"errors"
)

// Probe is what a BMC can do and what would be sent to it.
type Probe struct {
	Identity Identity
	// Systems are the paths of all systems behind the BMC.
	Systems []string
	Power   PowerReading
	// ResetTypes are those that the BMC allows; none where it does not say.
	ResetTypes []string
	Override   Override
	Paths      BootPaths
	// Plans are what Arm would send, by tactic.
	Plans  []Plan
	Quirks []Quirk
	// SecureBoot is nil where the BMC does not say.
	SecureBoot *SecureBootState
	// Databases are those of Secure Boot that can be read; none where the BMC has none.
	Databases []string
	// Missing are the parts that could not be read, each with why.
	Missing []string
}

// Override is the boot override as it is now.
type Override struct {
	Enabled string
	Target  string
	Mode    string
	Targets []string
}

// Plan is what one tactic would send.
type Plan struct {
	Tactic Tactic
	// Requests are in the order in which they are sent; the later ones for the
	// same thing only if the one before is refused.
	Requests []PlannedRequest
	// Error is why the tactic cannot work; empty where it can.
	Error string
}

// PlannedRequest is one request that would be sent.
type PlannedRequest struct {
	Method string
	Path   string
	// IfMatch is the ETag that the request would carry first.
	IfMatch string
	Body    string
}

// probeURL stands for the URL in what would be sent.
const probeURL = "https://boot-server.example/httpboot"

// Probe reads what a BMC can do, and writes nothing. It logs in and out where the
// connection asks for a session. With several systems and none named it returns
// ErrSeveralSystems, and a Probe that lists them.
func (c *Clients) Probe(ctx context.Context, con Connection) (Probe, error) {
	var p Probe
	err := c.do(ctx, con, func(ctx context.Context, b *bmc) error {
		err := b.choose(ctx)
		p.Systems = b.systems
		if err != nil {
			return err
		}
		return p.fill(ctx, b)
	})
	return p, err
}

func (p *Probe) fill(ctx context.Context, b *bmc) error {
	c := b.conn.with(ctx)
	if len(p.Systems) == 0 {
		p.Systems, _ = c.members(c.link.root.link("Systems"))
	}
	var err error
	if p.Identity, err = b.Identity(ctx); err != nil {
		return err
	}
	p.Power, p.Quirks = reading(b.sys), b.Quirks()
	for _, t := range b.resetTypes(c, b.sys) {
		p.ResetTypes = append(p.ResetTypes, clip(string(t)))
	}
	now := b.sys.at("Boot")
	p.Override = Override{Enabled: clip(now.text("BootSourceOverrideEnabled")), Target: clip(now.text(propertyTarget)), Mode: clip(now.text(propertyMode))}
	for _, t := range now.texts(propertyTarget + "@Redfish.AllowableValues") {
		p.Override.Targets = append(p.Override.Targets, clip(t))
	}
	if p.Paths, err = b.BootPaths(ctx); err != nil {
		p.Missing = append(p.Missing, "boot paths: "+err.Error())
	}
	if s, err := b.SecureBoot(ctx); err == nil {
		p.SecureBoot = &s
	} else {
		p.Missing = append(p.Missing, "Secure Boot: "+err.Error())
	}
	if p.SecureBoot != nil {
		p.Databases, err = b.SecureBootDatabaseIDs(ctx)
		if err != nil {
			p.Missing = append(p.Missing, "Secure Boot databases: "+err.Error())
		}
	}
	return p.plan(c, b)
}

// plan asks each tactic what it would send.
func (p *Probe) plan(c *conn, b *bmc) error {
	for _, t := range []Tactic{TacticHTTP, TacticHTTPWithoutMode, TacticPXE} {
		plan := Plan{Tactic: t}
		a, err := b.plan(c, BootRequest{Tactic: t, URL: probeURL})
		switch {
		case errors.Is(err, ErrUnsupported):
			plan.Error = err.Error()
		case err != nil:
			return err
		default:
			plan.Requests = a.requests()
		}
		p.Plans = append(p.Plans, plan)
	}
	return nil
}

// requests are what Arm would send.
func (a *arming) requests() []PlannedRequest {
	var all []PlannedRequest
	add := func(to resource, body any) {
		if text, err := json.Marshal(body); err == nil {
			all = append(all, PlannedRequest{Method: "PATCH", Path: to.path, IfMatch: clip(to.etag), Body: string(text)})
		}
	}
	for _, to := range a.places.order() {
		add(to, bootPatch{Boot: a.override})
	}
	if a.request.Tactic == TacticPXE || a.armed.PinnedBy != "" {
		return all
	}
	if x, err := a.bios(a.conn); err == nil && x.pins() != "" {
		add(x.settings, x.body(x.pinning(a.request.URL)))
	}
	return all
}

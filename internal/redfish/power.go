package redfish

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/stmcginnis/gofish/schemas"
)

// Power reads the state now.
func (b *bmc) Power(ctx context.Context) (PowerReading, error) {
	s, err := b.system(b.conn.with(ctx))
	if err != nil {
		return PowerReading{}, err
	}
	return reading(s), nil
}

func reading(s resource) PowerReading {
	r := PowerReading{LastReset: clip(s.text("LastResetTime")), Progress: clip(s.at("BootProgress").text("LastState"))}
	switch state := PowerState(s.text("PowerState")); state {
	case PowerOn, PowerOff, PowerPoweringOn, PowerPoweringOff:
		r.State = state
	}
	return r
}

// On switches the machine on.
func (b *bmc) On(ctx context.Context) error {
	return b.reset(ctx, []PowerState{PowerOn, PowerPoweringOn}, schemas.OnResetType, schemas.ForceOnResetType)
}

// Off pulls the plug.
func (b *bmc) Off(ctx context.Context) error {
	return b.reset(ctx, []PowerState{PowerOff}, schemas.ForceOffResetType)
}

// Shutdown asks the operating system to switch off.
func (b *bmc) Shutdown(ctx context.Context) error {
	return b.reset(ctx, []PowerState{PowerOff, PowerPoweringOff}, schemas.GracefulShutdownResetType)
}

// Restart resets a machine that is on. One that is off is ErrRefused.
func (b *bmc) Restart(ctx context.Context) error {
	r, err := b.Power(ctx)
	if err != nil {
		return err
	}
	if r.State == PowerOff || r.State == PowerPoweringOff {
		return &Error{BMC: b.host(), Err: ErrRefused, Message: "the machine is off, and a restart is for one that is on"}
	}
	return b.reset(ctx, nil, schemas.ForceRestartResetType, schemas.PowerCycleResetType, schemas.GracefulRestartResetType)
}

// reset does the first of the reset types that the BMC allows, unless the machine
// is in one of the wanted states. Where the BMC refuses, the state is read: some
// refuse what they did (iDRAC of the 13th generation).
func (b *bmc) reset(ctx context.Context, wanted []PowerState, types ...schemas.ResetType) error {
	c := b.conn.with(ctx)
	s, err := b.system(c)
	if err != nil {
		return err
	}
	if slices.Contains(wanted, reading(s).State) {
		return nil
	}
	kind, err := b.allowed(c, s, types)
	if err != nil {
		return err
	}
	target := s.at("Actions").at("#ComputerSystem.Reset").text("target")
	if target == "" {
		target = b.path + "/Actions/ComputerSystem.Reset"
	}
	b.unused = false
	_, err = c.send(http.MethodPost, target, map[string]schemas.ResetType{"ResetType": kind}, nil)
	if _, no := refused(err); no && !errors.Is(err, ErrUnauthorized) && len(wanted) > 0 {
		if after, readErr := b.system(c); readErr == nil && slices.Contains(wanted, reading(after).State) {
			return nil
		}
	}
	return unsupportedBySystem(err)
}

// allowed is the first of the reset types that the BMC says it can do. Where it
// does not say, the first.
func (b *bmc) allowed(c *conn, s resource, types []schemas.ResetType) (schemas.ResetType, error) {
	can := b.resetTypes(c, s)
	if len(can) == 0 {
		return types[0], nil
	}
	for _, t := range types {
		if slices.Contains(can, t) {
			return t, nil
		}
	}
	return "", &Error{BMC: b.host(), Err: ErrUnsupported, Message: "it does not offer the reset type " + string(types[0])}
}

// resetTypes are what the action or its ActionInfo allow; none where the BMC does
// not say.
func (b *bmc) resetTypes(c *conn, s resource) []schemas.ResetType {
	if sys, err := as[schemas.ComputerSystem](c, s); err == nil {
		can, _ := sys.GetSupportedResetTypes()
		return can[:min(len(can), maxMembers)]
	}
	// gofish cannot read this system; its action can be read all the same.
	var can []schemas.ResetType
	for _, t := range s.at("Actions").at("#ComputerSystem.Reset").texts("ResetType@Redfish.AllowableValues") {
		can = append(can, schemas.ResetType(t))
	}
	return can[:min(len(can), maxMembers)]
}

package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// unknownReset is the value of the annotation restarting where the BMC tells no time
// of the last reset: such a restart is taken for done once it was announced.
const unknownReset = "unknown"

// reading asks the BMC for the power state.
func (v *visit) reading(ctx context.Context) (redfish.PowerReading, error) {
	var reading redfish.PowerReading
	err := v.bmc(ctx, metal3.PowerManagementError, func(ctx context.Context, bmc redfish.BMC) (err error) {
		reading, err = bmc.Power(ctx)
		return err
	})
	return reading, err
}

// settling is how long a BMC may tell the state from before after it was told to
// switch the machine on or off.
func (r *reconciler) settling() time.Duration { return r.PowerOffTimeout / 6 }

// pressOn switches the machine on, and remembers when. A BMC that said no is asked
// again.
func (v *visit) pressOn(ctx context.Context, bmc redfish.BMC) error {
	v.note(v.sentOn, v.host.UID)
	err := bmc.On(ctx)
	if err != nil && !errors.Is(err, redfish.ErrLost) {
		v.unnote(v.sentOn, v.host.UID)
	}
	return err
}

// pull pulls the plug, unless it was done just now.
func (v *visit) pull(ctx context.Context, bmc redfish.BMC) error {
	if ago, sent := v.since(v.sentOff, v.host.UID); sent && ago < v.settling() {
		return nil
	}
	v.note(v.sentOff, v.host.UID)
	err := bmc.Off(ctx)
	if err != nil && !errors.Is(err, redfish.ErrLost) {
		v.unnote(v.sentOff, v.host.UID)
	}
	return err
}

// staysOn is for a machine that was told to switch off for too long.
func (v *visit) staysOn(reading redfish.PowerReading) error {
	return failed(metal3.PowerManagementError, ReasonPowerFailed, fmt.Errorf("the machine was told to switch off more than %s ago, and its BMC still says %q", v.PowerOffTimeout, reading.State))
}

// power makes the machine's power what the host says; on is how it is switched on.
func (v *visit) power(ctx context.Context, on func(context.Context) error) error {
	reading, err := v.reading(ctx)
	if err != nil {
		return err
	}
	v.host.Status.PoweredOn = isOn(reading)
	asked := rebootOf(v.host)
	switch {
	case v.host.Spec.DisablePowerOff && isOn(reading):
		return v.restartOnly(ctx, asked, reading)
	case asked.any() || !v.host.Spec.Online:
		return v.stayOff(ctx, asked, reading)
	case reading.State == redfish.PowerOff:
		return on(ctx)
	}
	for _, m := range []map[types.UID]time.Time{v.shutdown, v.sentOff, v.sentOn} {
		v.unnote(m, v.host.UID)
	}
	v.after = v.PowerInterval
	if reading.State == redfish.PowerPoweringOff {
		return v.wait(v.PollInterval, "waits for the machine to be off, to switch it on")
	}
	return nil
}

// plainOn switches the machine on, to boot whatever it boots by itself.
func (v *visit) plainOn(ctx context.Context) error {
	if ago, sent := v.since(v.sentOn, v.host.UID); sent && ago < v.settling() {
		return v.wait(v.PollInterval, "waits for the machine to switch on")
	}
	err := v.bmc(ctx, metal3.PowerManagementError, func(ctx context.Context, bmc redfish.BMC) error {
		return v.pressOn(ctx, bmc)
	})
	if err != nil && !errors.Is(err, redfish.ErrLost) {
		return err
	}
	return v.wait(v.PollInterval, "waits for the machine to switch on")
}

// stayOff switches the machine off, and keeps it off while somebody asks for that. A
// reboot that nobody holds ends as soon as the machine is off.
func (v *visit) stayOff(ctx context.Context, asked reboot, reading redfish.PowerReading) error {
	if reading.State != redfish.PowerOff {
		return v.off(ctx, asked.hard, reading)
	}
	v.unnote(v.shutdown, v.host.UID)
	v.unnote(v.sentOff, v.host.UID)
	if asked.once {
		v.after = atOnce
		return v.change(ctx, func(h *metal3.BareMetalHost) { delete(h.Annotations, metal3.RebootAnnotationPrefix) })
	}
	v.after = v.PowerInterval
	return nil
}

// off switches the machine off: the operating system is asked first, unless it must
// be quick, and has its time.
func (v *visit) off(ctx context.Context, hard bool, reading redfish.PowerReading) error {
	ago, asked := v.since(v.shutdown, v.host.UID)
	if !asked {
		v.note(v.shutdown, v.host.UID)
	}
	if asked && !hard && ago < v.PowerOffTimeout {
		return v.wait(v.PollInterval, "waits for the operating system to shut down")
	}
	err := v.bmc(ctx, metal3.PowerManagementError, func(ctx context.Context, bmc redfish.BMC) error {
		if hard || asked {
			return v.pull(ctx, bmc)
		}
		err := bmc.Shutdown(ctx)
		if errors.Is(err, redfish.ErrUnsupported) || errors.Is(err, redfish.ErrRefused) {
			return v.pull(ctx, bmc)
		}
		return err
	})
	switch {
	case err != nil && !errors.Is(err, redfish.ErrLost):
		if !asked {
			v.unnote(v.shutdown, v.host.UID)
		}
		return err
	case asked && ago > 2*v.PowerOffTimeout:
		return v.staysOn(reading)
	}
	return v.wait(v.PollInterval, "waits for the machine to switch off")
}

// offNow pulls the plug; true says that the machine is off.
func (v *visit) offNow(ctx context.Context) (bool, error) {
	reading, err := v.reading(ctx)
	if err != nil {
		return false, err
	}
	v.host.Status.PoweredOn = isOn(reading)
	if reading.State == redfish.PowerOff {
		v.unnote(v.shutdown, v.host.UID)
		v.unnote(v.sentOff, v.host.UID)
		return true, nil
	}
	return false, v.off(ctx, true, reading)
}

// restartOnly is for a machine that is on and must not be switched off: a reboot is
// a reset there. That it is about to be done takes the place of the annotation that
// asks for it, with the time of the last reset, so that a crash repeats none.
func (v *visit) restartOnly(ctx context.Context, asked reboot, reading redfish.PowerReading) error {
	before, announced := v.host.Annotations[v1alpha1.HostRestartAnnotation]
	switch {
	case announced && (before == unknownReset || before != reading.LastReset):
		v.after = atOnce
		return v.change(ctx, func(h *metal3.BareMetalHost) { delete(h.Annotations, v1alpha1.HostRestartAnnotation) })
	case announced:
		return v.restartNow(ctx)
	case !asked.once:
		v.after = v.PowerInterval
		return nil
	}
	before = reading.LastReset
	if before == "" {
		before = unknownReset
	}
	err := v.change(ctx, func(h *metal3.BareMetalHost) {
		delete(h.Annotations, metal3.RebootAnnotationPrefix)
		h.Annotations[v1alpha1.HostRestartAnnotation] = before
	})
	if err != nil || before != unknownReset {
		return errors.Join(err, v.again())
	}
	return v.restartNow(ctx)
}

// restartNow resets the machine. One whose answer was lost is taken for done, and so
// is one that the time of the last reset does not tell of: there is no second.
func (v *visit) restartNow(ctx context.Context) error {
	err := v.bmc(ctx, metal3.PowerManagementError, func(ctx context.Context, bmc redfish.BMC) error { return bmc.Restart(ctx) })
	if err != nil && !errors.Is(err, redfish.ErrLost) {
		return err
	}
	v.after = v.PollInterval
	return v.change(ctx, func(h *metal3.BareMetalHost) { delete(h.Annotations, v1alpha1.HostRestartAnnotation) })
}

// reboot is what the annotations ask for (Metal3's "reboot interface").
type reboot struct {
	// once: reboot.metal3.io, which goes when the machine is off.
	once bool
	// held: reboot.metal3.io/<who>, which stays until who removes it.
	held bool
	// hard: one of them does not want the operating system to be asked.
	hard bool
}

func (r reboot) any() bool { return r.once || r.held }

func rebootOf(host *metal3.BareMetalHost) reboot {
	var r reboot
	for _, key := range slices.Sorted(maps.Keys(host.Annotations)) {
		switch {
		case key == metal3.RebootAnnotationPrefix:
			r.once = true
		case strings.HasPrefix(key, metal3.RebootAnnotationPrefix+"/"):
			r.held = true
		default:
			continue
		}
		var arguments metal3.RebootAnnotationArguments
		if json.Unmarshal([]byte(host.Annotations[key]), &arguments) == nil && arguments.Mode == metal3.RebootModeHard {
			r.hard = true
		}
	}
	return r
}

// bootAgain is the beginning of the annotation restarting where the restart is a
// boot from the network; the number of that boot follows.
const bootAgain = "boot:"

// rebootAsBoot makes a boot from the network of a reboot that was asked for while
// the machine had not fetched what it boots, or must not be switched off. The
// annotation that asks is exchanged for one that says which boot it became.
func (n *netboot) rebootAsBoot(ctx context.Context, record *v1alpha1.NetworkBoot) (bool, error) {
	text, announced := n.host.Annotations[v1alpha1.HostRestartAnnotation]
	number, ours := strings.CutPrefix(text, bootAgain)
	switch {
	case record == nil:
		return false, nil
	case announced && ours && (record.Request == number || baseOf(number) != n.base()):
		n.after = atOnce
		return true, n.change(ctx, func(h *metal3.BareMetalHost) { delete(h.Annotations, v1alpha1.HostRestartAnnotation) })
	case announced && ours:
		return true, n.start(ctx, number)
	case !rebootOf(n.host).once || record.Step == v1alpha1.NetworkBootDelivered && !n.host.Spec.DisablePowerOff:
		return false, nil
	}
	next := fmt.Sprintf("%s.%d", n.base(), countOf(record.Request)+1)
	n.after = atOnce
	return true, n.change(ctx, func(h *metal3.BareMetalHost) {
		delete(h.Annotations, metal3.RebootAnnotationPrefix)
		h.Annotations[v1alpha1.HostRestartAnnotation] = bootAgain + next
	})
}

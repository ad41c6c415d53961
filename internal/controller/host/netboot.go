package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

const (
	// maxDry is how many times a machine is armed at most as long as no byte was
	// served, and maxCut how many times more after deliveries that were cut.
	maxDry = 3
	maxCut = 2
	// freshAttempt is how old a boot attempt may be when a machine is armed for it.
	freshAttempt = 5 * time.Minute
	// commitGrace is how long after the delivery of an installation was spent it may
	// take to say that it was complete.
	commitGrace = 5 * time.Minute
	// busyLimit is how long a BMC may be too busy to be armed.
	busyLimit = 15 * time.Minute
)

// netboot takes one step of the boot that a record tells of. Each step first looks
// whether what it is to do was done already, as after a crash; what it has done is
// written by the record of the next step, and only after that is that one taken.
type netboot struct {
	*visit
	children children
	record   v1alpha1.NetworkBoot
	paths    redfish.BootPaths
	policy   boot.Policy
	// when is what must have been fetched, and hasData whether there is user data.
	when    v1alpha1.ProvisionedWhen
	hasData bool
}

// fresh is the record of a boot that has not begun. What an earlier one left in the
// BMC is still to be taken back.
func (n *netboot) fresh(request string) v1alpha1.NetworkBoot {
	record := v1alpha1.NetworkBoot{Request: request, Try: 1}
	if last := n.children.record(); last != nil {
		record.PinnedBy = last.PinnedBy
	}
	return record
}

// begin writes the record of a new boot. Nothing else is done for it yet.
func (n *netboot) begin(ctx context.Context) error {
	if err := n.to(ctx, v1alpha1.NetworkBootPowerOff); err != nil {
		return err
	}
	if known := conditionOf(n.child(), v1alpha1.ConditionIdentifiable); known != nil {
		n.event(corev1.EventTypeNormal, ReasonBootBegun, "Boot %s begins, by %s; how the machine is known: %s", n.record.Request, n.tactic(), known.Message)
	}
	return nil
}

// write writes the record as it is.
func (n *netboot) write(ctx context.Context) error {
	f := fieldsOf(n.children[0])
	f.networkBoot = &n.record
	switch n.record.Step {
	case v1alpha1.NetworkBootDelivered, v1alpha1.NetworkBootFailed, v1alpha1.NetworkBootPowerOff:
		f.armed = nil
	}
	if err := n.writeBoot(ctx, n.children[0], f); err != nil {
		return err
	}
	return n.again()
}

// step takes the next step.
func (n *netboot) step(ctx context.Context) error {
	n.record = *n.children.record()
	if number := n.abortedAttempt(); number > 0 && n.record.Step != v1alpha1.NetworkBootDelivered {
		return n.abort(ctx, number)
	}
	switch n.record.Step {
	case v1alpha1.NetworkBootPowerOff:
		return n.powerOff(ctx)
	case v1alpha1.NetworkBootArm:
		return n.arm(ctx)
	case v1alpha1.NetworkBootPowerOn:
		return n.powerOn(ctx)
	case v1alpha1.NetworkBootAwaitFetch:
		return n.awaitFetch(ctx)
	case v1alpha1.NetworkBootDelivered:
		return n.disarm(ctx)
	}
	return nil
}

// powerOff sees to it that the machine is off before it is armed.
func (n *netboot) powerOff(ctx context.Context) error {
	var reading redfish.PowerReading
	err := n.bmc(ctx, metal3.PowerManagementError, func(ctx context.Context, bmc redfish.BMC) (err error) {
		if reading, err = bmc.Power(ctx); err != nil || n.host.Spec.DisablePowerOff || reading.State == redfish.PowerOff {
			return err
		}
		return n.pull(ctx, bmc)
	})
	if err != nil {
		return n.duringOff(err)
	}
	n.host.Status.PoweredOn = isOn(reading)
	switch {
	case reading.State == redfish.PowerOff || n.host.Spec.DisablePowerOff:
		n.unnote(n.sentOff, n.host.UID)
		return n.to(ctx, v1alpha1.NetworkBootArm)
	case n.elapsed() > n.PowerOffTimeout:
		return n.staysOn(reading)
	}
	return n.wait(n.PollInterval, "waits for the machine to switch off")
}

// duringOff has patience with a BMC that shares its port with the host and
// vanishes for a while as the host goes off.
func (n *netboot) duringOff(err error) error {
	if (errors.Is(err, redfish.ErrUnreachable) || errors.Is(err, redfish.ErrLost) || errors.Is(err, redfish.ErrBroken)) && n.elapsed() < n.PowerOffTimeout {
		return n.wait(max(redfish.RetryAfter(err), n.RetryInterval), "waits for the BMC, which does not answer while the machine switches off")
	}
	return err
}

func (n *netboot) elapsed() time.Duration { return n.Clock.Since(n.record.Since.Time) }

// arm tells the BMC to boot from the network once. The attempt, the tactic and that
// a URL is about to be set are written first.
func (n *netboot) arm(ctx context.Context) error {
	if told, err := n.tellPins(ctx); err != nil || told {
		return err
	}
	if switched, err := n.choose(ctx); err != nil || switched {
		return err
	}
	if ready, err := n.ready(); err != nil || !ready {
		return err
	}
	attempt, opened, err := n.openAttempt(ctx)
	if err != nil || !opened {
		return err
	}
	request := redfish.BootRequest{Tactic: n.tactic(), MAC: n.host.Spec.BootMACAddress}
	if n.pins(request.Tactic) {
		opened := attempt
		if request.URL, attempt, err = n.Links.Boot(string(n.child().GetUID()), n.verified()); err == nil && attempt < opened {
			err = boot.ErrNotReady // the servers are behind
		}
		if err != nil {
			return n.notKnownYet(err)
		}
	}
	if announced, err := n.announce(ctx, attempt, request); err != nil || !announced {
		return err
	}
	armed, reading, err := n.tell(ctx, request)
	switch {
	case err != nil:
		return n.notArmed(ctx, err)
	case isOn(reading) && !n.host.Spec.DisablePowerOff:
		return n.to(ctx, v1alpha1.NetworkBootPowerOff) // somebody switched it on
	}
	return n.armed(ctx, request, armed, reading)
}

// tell arms the BMC of a machine that is off, or must not be.
func (n *netboot) tell(ctx context.Context, request redfish.BootRequest) (armed redfish.Armed, reading redfish.PowerReading, err error) {
	err = n.bmc(ctx, metal3.ProvisioningError, func(ctx context.Context, bmc redfish.BMC) (err error) {
		if reading, err = bmc.Power(ctx); err != nil || isOn(reading) && !n.host.Spec.DisablePowerOff {
			return err
		}
		if err = n.prepare(ctx, bmc); err == nil {
			armed, err = bmc.Arm(ctx, request)
		}
		return err
	})
	return armed, reading, err
}

// armed writes what the BMC made of the request.
func (n *netboot) armed(ctx context.Context, request redfish.BootRequest, armed redfish.Armed, reading redfish.PowerReading) error {
	if request.URL != "" && armed.PinnedBy == "" {
		n.paths.PinsURL = ""
		n.visit.paths.put(n.host, n.paths)
		return n.next(ctx, v1alpha1.NetworkBootArm, "the BMC took the boot, and not the URL that names the machine")
	}
	if armed.PinnedBy != "" {
		n.record.PinnedBy = armed.PinnedBy
	}
	n.record.LastReset, n.record.Message, n.record.Disarmed = reading.LastReset, "", false
	n.unnote(n.sentOn, n.host.UID)
	if err := n.to(ctx, v1alpha1.NetworkBootPowerOn); err != nil {
		return err
	}
	for _, w := range armed.Warnings {
		n.event(corev1.EventTypeWarning, ReasonBootArmed, "%s", w)
	}
	return nil
}

// announce writes for which attempt and by which tactic the machine is about to be
// armed; false says that it has just done so, and the visit ends.
func (n *netboot) announce(ctx context.Context, attempt int64, request redfish.BootRequest) (bool, error) {
	f := fieldsOf(n.children[0])
	var armed *v1alpha1.BootArmed
	if request.URL != "" {
		armed = &v1alpha1.BootArmed{Attempt: attempt}
	}
	same := (f.armed == nil) == (armed == nil) && (armed == nil || *f.armed == *armed)
	if same && n.record.Attempt == attempt && n.record.Tactic == string(request.Tactic) {
		return true, nil
	}
	n.record.Attempt, n.record.Tactic = attempt, string(request.Tactic)
	if armed != nil {
		n.record.PinnedBy = n.paths.PinsURL
	}
	f.armed, f.networkBoot = armed, &n.record
	if err := n.writeBoot(ctx, n.children[0], f); err != nil {
		return false, err
	}
	return false, n.again()
}

// openAttempt asks for a boot attempt of this try, and says whether it is open, and
// which it is. One that waited for long is asked for again: a boot takes its time.
func (n *netboot) openAttempt(ctx context.Context) (int64, bool, error) {
	c := n.child()
	want := tryOf(n.record.Request, n.record.Try)
	has := c.GetAnnotations()[v1alpha1.RequestBootAnnotation]
	b := c.ConfigStatus().Boot
	if strings.HasPrefix(has+"@", want+"@") {
		switch {
		case b == nil || b.Request != has:
			return 0, false, n.wait(n.PollInterval, "waits until boot attempt %s is open", has)
		case b.OpenedTime != nil && n.Clock.Since(b.OpenedTime.Time) < freshAttempt:
			return b.Attempt, true, nil
		}
		want = fmt.Sprintf("%s@%d", want, n.Clock.Now().Unix())
	}
	_, err := n.changeChild(ctx, c, func(c child) { annotate(c, v1alpha1.RequestBootAnnotation, want) })
	if err != nil {
		return 0, false, err
	}
	return 0, false, n.wait(n.PollInterval, "waits until boot attempt %s is open", want)
}

// tryOf is what a config's annotation request-boot says for one try of a request.
func tryOf(request string, try int32) string { return fmt.Sprintf("%s.%d", request, try) }

// notKnownYet waits until the servers know of the attempt.
func (n *netboot) notKnownYet(err error) error {
	if errors.Is(err, boot.ErrNotReady) || errors.Is(err, boot.ErrNotFound) || errors.Is(err, boot.ErrUnavailable) {
		return n.wait(max(soon, n.PollInterval/4), "waits until the boot server knows of the attempt")
	}
	return wrong(metal3.ProvisioningError, ReasonBootFailed, err)
}

// prepare sets what has to be in place before a boot: Secure Boot, the authority of
// the boot server's certificate, and for a machine that lives from the network its
// boot order.
func (n *netboot) prepare(ctx context.Context, bmc redfish.BMC) error {
	if n.host.Spec.BootMode == metal3.UEFISecureBoot {
		if err := bmc.SetSecureBoot(ctx, true); err != nil {
			return &unprepared{fmt.Errorf("switching Secure Boot on (spec.bootMode): %w", err)}
		}
	}
	if len(n.BootCA) > 0 {
		if err := bmc.AddBootCertificate(ctx, n.BootCA); err != nil && !errors.Is(err, redfish.ErrUnsupported) {
			return &unprepared{fmt.Errorf("giving the firmware the boot server's authority: %w", err)}
		}
	}
	if n.policy != boot.Always {
		n.unset(ConditionReturns)
		return nil
	}
	return n.preferNetwork(ctx, bmc)
}

// preferNetwork puts the network first in the boot order of a diskless machine, and
// says whether it will come back by itself.
func (n *netboot) preferNetwork(ctx context.Context, bmc redfish.BMC) error {
	err := bmc.PreferNetwork(ctx, n.host.Spec.BootMACAddress, n.tactic() != redfish.TacticPXE)
	switch {
	case errors.Is(err, redfish.ErrUnsupported), errors.Is(err, redfish.ErrRefused):
		n.set(ConditionReturns, false, ReasonBootOrderNotWritable, "The machine's boot order cannot be written through its BMC ("+clip(err.Error())+"): after a reboot of its own or a power cut it boots whatever its firmware tries first. Put the network first in the firmware's setup, or restart it through this host.")
	case err != nil:
		return &unprepared{fmt.Errorf("putting the network first in the boot order: %w", err)}
	case n.onlyByBMC():
		n.set(ConditionReturns, false, ReasonIdentityOnlyByBMC, "The boot order begins with the network, but only a URL that is set through the BMC names this machine: after a reboot of its own nobody knows it. List its addresses in the annotation "+v1alpha1.HostAddressesAnnotation+", or let the operator offer boots itself (--netboot-interface).")
	default:
		n.set(ConditionReturns, true, ReasonNetworkFirst, "The boot order begins with the network, which names the machine.")
	}
	return nil
}

// unprepared is what has to be in place before a boot and could not be set: no
// other tactic helps with that.
type unprepared struct{ error }

func (u *unprepared) Unwrap() error { return u.error }

// notArmed says what to do when the BMC was not told.
func (n *netboot) notArmed(ctx context.Context, err error) error {
	var u *unprepared
	refused := errors.Is(err, redfish.ErrUnsupported) || errors.Is(err, redfish.ErrRefused)
	switch {
	case errors.Is(err, redfish.ErrBusy) && n.elapsed() < busyLimit:
		return n.waitForBMC(err)
	case refused && errors.As(err, &u):
		return n.giveUp(ctx, u.Error())
	case refused:
		return n.next(ctx, v1alpha1.NetworkBootArm, clip(err.Error()))
	}
	return err
}

// waitForBMC waits for one that is busy, as in POST.
func (n *netboot) waitForBMC(err error) error {
	return n.wait(max(redfish.RetryAfter(err), n.PollInterval), "waits for the BMC: %s", clip(err.Error()))
}

// powerOn switches the machine on, once: one that is on was switched on before a
// crash, or by a request whose answer was lost.
func (n *netboot) powerOn(ctx context.Context) error {
	if n.host.Spec.DisablePowerOff {
		return n.restart(ctx)
	}
	if seen := n.children.fetched(&n.record); seen.boot || seen.secret || !seen.committed.IsZero() {
		n.host.Status.PoweredOn = true // whatever its BMC says
		return n.to(ctx, v1alpha1.NetworkBootAwaitFetch)
	}
	var reading redfish.PowerReading
	ago, sent := n.since(n.sentOn, n.host.UID)
	held := false
	err := n.bmc(ctx, metal3.PowerManagementError, func(ctx context.Context, bmc redfish.BMC) (err error) {
		reading, err = bmc.Power(ctx)
		held = !n.isReady() && reading.State == redfish.PowerOff && !sent
		if err != nil || reading.State != redfish.PowerOff || sent || held {
			return err
		}
		return n.pressOn(ctx, bmc)
	})
	switch {
	case held && err == nil:
		return n.to(ctx, v1alpha1.NetworkBootArm) // where it is told what is wrong
	case errors.Is(err, redfish.ErrLost):
		return n.wait(n.PollInterval, "waits for the BMC, whose answer to the power-on was lost")
	case errors.Is(err, redfish.ErrBusy) && n.elapsed() < busyLimit:
		return n.waitForBMC(err)
	case err != nil:
		return err
	}
	n.host.Status.PoweredOn = isOn(reading)
	switch {
	case reading.State == redfish.PowerOff && sent && ago >= n.settling():
		// What was armed for one boot may be used up.
		return n.next(ctx, v1alpha1.NetworkBootArm, "the machine did not switch on, or went off again at once")
	case reading.State == redfish.PowerOff:
		return n.wait(n.PollInterval, "waits for the machine to switch on")
	}
	return n.to(ctx, v1alpha1.NetworkBootAwaitFetch)
}

// restart resets a machine that must not be switched off. A BMC that tells no time
// of the last reset cannot say after a crash whether it was done: there it is
// announced as done before it is.
func (n *netboot) restart(ctx context.Context) error {
	var reading redfish.PowerReading
	err := n.bmc(ctx, metal3.PowerManagementError, func(ctx context.Context, bmc redfish.BMC) (err error) {
		reading, err = bmc.Power(ctx)
		return err
	})
	if err != nil {
		return err
	}
	_, sent := n.since(n.sentOn, n.host.UID)
	done := sent || n.record.LastReset != "" && reading.LastReset != n.record.LastReset
	if !done && !n.isReady() {
		return n.to(ctx, v1alpha1.NetworkBootArm) // where it is told what is wrong
	}
	if !done && n.record.LastReset == "" {
		if err := n.to(ctx, v1alpha1.NetworkBootAwaitFetch); err != nil {
			return err
		}
	}
	if !done {
		if err := n.bmc(ctx, metal3.PowerManagementError, reset(reading)); err != nil && !errors.Is(err, redfish.ErrLost) {
			return err
		}
		n.note(n.sentOn, n.host.UID) // also where its answer was lost: there is no second
	}
	n.host.Status.PoweredOn = true
	if n.record.Step == v1alpha1.NetworkBootAwaitFetch {
		return n.again()
	}
	return n.to(ctx, v1alpha1.NetworkBootAwaitFetch)
}

// reset restarts a machine that is on, and switches on one that is off.
func reset(reading redfish.PowerReading) func(context.Context, redfish.BMC) error {
	return func(ctx context.Context, bmc redfish.BMC) error {
		if reading.State == redfish.PowerOff {
			return bmc.On(ctx)
		}
		return bmc.Restart(ctx)
	}
}

// awaitFetch waits for what proves the boot: the bytes that the server sent.
func (n *netboot) awaitFetch(ctx context.Context) error {
	seen := n.children.fetched(&n.record)
	switch {
	case seen.boot, seen.secret && n.when == v1alpha1.ProvisionedWhenUserData:
		if err := n.to(ctx, v1alpha1.NetworkBootDelivered); err != nil {
			return err
		}
		n.event(corev1.EventTypeNormal, ReasonBootDelivered, "The machine fetched what it boots, in attempt %d (%s).", n.record.Attempt, n.record.Tactic)
		return nil
	case !seen.committed.IsZero() && n.Clock.Since(seen.committed) > min(n.FetchTimeout, commitGrace):
		return n.unconfirmed(ctx, seen)
	case n.elapsed() > n.FetchTimeout && seen.secret:
		return n.giveUp(ctx, "the machine fetched its user data and not all of what it boots; it is not armed again by itself, since a secret was served")
	case n.elapsed() > n.FetchTimeout:
		return n.retry(ctx, seen, fmt.Sprintf("the machine did not fetch what it boots within %s (%s)", n.FetchTimeout, n.record.Tactic))
	}
	off, err := n.foundOff(ctx)
	switch {
	case err != nil:
		return err
	case off && !seen.secret:
		return n.retry(ctx, seen, "the machine went off before it fetched what it boots")
	}
	return n.wait(min(n.FetchTimeout-n.elapsed()+soon, n.PowerInterval), "waits for the machine to fetch what it boots, until %s (%s)", n.record.Since.Add(n.FetchTimeout).UTC().Format(time.RFC3339), n.record.Tactic)
}

// unconfirmed is for an installation whose delivery was spent and never said to be
// complete: the operator ended as its last bytes were leaving. A machine that has
// user data and did not ask for it did not get them. One that has none is not armed
// again: it may be installed.
func (n *netboot) unconfirmed(ctx context.Context, seen fetched) error {
	if ref := n.child().Common().IgnitionSecretRef; ref != nil && ref.Name != "" {
		seen.cut = true
		return n.retry(ctx, seen, "the operator ended while the last bytes of the image were sent, and the machine did not ask for its user data")
	}
	n.record.Message = "the operator ended while the last bytes of the image were sent; whether the machine got them is not known, and it is not armed again by itself"
	return n.to(ctx, v1alpha1.NetworkBootDelivered)
}

// foundOff says whether the machine is off although it was switched on a while ago.
// A BMC that does not answer now is asked again later: what counts is fetched from
// us.
func (n *netboot) foundOff(ctx context.Context) (bool, error) {
	if n.elapsed() < n.PowerInterval {
		return false, nil
	}
	reading, err := n.reading(ctx)
	if err != nil {
		var f *failure
		if errors.As(err, &f) {
			return false, nil
		}
		return false, err
	}
	return reading.State == redfish.PowerOff, nil
}

// retry arms the machine again, as often as it may be.
func (n *netboot) retry(ctx context.Context, seen fetched, why string) error {
	if seen.cut {
		if n.record.Cut >= maxCut {
			return n.giveUp(ctx, fmt.Sprintf("%s; %d deliveries were cut", why, n.record.Cut+1))
		}
		n.record.Cut++
		why = "the delivery was cut: " + why
	}
	return n.next(ctx, v1alpha1.NetworkBootPowerOff, why)
}

// next begins the next try with its next tactic, or ends.
func (n *netboot) next(ctx context.Context, step v1alpha1.NetworkBootStep, why string) error {
	if n.record.Try-n.record.Cut >= maxDry {
		return n.giveUp(ctx, fmt.Sprintf("%s; it was armed %d times", why, n.record.Try))
	}
	n.record.Try++
	n.record.Message = clip(why)
	if err := n.tryAgain(ctx, step, why); err != nil {
		return err
	}
	n.event(corev1.EventTypeWarning, ReasonBootRetried, "Try %d: %s", n.record.Try-1, why)
	return nil
}

// giveUp ends a boot that did not come about.
func (n *netboot) giveUp(ctx context.Context, why string) error {
	n.record.Message = clip(why)
	return n.leave(ctx, v1alpha1.NetworkBootFailed, resultFailed, errors.New(why))
}

// disarm takes back what arming left in the BMC, after the delivery: firmware that
// has not read the override yet would lose it.
func (n *netboot) disarm(ctx context.Context) error {
	if n.record.Disarmed {
		return nil
	}
	err := n.takeBack(ctx, n.record.PinnedBy)
	if errors.Is(err, redfish.ErrBusy) && n.elapsed() < busyLimit {
		return n.waitForBMC(err)
	}
	if err != nil {
		return err
	}
	n.record.Disarmed, n.record.PinnedBy = true, ""
	return n.write(ctx)
}

// takeBack clears the override and the URL. A used override that cannot be cleared is
// no reason to wait: the boot server serves nothing twice.
func (v *visit) takeBack(ctx context.Context, pinnedBy string) error {
	return v.bmc(ctx, metal3.ProvisioningError, func(ctx context.Context, bmc redfish.BMC) error {
		err := bmc.Disarm(ctx, pinnedBy)
		if pinnedBy == "" && (errors.Is(err, redfish.ErrUnsupported) || errors.Is(err, redfish.ErrRefused)) {
			return nil
		}
		return err
	})
}

// tactic is how the present try asks for a boot.
func (n *netboot) tactic() redfish.Tactic {
	all := n.tactics()
	return all[min(int(n.record.Try-n.record.Cut)-1, len(all)-1)]
}

// tactics are those that this host can do, in their order.
func (n *netboot) tactics() []redfish.Tactic {
	var all []redfish.Tactic
	if n.children.kind(v1alpha1.KindHTTPBootConfig) != nil && n.paths.HTTP {
		all = append(all, redfish.TacticHTTP, redfish.TacticHTTPWithoutMode)
	}
	if n.paths.PXE && n.pxeNamesIt() && n.unsignedIPXE(n.arch()) == nil {
		all = append(all, redfish.TacticPXE)
	}
	if len(all) == 0 {
		all = append(all, redfish.TacticHTTP) // the BMC has its say when it is armed
	}
	return all
}

// pxeNamesIt says whether the machine is known, and has something to boot, when it
// boots by PXE: a kernel and an initrd, or a UKI, which iPXE starts too. A URL in
// the BMC names nobody there.
func (n *netboot) pxeNamesIt() bool {
	if n.children.kind(v1alpha1.KindIPXEBootConfig) != nil {
		return true
	}
	c := conditionOf(n.children[0], v1alpha1.ConditionIdentifiable)
	return n.AllowPXE && (c == nil || c.Reason != v1alpha1.ReasonIdentifiedByBMC)
}

// child is the config that the present tactic boots.
func (n *netboot) child() child { return n.children.bootedBy(n.tactic()) }

// pins says whether this tactic's URL is set through the BMC.
func (n *netboot) pins(t redfish.Tactic) bool {
	return t != redfish.TacticPXE && n.paths.PinsURL != "" && fieldsOf(n.children[0]).pinsURL != ""
}

// onlyByBMC says whether nothing but a URL in the BMC names the machine.
func (n *netboot) onlyByBMC() bool {
	c := conditionOf(n.child(), v1alpha1.ConditionIdentifiable)
	return c != nil && c.Reason == v1alpha1.ReasonIdentifiedByBMC
}

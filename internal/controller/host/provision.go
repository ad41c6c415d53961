package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/redfish"
	"github.com/boot-operator/boot-operator/internal/translate"
)

// offline is the message of a boot that ended because its host was switched off:
// switched on again, the host boots anew.
const offline = "the host was switched off (spec.online) before the machine fetched what it boots"

// startProvisioning writes down what is about to be provisioned.
func (v *visit) startProvisioning() error {
	p := &v.host.Status.Provisioning
	p.Image, p.CustomDeploy = metal3.Image{}, nil
	if v.host.Spec.Image != nil {
		p.Image = *v.host.Spec.Image.DeepCopy()
	}
	if v.host.Spec.CustomDeploy != nil {
		p.CustomDeploy = v.host.Spec.CustomDeploy.DeepCopy()
	}
	p.BootMode = v.host.BootMode()
	return v.enter(metal3.StateProvisioning)
}

// imageChanged says whether the host names something else than what it was, or is
// being, provisioned with.
func (v *visit) imageChanged() bool {
	p := v.host.Status.Provisioning
	was := &metal3.BareMetalHost{Spec: metal3.BareMetalHostSpec{CustomDeploy: p.CustomDeploy}}
	if p.Image.URL != "" {
		was.Spec.Image = &p.Image
	}
	return translate.HostImageID(was) != translate.HostImageID(v.host)
}

// provision boots what the host names, and ends when the machine has fetched it.
func (v *visit) provision(ctx context.Context) error {
	if v.imageChanged() {
		return v.enter(metal3.StateDeprovisioning)
	}
	b, all, ready, err := v.sync(ctx)
	if err != nil || !ready {
		return err
	}
	if !v.host.Spec.Online {
		return v.stand(ctx, all)
	}
	n, known, err := v.netboot(ctx, b, all)
	if err != nil || !known {
		return err
	}
	if done, err := n.advance(ctx); err != nil || !done {
		return err
	}
	if done, err := n.fetchedEnough(ctx); err != nil || done {
		return err
	}
	if err := v.power(ctx, n.on); err != nil || v.after != v.PowerInterval {
		return err
	}
	return v.wait(v.PowerInterval, "waits for the operating system to fetch its user data")
}

// on switches the machine on: one that lives from the network boots from there.
func (n *netboot) on(ctx context.Context) error {
	if number := n.abortedAttempt(); number > 0 {
		return n.abort(ctx, number)
	}
	if n.policy == boot.Always {
		return n.start(ctx, following(n.children.record().Request))
	}
	return n.plainOn(ctx)
}

// advance begins the boot that the host asks for, or takes its next step; true says
// that it was delivered and nothing is left in the BMC.
func (n *netboot) advance(ctx context.Context) (bool, error) {
	record := n.children.record()
	if asked, err := n.rebootAsBoot(ctx, record); asked || err != nil {
		return false, err
	}
	switch {
	case record == nil || n.wants(record):
		return false, n.start(ctx, n.base()+".1")
	case record.Step == v1alpha1.NetworkBootFailed && record.Message == offline:
		return false, n.start(ctx, following(record.Request))
	case record.Step == v1alpha1.NetworkBootFailed:
		if !record.Disarmed && n.disarm(ctx) == nil {
			return false, nil // what failed is told at the next visit
		}
		return false, wrong(metal3.ProvisioningError, ReasonBootFailed, fmt.Errorf("%s; nothing is armed again by itself: change the annotation %s, or set spec.online to false and to true again", record.Message, v1alpha1.HostRequestBootAnnotation))
	case record.Step == v1alpha1.NetworkBootDelivered && record.Disarmed:
		return true, nil
	}
	return false, n.step(ctx)
}

// start begins a boot when all that it needs is there.
func (n *netboot) start(ctx context.Context, request string) error {
	n.record = n.fresh(request)
	if ready, err := n.preflight(ctx); err != nil || !ready {
		return err
	}
	return n.begin(ctx)
}

// fetchedEnough ends provisioning when the machine has fetched what counts, or the boot
// where its attempt was aborted before; true says that it has done so.
func (n *netboot) fetchedEnough(ctx context.Context) (bool, error) {
	record := n.children.record()
	switch {
	case n.when == v1alpha1.ProvisionedWhenImage || !n.hasData || n.children.fetched(record).secret:
		return true, n.enter(metal3.StateProvisioned)
	case n.abortedAttempt() > 0:
		return true, n.abort(ctx, n.abortedAttempt())
	case n.Clock.Since(record.Since.Time) > boot.AttemptLifetime:
		return false, wrong(metal3.ProvisioningError, ReasonUserDataNotFetched, fmt.Errorf("the machine fetched its image and did not ask for its user data within %s; nothing is armed again by itself: see what the operating system says on its console, or, if the image reads no user data, set the annotation %s to %s", boot.AttemptLifetime, v1alpha1.HostProvisionedWhenAnnotation, v1alpha1.ProvisionedWhenImage))
	}
	return false, nil
}

func (v *visit) provisionedWhen(b translate.HostBoot) v1alpha1.ProvisionedWhen {
	if v.host.Annotations[v1alpha1.HostProvisionedWhenAnnotation] == "" {
		return v.ProvisionedWhen
	}
	return b.ProvisionedWhen
}

// stand switches a host off that is being provisioned and must not be on.
func (v *visit) stand(ctx context.Context, all children) error {
	record := all.record()
	if record == nil || record.Step == v1alpha1.NetworkBootDelivered {
		return v.power(ctx, v.plainOn)
	}
	n := &netboot{visit: v, children: all, record: *record}
	if record.Message != offline {
		n.record.Message = offline
		return n.leave(ctx, v1alpha1.NetworkBootFailed, resultOffline, errors.New(offline))
	}
	if err := v.power(ctx, v.plainOn); err != nil || v.host.Status.PoweredOn {
		return err
	}
	return n.disarm(ctx)
}

// sync makes the host's configs what the host says; false says that there is
// something to wait for.
func (v *visit) sync(ctx context.Context) (translate.HostBoot, children, bool, error) {
	b, err := translate.ReadHostBoot(v.host)
	if err != nil {
		return b, nil, false, wrong(metal3.ProvisioningError, ReasonInvalidSpec, err)
	}
	machine, err := v.machine()
	if err != nil {
		return b, nil, false, wrong(metal3.ProvisioningError, ReasonInvalidSpec, err)
	}
	all, err := v.children(ctx)
	if err != nil {
		return b, nil, false, err
	}
	if all.record() == nil {
		if created, err := v.createChildren(ctx, all, b, machine); err != nil || created {
			return b, all, false, err
		}
	}
	changed, err := v.updateChildren(ctx, all, b, machine)
	if err != nil || changed {
		return b, all, false, errors.Join(err, v.again())
	}
	return b, all, true, nil
}

// machine is what the host's configs claim.
func (v *visit) machine() (translate.Machine, error) {
	uuid, err := translate.HostUUID(v.host)
	if err != nil {
		return translate.Machine{}, err
	}
	return translate.ReadHost(v.host, uuid)
}

func (v *visit) architecture(m translate.Machine) boot.Architecture {
	if m.Architecture != "" {
		return m.Architecture
	}
	return v.Architecture
}

// createChildren makes the configs for the ways in which the image can be booted.
// All but the first are paused: a machine that is told to boot one way must not
// find another. True says that it has just made some.
func (v *visit) createChildren(ctx context.Context, all children, b translate.HostBoot, m translate.Machine) (bool, error) {
	paths, err := v.choosePaths(ctx, b, m)
	if err != nil {
		return false, err
	}
	created := false
	annotations := map[string]string{imageAnnotation: translate.HostImageID(v.host)}
	if v.Mode == ModeDrive { // so that the first boot is the first attempt
		annotations[v1alpha1.RequestBootAnnotation] = tryOf(v.base()+".1", 1)
	}
	if paths.HTTP && all.kind(v1alpha1.KindHTTPBootConfig) == nil {
		c := &v1alpha1.HTTPBootConfig{}
		translated(c, b, m, v.architecture(m))
		if err := v.create(ctx, c, annotations); err != nil {
			return false, v.nameTaken(err)
		}
		created = true
	}
	if paths.PXE && all.kind(v1alpha1.KindIPXEBootConfig) == nil {
		c := &v1alpha1.IPXEBootConfig{}
		translated(c, b, m, v.architecture(m))
		if err := v.create(ctx, c, v.pausedUnless(!paths.HTTP || v.Mode == ModeTranslate, annotations)); err != nil {
			return false, v.nameTaken(err)
		}
		created = true
	}
	return created, v.againIf(created)
}

// choosePaths asks the registry what the host's image holds, and picks the ways in
// which it is booted.
func (v *visit) choosePaths(ctx context.Context, b translate.HostBoot, m translate.Machine) (translate.Paths, error) {
	auth, err := v.auth(ctx, b.PullSecret)
	if err != nil {
		return translate.Paths{}, err
	}
	artifacts, err := v.images.of(ctx, v.host.UID, b.Image, v.architecture(m), auth)
	if err != nil {
		return translate.Paths{}, failed(metal3.ProvisioningError, ReasonImageNotUsable, fmt.Errorf("resolving %s: %w", b.Image, err))
	}
	unsigned := v.unsignedIPXE(v.architecture(m))
	paths, err := translate.ChooseForHost(b, artifacts, v.AllowPXE && unsigned == nil)
	switch {
	case err != nil:
		return paths, wrong(metal3.ProvisioningError, ReasonImageNotUsable, err)
	case !paths.HTTP && unsigned != nil:
		return paths, retried(v1alpha1.ReasonSecureBootUnsupported, fmt.Errorf("the image has a kernel and an initrd, which iPXE boots, and spec.bootMode is UEFISecureBoot: %w; use an image with a UKI, or with a stub to compose one; nothing was switched off", unsigned))
	}
	return paths, nil
}

// unsignedIPXE says why this host's firmware would not start iPXE; nil: it would.
func (v *visit) unsignedIPXE(arch boot.Architecture) error {
	switch {
	case v.host.Spec.BootMode != metal3.UEFISecureBoot:
		return nil
	case v.SignedIPXE == nil:
		return errors.New("nothing says that the iPXE of this network is signed for Secure Boot")
	}
	return v.SignedIPXE(arch)
}

// retried is a failure that is mended around us, and looked at again soon.
func retried(reason string, err error) error {
	return &failure{settled: true, kind: metal3.ProvisioningError, reason: reason, after: readyInterval, err: err}
}

func (v *visit) pausedUnless(active bool, annotations map[string]string) map[string]string {
	if active {
		return annotations
	}
	paused := map[string]string{v1alpha1.PausedAnnotation: pausedByHost}
	for k, value := range annotations {
		paused[k] = value
	}
	return paused
}

// pausedByHost is the value of the annotation paused on a config that is not to be
// booted now.
const pausedByHost = "by its BareMetalHost: the machine is told to boot another way"

func (v *visit) nameTaken(err error) error {
	if errors.Is(err, errNameTaken) {
		return wrong(metal3.ProvisioningError, ReasonNameTaken, err)
	}
	return err
}

// updateChildren keeps the configs as the host says, until an installation was
// delivered: a change of spec opens an attempt, and the machine would be installed
// again.
func (v *visit) updateChildren(ctx context.Context, all children, b translate.HostBoot, m translate.Machine) (bool, error) {
	record := all.record()
	if b.Policy == v1alpha1.BootPolicyOnce && record != nil && record.Step == v1alpha1.NetworkBootDelivered {
		return false, nil
	}
	written := false
	for _, c := range all {
		changed, err := v.changeChild(ctx, c, func(c child) { translated(c, b, m, v.architecture(m)) })
		if err != nil {
			return written, err
		}
		written = written || changed
	}
	return written, nil
}

// netboot knows how the host can boot; false says that there is something to wait
// for.
func (v *visit) netboot(ctx context.Context, b translate.HostBoot, all children) (*netboot, bool, error) {
	n := &netboot{visit: v, children: all, policy: boot.Policy(b.Policy), when: v.provisionedWhen(b), hasData: b.UserData != ""}
	if record := all.record(); record != nil {
		n.record = *record
	}
	var known bool
	if n.paths, known = v.paths.get(v.host); known {
		return n, true, nil
	}
	err := v.bmc(ctx, metal3.ProvisioningError, func(ctx context.Context, bmc redfish.BMC) (err error) {
		if n.paths, err = bmc.BootPaths(ctx); err != nil || v.host.Spec.BootMode != metal3.UEFISecureBoot {
			return err
		}
		if _, err = bmc.SecureBoot(ctx); errors.Is(err, redfish.ErrUnsupported) {
			return wrong(metal3.ProvisioningError, ReasonNoSecureBoot, fmt.Errorf("spec.bootMode is UEFISecureBoot, and the BMC cannot tell or switch Secure Boot: %w; update its firmware, or switch Secure Boot on by hand and set spec.bootMode to UEFI; nothing was switched off", err))
		}
		return err
	})
	if err != nil {
		return nil, false, err
	}
	v.paths.put(v.host, n.paths)
	return n, true, nil
}

// base identifies what the host asks for: its image, and, where there is one, the
// annotation that asks for one more boot of it.
func (v *visit) base() string {
	image := short(string(v.host.UID) + "\x00" + translate.HostImageID(v.host))
	if asked := v.host.Annotations[v1alpha1.HostRequestBootAnnotation]; asked != "" {
		return image + "-" + short(asked)
	}
	return image
}

func short(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

// wants says whether the host asks for another boot than the one of a record. To
// take the annotation away asks for nothing.
func (v *visit) wants(record *v1alpha1.NetworkBoot) bool {
	was, is := baseOf(record.Request), v.base()
	return was != is && !strings.HasPrefix(was, is+"-")
}

// baseOf is the base of a request, which is followed by a dot and a number.
func baseOf(request string) string {
	base, _, _ := strings.Cut(request, ".")
	return base
}

// countOf is the number of a request of its base.
func countOf(request string) int {
	_, text, _ := strings.Cut(request, ".")
	n, _ := strconv.Atoi(text) // 0 for what we did not write
	return n
}

// following is the next request of the same base.
func following(request string) string {
	return fmt.Sprintf("%s.%d", baseOf(request), countOf(request)+1)
}

// readyInterval is how often what a config waits for is looked at.
const readyInterval = 10 * time.Second

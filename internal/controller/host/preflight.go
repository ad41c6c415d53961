package host

import (
	"context"
	"errors"
	"fmt"
	"sync"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// preflight says whether everything is there that the boot needs, before anything
// is switched off: a way to boot, what is booted, and a way to know the machine.
func (n *netboot) preflight(ctx context.Context) (bool, error) {
	if err := n.bootable(); err != nil {
		return false, err
	}
	if written, err := n.tellPins(ctx); err != nil || written {
		return false, err
	}
	if switched, err := n.choose(ctx); err != nil || switched {
		return false, err
	}
	return n.ready()
}

// bootable says whether the BMC and the image have a way to boot in common.
func (n *netboot) bootable() error {
	http, pxe := n.children.kind(v1alpha1.KindHTTPBootConfig) != nil, n.children.kind(v1alpha1.KindIPXEBootConfig) != nil
	byIPXE := n.paths.PXE && (http && n.AllowPXE || pxe)
	unsigned := n.unsignedIPXE(n.arch())
	if http && n.paths.HTTP || byIPXE && unsigned == nil {
		return nil
	}
	n.visit.paths.forget(n.host.UID) // its firmware may be updated meanwhile
	switch {
	case byIPXE:
		return retried(v1alpha1.ReasonSecureBootUnsupported, fmt.Errorf("the only way to boot is by PXE and iPXE, and spec.bootMode is UEFISecureBoot: %w; use an image with a UKI and firmware with HTTP boot, or give machines an iPXE that is signed (docs/secure-boot.md); nothing was switched off", unsigned))
	case !n.paths.HTTP && !n.paths.PXE:
		return wrong(metal3.ProvisioningError, ReasonNoNetworkBoot, errors.New("the BMC offers no override for a boot from the network, neither UefiHttp nor Pxe: update its firmware; nothing was switched off"))
	case http:
		return wrong(metal3.ProvisioningError, ReasonNoNetworkBoot, errors.New("the BMC offers only Pxe, which the operator's --baremetalhost-allow-pxe=false rules out; allow it, or update the BMC; nothing was switched off"))
	}
	return wrong(metal3.ProvisioningError, ReasonNoNetworkBoot, errors.New("the image has a kernel and an initrd, which are booted by PXE, and the BMC offers only UefiHttp; use an image with a UKI; nothing was switched off"))
}

// tellPins writes what a URL in the BMC would prove, where it can hold one; true
// says that it has just done so.
func (n *netboot) tellPins(ctx context.Context) (bool, error) {
	f := fieldsOf(n.children[0])
	property, proof := "", ""
	if p := n.Links.Proof(n.verified()); n.paths.HTTP && n.paths.PinsURL != "" && p >= boot.Proxy && n.children[0].Kind() == v1alpha1.KindHTTPBootConfig {
		property, proof = n.paths.PinsURL, p.String()
	}
	if f.pinsURL == property && f.pinsProof == proof {
		return false, nil
	}
	f.pinsURL, f.pinsProof = property, proof
	n.note(n.toldPins, n.host.UID)
	return true, errors.Join(n.writeBoot(ctx, n.children[0], f), n.again())
}

// verified says whether what is set through the BMC is set on no other machine.
func (v *visit) verified() bool {
	address, err := redfish.ParseAddress(v.host.Spec.BMC.Address)
	return err == nil && redfish.Connection{Address: address, InsecureSkipVerify: v.host.Spec.BMC.DisableCertificateVerification}.Verified()
}

// choose pauses all configs but the one that is to be booted; true says that it
// has just done so.
func (n *netboot) choose(ctx context.Context) (bool, error) {
	active, switched := n.child(), false
	for _, c := range n.children {
		changed, err := n.changeChild(ctx, c, func(c child) {
			all := map[string]string{}
			for k, value := range c.GetAnnotations() {
				all[k] = value
			}
			switch {
			case c.Kind() != active.Kind():
				all[v1alpha1.PausedAnnotation] = pausedByHost
			case all[v1alpha1.PausedAnnotation] == pausedByHost:
				delete(all, v1alpha1.PausedAnnotation)
			}
			c.SetAnnotations(all)
		})
		if err != nil {
			return switched, err
		}
		switched = switched || changed
	}
	return switched, n.againIf(switched)
}

func (v *visit) againIf(b bool) error {
	if b {
		return v.again()
	}
	return nil
}

// ready says whether the config that is to be booted can be served.
func (n *netboot) ready() (bool, error) {
	c := n.child()
	status := c.ConfigStatus()
	ready := conditionOf(c, v1alpha1.ConditionReady)
	if ready == nil || ready.ObservedGeneration != c.GetGeneration() {
		return false, n.wait(readyInterval, "waits until %s %s is reconciled", c.Kind(), c.GetName())
	}
	if i := conditionOf(c, v1alpha1.ConditionIdentifiable); i != nil && i.Status == metav1.ConditionFalse && i.Reason == v1alpha1.ReasonNoPathNamesThisMachine {
		if ago, told := n.since(n.toldPins, n.host.UID); told && ago < readyInterval && fieldsOf(n.children[0]).pinsURL != "" {
			return false, n.wait(n.PollInterval, "waits until it is known that the BMC can name the machine")
		}
		return false, retried(ReasonIdentityNotObservable, fmt.Errorf("nothing would name this machine as it boots, so it was not switched off: %s; or list its addresses in the annotation %s of the host", i.Message, v1alpha1.HostAddressesAnnotation))
	}
	switch {
	case ready.Status == metav1.ConditionTrue:
		return true, nil
	case status.State == v1alpha1.StateError, ready.Reason == v1alpha1.ReasonVerificationFailed:
		return false, retried(ready.Reason, fmt.Errorf("%s %s: %s", c.Kind(), c.GetName(), ready.Message))
	}
	return false, n.wait(readyInterval, "waits for %s %s: %s", c.Kind(), c.GetName(), clip(ready.Message))
}

// isReady says whether what is to be booted may be served: what is not signed as it has
// to be is nothing to switch a machine on for.
func (n *netboot) isReady() bool {
	ready := conditionOf(n.child(), v1alpha1.ConditionReady)
	return ready != nil && ready.Status == metav1.ConditionTrue && ready.ObservedGeneration == n.child().GetGeneration()
}

// arch is the architecture of what is booted.
func (n *netboot) arch() boot.Architecture {
	if a := n.children[0].Common().Architecture; a != "" {
		return boot.Architecture(a)
	}
	return n.Architecture
}

// conditionOf finds a condition of a config.
func conditionOf(c child, name string) *metav1.Condition {
	return meta.FindStatusCondition(c.ConfigStatus().Conditions, name)
}

// auth reads the credentials for the host's image.
func (v *visit) auth(ctx context.Context, pullSecret string) (artifact.Credentials, error) {
	if pullSecret == "" {
		return v.Credentials, nil
	}
	secret := &corev1.Secret{}
	key := types.NamespacedName{Namespace: v.host.Namespace, Name: pullSecret}
	err := v.client.Get(ctx, key, secret)
	if apierrors.IsNotFound(err) {
		return artifact.Credentials{}, v.secretWrong(metal3.ProvisioningError, v1alpha1.ReasonPullSecretInvalid, fmt.Errorf("there is no Secret %s, which is to have the credentials for the registry", key))
	}
	if err != nil {
		return artifact.Credentials{}, fmt.Errorf("reading Secret %s: %w", key, err)
	}
	auth, err := artifact.ParsePullSecret(secret.Data[corev1.DockerConfigJsonKey])
	if err != nil {
		return auth, v.secretWrong(metal3.ProvisioningError, v1alpha1.ReasonPullSecretInvalid, fmt.Errorf("secret %s: %w", key, err))
	}
	return auth, nil
}

// bootPaths remembers what BMCs can be told, by host and generation.
type bootPaths struct {
	mu  sync.Mutex
	all map[types.UID]knownPaths
}

type knownPaths struct {
	generation int64
	redfish.BootPaths
}

func (p *bootPaths) get(host *metal3.BareMetalHost) (redfish.BootPaths, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k, ok := p.all[host.UID]
	return k.BootPaths, ok && k.generation == host.Generation
}

func (p *bootPaths) put(host *metal3.BareMetalHost, paths redfish.BootPaths) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[types.UID]knownPaths{}
	}
	p.all[host.UID] = knownPaths{host.Generation, paths}
}

func (p *bootPaths) forget(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, uid)
}

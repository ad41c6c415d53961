package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/controller/host"
	"github.com/boot-operator/boot-operator/internal/inventory"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// maxBootURL is how long a URL may be that goes through firmware.
const maxBootURL = 200

// hostOptions are the flags about BareMetalHosts and BMCs.
type hostOptions struct {
	hostMode            string
	hostNamespaces      []string
	hostAllowPXE        bool
	hostProvisionedWhen string
	hostFetchTimeout    time.Duration
	bmcCAFile           string
	bmcSessions         bool
	bmcConcurrency      int
	bmcPowerInterval    time.Duration
	bmcBootURL          string
	bmcBootCAFile       string
}

func (o *hostOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.hostMode, "baremetalhost-mode", string(host.ModeOff), "what is done for BareMetalHosts (metal3.io): off; translate, which makes the configs of hosts that somebody else powers; or drive, which owns their whole life, without baremetal-operator. Waits for Metal3's CRD")
	f.StringSliceVar(&o.hostNamespaces, "baremetalhost-namespaces", nil, "namespaces whose BareMetalHosts are looked after, to keep apart from baremetal-operator; empty: all")
	f.BoolVar(&o.hostAllowPXE, "baremetalhost-allow-pxe", true, "boot a host by PXE and iPXE where its BMC or its firmware cannot boot over HTTP: the kernel and initrd of its image, or its UKI")
	f.StringVar(&o.hostProvisionedWhen, "baremetalhost-provisioned-when", string(v1alpha1.ProvisionedWhenImageAndUserData), "what a machine must have fetched for its BareMetalHost to be provisioned, where an annotation does not say: ImageAndUserData, Image or UserData")
	f.DurationVar(&o.hostFetchTimeout, "baremetalhost-fetch-timeout", 20*time.Minute, "how long a machine that was switched on may take to fetch what it boots before it is armed again; below 30m, when a boot attempt closes")
	f.StringVar(&o.bmcCAFile, "bmc-ca-file", "", "PEM bundle of certificate authorities that are trusted for BMCs besides the system's")
	f.BoolVar(&o.bmcSessions, "bmc-sessions", false, "log in to BMCs and out again, in place of basic authentication")
	f.IntVar(&o.bmcConcurrency, "bmc-concurrency", 64, "how many BMCs are spoken to at once; each has one operation in flight")
	f.DurationVar(&o.bmcPowerInterval, "bmc-power-interval", time.Minute, "how often a BMC in peace is asked for the power state of its machine")
	f.StringVar(&o.bmcBootURL, "bmc-boot-url", "", "URL of the boot server as machines reach it, which BMCs are given with a token where they can hold one; https makes that the strongest proof. Without it --ipxe-service-url is used, or the beginning of --image-server-url")
	f.StringVar(&o.bmcBootCAFile, "bmc-boot-ca-file", "", "PEM certificate of the authority of an https boot server, which firmware is given through BMCs that can take it")
}

// hostSettings are hostOptions once they are checked.
type hostSettings struct {
	mode            host.Mode
	provisionedWhen v1alpha1.ProvisionedWhen
	bmcCA, bootCA   []byte
	bootURL         string
}

func (o *hostOptions) settings(c *checker, all options) hostSettings {
	s := hostSettings{
		mode:            check(c, "baremetalhost-mode", o.hostMode, host.ParseMode),
		provisionedWhen: check(c, "baremetalhost-provisioned-when", o.hostProvisionedWhen, parseProvisionedWhen),
		bmcCA:           check(c, "bmc-ca-file", o.bmcCAFile, readCertificates),
		bootCA:          check(c, "bmc-boot-ca-file", o.bmcBootCAFile, readCertificates),
		bootURL:         check(c, "bmc-boot-url", o.bmcBootURL, parseURL),
	}
	if s.bootURL == "" {
		s.bootURL, _ = all.completeURL(all.ipxeServiceURL) // what is wrong with it is told by its own flag
	}
	if s.bootURL == "" {
		s.bootURL = strings.TrimSuffix(strings.TrimSuffix(all.imageServerURL, "/"), "/httpboot")
	}
	if o.bmcConcurrency < 1 {
		c.errs = append(c.errs, fmt.Errorf("--bmc-concurrency: %d is below 1", o.bmcConcurrency))
	}
	if o.bmcPowerInterval < time.Second {
		c.errs = append(c.errs, fmt.Errorf("--bmc-power-interval: %s is under 1s", o.bmcPowerInterval))
	}
	if o.hostFetchTimeout < time.Minute || o.hostFetchTimeout >= boot.AttemptLifetime {
		c.errs = append(c.errs, fmt.Errorf("--baremetalhost-fetch-timeout: %s is not between 1m and %s, when a boot attempt closes", o.hostFetchTimeout, boot.AttemptLifetime))
	}
	return s
}

// readCertificates reads a file that has a PEM certificate at least; without a path
// there is none.
func readCertificates(path string) ([]byte, error) {
	text, err := readOptional(path)
	if err != nil || path == "" {
		return nil, err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----", path)
	}
	return text, nil
}

func parseProvisionedWhen(s string) (v1alpha1.ProvisionedWhen, error) {
	switch w := v1alpha1.ProvisionedWhen(s); w {
	case v1alpha1.ProvisionedWhenImageAndUserData, v1alpha1.ProvisionedWhenImage, v1alpha1.ProvisionedWhenUserData:
		return w, nil
	}
	return "", fmt.Errorf("%q is not ImageAndUserData, Image or UserData", s)
}

// setupHosts adds the controller of BareMetalHosts.
func (p *parts) setupHosts(mgr ctrl.Manager) error {
	s := p.settings
	return host.Setup(mgr, host.Options{
		Mode:            s.hosts.mode,
		Namespaces:      s.hostNamespaces,
		BMCs:            p.bmcs,
		Resolver:        p.store,
		Links:           bootLinks{p.inventory, p.issuer, s.hosts.bootURL},
		Architecture:    s.arch,
		Credentials:     p.auth,
		BMCCA:           s.hosts.bmcCA,
		BMCSessions:     s.bmcSessions,
		BootCA:          s.hosts.bootCA,
		AllowPXE:        s.hostAllowPXE,
		ProvisionedWhen: s.hosts.provisionedWhen,
		FetchTimeout:    s.hostFetchTimeout,
		PowerInterval:   s.bmcPowerInterval,
		SignedIPXE:      s.hostSignedIPXE(),
		Spans:           p.spans,
		Clock:           p.clock,
		Registerer:      metrics.Registry,
		Logger:          p.logger.WithName("host"),
	})
}

// hostSignedIPXE is signedIPXE where iPXE is served here; of others' iPXE nobody says
// that a host with Secure Boot would start it.
func (s settings) hostSignedIPXE() func(boot.Architecture) error {
	if !s.offersBoots() {
		return nil
	}
	return s.signedIPXE
}

// bmcLimits keep BMCs from being asked too much.
func bmcLimits(s settings) redfish.Limits { return redfish.Limits{Global: s.bmcConcurrency} }

// bootLinks hands out the URLs that are set through BMCs.
type bootLinks struct {
	inventory *inventory.Inventory
	issuer    *boot.Issuer
	// base is the boot server as machines reach it; empty: nobody said.
	base string
}

// Proof is what such a URL proves: as much as BMC only where nobody between us and
// the BMC, and between the machine and us, could have read it.
func (l bootLinks) Proof(verified bool) boot.Proof {
	switch {
	case l.base == "":
		return boot.Unproven
	case verified && strings.HasPrefix(l.base, "https://"):
		return boot.BMC
	}
	return boot.Proxy
}

// Boot returns the URL of the boot that comes next for a config.
func (l bootLinks) Boot(uid string, verified bool) (string, int64, error) {
	plan, err := l.inventory.ByObject(uid)
	if err != nil {
		return "", 0, err
	}
	token, attempt, err := l.issuer.Armed(plan, l.Proof(verified))
	if err != nil {
		return "", 0, err
	}
	url := l.base + "/httpboot/t/" + token + "/uki.efi"
	if len(url) > maxBootURL {
		return "", 0, fmt.Errorf("the boot server's URL %s is too long for firmware: with the token it has %d characters, and %d are sure to be taken; give a shorter --bmc-boot-url: %w", l.base, len(url), maxBootURL, errors.ErrUnsupported)
	}
	return url, attempt, nil
}

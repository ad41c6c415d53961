package main

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/controller/host"
)

// The names that --controllers takes.
const (
	controllerHTTP       = "httpbootconfig"
	controllerIPXE       = "ipxebootconfig"
	controllerServerHTTP = "serverbootconfighttp"
	controllerServerPXE  = "serverbootconfigpxe"
	controllerNone       = "none"
)

var controllerNames = []string{controllerHTTP, controllerIPXE, controllerServerHTTP, controllerServerPXE}

// options is every setting of the operator as it was given. It is read once,
// by settings, and passed on as plain values.
type options struct {
	version    bool
	kubeconfig string
	zap        zap.Options

	bootAddress     string
	bootTLSAddress  string
	tlsCertFile     string
	tlsKeyFile      string
	imageAddress    string
	imageServerURL  string
	ipxeServiceURL  string
	ipxeServicePort int
	ipxeProtocol    string
	metricsAddress  string
	metricsSecure   bool
	metricsCertDir  string
	probeAddress    string
	drainDelay      time.Duration
	drainTimeout    time.Duration
	clientRate      float64
	clientBurst     int

	trustedProxies        []string
	trustedDHCP           []string
	proxyProtocolFrom     []string
	untrustedClients      []string
	trustClusterAddresses bool
	minimumProof          string
	tokenSecret           string

	netbootInterfaces     []string
	netbootRelays         []string
	netbootAnswerEveryone bool
	netbootElsewhere      bool
	ipxeDir               string
	ipxeTemplateFile      string
	ipxeTemplateConfigMap string

	defaultImage      string
	defaultUKIURL     string
	architecture      string
	allowedRegistries []string
	allowedURLHosts   []string
	plainHTTP         []string
	registryCAFile    string
	registryAuthFile  string
	registryMirrors   []string
	artifactDir       string
	artifactMaxBytes  string
	resolveInterval   time.Duration

	controllers            []string
	leaderElect            bool
	leaderElectID          string
	namespace              string
	claimNamespaces        []string
	claimNamespaceSelector string
	secretWatch            bool
	secretPollBudget       float64
	serverBootConfigBoth   bool

	hostOptions
	signatureOptions
	tracingOptions
}

// flags returns the operator's flags, bound to o.
func (o *options) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("boot-operator", pflag.ContinueOnError)
	f.SortFlags = false
	o.serverFlags(f)
	o.trustFlags(f)
	o.netbootFlags(f)
	o.artifactFlags(f)
	o.controllerFlags(f)
	o.hostOptions.flags(f)
	o.signatureOptions.flags(f)
	o.tracingOptions.flags(f)
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	logging := flag.NewFlagSet("logging", flag.ContinueOnError)
	o.zap.BindFlags(logging)
	f.AddGoFlagSet(logging)
	return f
}

func (o *options) serverFlags(f *pflag.FlagSet) {
	f.StringVar(&o.bootAddress, "boot-server-address", ":8082", "address of the boot server (/httpboot, /boot.ipxe, /ipxe, /ignition, /cloud-init, /images) over plain HTTP; 0 switches it off")
	f.StringVar(&o.bootTLSAddress, "boot-server-tls-address", "", "address of the boot server over HTTPS, such as :8443; needs --tls-cert-file and --tls-key-file")
	f.StringVar(&o.tlsCertFile, "tls-cert-file", "", "PEM certificate chain of the HTTPS boot server; firmware wants RSA, and the IP address of its URL among the names. Read again when it changes")
	f.StringVar(&o.tlsKeyFile, "tls-key-file", "", "PEM private key that belongs to --tls-cert-file; use it for nothing else")
	f.StringVar(&o.imageAddress, "image-proxy-server-address", ":8083", "address of the image server (public artifacts only, by digest); 0 switches it off")
	f.StringVar(&o.imageServerURL, "image-server-url", "", "URL of /httpboot as machines reach it, such as http://10.0.0.1:8082/httpboot; it is the beginning of the UKI URLs that DHCP servers are told")
	f.StringVar(&o.ipxeServiceURL, "ipxe-service-url", "", "URL of the boot server as machines reach it, such as http://10.0.0.1:8082; a bare host is completed by --ipxe-service-protocol and --ipxe-service-port")
	f.IntVar(&o.ipxeServicePort, "ipxe-service-port", 5000, "port that completes a bare host in --ipxe-service-url")
	f.StringVar(&o.ipxeProtocol, "ipxe-service-protocol", "http", "scheme that completes a bare host in --ipxe-service-url: http or https")
	f.StringVar(&o.metricsAddress, "metrics-bind-address", ":8080", "address of the metrics; 0 switches them off")
	f.BoolVar(&o.metricsSecure, "metrics-secure", false, "serve metrics over HTTPS, to those whom the API server allows to get /metrics")
	f.StringVar(&o.metricsCertDir, "metrics-cert-dir", "", "directory with tls.crt and tls.key for --metrics-secure, read again when they change; empty: a certificate that the process signs itself")
	f.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz; 0 switches them off")
	f.DurationVar(&o.drainDelay, "drain-delay", 5*time.Second, "how long new connections are still accepted after a signal to stop, while /readyz says no: until then balancers and Services have noticed")
	f.DurationVar(&o.drainTimeout, "drain-timeout", 30*time.Second, "how long transfers may go on after --drain-delay; the Pod's grace period has to be longer than both together")
	f.Float64Var(&o.clientRate, "client-request-rate", 50, "requests a second that one client address (IPv6: one /64) may make; more are answered with 429. Trusted proxies, balancers and DHCP servers are counted by the address that they name; 0 is no limit")
	f.IntVar(&o.clientBurst, "client-request-burst", 200, "requests that one client address may make at once, before --client-request-rate counts")
}

func (o *options) trustFlags(f *pflag.FlagSet) {
	f.StringVar(&o.minimumProof, "minimum-proof", boot.Address.String(), "weakest proof of identity that is enough where a config says nothing: BMC, Relay, Proxy, Address or Claimed; Claimed gives a machine's secrets to whoever says its UUID")
	f.StringSliceVar(&o.trustedProxies, "trusted-proxies", nil, "prefixes of HTTP proxies whose X-Forwarded-For names the client's address")
	f.StringSliceVar(&o.trustedDHCP, "trusted-dhcp", nil, "prefixes of DHCP servers that may ask on behalf of a machine, with X-Forwarded-For: <ip>, <mac>")
	f.StringSliceVar(&o.proxyProtocolFrom, "proxy-protocol-from", nil, "prefixes of TCP balancers whose PROXY protocol v2 header names the client's address")
	f.StringSliceVar(&o.untrustedClients, "untrusted-clients", nil, "prefixes whose addresses prove nothing, such as a pod network that Node objects do not tell")
	f.BoolVar(&o.trustClusterAddresses, "trust-cluster-addresses", false, "let the addresses of this cluster's nodes and pods prove a machine's identity; any workload there can then get its secrets")
	f.StringVar(&o.tokenSecret, "token-secret", "boot-operator-token-keys", "name of the Secret with the keys of boot tokens (entries key-<0..255>, at least 32 bytes each; one or two), in the operator's namespace; it is made where tokens are handed out (--ipxe-service-url, --netboot-interface, --trusted-dhcp, --baremetalhost-mode=drive) and there is none")
}

func (o *options) netbootFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.netbootInterfaces, "netboot-interface", nil, "network interfaces on which boots are offered over ProxyDHCP (ports 67 and 4011) and network boot programs over TFTP (port 69), beside the DHCP server that gives addresses; empty: off")
	f.StringSliceVar(&o.netbootRelays, "netboot-relays", nil, "prefixes of DHCP relays whose requests are answered; requests of other relays are not")
	f.BoolVar(&o.netbootAnswerEveryone, "netboot-answer-everyone", false, "offer a boot to machines without a config too: every machine on the network that boots from it is then led here, and may boot the default image")
	f.BoolVar(&o.netbootElsewhere, "netboot-elsewhere", false, "processes of their own offer the boots (--controllers=none, --netboot-interface): this one counts on them where it says how a machine can be told apart, and makes the token keys that they wait for. Give both the same --netboot-relays")
	f.StringVar(&o.ipxeDir, "ipxe-dir", defaultIPXEDir(os.Getenv), "directory of the network boot programs that are served over TFTP, such as snponly.efi and undionly.kpxe")
	f.StringVar(&o.ipxeTemplateFile, "ipxe-template-file", "", "file with the template of iPXE scripts in place of the built-in one; read again when it changes")
	f.StringVar(&o.ipxeTemplateConfigMap, "ipxe-template-configmap", "", "name of the ConfigMap, in the operator's namespace, whose key "+templateKey+" holds the template of iPXE scripts in place of the built-in one")
}

func (o *options) artifactFlags(f *pflag.FlagSet) {
	f.StringVar(&o.defaultImage, "default-httpboot-oci-image", "", "OCI image that every unknown machine on the network may boot, and configs that name none; empty: unknown machines get 404")
	f.StringVar(&o.defaultUKIURL, "default-httpboot-uki-url", "", "URL of a UKI that is told for unknown machines to those who ask for JSON")
	_ = f.MarkDeprecated("default-httpboot-uki-url", "use --default-httpboot-oci-image")
	f.StringVar(&o.architecture, "architecture", string(boot.AMD64), "architecture of machines whose config names none: amd64 or arm64")
	f.StringSliceVar(&o.allowedRegistries, "allowed-registries", []string{"ghcr.io"}, "registries, or registry/path prefixes, that images may come from; * allows any")
	f.StringSliceVar(&o.allowedURLHosts, "allowed-url-hosts", nil, "hosts that spec.ukiURL is pulled from; other URLs are only told to those who ask for JSON")
	f.StringSliceVar(&o.plainHTTP, "plain-http-registries", nil, "registries that are spoken to over plain HTTP")
	f.StringVar(&o.registryCAFile, "registry-ca-file", "", "PEM bundle of certificate authorities that are trusted for registries besides the system's")
	f.StringVar(&o.registryAuthFile, "registry-auth-file", "", "dockerconfigjson file with credentials for images that name no pull secret")
	f.StringSliceVar(&o.registryMirrors, "registry-mirrors", nil, "mirrors that are tried first, as registry=mirror; may be repeated")
	f.StringVar(&o.artifactDir, "artifact-dir", "/var/lib/boot-operator", "directory of the artifact store and of the journal of pending reports")
	f.StringVar(&o.artifactMaxBytes, "artifact-max-bytes", "20Gi", "size of the artifact store; what statuses name is never evicted")
	f.DurationVar(&o.resolveInterval, "resolve-interval", 5*time.Minute, "how often a tag is resolved again")
}

func (o *options) controllerFlags(f *pflag.FlagSet) {
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; without it KUBECONFIG, the cluster that the operator runs in, or ~/.kube/config")
	f.StringSliceVar(&o.controllers, "controllers", controllerNames, "controllers to run: "+strings.Join(controllerNames, ", ")+"; * means all; none: this process serves only, and takes no part in the election. Those for ServerBootConfigurations wait for metal-operator's CRDs")
	f.BoolVar(&o.serverBootConfigBoth, "serverbootconfig-both", false, "make both an HTTPBootConfig and an IPXEBootConfig of a ServerBootConfiguration whose image has a UKI and a kernel; without it the UKI is preferred")
	f.BoolVar(&o.leaderElect, "leader-elect", false, "elect a leader among replicas, the only one whose controllers write; every replica serves")
	f.StringVar(&o.leaderElectID, "leader-election-id", "boot-operator.boot.ironcore.dev", "name of the Lease of the election")
	f.StringVar(&o.namespace, "namespace", "", "the operator's own namespace, where its Lease and its Secrets are; without it POD_NAMESPACE or the service account's")
	f.StringSliceVar(&o.claimNamespaces, "claim-namespaces", nil, "namespaces whose configs may claim machines; empty: all")
	f.StringVar(&o.claimNamespaceSelector, "claim-namespace-selector", "", "label selector of namespaces whose configs may claim machines")
	f.BoolVar(&o.secretWatch, "secret-watch", false, "watch the metadata of Secrets instead of polling those that configs name; needs list and watch on Secrets")
	f.Float64Var(&o.secretPollBudget, "secret-poll-budget", 20, "requests a second that polling Secrets may cost at most")
}

// fromEnvironment sets every flag that was not given from BOOT_OPERATOR_<NAME>,
// and the address of the iPXE service from IPXE_SERVER_ADDRESS too.
func fromEnvironment(f *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var errs []error
	f.VisitAll(func(fl *pflag.Flag) {
		names := []string{"BOOT_OPERATOR_" + strings.ToUpper(strings.ReplaceAll(fl.Name, "-", "_"))}
		if fl.Name == "ipxe-service-url" {
			names = append(names, "IPXE_SERVER_ADDRESS")
		}
		for _, name := range names {
			value, ok := lookup(name)
			if !ok || fl.Changed {
				continue
			}
			if err := f.Set(fl.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
			}
		}
	})
	return errors.Join(errs...)
}

// settings is what options mean once they are checked.
type settings struct {
	options
	proof             boot.Proof
	arch              boot.Architecture
	maxBytes          int64
	proxies, dhcp     []netip.Prefix
	proxyProtocol     []netip.Prefix
	untrusted         []netip.Prefix
	relays            []netip.Prefix
	namespaceSelector labels.Selector
	mirrors           map[string][]string
	registryCA        []byte
	registryAuth      []byte
	hosts             hostSettings
	signatures        signatureSettings
}

// settings checks o and returns what it means; the error lists everything that
// is wrong, by flag.
func (o options) settings() (settings, error) {
	s := settings{options: o}
	c := &checker{}
	s.proof = check(c, "minimum-proof", o.minimumProof, boot.ParseProof)
	s.arch = check(c, "architecture", o.architecture, parseArchitecture)
	s.maxBytes = check(c, "artifact-max-bytes", o.artifactMaxBytes, parseBytes)
	s.proxies = check(c, "trusted-proxies", o.trustedProxies, parsePrefixes)
	s.dhcp = check(c, "trusted-dhcp", o.trustedDHCP, parsePrefixes)
	s.proxyProtocol = check(c, "proxy-protocol-from", o.proxyProtocolFrom, parsePrefixes)
	s.untrusted = check(c, "untrusted-clients", o.untrustedClients, parsePrefixes)
	s.relays = check(c, "netboot-relays", o.netbootRelays, parsePrefixes)
	s.mirrors = check(c, "registry-mirrors", o.registryMirrors, parseMirrors)
	s.registryCA = check(c, "registry-ca-file", o.registryCAFile, readOptional)
	s.registryAuth = check(c, "registry-auth-file", o.registryAuthFile, readOptional)
	s.controllers = check(c, "controllers", o.controllers, parseControllers)
	s.ipxeServiceURL = check(c, "ipxe-service-url", o.ipxeServiceURL, o.completeURL)
	s.imageServerURL = check(c, "image-server-url", o.imageServerURL, parseURL)
	s.defaultUKIURL = check(c, "default-httpboot-uki-url", o.defaultUKIURL, parseURL)
	s.otlpEndpoint = check(c, "otlp-endpoint", o.otlpEndpoint, parseOTLPEndpoint)
	if o.claimNamespaceSelector != "" {
		s.namespaceSelector = check(c, "claim-namespace-selector", o.claimNamespaceSelector, func(v string) (labels.Selector, error) { return labels.Parse(v) })
	}
	s.hosts = o.hostOptions.settings(c, o)
	s.signatures = o.signatureOptions.settings(c, s.hosts)
	c.together(o)
	s.bootAddress, s.imageAddress = off(o.bootAddress), off(o.imageAddress)
	s.probeAddress = off(o.probeAddress)
	return s, errors.Join(c.errs...)
}

type checker struct{ errs []error }

func check[In, Out any](c *checker, flag string, in In, parse func(In) (Out, error)) Out {
	out, err := parse(in)
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("--%s: %w", flag, err))
	}
	return out
}

// together checks what flags demand of each other.
func (c *checker) together(o options) {
	fail := func(format string, args ...any) { c.errs = append(c.errs, fmt.Errorf(format, args...)) }
	if o.bootTLSAddress != "" && (o.tlsCertFile == "" || o.tlsKeyFile == "") {
		fail("--boot-server-tls-address: needs --tls-cert-file and --tls-key-file")
	}
	if o.bootTLSAddress == "" && (o.tlsCertFile != "" || o.tlsKeyFile != "") {
		fail("--tls-cert-file, --tls-key-file: give --boot-server-tls-address too, such as :8443")
	}
	if o.ipxeTemplateFile != "" && o.ipxeTemplateConfigMap != "" {
		fail("--ipxe-template-file, --ipxe-template-configmap: give one of them")
	}
	if len(o.netbootInterfaces) == 0 && (len(o.netbootRelays) > 0 && !o.netbootElsewhere || o.netbootAnswerEveryone) {
		fail("--netboot-relays, --netboot-answer-everyone: give --netboot-interface too, such as eth0")
	}
	if o.netbootElsewhere && len(o.netbootInterfaces) > 0 {
		fail("--netboot-elsewhere, --netboot-interface: give one of them; processes of their own offer the boots, or this one does")
	}
	if o.metricsCertDir != "" && !o.metricsSecure {
		fail("--metrics-cert-dir: give --metrics-secure too; metrics over plain HTTP have no certificate")
	}
	if len(o.netbootInterfaces) > 0 && off(o.bootAddress) == "" && o.ipxeServiceURL == "" {
		fail("--netboot-interface: offers lead to the boot server over plain HTTP, which --boot-server-address switches off; switch it on, or say in --ipxe-service-url where machines reach it")
	}
	if len(o.netbootInterfaces) > 0 && off(o.bootAddress) == "" && o.ipxeServiceURL != "" && !o.namesAddress(o.ipxeServiceURL) {
		fail("--ipxe-service-url: %q names no IP address, such as http://10.0.0.1:8082; offers of --netboot-interface reach machines that have no name server yet, and --boot-server-address is off here", o.ipxeServiceURL)
	}
	if o.servesOnly() && o.hostMode != string(host.ModeOff) {
		fail("--controllers=none: this process runs no controllers, so leave out --baremetalhost-mode=%s", o.hostMode)
	}
	if o.servesOnly() && !o.servesHTTP() && len(o.netbootInterfaces) == 0 {
		fail("--controllers=none: with every listener off there is nothing left to do; give --boot-server-address or --netboot-interface")
	}
	if o.drainDelay < 0 || o.drainTimeout < 0 {
		fail("--drain-delay, --drain-timeout: %s and %s must not be negative", o.drainDelay, o.drainTimeout)
	}
	if !(o.clientRate >= 0) || math.IsInf(o.clientRate, 0) {
		fail("--client-request-rate: %v is not a number of requests a second; 0 is no limit", o.clientRate)
	}
	if o.clientRate > 0 && o.clientBurst < 1 {
		fail("--client-request-burst: %d is under 1; --client-request-rate=0 is no limit", o.clientBurst)
	}
	if o.secretPollBudget <= 0 {
		fail("--secret-poll-budget: %v is not above 0", o.secretPollBudget)
	}
	if o.resolveInterval < 10*time.Second {
		fail("--resolve-interval: %s is under 10s", o.resolveInterval)
	}
	for name, address := range map[string]string{"boot-server-address": o.bootAddress, "boot-server-tls-address": o.bootTLSAddress, "image-proxy-server-address": o.imageAddress, "health-probe-bind-address": o.probeAddress, "metrics-bind-address": o.metricsAddress} {
		if _, _, err := net.SplitHostPort(address); off(address) != "" && err != nil {
			fail("--%s: %q is not host:port, such as :8082", name, address)
		}
	}
}

// servesOnly says that the process runs no controllers, and takes no part in the
// election.
func (o options) servesOnly() bool { return slices.Equal(o.controllers, []string{controllerNone}) }

// servesHTTP says that the process has a port from which machines fetch what they
// boot.
func (o options) servesHTTP() bool {
	return off(o.bootAddress) != "" || off(o.bootTLSAddress) != "" || off(o.imageAddress) != ""
}

// offersOnly says that the process offers boots on the network and does nothing
// else: what machines then fetch is another's, so nothing is pulled, no Secret of a
// machine is read, and no token key is made.
func (o options) offersOnly() bool { return o.servesOnly() && !o.servesHTTP() }

// offersBoots says that boots are offered over ProxyDHCP, by this process or by
// those that --netboot-elsewhere tells of.
func (o options) offersBoots() bool { return len(o.netbootInterfaces) > 0 || o.netbootElsewhere }

// namesAddress says that the host of a URL, or of what completes one, is an IP
// address.
func (o options) namesAddress(service string) bool {
	complete, err := o.completeURL(service)
	if err != nil {
		return true // its own flag tells what is wrong with it
	}
	u, err := url.Parse(complete)
	if err != nil {
		return false
	}
	_, err = netip.ParseAddr(u.Hostname())
	return err == nil
}

// defaultIPXEDir is where an image has its network boot programs: ko's beside the
// program, others where Debian's package ipxe puts them.
func defaultIPXEDir(env func(string) string) string {
	if data := env("KO_DATA_PATH"); data != "" {
		return filepath.Join(data, "ipxe")
	}
	return "/usr/lib/ipxe"
}

// off returns the empty string for an address that switches a server off.
func off(address string) string {
	if address == "0" {
		return ""
	}
	return address
}

func parseArchitecture(s string) (boot.Architecture, error) {
	if a := boot.Architecture(s); a == boot.AMD64 || a == boot.ARM64 {
		return a, nil
	}
	return "", fmt.Errorf("%q is not amd64 or arm64", s)
}

func parseBytes(s string) (int64, error) {
	q, err := resource.ParseQuantity(s)
	if err != nil || q.Value() <= 0 {
		return 0, fmt.Errorf("%q is not a size such as 20Gi", s)
	}
	return q.Value(), nil
}

// parsePrefixes reads prefixes; a bare address is a prefix of one.
func parsePrefixes(in []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range in {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); err != nil && aerr == nil {
			a = boot.CanonicalAddr(a)
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is not a prefix such as 10.0.0.0/24 or an address", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func parseMirrors(in []string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, s := range in {
		registry, mirror, ok := strings.Cut(s, "=")
		if !ok || registry == "" || mirror == "" {
			return nil, fmt.Errorf("%q is not registry=mirror", s)
		}
		out[registry] = append(out[registry], mirror)
	}
	return out, nil
}

func readOptional(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	return os.ReadFile(path)
}

func parseControllers(in []string) ([]string, error) {
	if slices.Contains(in, "*") {
		return controllerNames, nil
	}
	if slices.Contains(in, controllerNone) && len(in) > 1 {
		return nil, fmt.Errorf("%s stands alone; take out the others or it", controllerNone)
	}
	for _, name := range in {
		if name != controllerNone && !slices.Contains(controllerNames, name) {
			return nil, fmt.Errorf("%q is not one of %s, %s", name, strings.Join(controllerNames, ", "), controllerNone)
		}
	}
	return in, nil
}

func parseURL(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%q is not a URL such as http://10.0.0.1:8082", s)
	}
	return strings.TrimSuffix(s, "/"), nil
}

// completeURL turns a bare host into a URL, as users of --ipxe-service-url know it.
func (o options) completeURL(s string) (string, error) {
	if s == "" || strings.Contains(s, "://") {
		return parseURL(s)
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		s = net.JoinHostPort(strings.Trim(s, "[]"), fmt.Sprint(o.ipxeServicePort))
	}
	return parseURL(o.ipxeProtocol + "://" + s)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/compose"
	"github.com/boot-operator/boot-operator/internal/controller/bootconfig"
	"github.com/boot-operator/boot-operator/internal/controller/ironcore"
	"github.com/boot-operator/boot-operator/internal/httpserver"
	"github.com/boot-operator/boot-operator/internal/ignition"
	"github.com/boot-operator/boot-operator/internal/inventory"
	"github.com/boot-operator/boot-operator/internal/netboot"
	"github.com/boot-operator/boot-operator/internal/observe"
	"github.com/boot-operator/boot-operator/internal/prefetch"
	"github.com/boot-operator/boot-operator/internal/redfish"
	"github.com/boot-operator/boot-operator/internal/render"
	"github.com/boot-operator/boot-operator/internal/tracing"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/internal/verification"
)

// parts is everything that the operator is made of.
type parts struct {
	settings     settings
	logger       logr.Logger
	cluster      cluster.Cluster
	clock        *clusterClock
	auth         artifact.Credentials
	store        *artifact.Store
	verifier     verifier
	inventory    *inventory.Inventory
	observer     *observe.Observer
	prefetch     *prefetch.Prefetch
	defaultImage *defaultImage
	tokenKeys    *tokenKeys
	keyring      *boot.Keyring
	attempts     boot.Attempts
	issuer       *boot.Issuer
	composer     *compose.Composer
	scripts      *render.Scripts
	ipxeTemplate *ipxeTemplate
	netboot      *netboot.Server
	bmcs         *redfish.Clients
	leadership   *leadership
	listeners    []listener
	spans        boot.Spans
	tracer       *tracing.Tracer // nil without --otlp-endpoint
	serving      atomic.Bool
	ending       atomic.Bool
	storeWatch   *storeWatch
}

// assemble builds the parts and connects them; nothing runs yet.
func assemble(ctx context.Context, s settings, c cluster.Cluster, clock *clusterClock, logger logr.Logger) (*parts, error) {
	p := &parts{settings: s, logger: logger, cluster: c, clock: clock}
	for _, build := range []func(context.Context) error{p.buildTracer, p.buildStore, p.buildInventory, p.buildObserver, p.buildPrefetch, p.buildTokens, p.buildComposer, p.buildScripts, p.buildServers, p.buildNetboot, p.buildMetrics} {
		if err := build(ctx); err != nil {
			return nil, err
		}
	}
	p.bmcs = redfish.New(redfish.Options{Limits: bmcLimits(s)})
	if s.servesOnly() {
		return p, nil
	}
	if err := metrics.Registry.Register(p.bmcs); err != nil {
		return nil, fmt.Errorf("registering the metrics of BMCs: %w", err)
	}
	p.leadership = &leadership{cluster: c, options: s, logger: logger.WithName("leader"), setup: p.setupControllers}
	return p, nil
}

func (p *parts) buildStore(context.Context) error {
	var err error
	if p.auth, err = operatorCredentials(p.settings.registryAuth); err != nil {
		return err
	}
	p.store, err = artifact.New(artifact.Options{
		Dir:                 filepath.Join(p.settings.artifactDir, "artifacts"),
		MaxBytes:            p.settings.maxBytes,
		AllowedRegistries:   p.settings.allowedRegistries,
		PlainHTTPRegistries: p.settings.plainHTTP,
		AllowedURLHosts:     p.settings.allowedURLHosts,
		CABundle:            p.settings.registryCA,
		Mirrors:             p.settings.mirrors,
		Check:               checkArtifact,
		Registerer:          metrics.Registry,
		Logger:              p.logger.WithName("artifacts"),
	})
	if err != nil {
		return err
	}
	p.storeWatch = &storeWatch{usable: p.store.Usable}
	p.verifier = verifier{p.settings.signatures, verification.New(p.store, p.store)}
	p.defaultImage = &defaultImage{
		reference: p.settings.defaultImage, architecture: p.settings.arch, interval: p.settings.resolveInterval,
		store: p.store, auth: p.auth, verifier: p.verifier, logger: p.logger.WithName("default-image"), url: p.settings.defaultUKIURL,
	}
	p.store.Keep(func() map[boot.Digest]struct{} { return p.defaultImage.keep(p.inventory.Digests()) })
	return nil
}

func (p *parts) buildInventory(ctx context.Context) error {
	p.inventory = inventory.New(inventory.Options{
		Architecture:           p.settings.arch,
		MinimumProof:           p.settings.proof,
		DefaultImage:           p.settings.defaultImage,
		ClaimNamespaces:        p.settings.claimNamespaces,
		ClaimNamespaceSelector: p.settings.namespaceSelector,
		TrustClusterAddresses:  p.settings.trustClusterAddresses,
		UntrustedClients:       p.settings.untrusted,
		Registerer:             metrics.Registry,
		Logger:                 p.logger.WithName("inventory"),
	})
	return p.inventory.Register(ctx, p.cluster.GetCache())
}

func (p *parts) buildObserver(context.Context) (err error) {
	p.observer, err = observe.New(observe.Options{
		Client:     p.cluster.GetClient(),
		Reader:     p.cluster.GetAPIReader(),
		Dir:        filepath.Join(p.settings.artifactDir, "journal"),
		Clock:      p.clock,
		QPS:        500,                                            // a whole room that boots at once is known to the other replicas within seconds
		Recorder:   p.cluster.GetEventRecorderFor("boot-operator"), //nolint:staticcheck // events of both APIs reach the same readers
		Spans:      p.spans,
		Registerer: metrics.Registry,
		Logger:     p.logger.WithName("observer"),
	})
	return err
}

func (p *parts) buildPrefetch(ctx context.Context) (err error) {
	p.prefetch, err = prefetch.New(prefetch.Options{
		Store:       p.store,
		Clock:       p.clock,
		Reader:      p.cluster.GetAPIReader(),
		Convert:     ignition.Convert,
		Credentials: p.auth,
		Spans:       p.spans,
		Registerer:  metrics.Registry,
		Logger:      p.logger.WithName("prefetch"),
	})
	if err != nil {
		return err
	}
	if p.settings.offersOnly() {
		return nil
	}
	return p.prefetch.Register(ctx, p.cluster.GetCache())
}

// setupControllers adds the controllers to a manager, once for each manager.
func (p *parts) setupControllers(mgr ctrl.Manager) error {
	return errors.Join(p.setupBootConfig(mgr), p.setupIroncore(mgr), p.setupHosts(mgr))
}

// setupIroncore adds the controllers of ServerBootConfigurations.
func (p *parts) setupIroncore(mgr ctrl.Manager) error {
	return ironcore.Setup(mgr, ironcore.Options{
		Controllers:     p.settings.controllersOf(controllerServerHTTP, controllerServerPXE),
		Both:            p.settings.serverBootConfigBoth,
		Resolver:        p.store,
		Architecture:    p.settings.arch,
		Credentials:     p.auth,
		ResolveInterval: p.settings.resolveInterval,
		Registerer:      metrics.Registry,
		Logger:          p.logger.WithName("ironcore"),
	})
}

func (p *parts) setupBootConfig(mgr ctrl.Manager) error {
	return bootconfig.Setup(mgr, bootconfig.Options{
		Controllers:      p.settings.controllersOf(controllerHTTP, controllerIPXE),
		Store:            p.store,
		Claims:           claims{p.inventory},
		Attempts:         p.observer,
		Changed:          p.inventory.Changed,
		MadeFor:          p.madeFor,
		Takes:            p.takes,
		Verifier:         p.verifier,
		Composer:         composer{p.inventory, p.composer},
		SigningSecret:    p.settings.signingSecret(),
		SignedIPXE:       p.settings.signedIPXE,
		ArtifactURL:      p.settings.artifactURL,
		Architecture:     p.settings.arch,
		MinimumProof:     p.settings.proof,
		TrustedDHCP:      len(p.settings.dhcp) > 0,
		Netboot:          p.settings.offersBoots(),
		NetbootRelays:    len(p.settings.relays) > 0,
		DefaultImage:     p.settings.defaultImage,
		Credentials:      p.auth,
		ResolveInterval:  p.settings.resolveInterval,
		SecretWatch:      p.settings.secretWatch,
		SecretPollBudget: p.settings.secretPollBudget,
		Clock:            p.clock,
		Spans:            p.spans,
		Registerer:       metrics.Registry,
	})
}

// madeFor reads from a UKI in the store which architecture it is a program for.
func (p *parts) madeFor(ctx context.Context, d boot.Digest) (boot.Architecture, error) {
	return madeFor(ctx, p.store, d)
}

func madeFor(ctx context.Context, blobs boot.Blobs, d boot.Digest) (arch boot.Architecture, err error) {
	err = inspect(ctx, blobs, d, func(_ *os.File, info uki.Info) error {
		arch = boot.Architecture(info.Architecture)
		return nil
	})
	return arch, err
}

// takes reads from a UKI in the store in which formats it reads user data.
func (p *parts) takes(ctx context.Context, d boot.Digest) (bootconfig.Formats, error) {
	return takes(ctx, p.store, d)
}

func takes(ctx context.Context, blobs boot.Blobs, d boot.Digest) (f bootconfig.Formats, err error) {
	err = inspect(ctx, blobs, d, func(file *os.File, info uki.Info) error {
		text, err := info.CommandLine(file)
		f.Ignition, f.CloudInit = uki.Reads(text)
		return err
	})
	return f, err
}

// inspect opens a UKI in the store for as long as use takes.
func inspect(ctx context.Context, blobs boot.Blobs, d boot.Digest, use func(*os.File, uki.Info) error) error {
	b, err := blobs.Open(ctx, d)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	f := b.File()
	if f == nil {
		return fmt.Errorf("blob %s is arriving: %w", d, boot.ErrNotReady)
	}
	info, err := uki.Inspect(f, b.Size())
	if err != nil {
		return err
	}
	return use(f, info)
}

// claims tells the controllers what the inventory knows.
type claims struct{ *inventory.Inventory }

// Conflict says which older config claims one of cfg's identifiers, and which.
func (c claims) Conflict(cfg v1alpha1.Config) (boot.Ref, string, bool) {
	conflict, ok := c.Inventory.Conflict(cfg)
	return conflict.With, conflict.Identifier, ok
}

// buildTokens makes what hands out and checks tokens.
func (p *parts) buildTokens(context.Context) error {
	p.keyring = &boot.Keyring{}
	p.attempts = p.observer
	if !p.settings.offersOnly() { // who does not serve documents does not read them
		p.attempts = p.prefetch.Attempts(p.observer)
	}
	p.issuer = boot.NewIssuer(p.keyring, p.attempts, p.clock.Now)
	p.tokenKeys = &tokenKeys{
		reader: p.cluster.GetAPIReader(), keyring: p.keyring, now: p.clock.Now, logger: p.logger.WithName("tokens"),
		secret: types.NamespacedName{Namespace: p.settings.namespace, Name: p.settings.tokenSecret},
	}
	if p.settings.offersOnly() {
		p.tokenKeys.waits = true
	} else if p.settings.handsOutTokens() {
		p.tokenKeys.writer = p.cluster.GetClient()
	}
	return nil
}

// reloadKeys is what reads the keys of tokens again; nil where there is no Secret.
func (p *parts) reloadKeys() func(context.Context) error {
	if p.settings.tokenSecret == "" {
		return nil
	}
	return p.tokenKeys.load
}

// buildScripts makes what renders iPXE scripts.
func (p *parts) buildScripts(context.Context) error {
	p.scripts = render.NewScripts()
	p.ipxeTemplate = &ipxeTemplate{
		file: p.settings.ipxeTemplateFile, reader: p.cluster.GetAPIReader(), replace: p.scripts.Replace, logger: p.logger.WithName("ipxe-template"),
		configMap: types.NamespacedName{Namespace: p.settings.namespace, Name: p.settings.ipxeTemplateConfigMap},
		lastGood:  filepath.Join(p.settings.artifactDir, "template.ipxe"),
	}
	return nil
}

// buildNetboot makes the ProxyDHCP and TFTP servers, where they are asked for.
func (p *parts) buildNetboot(context.Context) (err error) {
	if len(p.settings.netbootInterfaces) == 0 {
		return nil
	}
	p.netboot, err = netboot.New(netboot.Options{
		Source:         p.inventory,
		Attempts:       p.attempts,
		Issuer:         p.issuer,
		Now:            p.clock.Now,
		Interfaces:     p.settings.netbootInterfaces,
		Relays:         p.settings.relays,
		AnswerEveryone: p.settings.netbootAnswerEveryone,
		BaseURL:        p.settings.literalBootURL,
		ProgramDir:     p.settings.ipxeDir,
		Logger:         p.logger.WithName("netboot"),
		Registerer:     metrics.Registry,
	})
	return err
}

func (p *parts) buildServers(context.Context) error {
	server, err := httpserver.New(httpserver.Options{
		Source:            p.inventory,
		Blobs:             p.prefetch.Blobs(p.store),
		Secrets:           p.prefetch,
		Attempts:          p.attempts,
		Keyring:           p.keyring,
		Issuer:            p.issuer,
		Composer:          p.composer,
		Scripts:           p.scripts,
		BaseURL:           p.settings.ipxeServiceURL,
		TrustedProxies:    p.settings.proxies,
		TrustedDHCP:       p.settings.dhcp,
		ProxyProtocolFrom: p.settings.proxyProtocol,
		IsNode:            p.inventory.IsNode,
		Now:               p.clock.Now,
		ReloadKeys:        p.reloadKeys(),
		ClientRate:        p.settings.clientRate,
		ClientBurst:       p.settings.clientBurst,
		Spans:             p.spans,
		ImageServerURL:    p.settings.imageURL(),
		DefaultImage:      p.defaultImage.Get,
		Logger:            p.logger.WithName("http"),
		Registerer:        metrics.Registry,
	})
	if err != nil {
		return err
	}
	p.listeners = listenersOf(p.settings, server)
	return nil
}

// operatorCredentials are those for images that name no pull secret.
func operatorCredentials(dockerconfigjson []byte) (artifact.Credentials, error) {
	if len(dockerconfigjson) == 0 {
		return artifact.Credentials{}, nil
	}
	c, err := artifact.ParsePullSecret(dockerconfigjson)
	if err != nil {
		return c, fmt.Errorf("--registry-auth-file: %w", err)
	}
	return c, nil
}

// checkArtifact refuses a UKI that no firmware would load.
func checkArtifact(role boot.Role, f *os.File) error {
	if role != boot.RoleUKI {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = uki.Inspect(f, info.Size())
	return err
}

package rights

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	metalv1alpha1 "github.com/ironcore-dev/metal-operator/api/v1alpha1"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/registry"
)

// The tour: all that the operator does for anyone, in four installations. Each runs
// with a token of the chart's ServiceAccounts. Nothing may be refused, and at the end
// every rule of every role was used.
func TestTheChartGrantsWhatIsNeededAndNothingElse(t *testing.T) {
	lab.Require(t, lab.Root, lab.IPXE)
	l := ledger{}
	t.Run("serving, ServerBootConfigurations and netboot", func(t *testing.T) { serving(t, l) })
	t.Run("driving BareMetalHosts", func(t *testing.T) { driving(t, l) })
	t.Run("translating BareMetalHosts", func(t *testing.T) { translating(t, l) })
	t.Run("watching Secrets", func(t *testing.T) { watching(t, l) })
	if t.Failed() {
		return
	}
	require.Greater(t, len(l), 40, "rights that were granted")
	require.Empty(t, l.unused(), "rights that nothing used: take them out of the markers +kubebuilder:rbac, or show here what they are for")
}

func serving(t *testing.T, l ledger) {
	s := newSite(t, "boot.ipxeTemplateConfigMap=ipxe", "netboot.interfaces={br0}", "netboot.namespace="+offering)
	s.create(
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: release, Name: "ipxe"}, Data: map[string]string{"template.ipxe": "#!ipxe\n# ours\nexit\n"}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}},
	)
	a := s.start(streaming, "boot-operator", account, 8081).ready()
	b := s.start("b", "boot-operator", account, 9081, "--boot-server-address=:9082", "--image-proxy-server-address=:9083", "--metrics-bind-address=:9080").ready()
	offers := s.start("offers", "boot-operator-netboot", netbootAccount, 7081, "--metrics-bind-address=:7080").ready()

	s.bootsConfigs()
	s.translatesServers()
	s.isScraped("8080")
	s.isScraped("7080")
	s.offersBoots()
	s.changesLeader(a, b)

	requests := s.settle(l)
	for _, q := range requests {
		if q.Resource == "secrets" && q.Verb != "create" {
			require.Equal(t, "get", q.Verb, "Secrets are read by name: %s", q.URI)
			require.NotEmpty(t, q.Name, q.URI)
		}
		if q.Account == netbootAccount && q.Resource == "secrets" {
			require.Equal(t, "boot-operator-token-keys", q.Name, "who only offers boots reads no machine's Secret")
		}
	}
	require.NotContains(t, offers.log.String(), "pull", "who only offers boots pulls nothing")
}

// bootsConfigs boots a machine by each kind of config, and one of them so often that
// its events are told in one.
func (s *site) bootsConfigs() {
	s.t.Helper()
	image, uki := s.publishUKI("1")
	one, two := s.machine(51), s.machine(52)
	http1 := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Name: "one"}}
	http1.Spec.NetworkIdentifiers, http1.Spec.Image = []string{one.String()}, image
	http1.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "one"}
	ipxe := &v1alpha1.IPXEBootConfig{ObjectMeta: metav1.ObjectMeta{Name: "two"}}
	ipxe.Spec.NetworkIdentifiers, ipxe.Spec.Image = []string{two.String(), "52:54:00:00:00:02"}, s.publishKernel("1")
	ipxe.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "two"}
	s.create(ignition("one"), ignition("two"), http1, ipxe)
	s.isReady(http1)
	s.isReady(ipxe)

	require.Equal(s.t, string(uki), s.served(one, "/httpboot").body)
	require.Contains(s.t, s.served(one, "/ignition").body, "data:,one")
	require.Contains(s.t, s.served(two, "/ipxe?mac=52:54:00:00:00:02").body, "# ours", "the template of the ConfigMap")
	require.Contains(s.t, s.served(two, "/ignition").body, "data:,two")
	s.fetched(http1)
	s.fetched(ipxe)
	s.opensAttempts(http1)
}

// config is either kind as clients read it.
type config interface {
	v1alpha1.Config
	client.Object
}

func (s *site) isReady(c config) {
	s.t.Helper()
	s.eventually("readiness of "+c.GetName(), func() bool {
		return s.read(c) && c.ConfigStatus().State == v1alpha1.StateReady && c.ConfigStatus().ObservedGeneration == c.GetGeneration()
	})
}

// fetched waits until the status says that the machine has its Ignition.
func (s *site) fetched(c config) {
	s.t.Helper()
	s.eventually("report of what "+c.GetName()+" fetched", func() bool {
		return s.read(c) && meta.IsStatusConditionTrue(c.ConfigStatus().Conditions, v1alpha1.ConditionIgnitionDataFetched)
	})
}

// many is more than client-go's recorder tells of one object's events one by one: it
// changes an event that it made then.
const many = 12

// opensAttempts asks for one boot after the other.
func (s *site) opensAttempts(c config) {
	s.t.Helper()
	for i := range many {
		s.opensAttempt(c, fmt.Sprint(c.GetName(), i))
	}
}

func (s *site) opensAttempt(c config, request string) int64 {
	s.t.Helper()
	before := int64(0)
	if b := c.ConfigStatus().Boot; b != nil {
		before = b.Attempt
	}
	change(s, c, func(c config) { c.SetAnnotations(map[string]string{v1alpha1.RequestBootAnnotation: request}) })
	s.eventually("another attempt", func() bool {
		return s.read(c) && c.ConfigStatus().Boot != nil && c.ConfigStatus().Boot.Attempt > before
	})
	return c.ConfigStatus().Boot.Attempt
}

// translatesServers makes configs of both kinds from what metal-operator writes, has
// them changed, and has them go.
func (s *site) translatesServers() {
	s.t.Helper()
	uki1, _ := s.publishUKI("1")
	uki2, _ := s.publishUKI("2")
	for i, of := range []struct {
		child         config
		first, second string
	}{
		{&v1alpha1.HTTPBootConfig{}, uki1, uki2},
		{&v1alpha1.IPXEBootConfig{}, s.publishKernel("1"), s.publishKernel("2")},
	} {
		name := fmt.Sprintf("server-%d", i)
		c := &metalv1alpha1.ServerBootConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}}
		c.Spec.ServerRef.Name, c.Spec.Image, c.Spec.IgnitionSecretRef = name, of.first, &v1alpha1.SecretReference{Name: name}
		s.create(ignition(name), c)
		s.server(name, s.network.Addr(byte(70+i)))
		of.child.SetNamespace(racks)
		of.child.SetName(name)
		s.eventually("child of "+name, func() bool { return s.read(of.child) })
		s.eventually("state Ready of "+name, func() bool {
			return s.read(c) && c.Status.State == metalv1alpha1.ServerBootConfigurationStateReady
		})
		change(s, c, func(c *metalv1alpha1.ServerBootConfiguration) { c.Spec.Image = of.second })
		s.eventually("other image of "+name, func() bool { return s.read(of.child) && of.child.Common().Image == of.second })
		require.NoError(s.t, s.client.Delete(s.t.Context(), c))
		s.eventually("end of the child of "+name, func() bool { return !s.read(of.child) })
	}
}

func (s *site) server(name string, address netip.Addr) {
	s.t.Helper()
	server := &metalv1alpha1.Server{ObjectMeta: metav1.ObjectMeta{Name: name}}
	server.Spec.SystemUUID = fmt.Sprintf("00112233-4455-6677-8899-%012x", address.As4()[3])
	server.Spec.BootConfigurationRef = &metalv1alpha1.ObjectReference{Namespace: racks, Name: name}
	s.create(server)
	server.Status.NetworkInterfaces = []metalv1alpha1.NetworkInterface{{Name: "eth0", MACAddress: fmt.Sprintf("52:54:00:00:01:%02x", address.As4()[3]), IPs: []metalv1alpha1.IP{metalv1alpha1.MustParseIP(address.String())}}}
	require.NoError(s.t, s.client.Status().Update(s.t.Context(), server))
}

// isScraped has metrics read by who may, who may not, and who is nobody.
func (s *site) isScraped(port string) {
	s.t.Helper()
	name := "prometheus-" + port
	for _, n := range []string{name, name + "-stranger"} {
		s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: n}})
	}
	s.create(&rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "boot-operator-metrics-reader"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: racks, Name: name}},
	})
	scrape := func(header ...string) answer {
		return s.get(s.network.Gateway(), fmt.Sprintf("https://%s:%s/metrics", s.network.Gateway(), port), header...)
	}
	var a answer
	s.eventually("a scrape", func() bool {
		a = scrape("Authorization", "Bearer "+s.token(racks+"/"+name))
		return a.code == http.StatusOK
	})
	require.Contains(s.t, a.body, "boot_operator_")
	require.Equal(s.t, http.StatusForbidden, scrape("Authorization", "Bearer "+s.token(racks+"/"+name+"-stranger")).code)
	require.Equal(s.t, http.StatusUnauthorized, scrape().code)
}

// offersBoots has the process that only offers boots do so, to a machine of each kind
// of config, and to one so often that its events are told in one.
func (s *site) offersBoots() {
	s.t.Helper()
	lan := s.network.Sniff(s.t)
	image, _ := s.publishUKI("1")
	byHTTP := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Name: "three"}}
	byHTTP.Spec.NetworkIdentifiers, byHTTP.Spec.Image = []string{"52:54:00:00:00:03"}, image
	byPXE := &v1alpha1.IPXEBootConfig{ObjectMeta: metav1.ObjectMeta{Name: "four"}}
	byPXE.Spec.NetworkIdentifiers, byPXE.Spec.Image = []string{"52:54:00:00:00:04"}, s.publishKernel("1")
	s.create(byHTTP, byPXE)
	s.isReady(byHTTP)
	s.isReady(byPXE)
	s.isOffered(lan, byPXE, net.HardwareAddr{0x52, 0x54, 0, 0, 0, 4}, "PXEClient:Arch:00007:UNDI:003001", 7)
	for i := range many {
		attempt := s.opensAttempt(byHTTP, fmt.Sprint("offer", i))
		s.isOffered(lan, byHTTP, net.HardwareAddr{0x52, 0x54, 0, 0, 0, 3}, "HTTPClient:Arch:00016:UNDI:003001", 16)
		require.GreaterOrEqual(s.t, byHTTP.Status.Boot.Offer.Attempt, attempt)
	}
}

// isOffered asks as a machine's firmware until its config tells of an offer of the
// present attempt.
func (s *site) isOffered(lan *lab.ThirdParty, c config, mac net.HardwareAddr, class string, arch byte) {
	s.t.Helper()
	tries := 0
	s.eventually("offer for "+c.GetName(), func() bool {
		if tries++; tries%20 == 1 {
			discover, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(true),
				dhcpv4.WithGeneric(dhcpv4.OptionClassIdentifier, []byte(class)), dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, arch}))
			require.NoError(s.t, err)
			lan.SendDHCP(lab.ForgedDHCP{Message: discover})
		}
		if !s.read(c) || c.ConfigStatus().Boot == nil || c.ConfigStatus().Boot.Offer == nil {
			return false
		}
		b := c.ConfigStatus().Boot
		return b.Offer.Attempt >= b.Attempt
	})
}

// changesLeader ends the replica that leads: the other takes over at once.
func (s *site) changesLeader(replicas ...*operator) {
	s.t.Helper()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: release, Name: "boot-operator.boot.ironcore.dev"}}
	require.True(s.t, s.read(lease))
	first := *lease.Spec.HolderIdentity
	leader := replicas[0]
	if strings.Contains(replicas[1].log.String(), "successfully acquired lease") {
		leader = replicas[1]
	}
	leader.stop()
	s.eventually("another leader", func() bool {
		return s.read(lease) && lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != "" && *lease.Spec.HolderIdentity != first
	})
	image, _ := s.publishUKI("3")
	c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Name: "after"}}
	c.Spec.NetworkIdentifiers, c.Spec.Image = []string{s.network.Addr(59).String()}, image
	s.create(c)
	s.isReady(c)
}

func driving(t *testing.T, l ledger) {
	s := newSite(t, "boot.controllers={httpbootconfig,ipxebootconfig}", "baremetalhost.mode=drive", "baremetalhost.namespaces={"+racks+"}")
	s.start("a", "boot-operator", account, 8081).ready()
	image, _ := s.publishUKI("1")

	byHTTP := s.declare("one", "generic", s.machine(61), func(f firmware, next bmcsim.NextBoot) {
		if next.Kind == bmcsim.KindHTTP {
			f.get(next.URL)
			f.get(f.site.url("/ignition"))
		}
	})
	byPXE := s.declare("two", "openbmc", s.machine(62), func(f firmware, next bmcsim.NextBoot) {
		if next.Kind == bmcsim.KindPXE {
			f.get(f.site.url("/ipxe?mac=" + f.mac))
			f.get(f.site.url("/ignition"))
		}
	})
	for host, image := range map[*metal3.BareMetalHost]string{byHTTP: image, byPXE: s.publishKernel("1")} {
		s.isHost(host, metal3.StateAvailable)
		s.boots(host, image)
	}
	s.isHost(byHTTP, metal3.StateProvisioned)
	for _, host := range []*metal3.BareMetalHost{byHTTP, byPXE} {
		children := s.childrenOf(host)
		s.eventually("a config of "+host.Name, func() bool { return len(children()) == 1 })
		change(s, host, func(h *metal3.BareMetalHost) { h.Spec.Image, h.Spec.UserData, h.Spec.Online = nil, nil, false })
		s.eventually("end of the config of "+host.Name, func() bool { return len(children()) == 0 })
		s.isHost(host, metal3.StateAvailable)
		require.NoError(t, s.client.Delete(t.Context(), host))
		s.eventually("end of host "+host.Name, func() bool { return !s.read(host) })
	}
	s.settle(l)
}

// firmware is what a machine does when its BMC starts it.
type firmware struct {
	site    *site
	address netip.Addr
	mac     string
}

// get fetches as the machine does, again until the server has it.
func (f firmware) get(url string) { f.site.eventuallyGets(f.address, url) }

func (s *site) eventuallyGets(from netip.Addr, url string) {
	for range 600 {
		if s.t.Context().Err() != nil || s.get(from, url).code == http.StatusOK {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// declare creates a host with a BMC, its Secrets, and a machine that is not there.
func (s *site) declare(name, profile string, address netip.Addr, boots func(firmware, bmcsim.NextBoot)) *metal3.BareMetalHost {
	s.t.Helper()
	f := firmware{site: s, address: address, mac: fmt.Sprintf("52:54:00:00:02:%02x", address.As4()[3])}
	sim, err := bmcsim.New(bmcsim.Options{
		Profile: profile, Username: "operator", Password: "correct horse", UUID: fmt.Sprintf("00112233-4455-6677-8899-%012x", address.As4()[3]),
		Machine: bmcsim.NewMemoryMachine(func(next bmcsim.NextBoot) { go boots(f, next) },
			bmcsim.BootOption{Reference: "Boot0000", Name: "Disk", Kind: bmcsim.KindDisk}, bmcsim.BootOption{Reference: "Boot0001", Name: "UEFI HTTPv4", Kind: bmcsim.KindHTTP}),
		Hardware: bmcsim.Hardware{NICs: []bmcsim.NIC{{MAC: f.mac}}},
	})
	require.NoError(s.t, err)
	l := s.network.Listen("tcp", "127.0.0.1:0")
	server := &http.Server{Handler: sim, TLSConfig: lab.NewCA(s.t, "bmcs").ServerConfig("127.0.0.1"), ReadHeaderTimeout: patience}
	go func() { _ = server.ServeTLS(l, "", "") }()
	s.t.Cleanup(func() { _ = server.Close(); sim.Close() })

	h := &metal3.BareMetalHost{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{v1alpha1.HostAddressesAnnotation: address.String()}}}
	h.Spec.BMC = metal3.BMCDetails{Address: "redfish://" + l.Addr().String() + sim.SystemPath(), CredentialsName: name + "-bmc", DisableCertificateVerification: true}
	h.Spec.BootMACAddress = f.mac
	s.create(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name + "-bmc"}, StringData: map[string]string{"username": "operator", "password": "correct horse"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"value": `{"ignition":{"version":"3.4.0"}}`, "format": "ignition"}}, h)
	return h
}

// boots has a host boot an image, with user data from the Secret of its name.
func (s *site) boots(h *metal3.BareMetalHost, image string) {
	s.t.Helper()
	format := "raw"
	change(s, h, func(h *metal3.BareMetalHost) {
		h.Spec.Online, h.Spec.Image = true, &metal3.Image{URL: "oci://" + image, DiskFormat: &format}
		h.Spec.UserData = &corev1.SecretReference{Name: h.Name}
	})
}

func (s *site) isHost(h *metal3.BareMetalHost, state metal3.ProvisioningState) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("state %s of %s", state, h.Name), func() bool {
		return s.read(h) && h.Status.Provisioning.State == state && h.Status.ErrorMessage == ""
	})
}

// childrenOf returns what lists the configs of a host.
func (s *site) childrenOf(h *metal3.BareMetalHost) func() []config {
	return func() (all []config) {
		for _, c := range []config{&v1alpha1.HTTPBootConfig{}, &v1alpha1.IPXEBootConfig{}} {
			c.SetNamespace(racks)
			c.SetName(h.Name)
			if s.read(c) {
				all = append(all, c)
			}
		}
		return all
	}
}

func translating(t *testing.T, l ledger) {
	s := newSite(t, "boot.controllers={httpbootconfig,ipxebootconfig}", "baremetalhost.mode=translate", "baremetalhost.namespaces={"+racks+"}")
	s.start("a", "boot-operator", account, 8081, "--bmc-power-interval=1s").ready()
	_, uki := s.publishUKI("1")
	image := s.publish("both", "1", registry.Layer{MediaType: registry.UKI, Data: uki},
		registry.Layer{MediaType: registry.Kernel, Data: []byte("kernel")}, registry.Layer{MediaType: registry.Initramfs, Data: []byte("initrd")})
	host := s.declare("one", "generic", s.machine(61), func(firmware, bmcsim.NextBoot) { t.Error("the operator switched a machine that is not its own") })
	children := s.childrenOf(host)
	s.boots(host, image)
	s.eventually("configs of both kinds", func() bool { return len(children()) == 2 })
	// What stays wrong is told again and again, by one event that is changed.
	change(s, host, func(h *metal3.BareMetalHost) {
		h.Spec.UserData = &corev1.SecretReference{Name: host.Name, Namespace: "kube-system"}
	})
	s.eventually("an event that counts", func() bool {
		var all eventsv1.EventList
		require.NoError(t, s.client.List(t.Context(), &all, client.InNamespace(racks)))
		return slices.ContainsFunc(all.Items, func(e eventsv1.Event) bool { return e.Regarding.Name == host.Name && e.Series != nil })
	})
	change(s, host, func(h *metal3.BareMetalHost) { h.Spec.UserData = nil })
	s.eventually("configs without user data", func() bool {
		all := children()
		return len(all) == 2 && all[0].Common().IgnitionSecretRef == nil && all[1].Common().IgnitionSecretRef == nil
	})
	change(s, host, func(h *metal3.BareMetalHost) { h.Spec.Image = nil })
	s.eventually("end of the configs", func() bool { return len(children()) == 0 })
	s.settle(l)
}

func watching(t *testing.T, l ledger) {
	s := newSite(t, "secretWatch=true")
	s.start("a", "boot-operator", account, 8081).ready()
	image, _ := s.publishUKI("1")
	c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Name: "one"}}
	c.Spec.NetworkIdentifiers, c.Spec.Image = []string{s.network.Addr(51).String()}, image
	c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "one"}
	s.create(c)
	s.eventually("a condition that says what is missing", func() bool {
		return s.read(c) && meta.IsStatusConditionFalse(c.Status.Conditions, v1alpha1.ConditionIgnitionValid)
	})
	s.create(ignition("one"))
	s.isReady(c)
	s.settle(l)
}

// What the tour would not see, it would not protect: without a right the operator is
// refused, and one that it does not need is found.
func TestTheTourSeesAMissingRightAndOneTooMany(t *testing.T) {
	s := newSite(t)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "boot-operator"}}
	change(s, role, func(r *rbacv1.ClusterRole) {
		for i, rule := range r.Rules {
			if rule.Resources[0] == "namespaces" {
				r.Rules[i].Resources = []string{"namespaces"} // and no nodes
			}
		}
		r.Rules = append(r.Rules, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"delete"}})
	})
	s.rereads(role)
	a := s.start("a", "boot-operator", account, 8081)
	s.eventually("a refusal in the log", func() bool { return strings.Contains(strings.ToLower(a.log.String()), "forbidden") })
	requests := s.finish()
	require.Contains(t, strings.Join(refusals(requests, account), "\n"), "list /api/v1/nodes")
	l := ledger{}
	l.note(rbacOf(t, s.objects).rights(t), requests)
	require.Contains(t, l.unused(), `boot-operator-system/boot-operator may delete pods. "" in "", of role boot-operator`)
}

// rereads takes a role in the place of the one that was rendered.
func (s *site) rereads(role *rbacv1.ClusterRole) {
	s.t.Helper()
	for i, o := range s.objects {
		if o.GetKind() != "ClusterRole" || o.GetName() != role.Name {
			continue
		}
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(o.GroupVersionKind())
		require.NoError(s.t, s.client.Get(context.Background(), client.ObjectKeyFromObject(role), u))
		unstructured.RemoveNestedField(u.Object, "metadata", "managedFields")
		s.objects[i] = u
	}
}

// Where Secrets are readable in some namespaces only, others' are refused and nothing
// else is: the operator's own are not among them.
func TestSecretsCanBeReadableInSomeNamespacesOnly(t *testing.T) {
	s := newSite(t, "rbac.secretNamespaces={"+racks+"}")
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "others", Labels: map[string]string{"machines": "yes"}}})
	s.start("a", "boot-operator", account, 8081).ready()
	image, _ := s.publishUKI("1")
	configs := map[string]*v1alpha1.HTTPBootConfig{}
	for i, namespace := range []string{racks, "others"} {
		c := &v1alpha1.HTTPBootConfig{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "one"}}
		c.Spec.NetworkIdentifiers, c.Spec.Image = []string{s.network.Addr(byte(51 + i)).String()}, image
		c.Spec.IgnitionSecretRef = &corev1.LocalObjectReference{Name: "one"}
		secret := ignition("one")
		secret.Namespace = namespace
		s.create(secret, c)
		configs[namespace] = c
	}
	s.isReady(configs[racks])
	s.eventually("a condition that says what is refused", func() bool {
		c := configs["others"]
		found := s.read(c) && meta.IsStatusConditionFalse(c.Status.Conditions, v1alpha1.ConditionIgnitionValid)
		return found && strings.Contains(meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionIgnitionValid).Message, "forbidden")
	})
	require.True(t, s.read(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: release, Name: "boot-operator-token-keys"}}))
	for _, q := range s.finish() {
		if q.Account == account && q.Refused {
			require.Equal(t, "get /api/v1/namespaces/others/secrets/one", q.Verb+" "+q.URI)
		}
	}
}

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/lab"
	"github.com/boot-operator/boot-operator/test/machines"
)

// patient is a doctor without a cluster, who looks at a URL.
func patient(url string) *doctor {
	return &doctor{flags: &doctorFlags{url: url}, fleet: &fleet{namespace: "machines"}, now: time.Now}
}

// only returns the one finding of this level, and requires that there is one.
func only(t *testing.T, all []finding, l level) finding {
	t.Helper()
	require.Equal(t, 1, count(all, l), "%s in %+v", l, all)
	return all[slices.IndexFunc(all, func(f finding) bool { return f.Level == l })]
}

// bootServer is what doctor asks of a boot server, which a test changes.
type bootServer struct {
	whoami   string
	httpboot func(http.ResponseWriter)
	script   func(http.ResponseWriter, *http.Request)
	asked    []string
}

func (b *bootServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.asked = append(b.asked, r.Method+" "+r.URL.Path+" "+r.UserAgent())
	switch r.URL.Path {
	case "/boot.ipxe":
		b.script(w, r)
	case "/whoami":
		if b.whoami == "" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, b.whoami)
	case "/httpboot":
		b.httpboot(w)
	}
}

func newBootServer() *bootServer {
	return &bootServer{
		whoami:   `{"address":"127.0.0.1","via":"connection","node":false,"provesNothing":false}`,
		httpboot: func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
		script:   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "#!ipxe\n") },
	}
}

func TestDoctorAsksABootServerAsFirmwareDoes(t *testing.T) {
	redirect := func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }
	for name, c := range map[string]struct {
		edit  func(*bootServer)
		level level
		says  string
	}{
		"all is well":    {func(*bootServer) {}, levelOK, ""},
		"a redirect":     {func(b *bootServer) { b.script = redirect }, levelFail, "The answer is a redirect (302)"},
		"another server": {func(b *bootServer) { b.script = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) } }, levelFail, "no boot server of this operator"},
		"a connection that ends": {func(b *bootServer) {
			b.script = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Connection", "close")
				fmt.Fprint(w, "#!ipxe\n")
			}
		}, levelFail, "closed between HEAD and GET"},
		"a HEAD that lies": {func(b *bootServer) {
			b.script = func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodHead {
					w.Header().Set("Content-Length", "9")
					return
				}
				fmt.Fprint(w, "#!ipxe\n")
			}
		}, levelFail, "HEAD says that there are 9 bytes, and GET has 7"},
		"a node's address": {func(b *bootServer) {
			b.whoami = `{"address":"10.0.0.9","via":"connection","node":true,"provesNothing":true}`
		}, levelFail, "127.0.0.1 arrives as 10.0.0.9, which is a node's"},
		"another address": {func(b *bootServer) { b.whoami = `{"address":"10.0.0.9","via":"PROXY","node":false}` }, levelFail, "arrives as 10.0.0.9 (by PROXY)"},
		"an address of the cluster": {func(b *bootServer) {
			b.whoami = `{"address":"127.0.0.1","via":"connection","node":false,"provesNothing":true}`
		}, levelWarn, "which proves no machine"},
		"an older operator": {func(b *bootServer) { b.whoami = "" }, levelSkip, "/whoami is answered with 404"},
		"a wrong type": {func(b *bootServer) {
			b.httpboot = func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html") }
		}, levelFail, `the type "text/html"`},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBootServer()
			c.edit(b)
			server := httptest.NewServer(b)
			defer server.Close()
			all := checkURL(t.Context(), patient(server.URL))
			if c.says == "" {
				require.Equal(t, len(all), count(all, levelOK), "%+v", all)
			} else {
				f := all[slices.IndexFunc(all, func(f finding) bool { return f.Level == c.level })]
				require.Contains(t, f.Says, c.says)
				require.True(t, f.Level == levelSkip || f.Do != "", "it says what to do")
			}
			for _, asked := range b.asked {
				require.True(t, strings.HasSuffix(asked, " "+firmwareAgent), asked)
				require.NotContains(t, asked, "GET /httpboot", "that would be a boot")
			}
		})
	}
}

// A computer that has a machine's address must not boot in its name.
func TestDoctorDoesNotBootInTheNameOfAMachine(t *testing.T) {
	b := newBootServer()
	server := httptest.NewServer(b)
	defer server.Close()
	d := patient(server.URL)
	m, err := machines.Named("booted")
	require.NoError(t, err)
	m.Configs[0].ConfigStatus().Boot.LastClientAddress = "127.0.0.1"
	d.machines = append(d.machines, m)
	require.Contains(t, only(t, checkURL(t.Context(), d), levelSkip).Says, "this computer has the address of a machine, 127.0.0.1")
	require.NotContains(t, strings.Join(b.asked, "\n"), "/httpboot")
	d.machines, d.noCluster = nil, errors.New("no cluster")
	require.Contains(t, only(t, checkURL(t.Context(), d), levelSkip).Says, "is not known")
	require.NotContains(t, strings.Join(b.asked, "\n"), "/httpboot")
}

func TestDoctorSaysThatNobodyAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "http://" + l.Addr().String()
	l.Close()
	f := only(t, checkURL(t.Context(), patient(url)), levelFail)
	require.Contains(t, f.Says, "does not answer")
	require.Contains(t, only(t, checkURL(t.Context(), patient("")), levelSkip).Says, "--url")
	u, err := bootURL("http://" + strings.Repeat("a", 60) + ".example/" + strings.Repeat("b", 40))
	require.NoError(t, err)
	require.Equal(t, levelFail, urlLength(u).Level)
}

func TestDoctorLooksAtCertificatesAsFirmwareDoes(t *testing.T) {
	ca := lab.NewCA(t, "Rack authority")
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, ca.PEM, 0o600))
	for name, c := range map[string]struct {
		config func() *tls.Config
		caFile string
		level  level
		says   string
	}{
		"all is well": {func() *tls.Config { return withSuites(ca.ServerConfig("127.0.0.1")) }, file, levelOK, ""},
		"no old ciphers": {func() *tls.Config {
			c := ca.ServerConfig("127.0.0.1")
			c.CipherSuites = lab.FirmwareCipherSuites[:2]
			return c
		}, file, levelWarn, "old firmware (EDK2 without ECDHE) would not agree"},
		"TLS 1.3 alone": {func() *tls.Config {
			c := withSuites(ca.ServerConfig("127.0.0.1"))
			c.MinVersion = tls.VersionTLS13
			return c
		}, file, levelFail, "firmware of today would not agree"},
		"no IP address in it":  {func() *tls.Config { return withSuites(ca.ServerConfig("boot.example")) }, file, levelFail, "does not have 127.0.0.1 as an IP address among its subjectAltNames"},
		"an unknown authority": {func() *tls.Config { return withSuites(ca.ServerConfig("127.0.0.1")) }, "", levelWarn, "not of an authority that is trusted here"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(newBootServer())
			server.TLS = c.config()
			server.StartTLS()
			defer server.Close()
			d := patient(server.URL)
			d.flags.caFile = c.caFile
			u, err := bootURL(server.URL)
			require.NoError(t, err)
			all := d.checkTLS(t.Context(), u)
			if c.says == "" {
				require.Equal(t, 3, count(all, levelOK), "%+v", all)
				require.Len(t, all, 3)
				return
			}
			require.Contains(t, only(t, all, c.level).Says, c.says)
		})
	}
}

func withSuites(c *tls.Config) *tls.Config {
	c.CipherSuites = lab.FirmwareCipherSuites
	return c
}

func TestWhatIsWrongWithACertificateIsSaid(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "self"}, NotBefore: from, NotAfter: from.AddDate(0, 3, 0),
		IPAddresses: []net.IP{net.IPv4(10, 0, 0, 2)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	for name, c := range map[string]struct {
		now  time.Time
		says string
	}{
		"not yet": {from.AddDate(-1, 0, 0), "not valid before 2026-01-01"}, "over": {from.AddDate(1, 0, 0), "ended on 2026-04-01"},
		"soon over": {from.AddDate(0, 2, 10), "ends on 2026-04-01"},
	} {
		all := certificateFindings([]*x509.Certificate{leaf}, "10.0.0.2", roots, c.now)
		require.Len(t, all, 2, name)
		require.Contains(t, all[0].Says, "key is ECDSA")
		require.Contains(t, all[1].Says, c.says)
	}
}

func ipOf(text string) net.IP { return net.ParseIP(text).To4() }

// offered is the frame of a server's answer to a client.
func offered(t *testing.T, ask *dhcpv4.DHCPv4, edit ...dhcpv4.Modifier) []byte {
	t.Helper()
	d, err := dhcpv4.NewReplyFromRequest(ask, append([]dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithServerIP(ipOf("10.0.0.9"))}, edit...)...)
	require.NoError(t, err)
	b := broadcast(net.HardwareAddr{2, 0, 0, 0, 0, 9}, d.ToBytes())
	copy(b[ethernetHeader+12:], ipOf("10.0.0.9"))
	b[ethernetHeader+ipHeader+1], b[ethernetHeader+ipHeader+3] = dhcpServerPort, dhcpClientPort
	return b
}

func TestADiscoverIsFirmwaresAndNobodys(t *testing.T) {
	macs := map[string]bool{}
	for _, c := range bootClients {
		d, err := c.discover()
		require.NoError(t, err)
		frame := broadcast(net.HardwareAddr{2, 0, 0, 0, 0, 1}, d.ToBytes())
		source, payload := udpTo(frame, dhcpServerPort)
		require.Equal(t, netip.IPv4Unspecified(), source)
		require.Zero(t, checksum(frame[ethernetHeader:ethernetHeader+ipHeader]), "the header's checksum holds")
		read, err := dhcpv4.FromBytes(payload)
		require.NoError(t, err)
		require.Equal(t, dhcpv4.MessageTypeDiscover, read.MessageType())
		require.Equal(t, c.class, read.ClassIdentifier())
		require.Equal(t, []byte{0, byte(c.arch)}, read.Options.Get(dhcpv4.OptionClientSystemArchitectureType))
		require.True(t, read.IsBroadcast())
		require.Equal(t, byte(2), read.ClientHWAddr[0]&3, "locally administered, and one machine's")
		macs[read.ClientHWAddr.String()] = true
	}
	require.Len(t, macs, len(bootClients))
}

func TestOffersAreReadAndToldFromOurs(t *testing.T) {
	ask, err := bootClients[0].discover()
	require.NoError(t, err)
	asked := map[dhcpv4.TransactionID]bootClient{ask.TransactionID: bootClients[0]}
	lease := dhcpv4.WithYourIP(ipOf("10.0.0.50"))
	file := func(name string) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptBootFileName(name)) }
	const ours = "http://10.0.0.2:8082"
	for name, c := range map[string]struct {
		edit  []dhcpv4.Modifier
		ours  string
		level level
		says  string
	}{
		"a lease alone":      {[]dhcpv4.Modifier{lease}, ours, levelOK, "Nobody offers a stranger a boot"},
		"our URL":            {[]dhcpv4.Modifier{lease, file(ours + "/httpboot")}, ours, levelOK, "which is the operator's"},
		"our TFTP server":    {[]dhcpv4.Modifier{dhcpv4.WithServerIP(ipOf("10.0.0.2")), file("ipxe.efi")}, ours, levelOK, "ipxe.efi from 10.0.0.2, which is the operator's"},
		"a foreign URL":      {[]dhcpv4.Modifier{lease, file("http://10.0.0.66/os.efi?key=secret")}, ours, levelFail, "offers http://10.0.0.66/os.efi to UEFI HTTP boot"},
		"one like our URL":   {[]dhcpv4.Modifier{lease, file(ours + "0/httpboot")}, ours, levelFail, "offers http://10.0.0.2:80820/httpboot"},
		"a foreign file":     {[]dhcpv4.Modifier{lease, file("pxelinux.0")}, ours, levelFail, "offers pxelinux.0 from 10.0.0.9"},
		"a token of ours":    {[]dhcpv4.Modifier{lease, file(ours + "/httpboot/t/SECRET/uki.efi")}, ours, levelOK, "offers http://10.0.0.2:8082/httpboot, which"},
		"a PXE boot server":  {[]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient"))}, ours, levelFail, "a PXE boot server"},
		"whose is not known": {[]dhcpv4.Modifier{lease, file("http://10.0.0.2:8082/x")}, "", levelWarn, "offers http://10.0.0.2:8082/x"},
	} {
		t.Run(name, func(t *testing.T) {
			o, is := readOffer(offered(t, ask, c.edit...), asked)
			require.True(t, is)
			all := offerFindings([]offer{o}, c.ours, "eth1")
			require.Contains(t, all[0].Says, c.says)
			require.Equal(t, c.level, all[0].Level)
			require.NotContains(t, fmt.Sprint(all), "SECRET")
			require.NotContains(t, fmt.Sprint(all), "key=")
		})
	}
	require.Contains(t, offerFindings(nil, ours, "eth1")[1].Says, "No DHCP server on eth1 gives a lease")
	two := []offer{{server: netip.MustParseAddr("10.0.0.8"), address: true}, {server: netip.MustParseAddr("10.0.0.7"), address: true}}
	require.Contains(t, offerFindings(two, ours, "eth1")[1].Says, "Several DHCP servers give leases on eth1: 10.0.0.7, 10.0.0.8.")
}

func TestWhatIsNoOfferToUsIsLeftAlone(t *testing.T) {
	ask, err := bootClients[0].discover()
	require.NoError(t, err)
	other, err := bootClients[0].discover()
	require.NoError(t, err)
	asked := map[dhcpv4.TransactionID]bootClient{ask.TransactionID: bootClients[0]}
	good := offered(t, ask)
	_, is := readOffer(good, asked)
	require.True(t, is)
	for name, frame := range map[string][]byte{
		"nothing": nil, "to another client": offered(t, other), "an ACK": offered(t, ask, dhcpv4.WithMessageType(dhcpv4.MessageTypeAck)),
		"to another port": changedAt(good, ethernetHeader+ipHeader+3, 99), "no IPv4": changedAt(good, 12, 0x86),
		"no UDP": changedAt(good, ethernetHeader+9, 6), "a fragment": changedAt(good, ethernetHeader+6, 0x20),
	} {
		_, is := readOffer(frame, asked)
		require.False(t, is, name)
	}
	for n := range good { // whatever its length fields say
		readOffer(good[:n], asked)
	}
	for i := range min(len(good), 80) {
		for _, v := range []byte{0, 1, 0x7f, 0xff} {
			readOffer(changedAt(good, i, v), asked)
		}
	}
}

func changedAt(b []byte, i int, v byte) []byte {
	b = slices.Clone(b)
	b[i] = v
	return b
}

func TestDoctorSaysByWhatMachinesWouldBeKnown(t *testing.T) {
	all, err := machines.All()
	require.NoError(t, err)
	d := patient("")
	d.machines = all
	found := checkProofs(t.Context(), d)
	text := fmt.Sprint(found)
	require.Contains(t, text, "machines would be known well enough.", "those that are well are counted where they are many")
	require.Contains(t, text, "machines/translated: Requests for several machines came from 10.244.0.1")
	require.Contains(t, text, "machines/foreign: The DHCP server 10.0.0.9 offers")
	require.Contains(t, text, "machines/nobody-looked: no operator has looked at it")
	m, err := machines.Named("machine-8")
	require.NoError(t, err)
	m.Configs[0].ConfigStatus().Boot.PinsURL, m.Configs[0].ConfigStatus().Boot.PinsProof = "HttpBootUri", "BMC"
	d.machines = d.machines[:0:0]
	d.machines = append(d.machines, m)
	one := only(t, checkProofs(t.Context(), d), levelOK)
	require.Contains(t, one.Says, "proof BMC")
	setCondition(m.Configs[0], v1alpha1.ConditionIdentifiable, "False", v1alpha1.ReasonNoPathNamesThisMachine, "list an address")
	require.Contains(t, only(t, checkProofs(t.Context(), d), levelFail).Says, "list an address (NoPathNamesThisMachine)")
	setCondition(m.Configs[0], v1alpha1.ConditionIdentifiable, "True", v1alpha1.ReasonIdentifiedByClaim, "whoever says it")
	require.Contains(t, only(t, checkProofs(t.Context(), d), levelWarn).Says, "whoever says it")
}

func setCondition(c v1alpha1.Config, name, status, reason, message string) {
	all := c.ConfigStatus().Conditions
	for i := range all {
		if all[i].Type == name {
			all[i].Status, all[i].Reason, all[i].Message = metav1.ConditionStatus(status), reason, message
		}
	}
}

func TestADiagnosisFitsATerminal(t *testing.T) {
	all, err := machines.All()
	require.NoError(t, err)
	d := patient("http://10.0.0.2:8082")
	d.machines, d.now = all, func() time.Time { return machines.Now }
	found := []finding{
		ok("The CRD httpbootconfigs.boot.ironcore.dev is of this version."), ok("Deployment boot-operator-system/boot-operator: 2 of 2 replicas are ready."),
		(operatorProcess{kind: "Deployment", namespace: "boot-operator-system", name: "boot-operator"}).serviceFinding(corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "boot-operator-system", Name: "boot-operator"},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster},
		}),
	}
	for i := range found {
		found[i].Check = "cluster"
	}
	for check, more := range map[string][]finding{"proof": checkProofs(t.Context(), d)} {
		for _, f := range more {
			f.Check = check
			found = append(found, f)
		}
	}
	offers := offerFindings([]offer{{server: netip.MustParseAddr("10.0.0.9"), client: "UEFI PXE", address: true, boots: "pxelinux.0", next: netip.MustParseAddr("10.0.0.9")}}, "http://10.0.0.2:8082", "eth1")
	for _, f := range append(offers, skip("/httpboot is not asked for")) {
		f.Check = "dhcp"
		found = append(found, f)
	}
	goldenPage(t, "doctor.txt", diagnosis(found), pageWidth)
	var text bytes.Buffer
	require.NoError(t, printDiagnosis(&text, found, "json", machines.Now))
	goldenPage(t, "doctor.json", text.String(), 2000)
}

func TestFieldsThatACRDLacksAreFound(t *testing.T) {
	text, err := os.ReadFile("../../config/crd/bases/boot.ironcore.dev_httpbootconfigs.yaml")
	require.NoError(t, err)
	of := func(text string) []string {
		var crd struct {
			Spec struct {
				Versions []struct {
					Schema struct {
						OpenAPIV3Schema map[string]any `json:"openAPIV3Schema"`
					} `json:"schema"`
				} `json:"versions"`
			} `json:"spec"`
		}
		require.NoError(t, yaml.Unmarshal([]byte(text), &crd))
		return missingFields(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, reflect.TypeFor[v1alpha1.HTTPBootConfig](), "")
	}
	require.Empty(t, of(string(text)))
	require.Equal(t, []string{"status.boot.aborted"}, of(strings.Replace(string(text), "                  aborted:\n", "                  gone:\n", 1)))
}

func TestDoctorOnACluster(t *testing.T) {
	r := newRack(t, func(r *rack) {
		code, out, errs := r.bootctl("doctor", "--checks=cluster,bmc")
		require.Zero(t, code, errs)
		require.Contains(t, out, "No Deployment of the operator is found")
		require.Contains(t, out, "this cluster has no BareMetalHosts")
	})
	for name, test := range map[string]func(*rack){"what is installed": testInstalled, "BMCs": testDoctorBMCs, "who may not": testDoctorRights} {
		t.Run(name, func(t *testing.T) { test(&rack{t: t, api: r.api, path: r.path}) })
	}
}

// doctor runs some checks, and returns the findings by level.
func (r *rack) doctor(path string, args ...string) (int, map[level]string) {
	code, out, errs := run(r.t, append(append([]string{"doctor", "-o", "json"}, args...), "--kubeconfig", path)...)
	var report diagnosisReport
	require.NoError(r.t, json.Unmarshal([]byte(out), &report), errs)
	by := map[level]string{}
	for _, f := range report.Findings {
		by[f.Level] += f.Says + "\n"
	}
	return code, by
}

func testInstalled(r *rack) {
	ctx := r.t.Context()
	scheme := r.api.Scheme()
	require.NoError(r.t, appsv1.AddToScheme(scheme))
	require.NoError(r.t, coordinationv1.AddToScheme(scheme))
	labels := map[string]string{nameLabel: operatorName}
	replicas := int32(2)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "others", Name: "op"}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "op", Image: "op", Args: []string{"--leader-elect"}}}}},
	}}
	require.NoError(r.t, r.api.Create(ctx, d))
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "others", Name: "op"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeNodePort, Selector: labels, Ports: []corev1.ServicePort{{Name: "boot", Port: 8082, TargetPort: intstr.FromString("boot")}},
	}}
	require.NoError(r.t, r.api.Create(ctx, service))
	code, by := r.doctor(r.path, "--checks=cluster")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, by[levelFail], "Deployment others/op: 0 of 2 replicas are ready.")
	require.Contains(r.t, by[levelFail], "No replica leads: ")
	require.Contains(r.t, by[levelFail], "Service others/op (NodePort) translates addresses")
	require.Contains(r.t, by[levelOK], "The CRD httpbootconfigs.boot.ironcore.dev is of this version.")

	d.Status = appsv1.DeploymentStatus{Replicas: 2, ReadyReplicas: 2}
	require.NoError(r.t, r.api.Status().Update(ctx, d))
	service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	require.NoError(r.t, r.api.Update(ctx, service))
	holder, seconds, now := "op-1_1234", int32(15), metav1.NowMicro()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "others", Name: leaseName}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now}}
	require.NoError(r.t, r.api.Create(ctx, lease))
	code, by = r.doctor(r.path, "--checks=cluster")
	require.Zero(r.t, code, "%v", by)
	require.Contains(r.t, by[levelOK], "op-1 leads.")
	require.Contains(r.t, by[levelWarn], "sends one machine's requests to several replicas")
	service.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	require.NoError(r.t, r.api.Update(ctx, service))
	_, by = r.doctor(r.path, "--checks=cluster")
	require.Contains(r.t, by[levelOK], "Service others/op (NodePort) keeps the addresses of machines.")
	long := metav1.NewMicroTime(now.Add(-time.Hour))
	lease.Spec.RenewTime = &long
	require.NoError(r.t, r.api.Update(ctx, lease))
	_, by = r.doctor(r.path, "--checks=cluster")
	require.Contains(r.t, by[levelFail], "No replica leads: op-1_1234 has not renewed the Lease others/"+leaseName+" for 60m")
}

func testDoctorBMCs(r *rack) {
	_, url, ca := probed(r.t, "idrac9")
	secret := func(name, password string) {
		require.NoError(r.t, client.IgnoreAlreadyExists(r.api.Create(r.t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "machines", Name: name}, StringData: map[string]string{"username": "operator", "password": password}})))
	}
	secret("right", probePassword)
	secret("wrong", "hunter2-is-not-it")
	add := func(name, credentials string, edit func(*metal3.BMCDetails)) {
		r.add(name, metal3.StateAvailable, func(h *metal3.BareMetalHost) {
			h.Spec.BMC = metal3.BMCDetails{Address: url, CredentialsName: credentials}
			edit(&h.Spec.BMC)
		})
	}
	as := func(*metal3.BMCDetails) {}
	add("d-good", "right", as)
	add("d-wrong", "wrong", as)
	add("d-none", "absent", as)
	add("d-gone", "right", func(b *metal3.BMCDetails) { b.Address = "redfish://127.0.0.1:1/redfish/v1/Systems/1" })
	add("d-unverified", "right", func(b *metal3.BMCDetails) { b.DisableCertificateVerification = true })
	code, by := r.doctor(r.path, "--checks=bmc", "--bmc-ca-file", ca, "-n", "machines")
	require.Equal(r.t, exitFailure, code)
	require.Contains(r.t, by[levelOK], "Host machines/d-good: the BMC answers, the machine is O")
	require.Contains(r.t, by[levelFail], "Host machines/d-wrong: ")
	require.Contains(r.t, by[levelFail], "there is no Secret machines/absent")
	require.Contains(r.t, by[levelFail], "Host machines/d-gone: ")
	require.Contains(r.t, by[levelWarn], "Host machines/d-unverified: the BMC answers")
	require.NotContains(r.t, fmt.Sprint(by), "hunter2")
	require.NotContains(r.t, fmt.Sprint(by), probePassword)
	_, by = r.doctor(r.path, "--checks=bmc", "-n", "machines")
	require.Contains(r.t, by[levelFail], "d-good")
}

func testDoctorRights(r *rack) {
	code, by := r.doctor(r.as("nobody"))
	require.Zero(r.t, code, "what may not be looked at has not failed: %v", by)
	require.Contains(r.t, by[levelSkip], "you may not read CustomResourceDefinitions")
	require.Contains(r.t, by[levelSkip], "you may not list Deployments and DaemonSets")
	require.Contains(r.t, by[levelSkip], "you may not list HTTPBootConfigs and IPXEBootConfigs in namespace machines")
}

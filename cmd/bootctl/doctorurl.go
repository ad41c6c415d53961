package main

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// firmwareIdle is after how long without a byte firmware gives a boot up.
	firmwareIdle = 5 * time.Second
	// firmwareAgent is how EDK2's firmware names itself.
	firmwareAgent = "UefiHttpBoot/1.0"
	// maxBootURL is how long a URL may be for the firmware that takes least.
	maxBootURL = 200
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
	// soonOver is how long before a certificate's end a warning begins; of one that lives
	// shorter, the last third of its life.
	soonOver = 30 * 24 * time.Hour
)

// checkURL asks the boot server as firmware does. Nothing that is asked for opens a
// boot attempt, or counts as a boot of the machine whose address this computer has.
func checkURL(ctx context.Context, d *doctor) []finding {
	u, err := d.bootServer()
	if err != nil {
		return []finding{skip("the boot server: %v", err)}
	}
	all := []finding{urlLength(u)}
	if u.Scheme == "https" {
		all = append(all, d.checkTLS(ctx, u)...)
	}
	client := newFirmware()
	defer client.CloseIdleConnections()
	head, err := client.ask(ctx, http.MethodHead, u.String()+"/boot.ipxe")
	if err != nil {
		return append(all, fail("check that the operator runs, the route from here, the firewall, and the Service that leads there", "The boot server %s does not answer: %s.", u.Host, cause(err)))
	}
	get, err := client.ask(ctx, http.MethodGet, u.String()+"/boot.ipxe")
	if err != nil {
		return append(all, fail("a proxy or balancer on the way breaks connections; machines must reach the operator through TCP alone", "The boot server answers HEAD and breaks off GET: %s.", cause(err)))
	}
	all = append(all, client.asFirmware(head, get))
	who := client.whoami(ctx, u)
	if who.Level == "" {
		all = append(all, client.address(who.answer, who.local)...)
	} else {
		all = append(all, who.finding)
	}
	return append(all, d.checkHTTPBoot(ctx, client, u, who.answer))
}

// bootServer is the URL that was given, or that the operator's arguments tell.
func (d *doctor) bootServer() (*url.URL, error) {
	if d.flags.url != "" {
		return bootURL(d.flags.url)
	}
	for _, p := range d.operators {
		for _, flag := range []string{"ipxe-service-url", "bmc-boot-url"} {
			if u, err := bootURL(p.flag(flag)); err == nil {
				return u, nil
			}
		}
	}
	return nil, errors.New("say where machines find it by --url, such as http://10.0.0.2:8082")
}

func urlLength(u *url.URL) finding {
	// The longest that machines are given has a token in it.
	const token = 80
	if n := len(u.String()) + len("/httpboot/t//uki.efi") + token; n > maxBootURL {
		return fail("use a shorter host name, an address, or no path", "URLs below %s are up to %d characters long, and some firmware takes %d.", u, n, maxBootURL)
	}
	return ok("URLs below %s are short enough for firmware.", u)
}

// firmware asks as firmware does: over one connection, following nothing.
type firmware struct {
	*http.Client
	mu sync.Mutex
	// dialled counts connections; local is this end of the last one.
	dialled int
	local   netip.AddrPort
}

// newFirmware makes a client. Certificates are looked at by checkTLS, which says more of
// them than an error would; what is asked for here is not secret.
func newFirmware() *firmware {
	f := &firmware{}
	transport := &http.Transport{
		DialContext: f.dial, MaxConnsPerHost: 1, DisableCompression: true, Proxy: nil,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}, //nolint:gosec // as said above
		ResponseHeaderTimeout: firmwareIdle,
	}
	f.Client = &http.Client{Transport: transport, Timeout: 4 * firmwareIdle, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return f
}

func (f *firmware) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: firmwareIdle}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err //nolint:wrapcheck // says all
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dialled++
	if a, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
		f.local = a
	}
	return c, nil
}

// reply is what the boot server answered.
type reply struct {
	code   int
	header http.Header
	length int64
	body   []byte
	// connections that there were when it came, and this end of the last one.
	connections int
	local       netip.Addr
}

func (f *firmware) ask(ctx context.Context, method, url string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return reply{}, err //nolint:wrapcheck // the URL was checked
	}
	req.Header.Set("User-Agent", firmwareAgent)
	req.Header.Set("Accept", "*/*")
	resp, err := f.Do(req)
	if err != nil {
		return reply{}, err //nolint:wrapcheck // see cause
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return reply{}, err //nolint:wrapcheck // see cause
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return reply{resp.StatusCode, resp.Header, resp.ContentLength, body, f.dialled, boot.CanonicalAddr(f.local.Addr())}, nil
}

// cause is an error without the URL that was asked for.
func cause(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

// asFirmware says whether firmware would get along with two answers.
func (f *firmware) asFirmware(head, get reply) finding {
	switch {
	case head.code >= 300 && head.code < 400 || get.code >= 300 && get.code < 400:
		return fail("firmware follows no redirect: take away what redirects on the way, or give machines the URL that it leads to", "The answer is a redirect (%d).", max(head.code, get.code))
	case get.code != http.StatusOK || head.code != http.StatusOK:
		return fail("check that --url is the boot server's", "What answers there is no boot server of this operator: /boot.ipxe is answered with %d.", get.code)
	case head.length != int64(len(get.body)):
		return fail("take away what changes answers on the way", "HEAD says that there are %d bytes, and GET has %d: firmware believes the first.", head.length, len(get.body))
	case get.connections > 1:
		return fail("take away the proxy on the way, or have it keep connections: firmware does not connect again", "The connection was closed between HEAD and GET.")
	}
	return ok("HEAD and GET are answered on one connection, without a redirect.")
}

// whoami is what the server says of who asks.
type whoami struct {
	Address       string `json:"address"`
	Via           string `json:"via"`
	Node          bool   `json:"node"`
	ProvesNothing bool   `json:"provesNothing"`
}

// introduction is an answer, or why there is none.
type introduction struct {
	finding
	answer whoami
	local  netip.Addr
}

func (f *firmware) whoami(ctx context.Context, u *url.URL) introduction {
	r, err := f.ask(ctx, http.MethodGet, u.String()+"/whoami")
	var w whoami
	switch {
	case err != nil:
		return introduction{finding: skip("by which address this computer is known there: %s", cause(err))}
	case r.code != http.StatusOK, json.Unmarshal(r.body, &w) != nil:
		return introduction{finding: skip("by which address this computer is known there: /whoami is answered with %d, as by an operator that is older than this bootctl", r.code)}
	}
	return introduction{answer: w, local: r.local}
}

// address says whether this computer's address arrives there as it is.
func (f *firmware) address(w whoami, local netip.Addr) []finding {
	const do = "let machines reach the operator with their own addresses: externalTrafficPolicy: Local, hostNetwork, or PROXY protocol (--proxy-protocol-from)"
	seen, err := boot.ParseAddr(w.Address)
	switch {
	case err != nil:
		return []finding{skip("the boot server takes %q for the address of this computer", plain(cut(w.Address, pageWidth)))}
	case seen != local && w.Node:
		return []finding{fail(do, "This computer's address %s arrives as %s, which is a node's: the cluster translates addresses, and no machine is known by its own.", local, seen)}
	case seen != local:
		return []finding{fail(do+"; where this computer itself is behind a NAT or a VPN, run doctor in the machines' network", "This computer's address %s arrives as %s (by %s): something on the way translates it.", local, seen, dash(plain(w.Via)))}
	case w.ProvesNothing:
		return []finding{ok("This computer's address %s arrives as it is (by %s).", seen, dash(plain(w.Via))),
			warn("run doctor from the machines' network to see what machines see", "%s is an address of the cluster's own nodes or Pods, which proves no machine.", seen)}
	}
	return []finding{ok("This computer's address %s arrives as it is (by %s).", seen, dash(plain(w.Via)))}
}

// checkHTTPBoot asks for /httpboot, unless this computer has the address of a machine:
// then that would be its boot.
func (d *doctor) checkHTTPBoot(ctx context.Context, client *firmware, u *url.URL, w whoami) finding {
	seen, err := boot.ParseAddr(w.Address)
	switch {
	case err != nil || d.noCluster != nil:
		return skip("/httpboot is not asked for: whether this computer has the address of a machine is not known, and it would be that one's boot")
	case d.isMachine(seen):
		return skip("/httpboot is not asked for: this computer has the address of a machine, %s, and it would be that one's boot", seen)
	}
	r, err := client.ask(ctx, http.MethodHead, u.String()+"/httpboot")
	switch {
	case err != nil:
		return fail("see the operator's log", "/httpboot is not answered: %s.", cause(err))
	case r.code == http.StatusNotFound:
		return ok("/httpboot is not found for this computer, which is no machine.")
	case r.code == http.StatusOK && r.header.Get("Content-Type") != "application/efi":
		return fail("take away what changes answers on the way", "/httpboot has the type %q, and firmware takes application/efi alone.", cut(plain(r.header.Get("Content-Type")), 40))
	case r.code == http.StatusOK:
		return ok("/httpboot gives every stranger the operator's default image.")
	}
	return warn("see the operator's log", "/httpboot is answered with %d.", r.code)
}

// isMachine says whether a machine of any kind has this address.
func (d *doctor) isMachine(a netip.Addr) bool {
	for _, m := range d.machines {
		if m.Is(a.String()) {
			return true
		}
	}
	return false
}

// What firmware offers of TLS 1.2, as far as this program can offer it too.
var firmwareTLS = []struct {
	name   string
	suites []uint16
	old    bool
}{
	{"firmware of today", []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}, false},
	{"old firmware (EDK2 without ECDHE)", []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384}, true},
}

// checkTLS shakes hands as firmware does, and looks at the certificate.
func (d *doctor) checkTLS(ctx context.Context, u *url.URL) []finding {
	roots, err := d.roots()
	if err != nil {
		return []finding{fail("check --ca-file", "reading --ca-file: %v", err)}
	}
	var all []finding
	var chain []*x509.Certificate
	for _, f := range firmwareTLS {
		state, err := shake(ctx, u, f.suites)
		switch {
		case err == nil:
			chain = state.PeerCertificates
			all = append(all, ok("%s would agree on %s.", f.name, tls.CipherSuiteName(state.CipherSuite)))
		case f.old:
			all = append(all, warn("let TLS reach the operator itself, which takes RSA key exchange for what is no secret, where such firmware is around", "%s would not agree with it: %s.", f.name, cause(err)))
		default:
			all = append(all, fail("check the URL's port, and what ends TLS on the way", "%s would not agree with it: %s.", f.name, cause(err)))
		}
	}
	if len(chain) == 0 {
		return all
	}
	return append(all, certificateFindings(chain, u.Hostname(), roots, d.now())...)
}

func (d *doctor) roots() (*x509.CertPool, error) {
	if d.flags.caFile == "" {
		return nil, nil //nolint:nilnil // the system's
	}
	data, err := readOptional(d.flags.caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, errors.New("there is no certificate in PEM in it")
	}
	return pool, nil
}

// shake makes a TLS 1.2 connection with these cipher suites, and closes it.
func shake(ctx context.Context, u *url.URL, suites []uint16) (tls.ConnectionState, error) {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	ctx, cancel := context.WithTimeout(ctx, 2*firmwareIdle)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, CipherSuites: suites, ServerName: u.Hostname(),
		InsecureSkipVerify: true, //nolint:gosec // it is looked at afterwards
	}}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return tls.ConnectionState{}, err //nolint:wrapcheck // says all
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState(), nil //nolint:forcetypeassert // tls.Dialer's are
}

// certificateFindings says what firmware would not like of a certificate.
func certificateFindings(chain []*x509.Certificate, host string, roots *x509.CertPool, now time.Time) []finding {
	leaf := chain[0]
	var all []finding
	if _, is := leaf.PublicKey.(*rsa.PublicKey); !is {
		all = append(all, fail("give the boot server a certificate with an RSA key of 2048 to 4096 bits", "The certificate's key is %s, and firmware takes RSA.", leaf.PublicKeyAlgorithm))
	}
	if err := leaf.VerifyHostname(host); err != nil {
		what := "DNS name"
		if net.ParseIP(host) != nil {
			what = "IP address"
		}
		all = append(all, fail("issue it with the host of the URL as a subjectAltName of that type", "The certificate does not have %s as an %s among its subjectAltNames.", host, what))
	}
	switch left := leaf.NotAfter.Sub(now); {
	case now.Before(leaf.NotBefore):
		all = append(all, fail("check the clocks; a machine whose battery is empty is years behind", "The certificate is not valid before %s.", leaf.NotBefore.UTC().Format(time.DateOnly)))
	case left < 0:
		all = append(all, fail("renew it; the operator takes the new one within seconds", "The certificate ended on %s.", leaf.NotAfter.UTC().Format(time.DateOnly)))
	case left < min(soonOver, leaf.NotAfter.Sub(leaf.NotBefore)/3):
		all = append(all, warn("renew it; the operator takes the new one within seconds", "The certificate ends on %s.", leaf.NotAfter.UTC().Format(time.DateOnly)))
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: clamp(now, leaf)}); err != nil {
		do := "give the authority that firmware was enrolled with by --ca-file"
		if roots != nil {
			do = "send the intermediate certificates too, or enrol the authority that issued it: bootctl host enroll and docs/secure-boot.md tell databases of firmware"
		}
		all = append(all, warn(do, "The certificate is not of an authority that is trusted here: %s.", strings.TrimPrefix(err.Error(), "x509: ")))
	}
	if len(all) == 0 {
		all = append(all, ok("The certificate is of %s, for %s, with an RSA key, until %s.", dash(plain(leaf.Issuer.CommonName)), host, leaf.NotAfter.UTC().Format(time.DateOnly)))
	}
	return all
}

// clamp is a time at which a certificate is in force: that it is not now was told before.
func clamp(now time.Time, c *x509.Certificate) time.Time {
	switch {
	case now.Before(c.NotBefore):
		return c.NotBefore
	case now.After(c.NotAfter):
		return c.NotAfter
	}
	return now
}

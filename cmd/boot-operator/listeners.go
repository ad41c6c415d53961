package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/controller/host"
	"github.com/boot-operator/boot-operator/internal/httpserver"
)

// listener is one port that machines reach.
type listener struct {
	address string
	server  *httpserver.Server
	handler http.Handler
	options httpserver.ServeOptions
}

// listenersOf returns the ports that the settings ask for.
func listenersOf(s settings, server *httpserver.Server) []listener {
	all := []listener{
		{address: s.bootAddress, handler: server.BootHandler(), options: httpserver.ServeOptions{Name: "boot"}},
		{address: s.bootTLSAddress, handler: server.BootHandler(), options: httpserver.ServeOptions{Name: "boot-tls", TLS: &httpserver.TLSOptions{CertFile: s.tlsCertFile, KeyFile: s.tlsKeyFile}}},
		{address: s.imageAddress, handler: server.ImageHandler(), options: httpserver.ServeOptions{Name: "images"}},
	}
	var on []listener
	for _, l := range all {
		if off(l.address) == "" {
			continue
		}
		l.server = server
		l.options.DrainDelay, l.options.DrainTime = s.drainDelay, max(s.drainTimeout, time.Millisecond)
		on = append(on, l)
	}
	return on
}

// listen opens the ports of all listeners, or none.
func listen(ctx context.Context, all []listener) ([]net.Listener, error) {
	var open []net.Listener
	for _, l := range all {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.address)
		if err != nil {
			for _, ln := range open {
				_ = ln.Close() // nothing was accepted
			}
			return nil, fmt.Errorf("opening the %s port: %w", l.options.Name, err)
		}
		open = append(open, ln)
	}
	return open, nil
}

// literalBootURL is --ipxe-service-url where its host is an IP address, which
// needs no name server; else the boot server at this address of ours.
func (s settings) literalBootURL(local netip.Addr) string {
	if u, err := url.Parse(s.ipxeServiceURL); err == nil {
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			return s.ipxeServiceURL
		}
	}
	_, port, _ := net.SplitHostPort(s.bootAddress) // checked by settings
	return "http://" + net.JoinHostPort(local.String(), port)
}

// handsOutTokens says whether machines are given tokens; composed UKIs have one where
// it is known under which URL machines reach the boot server.
func (s settings) handsOutTokens() bool {
	return s.ipxeServiceURL != "" || s.offersBoots() || len(s.dhcp) > 0 || s.hosts.mode == host.ModeDrive
}

// controllersOf returns those of names that --controllers names.
func (s settings) controllersOf(names ...string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(s.controllers, name) })
}

// imageURL is where UKI URLs begin: --image-server-url, or else the boot
// server's own /httpboot where --ipxe-service-url tells its address.
func (s settings) imageURL() string {
	if s.imageServerURL == "" && s.ipxeServiceURL != "" {
		return s.ipxeServiceURL + "/httpboot"
	}
	return s.imageServerURL
}

// artifactURL is where this operator serves an artifact to anyone; empty when it
// was not told its own address.
func (s settings) artifactURL(_ string, a boot.Artifact) string {
	base := s.ipxeServiceURL
	if base == "" {
		base = strings.TrimSuffix(s.imageServerURL, "/httpboot")
	}
	if base == "" {
		return ""
	}
	return base + "/images/" + string(a.Digest) + "/" + artifactNames[a.Role]
}

var artifactNames = map[boot.Role]string{
	boot.RoleUKI: "uki.efi", boot.RoleKernel: "vmlinuz", boot.RoleInitrd: "initrd.img", boot.RoleSquashfs: "rootfs.squashfs",
}

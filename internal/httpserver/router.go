package httpserver

import (
	"encoding/hex"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// routeID names a route in metrics and logs.
type routeID uint8

const (
	routeNone routeID = iota
	routeHTTPBoot
	routeImages
	routeImageCompat
	routeImageQuery
	routeIgnition
	routeIgnitionUUID
	routeIPXEChain
	routeIPXEQuery
	routeIPXEName
	routeIPXEToken
	routeGRUBChain
	routeGRUBMAC
	routeCloudInit
	routeCloudInitUUID
	routeCloudInitToken
	routeWhoami
	routeCount
)

var routeNames = [routeCount]string{
	"none", "/httpboot", "/images/{digest}", "/httpboot/{image}", "/image", "/ignition", "/ignition/{uuid}",
	"/boot.ipxe", "/ipxe", "/ipxe/{name}", "/ipxe/t/{token}", "/grub/grub.cfg", "/grub/grub.cfg-01-{mac}",
	"/cloud-init/{file}", "/cloud-init/{uuid}/{file}", "/cloud-init/t/{token}/{file}", "/whoami",
}

// maxPath bounds the paths that are looked at, in bytes.
const maxPath = 2048

// These are followed by a token; at /httpboot also by a name that ends in .efi,
// for firmware that goes by the suffix.
const (
	bootTokenPrefix  = "/httpboot/t/"
	ipxeTokenPrefix  = "/ipxe/t/"
	cloudTokenPrefix = "/cloud-init/t/"
)

// match is a route that a path led to. Firmware follows no redirect, so there
// is no router here that redirects to clean a path: see cleanPath.
type match struct {
	route routeID
	serve func(*Server, *exchange) error
	// arg is the digest, UUID or MAC address of the path, unchecked.
	arg string
	// file is the file of cloud-init that the path names, unchecked.
	file string
	// token is the one in the path.
	token string
}

func matchBoot(path string) (match, bool) {
	switch path {
	case "/httpboot":
		return match{route: routeHTTPBoot, serve: (*Server).httpboot}, true
	case "/ignition":
		return match{route: routeIgnition, serve: (*Server).ignition}, true
	case "/whoami":
		return match{route: routeWhoami, serve: (*Server).whoami}, true
	}
	if uuid, ok := strings.CutPrefix(path, "/ignition/"); ok {
		return match{route: routeIgnitionUUID, serve: (*Server).ignitionOf, arg: uuid}, !strings.Contains(uuid, "/")
	}
	if m, ok := matchIPXE(path); ok {
		return m, true
	}
	if m, ok := matchGRUB(path); ok {
		return m, true
	}
	if m, ok := matchCloudInit(path); ok {
		return m, true
	}
	if m, ok := matchImage(path); ok {
		return m, true
	}
	return matchToken(path)
}

func matchImage(path string) (match, bool) {
	if path == "/image" {
		return match{route: routeImageQuery, serve: (*Server).imageQuery}, true
	}
	if rest, ok := strings.CutPrefix(path, "/images/"); ok {
		digest, name, ok := strings.Cut(rest, "/")
		return match{route: routeImages, serve: (*Server).image, arg: digest}, ok && !strings.Contains(name, "/")
	}
	if rest, ok := strings.CutPrefix(path, "/httpboot/"); ok {
		// What stands before the digest is an image's name, of any depth; only
		// the digest counts.
		digest, ok := compatDigest(rest[strings.LastIndexByte(rest, '/')+1:])
		return match{route: routeImageCompat, serve: (*Server).image, arg: digest}, ok
	}
	return match{}, false
}

// compatDigest reads sha256-<hex>.efi.
func compatDigest(name string) (string, bool) {
	h, ok := strings.CutPrefix(name, "sha256-")
	h, suffix := strings.CutSuffix(h, ".efi")
	if !ok || !suffix || len(h) != hex.EncodedLen(32) {
		return "", false
	}
	return "sha256:" + h, true
}

func matchToken(path string) (match, bool) {
	rest, ok := strings.CutPrefix(path, bootTokenPrefix)
	if !ok {
		return match{}, false
	}
	token, name, ok := strings.Cut(rest, "/")
	ok = ok && token != "" && strings.HasSuffix(name, ".efi") && !strings.Contains(name, "/")
	return match{route: routeHTTPBoot, serve: (*Server).httpboot, token: token}, ok
}

func matchIPXE(path string) (match, bool) {
	switch path {
	case "/boot.ipxe":
		return match{route: routeIPXEChain, serve: (*Server).ipxeChain}, true
	case "/ipxe":
		return match{route: routeIPXEQuery, serve: (*Server).ipxeQuery}, true
	}
	if token, ok := strings.CutPrefix(path, ipxeTokenPrefix); ok {
		return match{route: routeIPXEToken, serve: (*Server).ipxeQuery, token: token}, !strings.Contains(token, "/")
	}
	name, ok := strings.CutPrefix(path, "/ipxe/")
	return match{route: routeIPXEName, serve: (*Server).ipxeOf, arg: name}, ok && !strings.Contains(name, "/")
}

func matchGRUB(path string) (match, bool) {
	if path == "/grub/grub.cfg" {
		return match{route: routeGRUBChain, serve: (*Server).grubChain}, true
	}
	// 01 is the hardware type of Ethernet, as PXELINUX writes it before a MAC.
	mac, ok := strings.CutPrefix(path, "/grub/grub.cfg-01-")
	return match{route: routeGRUBMAC, serve: (*Server).grubOf, arg: mac}, ok && !strings.Contains(mac, "/")
}

// matchCloudInit reads what stands before the name of a file of cloud-init:
// nothing, a UUID, or a token.
func matchCloudInit(path string) (match, bool) {
	rest, ok := strings.CutPrefix(path, "/cloud-init/")
	if !ok {
		return match{}, false
	}
	last := strings.LastIndexByte(rest, '/')
	m := match{route: routeCloudInit, serve: (*Server).cloudInit, file: rest[last+1:]}
	if last < 0 {
		return m, true
	}
	before := rest[:last]
	if token, ok := strings.CutPrefix(path[:len("/cloud-init/")+last], cloudTokenPrefix); ok {
		m.route, m.token = routeCloudInitToken, token
		return m, !strings.Contains(token, "/")
	}
	m.route, m.serve, m.arg = routeCloudInitUUID, (*Server).cloudInitOf, before
	return m, !strings.Contains(before, "/")
}

// cleanPath drops empty segments and the slash at the end: what other routers
// answer with a redirect. A path that has dot segments, control characters or
// backslashes leads nowhere; p is already percent-decoded.
func cleanPath(p string) (string, bool) {
	if p == "" || p[0] != '/' || len(p) > maxPath {
		return "", false
	}
	dirty := len(p) > 1 && p[len(p)-1] == '/'
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c < ' ' || c == 0x7f || c == '\\':
			return "", false
		case c == '/' && i+1 < len(p) && (p[i+1] == '/' || p[i+1] == '.'):
			dirty = true
		}
	}
	if !dirty {
		return p, true
	}
	return joinSegments(p)
}

func joinSegments(p string) (string, bool) {
	var b strings.Builder
	for segment := range strings.SplitSeq(p, "/") {
		switch segment {
		case "":
		case ".", "..":
			return "", false
		default:
			b.WriteByte('/')
			b.WriteString(segment)
		}
	}
	if b.Len() == 0 {
		return "/", true
	}
	return b.String(), true
}

// loggable is a path as it may be logged: short, and without anything that is
// or may be a token.
func loggable(p string) string {
	clean, ok := cleanPath(p)
	if !ok {
		return "-"
	}
	for _, prefix := range []string{bootTokenPrefix, ipxeTokenPrefix, cloudTokenPrefix} {
		if strings.HasPrefix(clean, prefix) {
			return prefix + "-"
		}
	}
	// A token is 80 characters; nothing that we serve has a longer segment.
	for segment := range strings.SplitSeq(clean, "/") {
		if len(segment) >= 78 {
			return "-"
		}
	}
	if len(clean) > 160 {
		clean = clean[:160] + "…"
	}
	return clean
}

// digestOf checks the digest of a path or query; whatever is not one is not
// found.
func digestOf(s string) (boot.Digest, error) {
	d, err := boot.ParseDigest(s)
	if err != nil {
		return "", errNoRoute
	}
	return d, nil
}

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
	routeCount
)

var routeNames = [routeCount]string{"none", "/httpboot", "/images/{digest}", "/httpboot/{image}", "/image", "/ignition", "/ignition/{uuid}"}

// maxPath bounds the paths that are looked at, in bytes.
const maxPath = 2048

// tokenPrefix is followed by a token and a name that ends in .efi, for
// firmware that goes by the suffix.
const tokenPrefix = "/httpboot/t/"

// match is a route that a path led to. Firmware follows no redirect, so there
// is no router here that redirects to clean a path: see cleanPath.
type match struct {
	route routeID
	serve func(*Server, *exchange) error
	// arg is the digest or UUID of the path, unchecked.
	arg string
	// token is the one in the path.
	token string
}

func matchBoot(path string) (match, bool) {
	switch path {
	case "/httpboot":
		return match{route: routeHTTPBoot, serve: (*Server).httpboot}, true
	case "/ignition":
		return match{route: routeIgnition, serve: (*Server).ignition}, true
	}
	if uuid, ok := strings.CutPrefix(path, "/ignition/"); ok {
		return match{route: routeIgnitionUUID, serve: (*Server).ignitionOf, arg: uuid}, !strings.Contains(uuid, "/")
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
	rest, ok := strings.CutPrefix(path, tokenPrefix)
	if !ok {
		return match{}, false
	}
	token, name, ok := strings.Cut(rest, "/")
	ok = ok && token != "" && strings.HasSuffix(name, ".efi") && !strings.Contains(name, "/")
	return match{route: routeHTTPBoot, serve: (*Server).httpboot, token: token}, ok
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
	if strings.HasPrefix(clean, tokenPrefix) {
		return tokenPrefix + "-"
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

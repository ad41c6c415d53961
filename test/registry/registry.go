// Package registry is an OCI registry for tests and for development. It takes
// pushes like go-containerregistry's, which it wraps, and adds what real ones
// have and that one lacks (tokens, Range, redirects to a CDN), and what broken
// ones do, on request.
//
// Nothing in it depends on a test: a program can serve it too.
package registry

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
)

// Options say how a registry is from the beginning.
type Options struct {
	// TLS makes Serve speak HTTPS, with a CA of its own (Server.CA).
	TLS bool
	// Auth is what the registry asks for.
	Auth Auth
	// Username and Password are asked for, by the registry or by its token
	// server. Without them, tokens are given to anyone.
	Username, Password string
	// IdentityToken is taken in place of a password by the token server.
	IdentityToken string
	// Realm is where the challenge sends clients for tokens; without it, to
	// /token on this registry.
	Realm string
	// NoPush refuses pushes over HTTP.
	NoPush bool
	// Referrers answers the referrers API for what was pushed over HTTP.
	Referrers bool
}

// Auth is a way to ask for credentials.
type Auth string

// The ways to ask for credentials.
const (
	Anonymous Auth = ""
	Basic     Auth = "Basic"
	Token     Auth = "Token"
)

// Faults are what a registry does wrong. They are for blobs, but for Broken.
type Faults struct {
	// Broken is the status of every answer, such as 503.
	Broken int
	// BytesPerSecond is how fast blobs are sent; 0 means as fast as possible.
	BytesPerSecond int64
	// CutAfter breaks the connection after so many bytes of a blob's response.
	CutAfter int64
	// Cuts is how many responses are cut; 0 means all.
	Cuts int
	// WrongDigest changes one byte of every blob.
	WrongDigest bool
	// WrongSize is how many bytes more (or, if negative, less) a blob has than
	// its manifest says.
	WrongSize int64
	// Chunked leaves out Content-Length.
	Chunked bool
	// NoRange ignores Range.
	NoRange bool
	// RedirectTo answers 307 to this base URL, with /cdn and the path appended;
	// /cdn of any registry of this package serves blobs without asking.
	RedirectTo string
	// RedirectLoop answers 307 to the same URL.
	RedirectLoop bool
}

// Request is what was asked of a registry.
type Request struct {
	Method, Path, Range, Authorization, Referer string
}

// Registry is a registry, as an HTTP handler.
type Registry struct {
	opts  Options
	push  http.Handler
	blobs *blobs

	mu       sync.Mutex
	faults   Faults
	cuts     int
	hold     chan struct{}
	holdAt   int64
	requests []Request
	raw      map[string]rawManifest
	tokens   map[string]string
	issued   int
}

type rawManifest struct {
	mediaType string
	body      []byte
}

// maxRequests bounds what a registry that runs for long remembers.
const maxRequests = 100_000

// New returns an empty registry.
func New(o Options) *Registry {
	b := newBlobs()
	return &Registry{
		opts: o, blobs: b, raw: map[string]rawManifest{}, tokens: map[string]string{},
		push: ggcr.New(ggcr.WithBlobHandler(b), ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(o.Referrers)),
	}
}

// Set replaces the faults.
func (r *Registry) Set(f Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults, r.cuts = f, 0
}

// Hold lets every response of a blob stop after n bytes until release is
// called, or the client leaves.
func (r *Registry) Hold(n int64) (release func()) {
	c := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold, r.holdAt = c, n
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		close(c)
		if r.hold == c {
			r.hold = nil
		}
	})
}

// Requests returns what was asked so far, in order.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Request(nil), r.requests...)
}

// Forget drops what was asked so far.
func (r *Registry) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}

// Count returns how many requests had this method (any, if empty) and a path
// that contains part.
func (r *Registry) Count(method, part string) int {
	n := 0
	for _, q := range r.Requests() {
		if (method == "" || q.Method == method) && strings.Contains(q.Path, part) {
			n++
		}
	}
	return n
}

// TokensIssued returns how many tokens were given out.
func (r *Registry) TokensIssued() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.issued
}

// ExpireTokens makes all tokens invalid.
func (r *Registry) ExpireTokens() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.tokens)
}

func (r *Registry) note(req *http.Request) Faults {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.requests) < maxRequests {
		r.requests = append(r.requests, Request{
			Method: req.Method, Path: req.URL.Path, Range: req.Header.Get("Range"),
			Authorization: req.Header.Get("Authorization"), Referer: req.Referer(),
		})
	}
	return r.faults
}

// ServeHTTP serves the registry's API, its token server and its CDN.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	f := r.note(req)
	switch {
	case f.Broken != 0:
		http.Error(w, `{"errors":[{"code":"UNAVAILABLE","message":"broken on request"}]}`, f.Broken)
	case req.URL.Path == "/token":
		r.serveToken(w, req)
	case strings.HasPrefix(req.URL.Path, "/cdn/"):
		f.RedirectTo, f.RedirectLoop = "", false
		r.serveBlob(w, req, f)
	case !r.authorized(req):
		r.challenge(w, req)
	case isRead(req) && r.serveRaw(w, req):
	case isRead(req) && strings.Contains(req.URL.Path, "/blobs/sha256:"):
		r.serveBlob(w, req, f)
	case r.opts.NoPush && !isRead(req):
		http.Error(w, `{"errors":[{"code":"UNSUPPORTED","message":"this registry is read-only"}]}`, http.StatusMethodNotAllowed)
	default:
		r.push.ServeHTTP(w, req)
	}
}

func isRead(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodHead
}

// serveRaw answers with a manifest that was published as it is.
func (r *Registry) serveRaw(w http.ResponseWriter, req *http.Request) bool {
	r.mu.Lock()
	m, ok := r.raw[req.URL.Path]
	r.mu.Unlock()
	if !ok {
		return false
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Content-Length", fmt.Sprint(len(m.body)))
	if req.Method == http.MethodGet {
		_, _ = w.Write(m.body)
	}
	return true
}

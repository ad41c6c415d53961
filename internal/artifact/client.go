package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// maxCaches bounds how many sets of credentials keep their tokens.
const maxCaches = 1024

// client speaks to registries: to an image's own, and to its mirrors first.
type client struct {
	http    *http.Client
	plain   map[string]bool
	mirrors []mirror

	mu     sync.Mutex
	caches map[cacheKey]auth.Cache
}

// cacheKey keeps the tokens of one tenant from serving another.
type cacheKey struct {
	host string
	cred [sha256.Size]byte
}

type mirror struct {
	of scope
	to []scope
}

// endpoint is one place that an image can be had from.
type endpoint struct {
	host       string
	repository string
}

func newClient(o Options, allow *allowlist) (*client, error) {
	h, err := newHTTPClient(o, allow)
	if err != nil {
		return nil, err
	}
	c := &client{http: h, plain: allow.plain, caches: map[cacheKey]auth.Cache{}}
	if c.mirrors, err = parseMirrors(o.Mirrors); err != nil {
		return nil, err
	}
	return c, nil
}

func parseMirrors(in map[string][]string) ([]mirror, error) {
	var all []mirror
	for of, to := range in {
		m := mirror{}
		var err error
		if m.of, err = parseScope(of); err != nil {
			return nil, fmt.Errorf("reading the mirrors: %w", err)
		}
		for _, t := range to {
			sc, err := parseScope(t)
			if err != nil {
				return nil, fmt.Errorf("reading the mirrors of %s: %w", of, err)
			}
			m.to = append(m.to, sc)
		}
		all = append(all, m)
	}
	return all, nil
}

// endpoints lists the mirrors of an image, of the most specific setting, and
// then its own registry.
func (c *client) endpoints(r Reference) []endpoint {
	var best *mirror
	for i, m := range c.mirrors {
		if m.of.covers(r.Registry, r.Repository) && (best == nil || len(m.of.path) > len(best.of.path)) {
			best = &c.mirrors[i]
		}
	}
	var all []endpoint
	if best != nil {
		rest := strings.Trim(strings.TrimPrefix(r.Repository, best.of.path), "/")
		for _, t := range best.to {
			all = append(all, endpoint{host: t.host, repository: strings.Trim(t.path+"/"+rest, "/")})
		}
	}
	return append(all, endpoint{host: r.Registry, repository: r.Repository})
}

func (c *client) base(host string) string {
	scheme := "https://"
	if c.plain[host] {
		scheme = "http://"
	}
	if host == dockerHub {
		host = dockerHubHost
	}
	return scheme + host
}

// get sends one request below /v2/<repository>/, with the credentials for this
// registry, and returns a response of status 200 or 206. Its body is the
// caller's to close. Redirects are followed without credentials.
func (c *client) get(ctx context.Context, e endpoint, creds Credentials, path string, header http.Header) (*http.Response, error) {
	u := c.base(e.host) + "/v2/" + e.repository + "/" + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidReference, err)
	}
	req.Header = header.Clone()
	host := strings.TrimPrefix(strings.TrimPrefix(c.base(e.host), "https://"), "http://")
	cred := creds.lookup(e.host, e.repository)
	a := &auth.Client{
		Client: c.http,
		Header: http.Header{"User-Agent": {userAgent}},
		Cache:  c.cache(e.host, cred),
		Credential: func(_ context.Context, h string) (auth.Credential, error) {
			if h != host {
				return auth.EmptyCredential, nil
			}
			return cred, nil
		},
	}
	req = req.WithContext(auth.AppendRepositoryScope(ctx, registry.Reference{Registry: host, Repository: e.repository}, auth.ActionPull))
	resp, err := a.Do(req)
	if err != nil {
		return nil, refusal(err, cred != auth.EmptyCredential, e.host)
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	return nil, statusError(resp, cred != auth.EmptyCredential, e.host)
}

// cache returns where the tokens of these credentials are kept.
func (c *client) cache(host string, cred auth.Credential) auth.Cache {
	k := cacheKey{host: host, cred: fingerprint(cred)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if got, ok := c.caches[k]; ok {
		return got
	}
	if len(c.caches) >= maxCaches {
		clear(c.caches)
	}
	c.caches[k] = auth.NewCache()
	return c.caches[k]
}

// refusal finds the sentinel in an error of oras-go or net/http.
func refusal(err error, given bool, host string) error {
	var resp *errcode.ErrorResponse
	switch {
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return unauthorized(given, host, "")
	case errors.As(err, &resp) && (resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden):
		return unauthorized(given, host, resp.Errors.Error())
	}
	// A url.Error repeats the whole URL, and a redirect's can hold a signature.
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("asking %s: %w", host, err)
}

func unauthorized(given bool, host, said string) error {
	if said != "" && said != "<nil>" {
		said = " (" + clip(said) + ")"
	} else {
		said = ""
	}
	if given {
		return fmt.Errorf("%w: %s refused the credentials of the pull secret%s", ErrUnauthorized, host, said)
	}
	return fmt.Errorf("%w: %s gives this image to nobody without credentials%s; name a pull secret for it", ErrUnauthorized, host, said)
}

// statusError turns a response that is no success into an error.
func statusError(resp *http.Response, given bool, host string) error {
	said := errorBody(resp.Body)
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return unauthorized(given, host, said)
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s does not have it", ErrNotFound, host)
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: %s says that the blob ends before its size", ErrDigestMismatch, host)
	}
	if said != "" {
		said = ": " + said
	}
	return &answerError{host: host, status: resp.StatusCode, said: said}
}

// answerError is an answer that is no success, and that nothing else is known of.
type answerError struct {
	host   string
	status int
	said   string
}

func (e *answerError) Error() string {
	return fmt.Sprintf("asking %s: status %d%s", e.host, e.status, e.said)
}

// errorBody reads the message of a registry's error (OCI distribution spec
// 1.1, error codes), bounded, as one printable line.
func errorBody(body io.Reader) string {
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.NewDecoder(io.LimitReader(body, 8<<10)).Decode(&doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	e := doc.Errors[0]
	return clip(strings.Map(printable, strings.TrimSpace(e.Code+" "+e.Message)))
}

func printable(r rune) rune {
	if !strconv.IsPrint(r) {
		return ' '
	}
	return r
}

// document is a small piece of content whose digest was checked.
type document struct {
	contentType string
	digest      boot.Digest
	body        []byte
}

// document reads manifests/<tag or digest> or blobs/<digest> from a mirror or
// the registry itself. The last error is that of the registry itself.
func (c *client) document(ctx context.Context, r Reference, creds Credentials, path string) (document, error) {
	var err error
	for _, e := range c.endpoints(r) {
		var d document
		if d, err = c.read(ctx, e, creds, path); err == nil {
			return d, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return document{}, err
}

func (c *client) read(ctx context.Context, e endpoint, creds Credentials, path string) (document, error) {
	resp, err := c.get(ctx, e, creds, path, http.Header{"Accept": {acceptManifests}})
	if err != nil {
		return document{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ContentLength > maxManifest {
		return document{}, fmt.Errorf("%w: %s sends %d bytes; %d are the most", ErrTooLarge, e.host, resp.ContentLength, maxManifest)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(resp.Body, maxManifest+1)); err != nil {
		return document{}, fmt.Errorf("reading from %s: %w", e.host, err)
	}
	if b.Len() > maxManifest {
		return document{}, fmt.Errorf("%w: %s sends more than %d bytes", ErrTooLarge, e.host, maxManifest)
	}
	sum := sha256.Sum256(b.Bytes())
	d := document{contentType: resp.Header.Get("Content-Type"), digest: boot.Digest("sha256:" + hex.EncodeToString(sum[:])), body: b.Bytes()}
	_, name, _ := strings.Cut(path, "/")
	if want, err := boot.ParseDigest(name); err == nil && want != d.digest {
		return document{}, fmt.Errorf("%w: %s answers %s with %s", ErrDigestMismatch, e.host, want, d.digest)
	}
	return d, nil
}

// blob opens a blob at an offset, or before it where the server knows no
// Range; at is where the body begins.
func (c *client) blob(ctx context.Context, e endpoint, creds Credentials, d boot.Digest, offset, size int64) (body io.ReadCloser, at int64, err error) {
	resp, err := c.get(ctx, e, creds, "blobs/"+string(d), rangeHeader(offset, size))
	if err != nil {
		return nil, 0, err
	}
	at, err = bodyOffset(resp, offset, size)
	if err != nil {
		_ = resp.Body.Close()
		return nil, 0, fmt.Errorf("reading from %s: %w", e.host, err)
	}
	return resp.Body, at, nil
}

// rangeHeader asks for the rest, by its first and last byte: not every
// registry knows the form without an end.
func rangeHeader(offset, size int64) http.Header {
	h := http.Header{"Accept": {"*/*"}}
	if offset > 0 && offset < size {
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, size-1))
	}
	return h
}

// bodyOffset says where in the blob a response begins, and refuses one whose
// length cannot be right before any of it is read.
func bodyOffset(resp *http.Response, offset, size int64) (int64, error) {
	at := int64(0)
	if resp.StatusCode == http.StatusPartialContent {
		var last, total int64
		cr := resp.Header.Get("Content-Range")
		if n, err := fmt.Sscanf(cr, "bytes %d-%d/%d", &at, &last, &total); n < 2 || (err != nil && !strings.HasSuffix(cr, "/*")) {
			return 0, fmt.Errorf("the Content-Range %q cannot be read", clip(cr))
		}
		if at < 0 || at > offset || (total != 0 && total != size) {
			return 0, fmt.Errorf("%w: the Content-Range %q is not of a blob of %d bytes from %d", ErrDigestMismatch, clip(cr), size, offset)
		}
	}
	if resp.ContentLength >= 0 && resp.ContentLength != size-at {
		return 0, fmt.Errorf("%w: it has %d bytes, the manifest says %d", ErrDigestMismatch, at+resp.ContentLength, size)
	}
	return at, nil
}

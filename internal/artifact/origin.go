package artifact

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// origin is where the bytes of a blob come from.
type origin interface {
	// name is the host, for logs, metrics and turns.
	name() string
	// open returns the bytes from offset on, or from an earlier place where
	// the server knows no Range; at says from where.
	open(ctx context.Context, offset, size int64) (body io.ReadCloser, at int64, err error)
	// suspect says that bytes came from somewhere else than the origin itself,
	// which again would not do.
	suspect() bool
	again() origin
}

// registryOrigin is a repository, and its mirrors.
type registryOrigin struct {
	client    *client
	host      string
	endpoints []endpoint
	creds     Credentials
	digest    boot.Digest
	mirrored  bool
}

func (s *Store) registryOrigin(ref Reference, creds Credentials, a boot.Artifact) *registryOrigin {
	return &registryOrigin{client: s.client, host: ref.Registry, endpoints: s.client.endpoints(ref), creds: creds, digest: a.Digest}
}

func (o *registryOrigin) name() string  { return o.host }
func (o *registryOrigin) suspect() bool { return o.mirrored }

func (o *registryOrigin) again() origin {
	direct := *o
	direct.endpoints = o.endpoints[len(o.endpoints)-1:]
	direct.mirrored = false
	return &direct
}

// open asks the mirrors first. The error is that of the registry itself.
func (o *registryOrigin) open(ctx context.Context, offset, size int64) (body io.ReadCloser, at int64, err error) {
	for i, e := range o.endpoints {
		body, at, err = o.client.blob(ctx, e, o.creds, o.digest, offset, size)
		if err == nil {
			o.mirrored = o.mirrored || i < len(o.endpoints)-1
			return body, at, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, 0, err
}

// urlOrigin is a file on a web server, whose digest is known.
type urlOrigin struct {
	client *http.Client
	url    *url.URL
	host   string
}

func (s *Store) urlOrigin(u *url.URL) *urlOrigin {
	host, err := urlHost(u)
	if err != nil {
		host = u.Host
	}
	return &urlOrigin{client: s.client.http, url: u, host: host}
}

func (o *urlOrigin) name() string  { return o.host }
func (o *urlOrigin) suspect() bool { return false }
func (o *urlOrigin) again() origin { return o }

func (o *urlOrigin) open(ctx context.Context, offset, size int64) (io.ReadCloser, int64, error) {
	resp, err := getURL(ctx, o.client, o.url, rangeHeader(offset, size))
	if err != nil {
		return nil, 0, err
	}
	at, err := bodyOffset(resp, offset, size)
	if err != nil {
		_ = resp.Body.Close()
		return nil, 0, err
	}
	return resp.Body, at, nil
}

// getURL returns a response of status 200, 206 or 304.
func getURL(ctx context.Context, c *http.Client, u *url.URL, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalidReference, err)
	}
	req.Header = header.Clone()
	req.Header.Set("User-Agent", userAgent)
	resp, err := c.Do(req) //nolint:bodyclose // the caller's
	if err != nil {
		return nil, refusal(err, false, u.Host)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusNotModified:
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return nil, fmt.Errorf("%w: %s answers %d", ErrUnauthorized, clip(u.Host), resp.StatusCode)
	}
	return nil, statusError(resp, false, u.Host)
}

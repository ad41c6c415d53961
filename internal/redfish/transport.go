package redfish

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	userAgent = "boot-operator"
	// longestWait bounds what a Retry-After is believed.
	longestWait = time.Hour
)

// transport sends one BMC's requests. It is the only place that holds its
// credentials: gofish never sees them. It refuses every other host, holds the
// rate, and reads each answer whole, so that nothing above it can hang or grow.
type transport struct {
	base    http.RoundTripper
	address Address
	pace    func(ctx context.Context) error
	timeout time.Duration
	maxBody int64
	now     func() time.Time
	// authorize adds the credentials to a request.
	authorize func(r *http.Request)
	tally     *tally
}

// answer is what is kept of a response beside what gofish keeps.
type answer struct {
	status     int
	retryAfter time.Duration
	etag       string
	location   string
	token      string
	body       []byte
	// whole says that the answer was read to its end.
	whole bool
	// written says that the request was on its way when it failed.
	written atomic.Bool
}

type answerKey struct{}

// newHTTPClient makes the client of one BMC, which shares nothing with another's.
func newHTTPClient(con Connection, t *transport) (*http.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: con.InsecureSkipVerify} //nolint:gosec // the host says so, for this BMC only
	if len(con.CA) > 0 {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM(con.CA) {
			return nil, fmt.Errorf("%w: the CA bundle for BMC %s holds no PEM certificate", boot.ErrInvalid, con.Address.Host)
		}
		conf.RootCAs = roots
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	t.base = &http.Transport{
		// A proxy would see the credentials, and BMCs are on a network of their own.
		Proxy: nil,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != con.Address.Host {
				return nil, fmt.Errorf("%w: %q", ErrLeavesHost, clip(addr))
			}
			return dialer.DialContext(ctx, network, addr)
		},
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    15 * time.Second,
		MaxConnsPerHost:        1,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{Transport: t, CheckRedirect: refuseRedirect}, nil
}

// refuseRedirect refuses every redirect: no Redfish resource moves.
func refuseRedirect(req *http.Request, via []*http.Request) error {
	to, from := req.URL, via[0].URL
	if to.Scheme == from.Scheme && to.Host == from.Host {
		return fmt.Errorf("%w: it redirects to %s, which is not followed", ErrNotBMC, clip(to.Path))
	}
	if to.Hostname() == from.Hostname() && to.Scheme == "https" {
		return fmt.Errorf("%w: it redirects to HTTPS on %s; write the address with +https", ErrLeavesHost, clip(to.Host))
	}
	return fmt.Errorf("%w: it redirects to %s", ErrLeavesHost, clip(to.Host))
}

// RoundTrip sends a request to the BMC and reads the answer whole.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme+"://"+req.URL.Host != t.address.URL() {
		return nil, fmt.Errorf("%w: %s", ErrLeavesHost, clip(req.URL.Host))
	}
	a, _ := req.Context().Value(answerKey{}).(*answer)
	if a == nil {
		a = &answer{}
	}
	if err := t.pace(req.Context()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(req.Context(), t.timeout)
	defer cancel()
	trace := &httptrace.ClientTrace{WroteHeaders: func() { a.written.Store(true) }}
	req = req.Clone(httptrace.WithClientTrace(ctx, trace))
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("OData-Version", "4.0")
	if t.authorize != nil {
		t.authorize(req)
	}
	start := t.now()
	resp, err := t.base.RoundTrip(req)
	if err == nil {
		resp, err = t.keep(a, resp)
	}
	t.tally.request(a, err, t.now().Sub(start))
	return resp, err
}

// keep reads the body within its bound and remembers what matters of the answer.
func (t *transport) keep(a *answer, resp *http.Response) (*http.Response, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, t.maxBody+1))
	a.status = resp.StatusCode
	a.retryAfter = retryAfter(resp.Header, t.now())
	a.location, a.token = resp.Header.Get("Location"), resp.Header.Get("X-Auth-Token")
	a.etag = strings.TrimSpace(resp.Header.Get("ETag"))
	success := resp.StatusCode >= 200 && resp.StatusCode < 300
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer: %w", err)
	case int64(len(body)) > t.maxBody:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, t.maxBody)
	case success && len(bytes.TrimSpace(body)) > 0 && !json.Valid(body):
		return nil, fmt.Errorf("%w: the answer is not JSON but %q", ErrNotBMC, clip(resp.Header.Get("Content-Type")))
	}
	a.body, a.whole = body, true
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}

// retryAfter reads the Retry-After header (RFC 9110 section 10.2.3). A date is
// compared with the answer's own Date where there is one: BMC clocks are wrong.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	wait := time.Duration(0)
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		wait = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		wait = at.Sub(now)
	}
	return min(max(wait, 0), longestWait)
}

// networkFault is the sentinel for an error of the transport.
func networkFault(method string, a *answer, err error) error {
	for _, known := range []error{ErrLeavesHost, ErrTooLarge, ErrNotBMC} {
		if errors.Is(err, known) {
			return known
		}
	}
	var (
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &verification):
		return ErrCertificate
	case errors.As(err, &record):
		return ErrNotBMC
	case a.whole:
		return ErrNotBMC
	case a.written.Load() && method != http.MethodGet:
		return ErrLost
	}
	return ErrUnreachable
}

// withoutURL unwraps what http.Client adds to an error: the method and the URL.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// response makes a response of an answer, for gofish's objects to read.
func (a *answer) response() *http.Response {
	h := http.Header{"Content-Type": {"application/json"}}
	if a.etag != "" {
		h.Set("ETag", a.etag)
	}
	return &http.Response{StatusCode: a.status, Header: h, Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body))}
}

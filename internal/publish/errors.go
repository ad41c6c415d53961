package publish

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/boot-operator/boot-operator/internal/artifact"
)

// The sentinel errors of this package; ErrInvalidReference, ErrNotFound,
// ErrUnauthorized, ErrNoPlatform and ErrNoArtifact of internal/artifact are used
// beside them. They are wrapped with what was wrong, and what would be right.
var (
	// ErrFile: a file is not what it was given as, or does not fit the others.
	ErrFile = errors.New("wrong file")
	// ErrExists: the tag is there already, and was not to be overwritten.
	ErrExists = errors.New("the tag exists already")
	// ErrChanged: what was read changed while it was being used.
	ErrChanged = errors.New("changed meanwhile")
)

var (
	errInterrupted = errors.New("it was interrupted")
	errStalled     = errors.New("the transfer stands still")
)

// explain turns an error of a registry into one that says what to do.
func (r *Repository) explain(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, artifact.ErrUnauthorized) || errors.Is(err, artifact.ErrNotFound) || errors.Is(err, ErrChanged) || errors.Is(err, artifact.ErrDigestMismatch) {
		return err
	}
	if ctx.Err() != nil {
		return errInterrupted
	}
	var tried *triedError
	if errors.As(err, &tried) {
		return fmt.Errorf("%w (tried %d times)", r.explain(ctx, tried.error), tried.times)
	}
	host := r.ref.Registry
	var answer *errcode.ErrorResponse
	switch {
	case errors.Is(err, errStalled):
		return err
	case errors.As(err, &answer):
		return r.explainAnswer(answer)
	case errors.Is(err, errdef.ErrNotFound):
		return fmt.Errorf("%w: %s does not have it, or does not show it to you", artifact.ErrNotFound, host)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return r.unauthorized("")
	}
	return r.explainConnection(err)
}

// explainAnswer is for a registry's answer that is no success.
func (r *Repository) explainAnswer(a *errcode.ErrorResponse) error {
	host, said := r.ref.Registry, saying(a.Errors)
	switch a.StatusCode {
	case http.StatusUnauthorized:
		return r.unauthorized(said)
	case http.StatusForbidden:
		return fmt.Errorf("%w: %s does not allow that in %s%s; %s", artifact.ErrUnauthorized, host, r.ref.Repository, said, r.loginHint())
	case http.StatusNotFound:
		hint := ""
		if said == "" || a.Errors[0].Code == errcode.ErrorCodeNameUnknown {
			hint = "; in some registries a project or repository has to be made first"
		}
		return fmt.Errorf("%w: %s does not know %s, or does not show it to you%s%s", artifact.ErrNotFound, host, r.ref.Repository, said, hint)
	case http.StatusMethodNotAllowed:
		return fmt.Errorf("%s takes no pushes%s", host, said)
	case http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%s, or a proxy before it, takes no blob of that size%s", host, said)
	case http.StatusTooManyRequests:
		return fmt.Errorf("%s asks to be left alone for a while (status 429)%s", host, said)
	}
	if !r.plainHTTP || a.StatusCode != http.StatusBadRequest || said != "" {
		return fmt.Errorf("%s answered with status %d%s", host, a.StatusCode, said)
	}
	return fmt.Errorf("%s answered with status %d; if it speaks TLS, leave --plain-http out", host, a.StatusCode)
}

// explainConnection is for errors before any answer. The URL of a url.Error is
// left out: that of a redirect can hold a signature.
func (r *Repository) explainConnection(err error) error {
	host := r.ref.Registry
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var verification *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var dns *net.DNSError
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%s speaks plain HTTP: use --plain-http if you trust the network between here and there", host)
	case errors.As(err, &header):
		return fmt.Errorf("%s does not speak TLS: use --plain-http if it speaks plain HTTP and you trust the network", host)
	case errors.As(err, &authority):
		return fmt.Errorf("the certificate of %s is not trusted: name its authority with --ca-file", host)
	case errors.As(err, &name), errors.As(err, &verification):
		return fmt.Errorf("the certificate of %s is refused: %w", host, err)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("there is no host %s", dns.Name)
	}
	return fmt.Errorf("speaking to %s: %w", host, err)
}

func (r *Repository) unauthorized(said string) error {
	return fmt.Errorf("%w: %s%s; %s", artifact.ErrUnauthorized, r.refusal(), said, r.loginHint())
}

func (r *Repository) refusal() string {
	if r.hasCredentials() {
		return r.ref.Registry + " refused the credentials, or they do not allow it"
	}
	return r.ref.Registry + " wants credentials for " + r.ref.Repository
}

func (r *Repository) loginHint() string {
	if r.hasCredentials() {
		return "check the user, the password and its rights"
	}
	return "docker login " + r.ref.Registry + ", or --username and --password-stdin, gives some"
}

func isUnauthorized(err error) bool {
	var answer *errcode.ErrorResponse
	return errors.Is(err, auth.ErrBasicCredentialNotFound) || (errors.As(err, &answer) && answer.StatusCode == http.StatusUnauthorized)
}

// saying is what a registry said of an error, bounded, in one printable line.
func saying(all errcode.Errors) string {
	if len(all) == 0 {
		return ""
	}
	text := strings.TrimSpace(all[0].Code + " " + all[0].Message)
	text = strings.Map(func(c rune) rune {
		if !strconv.IsPrint(c) {
			return ' '
		}
		return c
	}, text)
	if len(text) > 120 {
		text = text[:120] + "…"
	}
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

// transient says whether the same request may well succeed in a moment.
func transient(err error) bool {
	var answer *errcode.ErrorResponse
	if errors.As(err, &answer) {
		switch answer.StatusCode {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	if errors.Is(err, errStalled) {
		return true
	}
	for _, final := range []error{
		errdef.ErrNotFound, auth.ErrBasicCredentialNotFound, http.ErrSchemeMismatch, ErrChanged, ErrFile,
		artifact.ErrNotAllowed, artifact.ErrDigestMismatch, artifact.ErrTooLarge, artifact.ErrNotFound, artifact.ErrUnauthorized, errCredentials,
	} {
		if errors.Is(err, final) {
			return false
		}
	}
	var verification *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var dns *net.DNSError
	var u *url.Error
	switch {
	case errors.As(err, &verification), errors.As(err, &header), errors.As(err, &dns) && dns.IsNotFound:
		return false
	}
	return errors.As(err, &u)
}

package httpserver

import (
	"bytes"
	"strings"
	"time"
)

// serverLog takes what net/http writes to its error log. Failed TLS handshakes
// are the only trace of a machine that does not trust us: its console says
// "Could not retrieve NBP file size" whatever the cause was.
type serverLog struct {
	s    *Server
	name string
}

// handshakeCauses explains how handshakes fail. The first that is contained in
// the error counts.
var handshakeCauses = []struct{ contains, cause, hint string }{
	{"no cipher suite supported", "NoCommonCipherSuite", "the client offers no cipher suite of this server: it needs ECDHE-RSA or RSA with AES-GCM, and an RSA certificate here"},
	{"unknown certificate authority", "UnknownAuthority", "the client does not trust the CA of this certificate: enrol it in the firmware"},
	{"bad certificate", "BadCertificate", "the client refused the certificate: it needs an RSA key and the host of the URL as a subjectAltName"},
	{"certificate unknown", "BadCertificate", "the client refused the certificate: check its CA, its RSA key and its subjectAltName"},
	{"unknown certificate", "BadCertificate", "the client refused the certificate: check its CA, its RSA key and its subjectAltName"},
	{"unsupported certificate", "BadCertificate", "the client refused the certificate: firmware takes RSA keys only"},
	{"expired certificate", "ExpiredCertificate", "the certificate of this server has expired"},
	{"unsupported versions", "OldVersion", "the client speaks no TLS 1.2"},
	{"protocol version", "OldVersion", "the client speaks no TLS 1.2"},
	{"does not look like a TLS handshake", "NotTLS", "the client does not speak TLS: the URL should begin with http, or is for the other port"},
	{"HTTP request to an HTTPS server", "NotTLS", "the client does not speak TLS: the URL should begin with http, or is for the other port"},
	{"timeout", "Timeout", ""},
	{"EOF", "Closed", ""},
	{"connection reset", "Closed", ""},
}

// Write implements io.Writer for a log.Logger.
func (l serverLog) Write(p []byte) (int, error) {
	line := string(bytes.TrimSpace(p))
	rest, ok := strings.CutPrefix(line, "http: TLS handshake error from ")
	if !ok {
		l.s.log.V(1).Info("HTTP server", "server", l.name, "message", clip(line, 300))
		return len(p), nil
	}
	client, text, _ := strings.Cut(rest, ": ")
	cause, hint := explainHandshake(text)
	l.s.metrics.tlsErrors.WithLabelValues(cause).Inc()
	if n, ok := l.s.handshakes.allow(time.Now()); ok {
		l.s.log.Info("TLS handshake failed", "server", l.name, "client", client, "cause", cause, "hint", hint, "error", clip(text, 300), "suppressed", n)
	}
	return len(p), nil
}

func explainHandshake(text string) (cause, hint string) {
	for _, c := range handshakeCauses {
		if strings.Contains(text, c.contains) {
			return c.cause, c.hint
		}
	}
	return "Other", ""
}

package httpserver

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/boot-operator/boot-operator/internal/boot"
)

var (
	// errNoRoute: the path leads nowhere.
	errNoRoute = fmt.Errorf("no such path: %w", boot.ErrNotFound)
	// errUnknown: nothing names the machine that asks. It is the only one that
	// may get the default image.
	errUnknown = fmt.Errorf("unknown machine: %w", boot.ErrNotFound)
	// errRefused: somebody is named, but not proven enough. It looks like
	// errUnknown from outside.
	errRefused = fmt.Errorf("identity not proven: %w", boot.ErrNotFound)
	// errNoUKI and errForeign are told to a proven machine.
	errNoUKI   = errors.New("the machine's config names no UKI")
	errForeign = errors.New("the machine's UKI is on another server: ask with Accept: application/json for its URL")
	// errNoIgnition is told to a proven machine.
	errNoIgnition = errors.New("the machine's config names no Ignition document")
	errNoUserData = errors.New("the machine's config names no user data for cloud-init")
	errNoNetwork  = errors.New("the machine's user data has no network-config")
	// errArchitecture and errOwnScript end in the script that leaves for the next
	// boot device.
	errArchitecture = errors.New("the machine's config is for another architecture")
	errOwnScript    = errors.New("the machine has an iPXE script of its own, which GRUB cannot run")
	errNoURL        = errors.New("this server was given no public image server URL")
	// errNoTokenURL: a UKI that was composed for one machine has no other URL.
	errNoTokenURL = errors.New("the machine's UKI is composed for it alone, and no URL with a token can be handed out for it now")
	errMethod     = errors.New("only GET and HEAD are allowed")
	errRange      = errors.New("the range is not satisfiable")
	errWeakTLS    = errors.New("secrets are not served over RSA key exchange: connect with ECDHE")
	// errEnded: somebody aborted the attempt. It is no errAborted, which is about one
	// response.
	errEnded     = fmt.Errorf("it was aborted: %w", boot.ErrClosed)
	errForwarded = errors.New("X-Forwarded-For of a trusted DHCP server has to name one to eight IP or MAC addresses")
)

// retryAfter is how many seconds a client is asked to wait. Ignition has its
// own backoff; firmware gives up at once.
const retryAfter = 5

// failure is how an error looks from outside.
type failure struct {
	err    error
	status int
	reason string
	// text replaces the error's own in the body; without it the error is told
	// as it is, which is only for those who are proven.
	text string
}

// failures is the one table from errors to answers. The first match counts.
var failures = []failure{
	{errNoUKI, http.StatusNotFound, "NoUKI", ""},
	{errForeign, http.StatusNotFound, "ForeignUKI", ""},
	{errNoIgnition, http.StatusNotFound, "NoIgnition", ""},
	{errNoUserData, http.StatusNotFound, "NoUserData", ""},
	{errNoNetwork, http.StatusNotFound, "NoNetworkConfig", ""},
	{errArchitecture, http.StatusNotFound, "WrongArchitecture", ""},
	{errOwnScript, http.StatusNotFound, "OwnScript", ""},
	{boot.ErrNotFound, http.StatusNotFound, "NotFound", "not found"},
	{boot.ErrAmbiguous, http.StatusNotFound, "NotFound", "not found"},
	{errMethod, http.StatusMethodNotAllowed, "MethodNotAllowed", ""},
	{errRange, http.StatusRequestedRangeNotSatisfiable, "RangeNotSatisfiable", ""},
	{errTooMany, http.StatusTooManyRequests, "TooManyRequests", ""},
	{errForwarded, http.StatusBadRequest, "InvalidForwardedFor", ""},
	{errWeakTLS, http.StatusForbidden, "WeakKeyExchange", ""},
	{boot.ErrSpent, http.StatusForbidden, "AttemptSpent", boot.ErrSpent.Error()},
	{boot.ErrArmed, http.StatusForbidden, "BootArmed", boot.ErrArmed.Error()},
	{errEnded, http.StatusForbidden, "AttemptAborted", "the boot attempt was aborted"},
	{boot.ErrClosed, http.StatusForbidden, "AttemptClosed", boot.ErrClosed.Error()},
	{boot.ErrContested, http.StatusForbidden, "SecretContested", boot.ErrContested.Error()},
	{boot.ErrNotReady, http.StatusServiceUnavailable, "NotReady", ""},
	{errNoURL, http.StatusServiceUnavailable, "NoImageServerURL", ""},
	{errNoTokenURL, http.StatusServiceUnavailable, "NoTokenURL", ""},
	{boot.ErrUnavailable, http.StatusServiceUnavailable, "Unavailable", "temporarily unavailable"},
}

var internalFailure = failure{nil, http.StatusInternalServerError, "Internal", "internal error"}

func failureOf(err error) failure {
	for _, f := range failures {
		if errors.Is(err, f.err) {
			return f
		}
	}
	return internalFailure
}

// write answers with the failure. Content-Length makes the answer to HEAD
// exact too.
func (f failure) write(x *exchange, err error) {
	h := x.Header()
	for _, k := range []string{"Etag", "Accept-Ranges", "Content-Length", "Cache-Control", "X-Content-Type-Options"} {
		delete(h, k)
	}
	if f.status != http.StatusRequestedRangeNotSatisfiable {
		delete(h, "Content-Range")
	}
	text := f.text
	if text == "" {
		text = err.Error()
	}
	body := make([]byte, 0, 64+len(text))
	body = append(body, `{"error":`...)
	body = appendJSON(body, clip(text, 300))
	body = append(body, `,"reason":"`...)
	body = append(body, f.reason...)
	body = append(body, "\"}\n"...)
	switch f.status {
	case http.StatusMethodNotAllowed:
		h["Allow"] = []string{"GET, HEAD"}
	case http.StatusTooManyRequests:
		h["Retry-After"] = []string{"1"}
	case http.StatusServiceUnavailable:
		h["Retry-After"] = []string{strconv.Itoa(retryAfter)}
	}
	h["Cache-Control"] = noStore
	x.reply(f.status, contentJSON, body)
}

func clip(s string, limit int) string {
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}

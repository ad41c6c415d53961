package redfish

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The sentinel errors. Every error of this package that comes from a BMC is an
// *Error that wraps one of them.
var (
	// ErrUnauthorized: the credentials were refused. They are not tried again:
	// accounts get locked.
	ErrUnauthorized = errors.New("the BMC refused the credentials")
	// ErrCertificate: the BMC's certificate is not trusted.
	ErrCertificate = errors.New("the BMC's certificate is not trusted")
	// ErrUnreachable: nothing answers there, or it stopped to.
	ErrUnreachable = errors.New("the BMC cannot be reached")
	// ErrLost: the request was sent and its answer never came.
	ErrLost = errors.New("the answer of the BMC was lost")
	// ErrNotBMC: what answers does not speak Redfish.
	ErrNotBMC = errors.New("this is not a Redfish service")
	// ErrSeveralSystems: the BMC has several systems and the address names none.
	ErrSeveralSystems = errors.New("the BMC has several systems")
	// ErrWrongSystem: another machine than the expected one is behind this BMC.
	ErrWrongSystem = errors.New("another machine is behind this BMC")
	// ErrUnsupported: this BMC cannot do that.
	ErrUnsupported = errors.New("the BMC cannot do this")
	// ErrBusy: the BMC cannot do it now; Error.RetryAfter says when to ask again.
	ErrBusy = errors.New("the BMC is busy")
	// ErrRefused: the BMC understood and said no.
	ErrRefused = errors.New("the BMC refused the request")
	// ErrLeavesHost: the BMC pointed to another host.
	ErrLeavesHost = errors.New("the BMC pointed to another host")
	// ErrTooLarge: the answer is larger than Limits.MaxBody.
	ErrTooLarge = errors.New("the BMC's answer is too large")
	// ErrBroken: the circuit breaker is open; nothing was sent.
	ErrBroken = errors.New("the BMC is left alone for a while after failures")
)

// Error is what went wrong between us and one BMC.
type Error struct {
	// BMC is the host and port.
	BMC string
	// Request is the method and path; empty where there was none.
	Request string
	// Status is the HTTP status of the answer; 0 without one.
	Status int
	// MessageIDs are the message IDs of the answer's @Message.ExtendedInfo.
	MessageIDs []string
	// Message is what the BMC said, on one line and bounded.
	Message string
	// RetryAfter is how long to wait before the next request; 0: not said.
	RetryAfter time.Duration
	// Err is a sentinel of this package.
	Err error
	// Cause is what the network or a decoder said; optional.
	Cause error
	// about are the properties and values that the answer speaks of, as the BMC
	// wrote them: never printed.
	about []string
}

// Error says which BMC, which request, and what it answered. It holds no
// credentials and no request body.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "BMC %s", e.BMC)
	if e.Request != "" {
		fmt.Fprintf(&b, ", %s", e.Request)
	}
	fmt.Fprintf(&b, ": %s", e.Err)
	if e.Status != 0 {
		fmt.Fprintf(&b, " (status %d", e.Status)
		if len(e.MessageIDs) > 0 {
			fmt.Fprintf(&b, ", %s", strings.Join(e.MessageIDs, ", "))
		}
		b.WriteString(")")
	}
	switch {
	case e.Message != "":
		fmt.Fprintf(&b, ": %s", e.Message)
	case e.Cause != nil:
		fmt.Fprintf(&b, ": %s", clip(e.Cause.Error()))
	}
	return b.String()
}

// Unwrap returns the sentinel and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Cause}
}

// RetryAfter returns how long an error asks to wait; 0: it does not say.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

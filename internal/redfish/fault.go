package redfish

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// busyWait is how long to wait for a machine in POST.
	busyWait = 30 * time.Second
	// sessionsWait is how long to wait where no session is left (RAC0218).
	sessionsWait = 5 * time.Minute
	// maxMessages bounds how many messages of an answer are read.
	maxMessages = 16
	maxMessage  = 300
)

// The kinds of messages, by the last part of their message ID: of the Base
// registry (DSP0268) and of vendors' own.
var (
	busyIDs = []string{
		"UnableToModifyDuringSystemPOST", "InvalidOperationForSystemState", "ResourceInStandby", "ResourceInUse",
		"ServiceTemporarilyUnavailable", "ServerNotReady", "SYS518", "SYS403", "SessionLimitExceeded", "RAC0218",
	}
	sessionIDs = []string{"RAC0218", "SessionLimitExceeded"}
	futureIDs  = []string{"OperationSupportedInFutureStateURI"}
	// readOnlyIDs refuse a property, valueIDs refuse a value.
	readOnlyIDs = []string{"PropertyNotWritable", "PropertyUnknown", "PropertyNotUpdated", "PropertyNotSupported", "SYS410", "SYS426"}
	valueIDs    = []string{
		"PropertyValueNotInList", "PropertyValueIncorrect", "PropertyValueFormatError", "PropertyValueTypeError", "PropertyValueBadParam",
		"PropertyValueConflict", "PropertyValueError", "ActionParameterValueNotInList", "ActionParameterNotSupported",
		"ActionNotSupported", "UnsupportedOperation", "SYS428",
	}
	// presenceID says, in an answer that is a success, that nothing was done: somebody
	// has to be there.
	presenceID = "PhysicalPresenceError"
)

// message is one entry of @Message.ExtendedInfo, read leniently.
type message struct {
	ID, Text string
	About    []string
}

// messages reads the error of an answer (DSP0266, error responses). Some BMCs
// write one object where the schema says a list, or put it beside the error.
func messages(body []byte) []message {
	root := parseObject(body)
	e := root.at("error")
	var all []message
	for _, from := range []object{e, root} {
		raw := from["@Message.ExtendedInfo"]
		list := objects(raw)
		if len(list) == 0 {
			if one := parseObject(raw); one != nil {
				list = []object{one}
			}
		}
		for _, m := range list {
			if len(all) == maxMessages {
				return all
			}
			all = append(all, message{ID: first(m.text("MessageId"), m.text("MessageID")), Text: m.text("Message"), About: append(m.texts("RelatedProperties"), m.texts("MessageArgs")...)})
		}
	}
	if len(all) == 0 && e != nil {
		all = append(all, message{ID: e.text("code"), Text: e.text("message")})
	}
	return all
}

// asksPresence says that an answer is a refusal, whatever its status.
func asksPresence(body []byte) bool {
	return slices.ContainsFunc(messages(body), func(m message) bool { return strings.Contains(m.ID, presenceID) })
}

func first(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

var anyURL = regexp.MustCompile(`(?i)[a-z][a-z0-9+.-]*://[^\s"'<>]+`)

// scrub makes text of a BMC fit for an error: on one line, bounded, without URLs
// and without the secrets that it might repeat.
func scrub(s string, secrets []string) string {
	if len(s) > 8*maxMessage {
		s = s[:8*maxMessage]
	}
	for _, secret := range secrets {
		if len(secret) > 3 {
			s = strings.ReplaceAll(s, secret, "(left out)")
		}
	}
	s = strings.Join(strings.Fields(anyURL.ReplaceAllString(s, "(a URL)")), " ")
	if len(s) > maxMessage {
		s = s[:maxMessage]
	}
	return clipTo(s, maxMessage)
}

// refusal is the error for an answer that is no success, by the table of errors.
func (l *link) refusal(request string, a *answer) *Error {
	e := &Error{BMC: l.con.Address.Host, Request: request, Status: a.status, RetryAfter: a.retryAfter, Err: ErrRefused}
	var texts []string
	for _, m := range messages(a.body) {
		if m.ID != "" {
			e.MessageIDs = append(e.MessageIDs, scrub(m.ID, l.secrets()))
		}
		if m.Text != "" {
			texts = append(texts, m.Text)
		}
		e.about = append(e.about, m.About...)
	}
	e.about = append(e.about, texts...)
	e.Message = scrub(strings.Join(texts, " "), l.secrets())
	e.Err, e.RetryAfter = verdict(e)
	if e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests || e.says(sessionIDs) {
		l.quiet = max(l.quiet, e.RetryAfter)
	}
	return e
}

// verdict is the sentinel for an answer, and how long to wait.
func verdict(e *Error) (error, time.Duration) { //nolint:revive,staticcheck // the sentinel is a value here, not how the function failed
	switch {
	case e.Status == http.StatusUnauthorized:
		return ErrUnauthorized, 0
	case e.says(sessionIDs):
		return ErrBusy, max(e.RetryAfter, sessionsWait)
	case e.says(busyIDs), e.Status >= 500 && e.Status != http.StatusNotImplemented, e.Status == http.StatusTooManyRequests:
		if e.RetryAfter == 0 {
			return ErrBusy, busyWait
		}
		return ErrBusy, e.RetryAfter
	case e.Status == http.StatusMethodNotAllowed, e.Status == http.StatusNotImplemented:
		return ErrUnsupported, e.RetryAfter
	}
	return ErrRefused, e.RetryAfter
}

// says tells whether one of the answer's message IDs is of a kind.
func (e *Error) says(kind []string) bool {
	return slices.ContainsFunc(e.MessageIDs, func(id string) bool {
		return slices.ContainsFunc(kind, func(k string) bool { return strings.Contains(id, k) })
	})
}

// names tells whether the answer speaks of a property or a value.
func (e *Error) names(what string) bool {
	return slices.ContainsFunc(e.about, func(s string) bool { return strings.Contains(s, what) })
}

// refused returns the error where the BMC answered and said no.
func refused(err error) (*Error, bool) {
	var e *Error
	return e, errors.As(err, &e) && e.Status >= 400
}

func status(err error, code int) bool {
	e, ok := refused(err)
	return ok && e.Status == code
}

// unsupported turns what a BMC refused for good into ErrUnsupported.
func unsupported(err error) error {
	e, ok := refused(err)
	if !ok || e.Err != ErrRefused { //nolint:errorlint // the field is a sentinel
		return err
	}
	if e.Status == http.StatusNotFound || e.says(readOnlyIDs) || e.says(valueIDs) || e.says(futureIDs) {
		c := *e
		c.Err = ErrUnsupported
		return &c
	}
	return err
}

// unsupportedBySystem is unsupported for what the system itself refused. A system
// that was there a moment ago and answers 404 is behind a BMC that restarts.
func unsupportedBySystem(err error) error {
	e, ok := refused(err)
	if !ok || e.Status != http.StatusNotFound {
		return unsupported(err)
	}
	c := *e
	c.Err = ErrUnreachable
	return &c
}

// object is a JSON object that is read leniently: what is missing or of another
// type reads as empty.
type object map[string]json.RawMessage

func parseObject(b []byte) object {
	var o object
	if json.Unmarshal(b, &o) != nil {
		return nil
	}
	return o
}

func objects(b []byte) []object {
	var raw []json.RawMessage
	if json.Unmarshal(b, &raw) != nil {
		return nil
	}
	var all []object
	for _, r := range raw {
		if o := parseObject(r); o != nil {
			all = append(all, o)
		}
	}
	return all
}

func (o object) has(name string) bool { _, ok := o[name]; return ok }

func (o object) at(name string) object { return parseObject(o[name]) }

func (o object) text(name string) string {
	var s string
	if json.Unmarshal(o[name], &s) != nil {
		return ""
	}
	return s
}

func (o object) texts(name string) []string {
	var raw []json.RawMessage
	if json.Unmarshal(o[name], &raw) != nil {
		return nil
	}
	var all []string
	for _, r := range raw {
		var s string
		if json.Unmarshal(r, &s) == nil {
			all = append(all, s)
		}
	}
	return all
}

// link is the @odata.id of a reference.
func (o object) link(name string) string { return o.at(name).text("@odata.id") }

// links are the @odata.ids of a list of references.
func (o object) links(name string) []string {
	var all []string
	for _, l := range objects(o[name]) {
		if id := l.text("@odata.id"); id != "" {
			all = append(all, id)
		}
	}
	return all
}

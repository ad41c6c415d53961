package bmcsim

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// root is the path of the service root (DSP0266, section 6.2).
const root = "/redfish/v1"

// object is a JSON object.
type object = map[string]any

// resource is what one path has. What is nil is not allowed there.
type resource struct {
	// get returns the representation. The lock is held.
	get func() object
	// patch changes it. The locks writes and mu are held.
	patch func(*call) reply
	// post is an action, or makes a member of a collection. No lock is held.
	post func(*call) reply
	// remove deletes it. The lock is held; with removeWrites, writes too.
	remove       func() reply
	removeWrites bool
	// public: readable without credentials; open: so is post.
	public, open bool
	// text is a representation that is not JSON.
	text, contentType string
	// action: post is an action.
	action bool
}

// methods lists what is allowed, as the header Allow does.
func (r *resource) methods() []string {
	var list []string
	if r.get != nil || r.text != "" {
		list = append(list, http.MethodGet, http.MethodHead)
	}
	if r.patch != nil {
		list = append(list, http.MethodPatch)
	}
	if r.post != nil {
		list = append(list, http.MethodPost)
	}
	if r.remove != nil {
		list = append(list, http.MethodDelete)
	}
	return append(list, http.MethodOptions)
}

// call is one request.
type call struct {
	*http.Request
	raw      []byte
	tooLarge bool
	body     object
	session  *session // that it came with
}

// reply is one answer. A body that is a string is not JSON.
type reply struct {
	status int
	header http.Header
	body   any
}

// write sends an answer.
func (a reply) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	for name, values := range a.header {
		h[name] = values
	}
	h.Set("OData-Version", "4.0")
	h.Set("Cache-Control", "no-cache")
	var raw []byte
	switch body := a.body.(type) {
	case nil:
	case string:
		raw = []byte(body)
	default:
		h.Set("Content-Type", "application/json; charset=utf-8")
		raw, _ = json.Marshal(body)
	}
	if a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		h.Set("Content-Length", strconv.Itoa(len(raw)))
	}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead && len(raw) > 0 {
		_, _ = w.Write(raw) // a client that has gone needs no answer
	}
}

// serve answers a request as the specification and the profile say.
func (b *BMC) serve(c *call, entry *Request) reply {
	if v := c.Header.Get("OData-Version"); v != "" && v != "4.0" {
		m := say("HeaderInvalid", "OData-Version: "+v)
		m.status = http.StatusPreconditionFailed
		return b.refuse(m)
	}
	path := strings.TrimSuffix(c.URL.Path, "/")
	b.mu.Lock()
	res := b.find(path)
	refused := b.authenticate(c, res, entry)
	b.mu.Unlock()
	switch {
	case refused != nil:
		return *refused
	case res == nil:
		return b.refuse(say("ResourceMissingAtURI", c.URL.Path))
	case c.Method == http.MethodOptions:
		return reply{status: http.StatusNoContent, header: allow(res)}
	case !slices.Contains(res.methods(), c.Method):
		a := b.refuse(say("OperationNotAllowed"))
		a.header.Set("Allow", strings.Join(res.methods(), ", "))
		return a
	}
	if m := query(c.Request); m != nil {
		return b.refuse(*m)
	}
	switch c.Method {
	case http.MethodGet, http.MethodHead:
		return b.read(c, res, path)
	case http.MethodDelete:
		if res.removeWrites {
			b.writes.Lock()
			defer b.writes.Unlock()
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		return res.remove()
	default:
		return b.change(c, res, path)
	}
}

func allow(res *resource) http.Header {
	h := http.Header{}
	h.Set("Allow", strings.Join(res.methods(), ", "))
	return h
}

// query refuses the query parameters that change an answer: none is supported, and
// the service root says so. Others are ignored (DSP0266, section 7.3).
func query(r *http.Request) *message {
	for name := range r.URL.Query() {
		if strings.HasPrefix(name, "$") || name == "only" || name == "excerpt" || name == "filter" {
			m := say("QueryNotSupported")
			return &m
		}
	}
	return nil
}

// read answers GET and HEAD.
func (b *BMC) read(c *call, res *resource, path string) reply {
	h := allow(res)
	if res.text != "" {
		h.Set("Content-Type", res.contentType)
		return reply{status: http.StatusOK, header: h, body: res.text}
	}
	b.mu.Lock()
	body := b.represent(res, path)
	b.mu.Unlock()
	if body == nil {
		return b.refuse(say("ResourceMissingAtURI", c.URL.Path))
	}
	status := http.StatusOK
	if s, ok := body["\x00status"].(int); ok { // a task monitor's
		status = s
		delete(body, "\x00status")
	}
	if tag, ok := body["@odata.etag"].(string); ok {
		h.Set("ETag", tag)
		if match := c.Header.Get("If-None-Match"); match != "" && (match == "*" || weakly(match) == weakly(tag)) {
			return reply{status: http.StatusNotModified, header: h}
		}
	}
	if t, ok := body["@odata.type"].(string); ok {
		h.Set("Link", "<"+schemaURL(t)+">; rel=describedby")
	}
	return reply{status: status, header: h, body: body}
}

// schemaURL is where the DMTF publishes the JSON schema of a type such as
// #Manager.v1_18_0.Manager.
func schemaURL(odataType string) string {
	name := strings.TrimPrefix(odataType, "#")
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[:i]
	}
	return "http://redfish.dmtf.org/schemas/v1/" + name + ".json"
}

// represent makes a resource's representation with its ETag. The lock is held.
func (b *BMC) represent(res *resource, path string) object {
	body := res.get()
	if body == nil {
		return nil
	}
	_, typed := body["@odata.type"].(string)
	if _, ok := body["@odata.id"]; !ok && typed {
		body["@odata.id"] = path
	}
	if b.profile.slashes {
		slashed(body)
	}
	if typed {
		body["@odata.etag"] = b.etag(body)
	}
	return body
}

// etag is the ETag of a representation: its hash, so that it changes with it.
func (b *BMC) etag(body object) string {
	raw, _ := json.Marshal(body)
	sum := sha256.Sum256(append([]byte(b.salt), raw...))
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	if b.profile.tags == weakETags {
		return "W/" + tag
	}
	return tag
}

func weakly(tag string) string { return strings.TrimPrefix(strings.TrimSpace(tag), "W/") }

// slashed ends every path in a representation with a slash.
func slashed(v any) {
	switch v := v.(type) {
	case object:
		for k, inner := range v {
			if text, ok := inner.(string); ok && k == "@odata.id" && !strings.ContainsAny(text, "#") && !strings.HasSuffix(text, "/") {
				v[k] = text + "/"
			} else {
				slashed(inner)
			}
		}
	case []object:
		for _, inner := range v {
			slashed(inner)
		}
	case []any:
		for _, inner := range v {
			slashed(inner)
		}
	}
}

// change answers PATCH and POST.
func (b *BMC) change(c *call, res *resource, path string) reply {
	if m := c.decode(c.Method == http.MethodPost && res.action); m != nil {
		return b.refuse(*m)
	}
	if c.Method == http.MethodPost {
		if res.action && b.profile.actionMatch && c.Header.Get("If-Match") != "" {
			return b.refuse(say("PreconditionFailed"))
		}
		return res.post(c)
	}
	b.writes.Lock()
	defer b.writes.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.precondition(c, res, path); m != nil {
		return b.refuse(*m)
	}
	return res.patch(c)
}

// precondition checks If-Match (RFC 9110, section 13.1.1). The lock is held.
func (b *BMC) precondition(c *call, res *resource, path string) *message {
	match := c.Header.Get("If-Match")
	var m message
	switch {
	case match == "" && !b.profile.needsMatch:
		return nil
	case match == "":
		m = say("PreconditionRequired")
	case b.profile.tags == staleETags:
		m = say("PreconditionFailed")
	default:
		tag, _ := b.represent(res, path)["@odata.etag"].(string)
		for part := range strings.SplitSeq(match, ",") {
			if part = strings.TrimSpace(part); part == "*" || part == tag {
				return nil
			}
		}
		m = say("PreconditionFailed")
	}
	return &m
}

// decode reads the body as a JSON object. An action may have none.
func (c *call) decode(mayBeEmpty bool) *message {
	var m message
	if c.tooLarge {
		m = say("PayloadTooLarge")
		return &m
	}
	if len(c.raw) == 0 && mayBeEmpty {
		c.body = object{}
		return nil
	}
	if t, _, err := mime.ParseMediaType(c.Header.Get("Content-Type")); err != nil || t != "application/json" {
		m = say("HeaderInvalid", "Content-Type")
		m.status = http.StatusUnsupportedMediaType
		return &m
	}
	var v any
	if err := json.Unmarshal(c.raw, &v); err != nil {
		m = say("MalformedJSON")
		return &m
	}
	body, ok := v.(object)
	switch {
	case !ok:
		m = say("UnrecognizedRequestBody")
	case len(body) == 0 && !mayBeEmpty:
		m = say("EmptyJSON")
	default:
		c.body = body
		return nil
	}
	return &m
}

// authenticate checks who asks; it returns the refusal. The lock is held.
func (b *BMC) authenticate(c *call, res *resource, entry *Request) *reply {
	open := res != nil && ((res.public && (c.Method == http.MethodGet || c.Method == http.MethodHead || c.Method == http.MethodOptions)) ||
		(res.open && c.Method == http.MethodPost))
	var refusal reply
	switch token := c.Header.Get("X-Auth-Token"); {
	case token != "" && !open:
		if c.session = b.sessionOf(token); c.session != nil && !b.knobs.refuse {
			return nil
		}
		refusal = b.refuse(say("NoValidSession"))
	case open:
		return nil
	default:
		user, password, ok := c.BasicAuth()
		if ok && b.known(user, password) {
			return nil
		}
		refusal = b.refuse(say("ResourceAtUriUnauthorized", entry.Path, "the credentials are missing or wrong"))
	}
	return &refusal
}

// known checks a user name and password. The lock is held.
func (b *BMC) known(user, password string) bool {
	u := subtle.ConstantTimeCompare([]byte(user), []byte(b.options.Username))
	p := subtle.ConstantTimeCompare([]byte(password), []byte(b.password))
	return u&p == 1 && !b.knobs.refuse
}

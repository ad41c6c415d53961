package redfish

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"
)

const (
	// logoutTimeout bounds how long a log-out may take, after all else ended.
	logoutTimeout = 15 * time.Second
	sessionsPath  = "/redfish/v1/SessionService/Sessions"
)

// link is one operation's way to a BMC: its HTTP client and credentials.
type link struct {
	clients *Clients
	account *account
	con     Connection
	http    *http.Client
	api     *gofish.APIClient
	root    object
	// token and session are those of a session; empty with basic authentication.
	token, session string
	relogged       bool
	// refused: the credentials were refused; answered: they were accepted; quiet:
	// the BMC asked for no request for this long.
	refused, answered bool
	quiet             time.Duration
	// url is the URL of the boot that is being set: it holds a token.
	url string
	// tally is what is counted of this operation.
	tally *tally
}

func (c *Clients) link(con Connection, a *account) (*link, error) {
	l := &link{clients: c, account: a, con: con, tally: &tally{vendor: c.vendorOf(a)}}
	t := &transport{
		address: con.Address, timeout: c.limits.Timeout, maxBody: c.limits.MaxBody, now: c.now, authorize: l.authorize, tally: l.tally,
		pace: func(ctx context.Context) error { return c.pace(ctx, a) },
	}
	var err error
	l.http, err = newHTTPClient(con, t)
	return l, err
}

// secrets are what no error may repeat.
func (l *link) secrets() []string {
	return []string{l.con.Password, l.token, l.url}
}

// authorize adds credentials to a request, once the service root was read: that
// one is for everyone (DSP0266), and proves that this is a BMC at all.
func (l *link) authorize(r *http.Request) {
	switch {
	case l.root == nil:
	case l.token != "":
		r.Header.Set("X-Auth-Token", l.token)
	case !l.con.Session && l.con.Username != "":
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(l.con.Username+":"+l.con.Password)))
	}
}

// connect reads the service root and logs in where a session is asked for.
func (l *link) connect(ctx context.Context) (*bmc, error) {
	a := &answer{}
	api, err := gofish.ConnectContext(context.WithValue(ctx, answerKey{}, a), gofish.ClientConfig{
		Endpoint: l.con.Address.URL(), HTTPClient: l.http, NoModifyTransport: true, ReuseConnections: true, MaxConcurrentRequests: 1,
	})
	const request = "GET " + schemas.DefaultServiceRoot
	if err != nil {
		return nil, l.rootFault(request, a, err)
	}
	root := parseObject(a.body)
	if root.link("Systems") == "" {
		return nil, &Error{BMC: l.con.Address.Host, Request: request, Status: a.status, Err: ErrNotBMC, Message: "the service root names no Systems"}
	}
	l.api, l.root = api, root
	b := &bmc{conn: l.conn(ctx), service: api.Service}
	if l.con.Session {
		return b, l.login(ctx)
	}
	return b, nil
}

// rootFault is the error for a service root that could not be read. What answers
// with a plain 404 or redirect there is no BMC.
func (l *link) rootFault(request string, a *answer, err error) error {
	var e *Error
	if errors.As(l.fault(http.MethodGet, request, a, err), &e) && e.Status >= 400 && e.Status < 500 && errors.Is(e, ErrRefused) {
		e.Err = ErrNotBMC
	}
	return e
}

// login opens a session. It goes on when ctx ends, so that a session that was
// opened is known and can be closed.
func (l *link) login(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.clients.limits.Timeout)
	defer cancel()
	path := l.root.at("Links").link("Sessions")
	if path == "" {
		path = sessionsPath
	}
	l.token, l.session = "", ""
	a, err := l.conn(ctx).send(http.MethodPost, path, map[string]string{"UserName": l.con.Username, "Password": l.con.Password}, nil)
	if err != nil {
		return err
	}
	l.token, l.session = a.token, first(a.location, parseObject(a.body).text("@odata.id"))
	if l.token == "" {
		return &Error{BMC: l.con.Address.Host, Request: "POST " + path, Status: a.status, Err: ErrNotBMC, Message: "it opened a session and gave no token"}
	}
	return nil
}

// close logs out and closes the connection.
func (l *link) close() {
	defer l.http.CloseIdleConnections()
	if l.session == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), logoutTimeout)
	defer cancel()
	c := l.conn(ctx)
	for range 2 {
		_, err := c.send(http.MethodDelete, l.session, nil, nil)
		if _, answered := refused(err); err == nil || answered {
			break
		}
	}
	l.session, l.token = "", ""
}

// conn is a BMC's client for one context. It is what gofish's objects keep, so
// none of them outlives the call that read it.
type conn struct {
	*gofish.APIClient
	link *link
	ctx  context.Context
}

func (l *link) conn(ctx context.Context) *conn {
	return &conn{APIClient: l.api, link: l, ctx: ctx}
}

func (c *conn) with(ctx context.Context) *conn { return c.link.conn(ctx) }

// send sends one request to a path that we or the BMC wrote, and returns the
// answer where it is a success. A session that the BMC forgot is opened again,
// once; credentials that it refused are not sent again.
func (c *conn) send(method, ref string, payload any, header map[string]string) (*answer, error) {
	l := c.link
	path, err := l.con.Address.pathOf(ref)
	if err != nil {
		return nil, &Error{BMC: l.con.Address.Host, Request: method, Err: ErrLeavesHost, Cause: err}
	}
	if l.refused && method != http.MethodDelete {
		return nil, &Error{BMC: l.con.Address.Host, Request: method + " " + path, Err: ErrUnauthorized, Message: "they are not tried again"}
	}
	a, err := c.once(method, path, payload, header)
	if errors.Is(err, ErrUnauthorized) && l.token != "" && !l.relogged && method != http.MethodDelete {
		l.relogged = true
		if err := l.login(c.ctx); err != nil {
			return nil, err
		}
		a, err = c.once(method, path, payload, header)
	}
	if errors.Is(err, ErrUnauthorized) {
		l.refused = true
	}
	l.answered = l.answered || err == nil
	return a, err
}

// once sends a request a single time, with gofish's client bound to c.ctx.
func (c *conn) once(method, path string, payload any, header map[string]string) (*answer, error) {
	a := &answer{}
	api := c.APIClient.WithContext(context.WithValue(c.ctx, answerKey{}, a))
	var (
		resp *http.Response
		err  error
	)
	switch method {
	case http.MethodGet:
		resp, err = api.GetWithHeaders(path, header) //nolint:bodyclose // it is closed below
	case http.MethodPost:
		resp, err = api.PostWithHeaders(path, payload, header) //nolint:bodyclose // it is closed below
	case http.MethodPatch:
		resp, err = api.PatchWithHeaders(path, payload, header) //nolint:bodyclose // it is closed below
	case http.MethodDelete:
		resp, err = api.DeleteWithHeaders(path, header) //nolint:bodyclose // it is closed below
	default:
		err = fmt.Errorf("method %s is not used", method)
	}
	schemas.DeferredCleanupHTTPResponse(resp)
	if err != nil {
		return nil, c.link.fault(method, method+" "+path, a, err)
	}
	if method != http.MethodGet && asksPresence(a.body) {
		return nil, c.link.refusal(method+" "+path, a)
	}
	return a, nil
}

// fault is the *Error for a request that failed.
func (l *link) fault(method, request string, a *answer, err error) error {
	var known *schemas.Error
	if errors.As(err, &known) && known.HTTPReturnedStatusCode != 0 {
		return l.refusal(request, a)
	}
	cause := withoutURL(err)
	e := &Error{BMC: l.con.Address.Host, Request: request, Status: a.status, Err: networkFault(method, a, cause), Cause: cause}
	if known != nil {
		e.Cause, e.Message = nil, scrub(known.Message, l.secrets())
	}
	return e
}

// response makes a response of an answer again, for gofish's objects.
func (c *conn) response(method, ref string, payload any, header map[string]string) (*http.Response, error) {
	a, err := c.send(method, ref, payload, header)
	if err != nil {
		return nil, err
	}
	return a.response(), nil
}

// Get is what gofish's objects read by.
func (c *conn) Get(ref string) (*http.Response, error) {
	return c.response(http.MethodGet, ref, nil, nil)
}

// GetWithHeaders is what gofish's objects read by.
func (c *conn) GetWithHeaders(ref string, header map[string]string) (*http.Response, error) {
	return c.response(http.MethodGet, ref, nil, header)
}

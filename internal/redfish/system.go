package redfish

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// maxMembers bounds how many members of a collection are looked at.
	maxMembers = 64
	// managerFor is how long what the Manager said is believed.
	managerFor = 10 * time.Minute
)

// bmc is one machine's BMC for one operation.
type bmc struct {
	conn    *conn
	service *gofish.Service
	// path is the system's; sys is it as it was last read; systems are all that
	// the BMC has, where that was asked.
	path    string
	sys     resource
	systems []string
	manager manager
	// future says that Boot is written to {id}/SD, as the BMC's answers showed.
	future bool
	// unused says that sys was read and shown to nobody yet.
	unused bool
}

// manager is what the BMC's own Manager resource says.
type manager struct {
	Manufacturer, Model, Firmware string
	Oem                           []string
	// path is the Manager's; empty where it could not be read.
	path string
}

// resource is one resource as it was read.
type resource struct {
	object
	path, etag string
	answer     *answer
}

// get reads a resource.
func (c *conn) get(ref string) (resource, error) {
	a, err := c.send(http.MethodGet, ref, nil, nil)
	if err != nil {
		return resource{}, err
	}
	path, _, _ := strings.Cut(ref, "#")
	r := resource{object: parseObject(a.body), path: path, answer: a}
	if r.object == nil {
		return resource{}, c.unreadable(ref, errors.New("it is not a JSON object"))
	}
	r.etag = first(strings.Replace(a.etag, `-gzip"`, `"`, 1), r.text("@odata.etag"))
	if len(r.etag) > 256 || strings.ContainsAny(r.etag, "\r\n\x00") {
		r.etag = ""
	}
	return r, nil
}

func (c *conn) unreadable(ref string, err error) error {
	return &Error{BMC: c.link.con.Address.Host, Request: "GET " + clip(ref), Status: http.StatusOK, Err: ErrNotBMC, Cause: err}
}

// read reads a resource as one of gofish's types.
func read[T any, P schemas.GenericSchemaObjectPointer[T]](c *conn, ref string) (*T, error) {
	o, err := schemas.GetObject[T, P](c, ref)
	var e *Error
	if err != nil && !errors.As(err, &e) {
		err = c.unreadable(ref, err)
	}
	return o, err
}

// as is what was read, as one of gofish's types.
func as[T any, P schemas.GenericSchemaObjectPointer[T]](c *conn, r resource) (*T, error) {
	resp := r.answer.response()
	defer resp.Body.Close()
	o, err := schemas.DecodeGenericEntity[T, P](c, resp)
	if err != nil {
		return nil, c.unreadable(r.path, err)
	}
	return o, nil
}

// members are the paths of a collection's members, sorted, at most maxMembers.
func (c *conn) members(ref string) ([]string, error) {
	var all []string
	for pages := 0; ref != "" && pages < 8 && len(all) < maxMembers; pages++ {
		r, err := c.get(ref)
		if err != nil {
			return nil, err
		}
		all = append(all, r.links("Members")...)
		ref = r.text("Members@odata.nextLink")
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), maxMembers)], nil
}

// choose finds the system and checks that it is the expected one.
func (b *bmc) choose(ctx context.Context) error {
	b.conn = b.conn.with(ctx)
	var err error
	if b.path, err = b.findSystem(); err != nil {
		return err
	}
	if b.sys, err = b.conn.get(b.path); err != nil {
		return b.noSystem(err)
	}
	if b.sys.has("Members") && !b.sys.has("PowerState") {
		return &Error{BMC: b.host(), Request: "GET " + b.path, Err: ErrRefused, Message: "this is a collection; the address must name one of its members"}
	}
	b.unused = true
	b.readManager()
	if b.conn.link.refused {
		return &Error{BMC: b.host(), Err: ErrUnauthorized, Message: "they are not tried again"}
	}
	return b.checkIdentity()
}

func (b *bmc) host() string { return b.conn.link.con.Address.Host }

func (b *bmc) findSystem() (string, error) {
	if p := b.conn.link.con.Address.SystemPath; p != "" {
		return p, nil
	}
	var err error
	if b.systems, err = b.conn.members(b.conn.link.root.link("Systems")); err != nil {
		return "", err
	}
	e := &Error{BMC: b.host(), Request: "GET " + clip(b.conn.link.root.link("Systems"))}
	switch len(b.systems) {
	case 1:
		return b.systems[0], nil
	case 0:
		e.Err, e.RetryAfter, e.Message = ErrBusy, busyWait, "it shows no system yet"
	default:
		e.Err, e.Message = ErrSeveralSystems, "end its address with one of "+clipTo(strings.Join(b.systems, ", "), 600)
	}
	return "", e
}

// noSystem explains a system that is not where the address says: either the BMC
// is starting and shows none yet, or the address is wrong.
func (b *bmc) noSystem(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusNotFound {
		return err
	}
	b.systems, _ = b.conn.members(b.conn.link.root.link("Systems"))
	if len(b.systems) == 0 {
		e.Err, e.Message = ErrUnreachable, "it shows no system; it may be starting"
		return e
	}
	e.Message = "it has no such system; it has " + clipTo(strings.Join(b.systems, ", "), 600)
	return e
}

// readManager reads the Manager, whose model and firmware quirks go by. A BMC
// without one is known by less.
func (b *bmc) readManager() {
	c, a := b.conn.link.clients, b.conn.link.account
	c.mu.Lock()
	b.manager = a.manager
	fresh := c.now().Sub(a.managerAt) < managerFor
	c.mu.Unlock()
	if fresh {
		return
	}
	path := b.managerPath()
	if path == "" {
		return
	}
	m, err := b.conn.get(path)
	if err != nil {
		return
	}
	b.manager = manager{
		Manufacturer: clip(m.text("Manufacturer")), Model: clip(m.text("Model")), Firmware: clip(m.text("FirmwareVersion")),
		Oem: keys(m.at("Oem")), path: path,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a.manager, a.managerAt = b.manager, c.now()
}

func (b *bmc) managerPath() string {
	if p := b.conn.link.root.at("Links").link("ManagerProvidingService"); p != "" {
		return p
	}
	if by := b.sys.at("Links").links("ManagedBy"); len(by) > 0 {
		return by[0]
	}
	if all, err := b.conn.members(b.conn.link.root.link("Managers")); err == nil && len(all) > 0 {
		return all[0]
	}
	return ""
}

// unnumbered are serial numbers that vendors leave in boards they did not number.
var unnumbered = []string{"", "none", "n/a", "na", "null", "not specified", "not available", "unknown", "default string", "to be filled by o.e.m.", "system serial number", "0", "0123456789", "123456789"}

// checkIdentity compares the system with the expected one. Nothing is written
// before it has.
func (b *bmc) checkIdentity() error {
	con := b.conn.link.con
	wantUUID, wantSerial := con.UUID, strings.TrimSpace(con.Serial)
	if _, err := boot.ParseUUID(wantUUID); err != nil {
		wantUUID = ""
	}
	if slices.Contains(unnumbered, strings.ToLower(wantSerial)) {
		wantSerial = ""
	}
	serial := strings.TrimSpace(b.sys.text("SerialNumber"))
	known := !slices.Contains(unnumbered, strings.ToLower(serial))
	if wantSerial != "" && known && !strings.EqualFold(serial, wantSerial) {
		return b.wrong("the serial number %q was expected, and it has %q", wantSerial, serial)
	}
	if wantUUID == "" {
		if wantSerial != "" && !known {
			return b.unsure()
		}
		return nil
	}
	want, _ := boot.ParseUUID(wantUUID)
	got, err := boot.ParseUUID(b.sys.text("UUID"))
	switch {
	case err == nil && got != want && got != want.Swapped():
		return b.wrong("the UUID %s was expected, and it has %s", want, got)
	case err != nil && (wantSerial == "" || !known):
		return b.unsure()
	}
	return nil
}

func (b *bmc) wrong(format string, args ...any) error {
	return &Error{BMC: b.host(), Request: "GET " + clip(b.path), Err: ErrWrongSystem, Message: clipTo(fmt.Sprintf(format, args...), maxMessage)}
}

// unsure is for a BMC that does not say (now) which machine it has.
func (b *bmc) unsure() error {
	return &Error{
		BMC: b.host(), Request: "GET " + clip(b.path), Err: ErrBusy, RetryAfter: busyWait,
		Message: "it does not say which machine this is, so that it cannot be compared with the expected one",
	}
}

// system reads the system again, unless what choose read was not shown yet.
func (b *bmc) system(c *conn) (resource, error) {
	if b.unused {
		b.unused = false
		return b.sys, nil
	}
	r, err := c.get(b.path)
	if err != nil {
		return r, unsupportedBySystem(err)
	}
	b.sys = r
	return r, nil
}

package redfish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// existsIDs say that what was to be made is there already.
var existsIDs = []string{"ResourceAlreadyExists"}

// SecureBootDatabaseIDs are the databases that there are.
func (b *bmc) SecureBootDatabaseIDs(ctx context.Context) ([]string, error) {
	paths, err := b.databases(b.conn.with(ctx))
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, p := range paths {
		ids = append(ids, clip(lastOf(p)))
	}
	return ids, nil
}

// databases are the paths of the Secure Boot databases.
func (b *bmc) databases(c *conn) ([]string, error) {
	secure, _, err := b.secureBoot(c)
	if err != nil {
		return nil, err
	}
	path := secure.link("SecureBootDatabases")
	if path == "" {
		return nil, b.cannot("its SecureBoot has no SecureBootDatabases: certificates are added in the firmware's setup")
	}
	paths, err := c.members(path)
	return paths, unsupported(err)
}

// lastOf is the last segment of a path.
func lastOf(path string) string {
	path = strings.TrimSuffix(path, "/")
	return path[strings.LastIndexByte(path, '/')+1:]
}

// database reads the resource of one database.
func (b *bmc) database(c *conn, id string) (resource, error) {
	paths, err := b.databases(c)
	if err != nil {
		return resource{}, err
	}
	i := slices.IndexFunc(paths, func(p string) bool { return strings.EqualFold(lastOf(p), id) })
	if i < 0 {
		return resource{}, b.cannot(fmt.Sprintf("it has no Secure Boot database %s", clip(id)))
	}
	r, err := c.get(paths[i])
	return r, unsupported(err)
}

// SecureBootDatabase reads one database.
func (b *bmc) SecureBootDatabase(ctx context.Context, id string) (SecureBootDatabase, error) {
	c := b.conn.with(ctx)
	r, err := b.database(c, id)
	if err != nil {
		return SecureBootDatabase{}, err
	}
	return b.readDatabase(c, r)
}

func (b *bmc) readDatabase(c *conn, r resource) (SecureBootDatabase, error) {
	d := SecureBootDatabase{ID: clip(first(r.text("DatabaseId"), lastOf(r.path)))}
	if path := r.link("Certificates"); path != "" {
		paths, err := c.members(path)
		if err != nil {
			return d, unsupported(err)
		}
		for _, p := range paths {
			certificate, err := c.certificate(p)
			if err != nil {
				return d, err
			}
			d.Certificates = append(d.Certificates, certificate)
		}
	}
	if path := r.link("Signatures"); path != "" {
		list, err := c.get(path) // a dbx has hundreds: they are counted, not read
		if err := ignoreRefusal(err); err != nil {
			return d, err
		}
		d.Signatures = max(list.number("Members@odata.count"), len(list.links("Members")))
	}
	return d, nil
}

// number is a whole number that is not negative; anything else is 0.
func (o object) number(name string) int {
	var n uint32
	if json.Unmarshal(o[name], &n) != nil {
		return 0
	}
	return int(n)
}

// certificate reads one Certificate (Certificate 1.x). Of what Go does not parse, the
// fingerprint is still told.
func (c *conn) certificate(path string) (SecureBootCertificate, error) {
	r, err := c.get(path)
	if err != nil {
		return SecureBootCertificate{}, err
	}
	s := SecureBootCertificate{
		Path: clip(path), Subject: nameOf(r.at("Subject")), Issuer: nameOf(r.at("Issuer")), Fingerprint: fingerprintText(r.text("Fingerprint")),
	}
	block, _ := pem.Decode([]byte(r.text("CertificateString")))
	if block == nil || block.Type != "CERTIFICATE" {
		return s, nil
	}
	s.Fingerprint = fingerprint(block.Bytes)
	if parsed, err := x509.ParseCertificate(block.Bytes); err == nil {
		s.Certificate, s.Subject, s.Issuer = parsed, clipTo(parsed.Subject.String(), maxMessage), clipTo(parsed.Issuer.String(), maxMessage)
	}
	return s, nil
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// fingerprintText is a BMC's fingerprint in our notation.
func fingerprintText(s string) string {
	return clip(strings.ToLower(strings.ReplaceAll(s, ":", "")))
}

// nameOf is an Identifier of a Certificate, as one writes a distinguished name.
func nameOf(o object) string {
	var parts []string
	for _, p := range []struct{ name, short string }{
		{"CommonName", "CN"}, {"OrganizationalUnit", "OU"}, {"Organization", "O"}, {"City", "L"}, {"State", "ST"}, {"Country", "C"},
	} {
		if text := o.text(p.name); text != "" {
			parts = append(parts, p.short+"="+clip(text))
		}
	}
	return strings.Join(parts, ",")
}

// has says whether a certificate is in the database.
func (d SecureBootDatabase) has(der []byte) bool {
	want := fingerprint(der)
	return slices.ContainsFunc(d.Certificates, func(c SecureBootCertificate) bool { return c.Fingerprint == want })
}

// AddSecureBootCertificate adds a certificate to a database.
func (b *bmc) AddSecureBootCertificate(ctx context.Context, id string, text []byte) (Enrolled, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return Enrolled{}, fmt.Errorf("%w: a certificate for %s is one PEM block of the type CERTIFICATE", boot.ErrInvalid, clip(id))
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return Enrolled{}, fmt.Errorf("%w certificate for %s: %w", boot.ErrInvalid, clip(id), err)
	}
	c := b.conn.with(ctx)
	r, err := b.database(c, id)
	if err != nil {
		return Enrolled{}, err
	}
	path := r.link("Certificates")
	if path == "" {
		return Enrolled{}, b.cannot(fmt.Sprintf("its Secure Boot database %s has no Certificates", clip(id)))
	}
	before, err := b.readDatabase(c, r)
	switch {
	case err != nil:
		return Enrolled{}, err
	case before.has(block.Bytes):
		return Enrolled{Already: true, Shown: true, Database: before}, nil
	}
	e, err := c.enroll(path, block)
	if err != nil {
		return Enrolled{}, err
	}
	if e.Database, err = b.readDatabase(c, r); err != nil {
		return e, err
	}
	e.Shown = e.Database.has(block.Bytes)
	return e, nil
}

// enroll sends a certificate to a collection.
func (c *conn) enroll(path string, block *pem.Block) (Enrolled, error) {
	var e Enrolled
	body := map[string]string{"CertificateString": string(pem.EncodeToMemory(block)), "CertificateType": "PEM"}
	a, err := c.send(http.MethodPost, path, body, nil)
	if no, is := refused(err); is && no.says(existsIDs) {
		e.Already = true // of a BMC that does not show it
		return e, nil
	}
	if err != nil {
		return e, unsupported(err)
	}
	for _, m := range messages(a.body) {
		if text := scrub(m.Text, c.link.secrets()); text != "" {
			e.Messages = append(e.Messages, text)
		}
	}
	return e, nil
}

// ResetSecureBootKeys empties databases, or makes them what their maker had in them.
func (b *bmc) ResetSecureBootKeys(ctx context.Context, id string, how ResetKeys) error {
	if !slices.Contains([]ResetKeys{ResetToDefault, ResetDeleteAll, ResetDeletePK}, how) || (how == ResetDeletePK && id != "") {
		return fmt.Errorf("%w: keys are reset by %s or %s, and all databases by %s too, not by %q", boot.ErrInvalid, ResetToDefault, ResetDeleteAll, ResetDeletePK, clip(string(how)))
	}
	c := b.conn.with(ctx)
	r, err := resource{}, error(nil)
	action := "#SecureBootDatabase.ResetKeys"
	if id == "" {
		action = "#SecureBoot.ResetKeys"
		r, _, err = b.secureBoot(c)
	} else {
		r, err = b.database(c, id)
	}
	if err != nil {
		return err
	}
	target := r.at("Actions").at(action).text("target")
	if target == "" {
		return b.cannot(fmt.Sprintf("it has no action %s", strings.TrimPrefix(action, "#")))
	}
	_, err = c.send(http.MethodPost, target, map[string]ResetKeys{"ResetKeysType": how}, nil)
	return unsupported(err)
}

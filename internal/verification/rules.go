package verification

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/sigstore"
	"github.com/boot-operator/boot-operator/internal/uki"
)

const (
	// maxFile bounds a file of policies in bytes, maxRules its rules and maxImages the
	// images of one of them.
	maxFile   = 1 << 20
	maxRules  = 256
	maxImages = 256
)

// Rules are the operator's own policies, by image. The zero value has none.
type Rules struct {
	rules []rule
}

type rule struct {
	line   int
	scopes []scope
	policy Policy
}

// Defaults are what a rule takes where it names nothing of its own.
type Defaults struct {
	// TrustedRoot is for rules with an image part.
	TrustedRoot []byte
	// Database is for rules whose uki part names no certificates.
	Database *uki.Database
}

// ParsePolicies reads a file of policies, which docs/verification.md describes. It
// returns ErrPolicy, with the line and the field that is wrong.
func ParsePolicies(text []byte) (Rules, error) {
	r, err := parseRules(text)
	if err != nil {
		return Rules{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	return r, nil
}

func parseRules(text []byte) (Rules, error) {
	var r Rules
	doc, err := parseDocument(text)
	if err != nil {
		return r, err
	}
	top, err := doc.fields("rules")
	if err != nil {
		return r, err
	}
	all, err := top["rules"].list(maxRules)
	if err != nil {
		return r, err
	}
	for _, v := range all {
		one, err := parseRule(v)
		if err != nil {
			return r, err
		}
		r.rules = append(r.rules, one)
	}
	return r, nil
}

// parseDocument reads the one document that there has to be.
func parseDocument(text []byte) (value, error) {
	if len(text) > maxFile {
		return value{}, fmt.Errorf("the file has %d bytes; %d are the most", len(text), maxFile)
	}
	var doc, more yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return value{}, errors.New("the file is empty; it has to have rules")
	case err != nil:
		return value{}, errors.New(clip(err.Error()))
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return value{}, errors.New("there is a second YAML document; only one is read")
	}
	return value{node: doc.Content[0]}, nil
}

func parseRule(v value) (rule, error) {
	r := rule{line: v.node.Line}
	f, err := v.fields("images", "image", "uki")
	if err != nil {
		return r, err
	}
	images, err := f["images"].list(maxImages)
	if err != nil {
		return r, err
	}
	for _, i := range images {
		s, err := parsed(i, parseScope)
		if err != nil {
			return r, err
		}
		r.scopes = append(r.scopes, s)
	}
	if !f["image"].given() && !f["uki"].given() {
		return r, v.wrong("it asks for nothing: it needs image, uki or both")
	}
	if f["image"].given() {
		if r.policy.Image, err = parseImage(f["image"]); err != nil {
			return r, err
		}
	}
	if f["uki"].given() {
		r.policy.UKI, err = parseUKI(f["uki"])
	}
	return r, err
}

func parseImage(v value) (*ImagePolicy, error) {
	f, err := v.fields("keys", "identities", "trustedRoot", "signed")
	if err != nil {
		return nil, err
	}
	p := &ImagePolicy{Signed: SignedAny}
	if f["keys"].given() {
		if p.Sigstore.Keys, err = parsed(f["keys"], sigstore.ParseKeys); err != nil {
			return nil, err
		}
	}
	if f["identities"].given() {
		if p.Sigstore.Identities, err = parseIdentities(f["identities"]); err != nil {
			return nil, err
		}
	}
	if len(p.Sigstore.Keys)+len(p.Sigstore.Identities) == 0 {
		return nil, v.wrong("it names nobody: it needs keys, identities or both")
	}
	if f["trustedRoot"].given() {
		if p.Sigstore.TrustedRoot, err = f["trustedRoot"].text(); err != nil {
			return nil, err
		}
		if err := p.Sigstore.Check(); err != nil {
			return nil, f["trustedRoot"].wrong("%w", bare(err))
		}
	}
	if f["signed"].given() {
		p.Signed, err = choice(f["signed"], SignedAny, SignedIndex, SignedManifest)
	}
	return p, err
}

func parseIdentities(v value) ([]sigstore.Identity, error) {
	list, err := v.list(maxImages)
	if err != nil {
		return nil, err
	}
	var all []sigstore.Identity
	for _, one := range list {
		f, err := one.fields("issuer", "subject", "subjectRegExp")
		if err != nil {
			return nil, err
		}
		var id sigstore.Identity
		for name, to := range map[string]*string{"issuer": &id.Issuer, "subject": &id.Subject, "subjectRegExp": &id.SubjectRegExp} {
			if f[name].given() {
				text, err := f[name].text()
				if err != nil {
					return nil, err
				}
				*to = string(text)
			}
		}
		if err := id.Check(); err != nil {
			return nil, one.wrong("%w", bare(err))
		}
		all = append(all, id)
	}
	return all, nil
}

func parseUKI(v value) (*UKIPolicy, error) {
	f, err := v.fields("certificates", "revoked", "expired")
	if err != nil {
		return nil, err
	}
	p := &UKIPolicy{Required: true}
	switch {
	case f["certificates"].given():
		db, err := f["certificates"].text()
		if err != nil {
			return nil, err
		}
		var dbx []byte
		if f["revoked"].given() {
			if dbx, err = f["revoked"].text(); err != nil {
				return nil, err
			}
		}
		if p.Database, err = uki.ParseDatabase(db, dbx); err != nil {
			return nil, v.wrong("certificates (db) or revoked (dbx): %w", err)
		}
	case f["revoked"].given():
		return nil, f["revoked"].wrong("it goes with certificates, which are not there")
	}
	if f["expired"].given() {
		expired, err := choice(f["expired"], "Allow", "Refuse")
		if err != nil {
			return nil, err
		}
		p.RefuseExpired = expired == "Refuse"
	}
	return p, nil
}

// bare takes off what the caller adds again.
func bare(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), ErrPolicy.Error()+": "))
}

// Complete fills in what rules leave to the operator's other settings. It returns
// ErrPolicy where a rule needs one that is not there.
func (r Rules) Complete(d Defaults) (Rules, error) {
	all := slices.Clone(r.rules)
	for i := range all {
		if err := all[i].complete(d); err != nil {
			return Rules{}, fmt.Errorf("%w: line %d: %w", ErrPolicy, all[i].line, err)
		}
	}
	return Rules{rules: all}, nil
}

func (r *rule) complete(d Defaults) error {
	if r.policy.Image != nil {
		p := *r.policy.Image
		if len(p.Sigstore.TrustedRoot) == 0 {
			p.Sigstore.TrustedRoot = d.TrustedRoot
		}
		if len(p.Sigstore.Identities) > 0 && len(p.Sigstore.TrustedRoot) == 0 {
			return errors.New("its identities need a sigstore trusted root: set image.trustedRoot, or --sigstore-trusted-root-file")
		}
		if err := p.Sigstore.Check(); err != nil {
			return bare(err)
		}
		r.policy.Image = &p
	}
	if r.policy.UKI != nil && r.policy.UKI.Database == nil {
		if d.Database == nil {
			return errors.New("its uki names no certificates: set uki.certificates, or --secure-boot-db-file")
		}
		p := *r.policy.UKI
		p.Database = d.Database
		r.policy.UKI = &p
	}
	return nil
}

// For returns the policies of an image, by its reference, or of a UKI, by its URL:
// those of all rules whose images cover it. Each of them has to be met.
func (r Rules) For(image string) []Policy {
	var all []Policy
	host, name := locate(image)
	for _, one := range r.rules {
		if slices.ContainsFunc(one.scopes, func(s scope) bool { return s.covers(host, name) }) {
			p := one.policy
			p.Name = fmt.Sprintf("the operator's verification policy (line %d)", one.line)
			all = append(all, p)
		}
	}
	return all
}

// scope is a registry, or what lies below a path in it; without a host, everything.
type scope struct {
	host string
	path string
}

// parseScope reads *, registry or registry/path. Its first segment is always a
// registry: no rule means Docker Hub without saying so.
func parseScope(text []byte) (scope, error) {
	s := strings.TrimSuffix(strings.TrimSpace(string(text)), "/")
	if s == "*" {
		return scope{}, nil
	}
	first, _, _ := strings.Cut(s, "/")
	if first != "localhost" && !strings.ContainsAny(first, ".:") {
		return scope{}, fmt.Errorf("%q does not begin with a registry, such as registry.example.com or registry.example.com/os; * means every image", clip(s))
	}
	ref, err := artifact.ParseReference(s + "/x")
	if err != nil || ref.Digest != "" {
		return scope{}, fmt.Errorf("%q is neither a registry nor a registry with a path, such as registry.example.com/os; tags and digests have no place in it", clip(s))
	}
	return scope{host: ref.Registry, path: strings.TrimSuffix(strings.TrimSuffix(ref.Repository, "x"), "/")}, nil
}

// covers compares whole segments of the path.
func (s scope) covers(host, name string) bool {
	return s.host == "" || s.host == host && (s.path == "" || name == s.path || strings.HasPrefix(name, s.path+"/"))
}

// locate takes a reference or URL apart in the way in which the artifact store reads
// it. What that cannot read has no place: only a rule for every image covers it.
func locate(image string) (host, name string) {
	u, err := url.Parse(image)
	if err != nil || u.Host == "" {
		ref, err := artifact.ParseReference(image)
		if err != nil {
			return "", ""
		}
		return ref.Registry, ref.Repository
	}
	h := u.Host
	if u.Scheme == "http" {
		h = strings.TrimSuffix(h, ":80")
	}
	ref, err := artifact.ParseReference(h + "/x")
	if err != nil || !strings.ContainsAny(h, ".:") && h != "localhost" {
		return "", ""
	}
	return ref.Registry, strings.Trim(path.Clean("/"+u.Path), "/")
}

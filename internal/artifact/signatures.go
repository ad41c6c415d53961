package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	// typeBundle is how the media types of sigstore bundles begin.
	typeBundle = "application/vnd.dev.sigstore.bundle"
	// typeSimpleSigning is what a layer of cosign's .sig tag has, typeDotSig what its
	// manifest is called where cosign attached it as a referrer.
	typeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeDotSig        = "application/vnd.dev.cosign.artifact.sig.v1+json"
	typeEmpty         = "application/vnd.oci.empty.v1+json"

	// maxSignatures bounds how many signatures of each of the two formats are read,
	// and maxReferrers in how many referrers they are looked for.
	maxSignatures = 32
	maxReferrers  = 64
	// maxSignature bounds one signature and maxSignatureBytes all of them, in bytes.
	maxSignature      = 1 << 20
	maxSignatureBytes = 8 << 20
	// maxPages bounds a list of referrers.
	maxPages = 16
)

// Attachment is a signature of an index or manifest, as its registry keeps it: a
// sigstore bundle that refers to it, or a layer of cosign's .sig tag.
type Attachment struct {
	// MediaType of the content.
	MediaType string
	// Digest of the content, which was checked.
	Digest boot.Digest
	// Annotations of its descriptor.
	Annotations map[string]string
	Content     []byte
}

// Signatures reads the signatures of a manifest or index of an image: those that the
// first of its mirrors has, then those of the next, and in the end those of its own
// registry, for as long as the loop goes on. Source names the image as Image.Source
// does; its digest does not matter. What is yielded was written by whoever may push
// there.
//
// An error stands beside what was found, and tells what could not be read: Terminal
// says whether that will stay so.
func (s *Store) Signatures(ctx context.Context, source string, subject boot.Digest, creds Credentials) iter.Seq2[[]Attachment, error] {
	return func(yield func([]Attachment, error) bool) {
		ref, err := ParseReference(source)
		if err == nil {
			err = s.allow.image(ref)
		}
		if err == nil {
			_, err = boot.ParseDigest(string(subject))
		}
		if err != nil {
			yield(nil, fmt.Errorf("reading signatures: %w", err))
			return
		}
		for _, e := range s.client.endpoints(ref) {
			all, err := s.signatures(ctx, e, subject, creds)
			if err != nil {
				err = fmt.Errorf("reading the signatures of %s: %w", ref.Pinned(subject), err)
			}
			if !yield(all, err) {
				return
			}
		}
	}
}

// signatures reads what one endpoint has.
func (s *Store) signatures(ctx context.Context, e endpoint, subject boot.Digest, creds Credentials) ([]Attachment, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	g := gathering{client: s.client, endpoint: e, creds: creds, subject: subject, left: maxSignatureBytes}
	referrers, err := g.referrers(ctx)
	missed := missedError{}
	missed.add(err)
	for i, d := range sorted(referrers) {
		if i == maxReferrers || g.bundles == maxSignatures {
			missed.add(tooMany(i, "signatures among the referrers"))
			break
		}
		missed.add(g.referrer(ctx, d))
	}
	missed.add(g.tag(ctx))
	if len(missed.all) == 0 {
		return g.all, nil
	}
	s.metrics.registryError(e.host, missed)
	return g.all, missed
}

// missedError is all that could not be read. For errors.Is it is what may be there
// another time; only where nothing may, it is the rest.
type missedError struct {
	all []error
}

func (m *missedError) add(err error) {
	var more missedError
	switch {
	case errors.As(err, &more):
		m.all = append(m.all, more.all...)
	case err != nil:
		m.all = append(m.all, err)
	}
}

func (m missedError) Error() string {
	var told []string
	for i, e := range m.all {
		if i == maxListed {
			told = append(told, fmt.Sprintf("and %d more", len(m.all)-i))
			break
		}
		told = append(told, e.Error())
	}
	return strings.Join(told, "; ")
}

func (m missedError) Unwrap() []error {
	var passing []error
	for _, e := range m.all {
		if !Terminal(e) {
			passing = append(passing, e)
		}
	}
	if len(passing) == 0 {
		return m.all
	}
	return passing
}

// gathering is what is read from one endpoint.
type gathering struct {
	client   *client
	endpoint endpoint
	creds    Credentials
	subject  boot.Digest

	all []Attachment
	// bundles and dotSigs count what was read or tried.
	bundles, dotSigs int
	// left is how many bytes may still be read.
	left int64
}

// sorted drops referrers that are no signatures, and puts those that do not say what
// they are last. Registries of before OCI 1.1 tell the media type of the config.
func sorted(all []ocispec.Descriptor) []ocispec.Descriptor {
	var sure, unsure []ocispec.Descriptor
	for _, d := range all {
		switch t := d.ArtifactType; {
		case !isManifest(d.MediaType):
		case strings.HasPrefix(t, typeBundle), t == typeDotSig:
			sure = append(sure, d)
		case t == "", t == typeEmpty, t == typeOCIConfig:
			unsure = append(unsure, d)
		}
	}
	return append(sure, unsure...)
}

// referrers lists what refers to the subject (OCI distribution spec 1.1, listing
// referrers), of a registry without that API by the tag that stands for it.
func (g *gathering) referrers(ctx context.Context) ([]ocispec.Descriptor, error) {
	var all []ocispec.Descriptor
	query := ""
	for range maxPages {
		body, header, err := g.read(ctx, "referrers/"+string(g.subject)+query, maxManifest)
		if query == "" && (unsupported(err) || err == nil && mediaType(header.Get("Content-Type")) != typeOCIIndex) {
			return g.taggedReferrers(ctx)
		}
		if err != nil {
			return all, fmt.Errorf("listing the referrers: %w", err)
		}
		page, err := parseReferrers(body)
		all = append(all, page...)
		next := nextPage(header.Get("Link"))
		if err != nil || next == "" || next == query {
			return all, err
		}
		query = next
	}
	return all, fmt.Errorf("%w: there are more than %d pages of referrers", ErrTooLarge, maxPages)
}

func (g *gathering) taggedReferrers(ctx context.Context) ([]ocispec.Descriptor, error) {
	body, _, err := g.read(ctx, "manifests/sha256-"+g.subject.Hex(), maxManifest)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the tag for referrers: %w", err)
	}
	return parseReferrers(body)
}

func parseReferrers(body []byte) ([]ocispec.Descriptor, error) {
	var i ocispec.Index
	if err := json.Unmarshal(body, &i); err != nil {
		return nil, fmt.Errorf("%w: the list of referrers is not valid JSON: %s", ErrNoSignature, clip(err.Error()))
	}
	return i.Manifests, nil
}

// unsupported says that a registry does not know the list of referrers: old ones
// answer in many ways.
func unsupported(err error) bool {
	var a *answerError
	return errors.Is(err, ErrNotFound) || errors.As(err, &a) && (a.status == http.StatusNotImplemented || a.status/100 == 4 && a.status != http.StatusTooManyRequests)
}

// nextPage returns the query of the next page (RFC 8288). Nothing else of the link
// counts: a registry must not lead elsewhere.
func nextPage(link string) string {
	target, parameters, ok := strings.Cut(link, ">")
	if !ok || !strings.Contains(parameters, "next") {
		return ""
	}
	u, err := url.Parse(strings.TrimPrefix(strings.TrimSpace(target), "<"))
	if err != nil || u.RawQuery == "" {
		return ""
	}
	return "?" + u.RawQuery
}

// referrer reads the signatures in one referrer.
func (g *gathering) referrer(ctx context.Context, d ocispec.Descriptor) error {
	name, err := boot.ParseDigest(string(d.Digest))
	if err != nil {
		return fmt.Errorf("%w: the digest of a referrer: %w", ErrNoSignature, err)
	}
	body, _, err := g.read(ctx, "manifests/"+string(name), maxSignature)
	if err != nil {
		return fmt.Errorf("reading the referrer %s: %w", name, gone(err))
	}
	return g.layers(ctx, body)
}

// tag reads cosign's .sig tag of the subject.
func (g *gathering) tag(ctx context.Context) error {
	body, _, err := g.read(ctx, "manifests/sha256-"+g.subject.Hex()+".sig", maxManifest)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the .sig tag: %w", err)
	}
	return g.layers(ctx, body)
}

// layers reads those layers of a manifest that are signatures, the last ones first:
// cosign appends.
func (g *gathering) layers(ctx context.Context, body []byte) error {
	var m ocispec.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("%w: the manifest of a signature is not valid JSON: %s", ErrNoSignature, clip(err.Error()))
	}
	var missed missedError
	for i := len(m.Layers) - 1; i >= 0; i-- {
		l := m.Layers[i]
		count, what := &g.bundles, "bundles"
		if l.MediaType == typeSimpleSigning {
			count, what = &g.dotSigs, "layers of .sig tags"
		} else if !strings.HasPrefix(l.MediaType, typeBundle) {
			continue
		}
		if *count >= maxSignatures {
			missed.add(tooMany(maxSignatures, what))
			break
		}
		*count++
		if err := g.layer(ctx, l); err != nil {
			missed.add(fmt.Errorf("the signature %s: %w", clip(string(l.Digest)), err))
		}
	}
	if len(missed.all) == 0 {
		return nil
	}
	return missed
}

// gone makes an error for good of what a registry names and does not have.
func gone(err error) error {
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("%w: the registry names it and does not have it", ErrNoSignature)
	}
	return err
}

func tooMany(most int, what string) error {
	return fmt.Errorf("%w: there are more than %d %s, and the others are not read", ErrTooLarge, most, what)
}

// layer reads one signature. Two layers can have the same content and differ in
// their annotations, where cosign keeps what matters.
func (g *gathering) layer(ctx context.Context, l ocispec.Descriptor) error {
	d, err := boot.ParseDigest(string(l.Digest))
	if err != nil {
		return fmt.Errorf("%w: its digest: %w", ErrNoSignature, err)
	}
	a := Attachment{MediaType: l.MediaType, Digest: d, Annotations: l.Annotations}
	most := min(maxSignature, g.left)
	if l.Size < 0 || l.Size > most {
		return fmt.Errorf("%w: it has %d bytes; %d are the most", ErrTooLarge, l.Size, most)
	}
	if a.Content = g.content(d); a.Content == nil {
		if a.Content, _, err = g.read(ctx, "blobs/"+string(d), most); err != nil {
			return gone(err)
		}
		g.left -= int64(len(a.Content))
	}
	if !g.has(a) {
		g.all = append(g.all, a)
	}
	return nil
}

// content returns what was read before.
func (g *gathering) content(d boot.Digest) []byte {
	for _, a := range g.all {
		if a.Digest == d {
			return a.Content
		}
	}
	return nil
}

func (g *gathering) has(a Attachment) bool {
	for _, b := range g.all {
		if a.Digest == b.Digest && maps.Equal(a.Annotations, b.Annotations) {
			return true
		}
	}
	return false
}

// read reads a small document, and checks its digest where the path ends in one that
// it has to have.
func (g *gathering) read(ctx context.Context, path string, most int64) ([]byte, http.Header, error) {
	resp, err := g.client.get(ctx, g.endpoint, g.creds, path, http.Header{"Accept": {acceptManifests}})
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ContentLength > most {
		return nil, nil, fmt.Errorf("%w: %s sends %d bytes; %d are the most", ErrTooLarge, g.endpoint.host, resp.ContentLength, most)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(resp.Body, most+1)); err != nil {
		return nil, nil, fmt.Errorf("reading from %s: %w", g.endpoint.host, err)
	}
	if int64(b.Len()) > most {
		return nil, nil, fmt.Errorf("%w: %s sends more than %d bytes", ErrTooLarge, g.endpoint.host, most)
	}
	kind, name, _ := strings.Cut(path, "/")
	if want, err := boot.ParseDigest(name); err == nil && kind != "referrers" {
		sum := sha256.Sum256(b.Bytes())
		if got := hex.EncodeToString(sum[:]); got != want.Hex() {
			return nil, nil, fmt.Errorf("%w: %s answers %s with sha256:%s", ErrDigestMismatch, g.endpoint.host, want, got)
		}
	}
	return b.Bytes(), resp.Header, nil
}

package verification

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/sigstore"
	"github.com/boot-operator/boot-operator/internal/uki"
)

var (
	// ErrFailed: a check failed. The text says which one, and who did sign. The same
	// call fails again until the image, its signatures or the policy change.
	ErrFailed = errors.New("verification failed")
	// ErrPolicy: a policy cannot be used; boot.ErrInvalid too.
	ErrPolicy = sigstore.ErrPolicy
)

// failure is an ErrFailed; its text begins with that.
type failure struct {
	what string
	err  error
}

func (f *failure) Error() string   { return ErrFailed.Error() + ": " + f.what + f.err.Error() }
func (f *failure) Unwrap() []error { return []error{ErrFailed, f.err} }

// about says what an error is about.
func about(err error, format string, a ...any) error {
	var f *failure
	if errors.As(err, &f) {
		return &failure{what: fmt.Sprintf(format, a...) + ": ", err: f.err}
	}
	return fmt.Errorf("checking "+format+": %w", append(a, err)...)
}

// Store reads the signatures of images.
type Store interface {
	// Signatures is that of artifact.Store.
	Signatures(ctx context.Context, source string, subject boot.Digest, creds artifact.Credentials) iter.Seq2[[]artifact.Attachment, error]
}

// Attestation is a signature of an image that was checked.
type Attestation struct {
	sigstore.Attestation
	// Subject is the digest that was signed.
	Subject boot.Digest
	// Signed says what that is: SignedIndex or SignedManifest.
	Signed Signed
}

// Signature is an Authenticode signature that was checked. It has no certificate
// where the file's hash is in the database, or where no signature was asked for.
type Signature struct {
	uki.Signature
	// Digest of the file.
	Digest boot.Digest
}

// Verifier checks images and UKIs. Any number of goroutines may use it at once.
type Verifier struct {
	store Store
	blobs boot.Blobs
}

// New returns a verifier that reads signatures from store and UKIs from blobs.
func New(store Store, blobs boot.Blobs) *Verifier { return &Verifier{store: store, blobs: blobs} }

// Image checks a resolved image against all policies that have an Image part. It
// returns the attestation of the first of them, the zero one where there is none.
// What is checked are the digests that were resolved, whatever the tag has become.
// An image without a manifest, such as a UKI from a URL, fails all of them.
//
// It returns ErrFailed or ErrPolicy; any other error is transient: the registry may
// have a signature that could not be read.
func (v *Verifier) Image(ctx context.Context, image artifact.Image, all []Policy, creds artifact.Credentials) (Attestation, error) {
	var first Attestation
	c := check{image: image, pools: map[boot.Digest]*pool{}, read: func(d boot.Digest) iter.Seq2[[]artifact.Attachment, error] {
		return v.store.Signatures(ctx, image.Source, d, creds)
	}}
	defer c.close()
	for _, p := range all {
		if p.Image == nil {
			continue
		}
		a, err := c.policy(*p.Image)
		if err != nil {
			return Attestation{}, about(err, "the signatures of %s%s", cmp.Or(image.Name, image.Source), p.by())
		}
		if first.Subject == "" {
			first = a
		}
	}
	return first, nil
}

// check is one call of Image. Policies share what was read.
type check struct {
	image artifact.Image
	pools map[boot.Digest]*pool
	read  func(boot.Digest) iter.Seq2[[]artifact.Attachment, error]
}

func (c *check) close() {
	for _, p := range c.pools {
		p.stop()
	}
}

// candidate is a digest that may have been signed.
type candidate struct {
	digest boot.Digest
	what   Signed
}

// candidates are what a policy accepts signatures of.
func (c *check) candidates(s Signed) ([]candidate, error) {
	index, manifest := candidate{c.image.Index, SignedIndex}, candidate{c.image.Manifest, SignedManifest}
	switch {
	case c.image.Manifest == "":
		return nil, &failure{err: errors.New("it comes from no registry, where an image's signatures would be")}
	case s == SignedManifest || s.any() && index.digest == "":
		return []candidate{manifest}, nil
	case s.any():
		return []candidate{index, manifest}, nil
	case s == SignedIndex && index.digest != "":
		return []candidate{index}, nil
	case s == SignedIndex:
		return nil, &failure{err: errors.New("the index has to be signed, and the reference names a manifest; name the index, by its tag or digest")}
	}
	return nil, fmt.Errorf("%w: signed is %q; it has to be %s, %s or %s", ErrPolicy, s, SignedAny, SignedIndex, SignedManifest)
}

func (c *check) policy(p ImagePolicy) (Attestation, error) {
	all, err := c.candidates(p.Signed)
	if err != nil {
		return Attestation{}, err
	}
	if err := p.Sigstore.Check(); err != nil {
		return Attestation{}, err
	}
	var failed error
	passing := false
	for _, one := range all {
		signatures := c.pool(one.digest)
		a, err := signatures.find(one.digest, p.Sigstore)
		if err == nil {
			return Attestation{Attestation: a, Subject: one.digest, Signed: one.what}, nil
		}
		failed = also(failed, fmt.Errorf("the %s %s: %w", strings.ToLower(string(one.what)), one.digest, err))
		passing = passing || signatures.passing != nil
	}
	if passing {
		return Attestation{}, failed
	}
	return Attestation{}, &failure{err: fmt.Errorf("%w; it has to be signed by %s", failed, p.Sigstore.Signers())}
}

// also joins errors on one line.
func also(a, b error) error {
	if a == nil {
		return b
	}
	return fmt.Errorf("%w; %w", a, b)
}

// pool is what was read of the signatures of one digest, and the rest of them.
type pool struct {
	next func() ([]artifact.Attachment, error, bool)
	stop func()
	all  []sigstore.Attachment
	// missed is what could not be read, passing what may be there another time.
	missed, passing error
	done            bool
}

func (c *check) pool(d boot.Digest) *pool {
	p := c.pools[d]
	if p == nil {
		p = &pool{}
		p.next, p.stop = iter.Pull2(c.read(d))
		c.pools[d] = p
	}
	return p
}

// find looks for a signature of the subject that the policy asks for, and reads on
// until there is one.
func (p *pool) find(subject boot.Digest, policy sigstore.Policy) (sigstore.Attestation, error) {
	for {
		a, err := sigstore.Verify(subject, p.all, policy)
		if err == nil {
			return a, nil
		}
		if p.done {
			return a, also(also(p.passing, p.missed), err)
		}
		p.more()
	}
}

// more reads what the next place has.
func (p *pool) more() {
	some, err, ok := p.next()
	p.done = !ok
	for _, a := range some {
		p.all = append(p.all, sigstore.Attachment(a))
	}
	switch {
	case err == nil:
	case artifact.Terminal(err):
		p.missed = also(p.missed, err)
	default:
		p.passing = also(p.passing, err)
	}
}

// UKI checks a blob of the store against all policies that have a UKI part. It
// returns the signature of the first that asks for one. It returns ErrFailed or
// ErrPolicy; any other error is transient, such as boot.ErrNotReady while the blob
// is not here whole.
func (v *Verifier) UKI(ctx context.Context, d boot.Digest, all []Policy) (Signature, error) {
	found := Signature{Digest: d}
	asked := false
	for _, p := range all {
		if p.UKI == nil {
			continue
		}
		s, err := v.file(ctx, d, *p.UKI)
		if err != nil {
			return Signature{}, about(err, "%s%s", d, p.by())
		}
		if !asked && p.UKI.Database != nil {
			found.Signature, asked = s, true
		}
	}
	return found, nil
}

func (v *Verifier) file(ctx context.Context, d boot.Digest, p UKIPolicy) (uki.Signature, error) {
	switch {
	case p.Digest != "" && p.Digest != d:
		return uki.Signature{}, &failure{err: fmt.Errorf("its digest is not %s, which is what it has to be", p.Digest)}
	case p.Database == nil && p.Required:
		return uki.Signature{}, fmt.Errorf("%w: a signature is asked for, and there are no certificates to check it against", ErrPolicy)
	case p.Database == nil:
		return uki.Signature{}, nil
	}
	b, err := v.blobs.Open(ctx, d)
	if err != nil {
		return uki.Signature{}, err
	}
	defer func() { _ = b.Close() }()
	f := b.File()
	if f == nil {
		return uki.Signature{}, fmt.Errorf("%w: it is still arriving", boot.ErrNotReady)
	}
	s, err := uki.Verify(f, b.Size(), p.Database, uki.VerifyOptions{RefuseExpired: p.RefuseExpired})
	if final(err) {
		return s, &failure{err: err}
	}
	return s, err
}

// final says that a file will never be better.
func final(err error) bool {
	for _, e := range []error{uki.ErrUnsigned, uki.ErrUntrusted, uki.ErrNotPE, uki.ErrMalformed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Package compose makes the UKIs that are composed for one machine each, of the
// stub, the kernel and the initrd that many share.
//
// What differs from machine to machine is the end of the file: a slot in the
// initrd, and the command line. Of everything before it the files stay where they
// are, and the states of the hashes are kept; so a machine costs the hash of its
// 36 KiB. See uki.Layout for how the file is laid out, and docs/composed-ukis.md
// for what the slot holds.
package compose

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"hash"
	"math"
	"strings"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/render"
	"github.com/boot-operator/boot-operator/internal/uki"
)

// Options are what every composed UKI is made with. All replicas have to agree on
// them: what one signs, another serves.
type Options struct {
	// Blobs opens the stub, the kernel and the initrds.
	Blobs boot.Blobs
	// Keyring signs the token in a UKI.
	Keyring *boot.Keyring
	// BaseURL is the boot server as the operating system of a machine reaches it,
	// such as https://10.0.0.1:8084. Without it nothing can be composed for a machine
	// that has Ignition or user data.
	BaseURL string
	// CA holds the certificates (PEM) that the server of BaseURL is to be trusted by;
	// empty where the OS trusts it anyway.
	CA []byte
}

// Composer makes composed UKIs. All its methods may be called by any number of
// goroutines.
type Composer struct {
	o       Options
	layouts kept[*parts]
	states  kept[hash.Cloner]
}

var _ boot.Composer = (*Composer)(nil)

// New returns a composer. It returns boot.ErrInvalid when Blobs or Keyring is
// missing, or CA holds no certificates.
func New(o Options) (*Composer, error) {
	if o.Blobs == nil || o.Keyring == nil {
		return nil, fmt.Errorf("%w: composing UKIs needs blobs and a keyring", boot.ErrInvalid)
	}
	var err error
	if o.CA, err = certificates(o.CA); err != nil {
		return nil, err
	}
	return &Composer{o: o, layouts: kept[*parts]{most: mostParts}, states: kept[hash.Cloner]{most: mostStates}}, nil
}

// certificates returns the certificates in a PEM text, and nothing else of it.
func certificates(text []byte) ([]byte, error) {
	var out []byte
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%w: the CA that machines are to trust holds a %s; only certificates may be in it", boot.ErrInvalid, block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("%w: the CA that machines are to trust: %w", boot.ErrInvalid, err)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	if len(out) == 0 && len(bytes.TrimSpace(text)) > 0 {
		return nil, fmt.Errorf("%w: the CA that machines are to trust holds no certificate in PEM", boot.ErrInvalid)
	}
	return out, nil
}

// OpenComposed implements boot.Composer. What it returns is a boot.Segmented. It
// returns boot.ErrNotReady and boot.ErrInvalid as Compose does.
func (c *Composer) OpenComposed(ctx context.Context, p *boot.Plan) (boot.Blob, error) {
	u, err := c.verified(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("composing the UKI of %s: %w", p.Object, err)
	}
	open, err := c.open(ctx, u.parts.files[1:])
	if err != nil {
		return nil, fmt.Errorf("composing the UKI of %s: %w", p.Object, err)
	}
	return newBlob(u.layout, open, u.tail, u.table), nil
}

// Compose makes the UKI of a plan for one boot attempt, signed by s where that is
// not nil. Of p.Composed it reads nothing. It returns boot.ErrInvalid where the UKI
// can never be made of this plan and these options, with a text that says why, and
// boot.ErrNotReady while a part is not in the store or the keyring has no keys.
func (c *Composer) Compose(ctx context.Context, p *boot.Plan, attempt int64, s *uki.Signer) (boot.Composed, error) {
	out := boot.Composed{Attempt: attempt}
	var err error
	if out.TokenKey, err = c.activeKey(p); err != nil {
		return boot.Composed{}, fmt.Errorf("composing a UKI for %s: %w", p.Object, err)
	}
	u, err := c.unsigned(ctx, p, out)
	if err == nil && s != nil {
		out.Signature, err = c.sign(ctx, u, s)
	}
	if err == nil {
		u.sign(out.Signature)
		out.Digest, err = c.digest(ctx, u)
	}
	if err != nil {
		return boot.Composed{}, fmt.Errorf("composing a UKI for %s: %w", p.Object, err)
	}
	out.Size = u.size()
	return out, nil
}

// UpToDate says whether p.Composed is what Compose would make of the plan for this
// attempt and with this signer, but for the time of the signature; it is cheap once
// one UKI of these parts was composed. A UKI without a token is good for any
// attempt. Its errors are those of Compose.
func (c *Composer) UpToDate(ctx context.Context, p *boot.Plan, attempt int64, s *uki.Signer) (bool, error) {
	key, err := c.activeKey(p)
	if err != nil {
		return false, fmt.Errorf("composing a UKI for %s: %w", p.Object, err)
	}
	now := p.Composed
	if now == nil || !signedBy(s, now.Signature) {
		return false, nil
	}
	want := boot.Composed{Attempt: attempt, TokenKey: key}
	if !p.FetchesSecrets() {
		want.Attempt = now.Attempt
	}
	if want.Attempt != now.Attempt || want.TokenKey != now.TokenKey {
		return false, nil
	}
	u, err := c.unsigned(ctx, p, want)
	if err != nil {
		return false, fmt.Errorf("composing a UKI for %s: %w", p.Object, err)
	}
	u.sign(now.Signature)
	digest, err := c.digest(ctx, u)
	if err != nil {
		return false, fmt.Errorf("composing a UKI for %s: %w", p.Object, err)
	}
	return digest == now.Digest && u.size() == now.Size, nil
}

// signedBy says whether a signature was made with the signer's certificates, as far as
// one can tell without looking at what was signed; there is none where there is no
// signer.
func signedBy(s *uki.Signer, signature []byte) bool {
	if s == nil {
		return len(signature) == 0
	}
	for _, c := range s.Certificates() {
		if !bytes.Contains(signature, c.Raw) { // DER in DER
			return false
		}
	}
	return true
}

// activeKey returns the key that signs the token of a plan's UKI; 0 where it needs
// none.
func (c *Composer) activeKey(p *boot.Plan) (byte, error) {
	if !p.FetchesSecrets() {
		return 0, nil
	}
	key, ok := c.o.Keyring.Active()
	if !ok {
		return 0, fmt.Errorf("%w: the keyring has no keys yet", boot.ErrNotReady)
	}
	return key, nil
}

// composition is one composed UKI: what it shares with others, and its own.
type composition struct {
	*parts
	tail, table []byte
}

func (u *composition) sign(signature []byte) {
	u.table = nil
	if len(signature) > 0 {
		u.table = uki.CertificateTable(signature)
	}
}

func (u *composition) size() int64 { return u.layout.Size + int64(len(u.table)) }

// unsigned makes the UKI of a plan for the attempt, and with the token key, of one
// that was composed.
func (c *Composer) unsigned(ctx context.Context, p *boot.Plan, of boot.Composed) (*composition, error) {
	laid, err := c.lay(ctx, p)
	if err != nil {
		return nil, err
	}
	slot, err := c.slot(p, of)
	if err != nil {
		return nil, err
	}
	tail, err := laid.layout.NewTail(slot, strings.Join(p.KernelArguments, " "))
	if err != nil {
		return nil, invalid(err)
	}
	return &composition{parts: laid, tail: tail}, nil
}

// slot returns what the machine is told in its initrd.
func (c *Composer) slot(p *boot.Plan, of boot.Composed) ([]byte, error) {
	t := told{ca: c.o.CA}
	if !p.FetchesSecrets() {
		return t.slot()
	}
	if c.o.BaseURL == "" {
		return nil, fmt.Errorf("%w: the operator was given no URL of the boot server that the machine's Ignition or user data could be fetched from", boot.ErrInvalid)
	}
	token, err := c.o.Keyring.MintWith(of.TokenKey, boot.Token{
		Object: boot.UUID(p.Object.UID), Attempt: of.Attempt, Audience: boot.AudienceComposed,
		Proof: boot.Unproven, Expires: time.Unix(math.MaxUint32, 0), // the attempt bounds it
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it did
	}
	links := render.Links{Base: c.o.BaseURL, SecretToken: token}
	if t.ignition, err = links.IgnitionURL(p); err == nil {
		t.cloudInit, err = links.CloudInitURL(p)
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // likewise
	}
	return t.slot()
}

// sign returns the signature of a UKI.
func (c *Composer) sign(ctx context.Context, u *composition, s *uki.Signer) ([]byte, error) {
	state, err := c.state(ctx, u.parts, authenticode)
	if err != nil {
		return nil, err
	}
	sum, err := finish(state, u.tail)
	if err != nil {
		return nil, err
	}
	signature, err := s.SignHash(sum)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return signature, nil
}

// digest returns the digest of the whole file.
func (c *Composer) digest(ctx context.Context, u *composition) (boot.Digest, error) {
	state, err := c.state(ctx, u.parts, len(u.table))
	if err != nil {
		return "", err
	}
	sum, err := finish(state, u.tail, u.table)
	return boot.Digest("sha256:" + hex.EncodeToString(sum[:])), err
}

// verified makes the UKI of p.Composed, and makes sure that it is that one.
func (c *Composer) verified(ctx context.Context, p *boot.Plan) (*composition, error) {
	if p.Composed == nil {
		return nil, fmt.Errorf("%w: it was not composed yet", boot.ErrNotReady)
	}
	u, err := c.unsigned(ctx, p, *p.Composed)
	if err != nil {
		return nil, err
	}
	u.sign(p.Composed.Signature)
	digest, err := c.digest(ctx, u)
	if err != nil {
		return nil, err
	}
	if digest != p.Composed.Digest || u.size() != p.Composed.Size {
		return nil, fmt.Errorf("%w: what is made here is not what was composed: the config, a token key or the operator's options changed since", boot.ErrNotReady)
	}
	return u, nil
}

package verification

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/sigstore"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/registry"
)

func TestWhichPartOfAnImageHasToBeSigned(t *testing.T) {
	s, k := newSite(t), newKey(t)
	onlyIndex, onlyManifest := s.publish(t, "one"), s.publish(t, "two")
	s.dotSig(t, onlyIndex.Index, k)
	of := s.bundle(t, onlyManifest.Manifest, k)
	alone := s.resolve(t, "@"+string(onlyManifest.Manifest))

	for name, c := range map[string]struct {
		img    artifact.Image
		policy Signed
		signed Signed
		why    string
	}{
		"the index, any":               {onlyIndex, SignedAny, SignedIndex, ""},
		"the index, unsaid":            {onlyIndex, "", SignedIndex, ""},
		"the index, as demanded":       {onlyIndex, SignedIndex, SignedIndex, ""},
		"the index, not the manifest":  {onlyIndex, SignedManifest, "", ": not signed; it has"},
		"the manifest, any":            {onlyManifest, SignedAny, SignedManifest, ""},
		"the manifest, as demanded":    {onlyManifest, SignedManifest, SignedManifest, ""},
		"the manifest, not the index":  {onlyManifest, SignedIndex, "", ": not signed; it has"},
		"a manifest named by digest":   {alone, SignedAny, SignedManifest, ""},
		"an index, and none was named": {alone, SignedIndex, "", "name the index"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := s.image(t, c.img, asks(c.policy, k))
			if c.why != "" {
				require.ErrorIs(t, err, ErrFailed)
				require.ErrorContains(t, err, c.why)
				require.ErrorContains(t, err, c.img.Name)
				require.True(t, strings.HasPrefix(err.Error(), ErrFailed.Error()+": "))
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.signed, a.Signed)
			require.Equal(t, map[Signed]boot.Digest{SignedIndex: c.img.Index, SignedManifest: c.img.Manifest}[c.signed], a.Subject)
			require.Equal(t, "key "+sigstore.Fingerprint(k.Public()), a.Signer)
		})
	}
	a, err := s.image(t, onlyManifest, asks(SignedAny, k))
	require.NoError(t, err)
	require.Equal(t, sigstore.SigstoreBundle, a.Format)
	require.Equal(t, of, a.Digest)
	_, err = s.image(t, onlyIndex, asks("Both", k))
	require.ErrorIs(t, err, ErrPolicy)
}

func TestSignaturesOfEveryFormatAreFoundInRegistriesOfBothKinds(t *testing.T) {
	k, a := newKey(t), newAuthority(t)
	byIdentity := Policy{Image: &ImagePolicy{Sigstore: sigstore.Policy{
		Identities: []sigstore.Identity{{Issuer: "https://accounts.example.com", SubjectRegExp: `.*@example\.com`}}, TrustedRoot: a.root,
	}}}
	for _, referrers := range []bool{true, false} {
		t.Run(fmt.Sprintf("referrers %t", referrers), func(t *testing.T) {
			s := newSiteWith(t, registry.Options{Referrers: referrers})
			tag, bundle, keyless, foreign := s.publish(t, "tag"), s.publish(t, "bundle"), s.publish(t, "keyless"), s.publish(t, "foreign")
			s.dotSig(t, tag.Index, k)
			s.bundle(t, bundle.Index, k)
			s.attach(t, keyless.Index, a.keyless(t, keyless.Index, "builder@example.com"))
			s.attach(t, foreign.Index, a.keyless(t, foreign.Index, "mallory@example.com.evil.org"))

			got, err := s.image(t, tag, asks(SignedAny, k))
			require.NoError(t, err)
			require.Equal(t, sigstore.CosignSignature, got.Format)
			got, err = s.image(t, bundle, asks(SignedAny, k))
			require.NoError(t, err)
			require.Equal(t, sigstore.SigstoreBundle, got.Format)
			got, err = s.image(t, keyless, byIdentity)
			require.NoError(t, err)
			require.Equal(t, "builder@example.com (https://accounts.example.com)", got.Signer)
			_, err = s.image(t, foreign, byIdentity)
			require.ErrorIs(t, err, ErrFailed)
			require.ErrorContains(t, err, "by mallory@example.com.evil.org")
		})
	}
}

func TestAFailureTellsWhoDidSign(t *testing.T) {
	s, ours, theirs := newSite(t), newKey(t), newKey(t)
	img := s.publish(t, "x")
	_, err := s.image(t, img, asks(SignedAny, ours))
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorIs(t, err, sigstore.ErrUnsigned)
	s.dotSig(t, img.Manifest, theirs)
	_, err = s.image(t, img, asks(SignedAny, ours))
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorContains(t, err, "the index "+string(img.Index)+": not signed")
	require.ErrorContains(t, err, "the manifest "+string(img.Manifest)+": no signature that counts: one by a key that it does not name: none of the policy's keys made it; it has")
	require.ErrorContains(t, err, "it has to be signed by key "+sigstore.Fingerprint(ours.Public()))
	require.NotContains(t, err.Error(), "\n")
}

// The signature of another image, moved to where this one's would be.
func TestAReplayedSignatureDoesNotCount(t *testing.T) {
	s, k := newSite(t), newKey(t)
	good, bad := s.publish(t, "good"), s.publish(t, "bad")
	s.dotSig(t, good.Index, k)
	for all, err := range s.store.Signatures(deadline(t), good.Source, good.Index, artifact.Credentials{}) {
		require.NoError(t, err)
		require.Len(t, all, 1)
		s.put(t, "sha256-"+bad.Index.Hex()+".sig", dotSigOf(s, all[0]))
	}
	_, err := s.image(t, bad, asks(SignedAny, k))
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorContains(t, err, "it is a signature of "+string(good.Index))
}

func TestWhatWasVerifiedIsWhatIsPulledWhateverTheTagBecomes(t *testing.T) {
	s, k := newSite(t), newKey(t)
	img := s.publish(t, "signed")
	s.dotSig(t, img.Index, k)
	_, err := s.image(t, img, asks(SignedAny, k))
	require.NoError(t, err)
	moved := s.publish(t, "evil")
	require.NotEqual(t, img.Manifest, moved.Manifest)

	a, err := img.Artifact(boot.RoleUKI)
	require.NoError(t, err)
	require.NoError(t, s.store.Pull(deadline(t), a, artifact.Credentials{}))
	require.Equal(t, digestOf([]byte("signed")), a.Digest)
	require.False(t, s.store.Has(digestOf([]byte("evil"))))
	// The one that was resolved is verified again as it is; the new one is another.
	_, err = s.image(t, img, asks(SignedAny, k))
	require.NoError(t, err)
	_, err = s.image(t, moved, asks(SignedAny, k))
	require.ErrorIs(t, err, ErrFailed)
}

func TestEveryPolicyHasToBeMet(t *testing.T) {
	s, one, two := newSite(t), newKey(t), newKey(t)
	img := s.publish(t, "x")
	s.dotSig(t, img.Index, one)
	operator := asks(SignedAny, two)
	operator.Name = "the operator's verification policy (line 3)"
	a, err := s.image(t, img, asks(SignedAny, one), Policy{})
	require.NoError(t, err)
	require.Equal(t, "key "+sigstore.Fingerprint(one.Public()), a.Signer)
	_, err = s.image(t, img, asks(SignedAny, one), operator)
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorContains(t, err, "by the operator's verification policy (line 3)")

	s.dotSig(t, img.Index, one, two)
	s.Forget()
	a, err = s.image(t, img, operator, asks(SignedIndex, one))
	require.NoError(t, err)
	require.Equal(t, "key "+sigstore.Fingerprint(two.Public()), a.Signer)
	require.Equal(t, 1, s.Count("GET", ".sig"), "policies share what was read")

	a, err = s.image(t, img)
	require.NoError(t, err)
	require.Empty(t, a.Subject)
}

func TestWhatComesFromNoRegistryHasNoSignature(t *testing.T) {
	s := newSite(t)
	_, err := s.image(t, artifact.Image{Source: "https://images.example.com/a.efi"}, asks(SignedAny, newKey(t)))
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorContains(t, err, "comes from no registry")
	require.Empty(t, s.Requests())
}

func TestARegistryThatFailsSaysNothingOfSignatures(t *testing.T) {
	s, k := newSite(t), newKey(t)
	img := s.publish(t, "x")
	s.Set(registry.Faults{Broken: 503})
	_, err := s.image(t, img, asks(SignedAny, k))
	require.ErrorContains(t, err, "503")
	require.NotErrorIs(t, err, ErrFailed)
	require.NotErrorIs(t, err, ErrPolicy)
	s.Set(registry.Faults{})
	_, err = s.image(t, img, asks(SignedAny, k))
	require.ErrorIs(t, err, ErrFailed)
}

// places yields what each of several places has.
type places []place

type place struct {
	all []artifact.Attachment
	err error
}

func (p places) Signatures(context.Context, string, boot.Digest, artifact.Credentials) iter.Seq2[[]artifact.Attachment, error] {
	return func(yield func([]artifact.Attachment, error) bool) {
		for _, one := range p {
			if !yield(one.all, one.err) {
				return
			}
		}
	}
}

func TestAnotherPlaceMayHaveTheSignature(t *testing.T) {
	s, k := newSite(t), newKey(t)
	img := s.publish(t, "x")
	s.dotSig(t, img.Manifest, k)
	var good []artifact.Attachment
	for all := range s.store.Signatures(deadline(t), img.Source, img.Manifest, artifact.Credentials{}) {
		good = append(good, all...)
	}
	junk := []artifact.Attachment{{MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json", Digest: digestOf(nil), Content: []byte("junk")}}
	down, large := errors.New("down"), fmt.Errorf("%w: 100 MiB", artifact.ErrTooLarge)
	for name, c := range map[string]struct {
		places places
		good   bool
		final  bool
	}{
		"behind a mirror with junk":     {places{{junk, nil}, {good, nil}}, true, false},
		"behind a mirror that is down":  {places{{nil, down}, {good, nil}}, true, false},
		"before a registry that is":     {places{{good, nil}, {nil, down}}, true, false},
		"beside what is too large":      {places{{good, large}}, true, false},
		"nowhere":                       {places{{junk, nil}, {nil, nil}}, false, true},
		"nowhere, but for what is down": {places{{junk, nil}, {nil, down}}, false, false},
		"nowhere but what is too large": {places{{junk, large}}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := New(c.places, nil)
			_, err := v.Image(deadline(t), img, []Policy{asks(SignedManifest, k)}, artifact.Credentials{})
			if c.good {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			require.Equal(t, c.final, errors.Is(err, ErrFailed), err)
			if errors.Is(c.places[len(c.places)-1].err, large) {
				require.ErrorContains(t, err, "100 MiB")
			}
		})
	}
}

func TestPoliciesThatCannotBeUsedAreNotFailures(t *testing.T) {
	s := newSite(t)
	img := s.publish(t, "x")
	p := Policy{Image: &ImagePolicy{Sigstore: sigstore.Policy{Identities: []sigstore.Identity{{Issuer: "i", Subject: "s"}}}}}
	_, err := s.image(t, img, p)
	require.ErrorIs(t, err, ErrPolicy)
	require.ErrorIs(t, err, boot.ErrInvalid)
	require.NotErrorIs(t, err, ErrFailed)
	require.Zero(t, s.Count("GET", "/referrers/"))
	_, err = s.UKI(deadline(t), digestOf(nil), []Policy{{UKI: &UKIPolicy{Required: true}}})
	require.ErrorIs(t, err, ErrPolicy)
}

func TestWhatFirmwareStartsHasToBeSigned(t *testing.T) {
	s := newSite(t)
	valid := time.Now().Add(time.Hour)
	ours, theirs, old := firmwareKey(t, 0, "Our UKIs", valid), firmwareKey(t, 1, "Their UKIs", valid), firmwareKey(t, 2, "Old UKIs", time.Now().Add(-time.Hour))
	unsigned, good, foreign, both, expired := s.keep(t, signed(t)), s.keep(t, signed(t, ours)), s.keep(t, signed(t, theirs)), s.keep(t, signed(t, theirs, ours)), s.keep(t, signed(t, old))
	junk := s.keep(t, []byte("no PE at all, but long enough to be looked at as one"))
	db := database(t, append(ours.pem(), old.pem()...), nil)

	for name, c := range map[string]struct {
		file boot.Digest
		p    UKIPolicy
		why  string
	}{
		"signed":                            {good, UKIPolicy{Database: db, Required: true}, ""},
		"signed twice":                      {both, UKIPolicy{Database: db}, ""},
		"signed, with the digest":           {good, UKIPolicy{Database: db, Digest: good}, ""},
		"unsigned, with the digest alone":   {unsigned, UKIPolicy{Digest: unsigned}, ""},
		"another digest":                    {good, UKIPolicy{Database: db, Digest: foreign}, string(foreign)},
		"unsigned":                          {unsigned, UKIPolicy{Database: db}, "not signed"},
		"signed by others":                  {foreign, UKIPolicy{Database: db}, "Their UKIs"},
		"revoked":                           {good, UKIPolicy{Database: database(t, ours.pem(), ours.pem())}, "dbx refuses"},
		"expired, as firmware takes it":     {expired, UKIPolicy{Database: db}, ""},
		"expired, which the policy refuses": {expired, UKIPolicy{Database: db, RefuseExpired: true}, "Old UKIs"},
		"no program":                        {junk, UKIPolicy{Database: db}, "PE"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := s.UKI(deadline(t), c.file, []Policy{{UKI: &c.p}, {}})
			if c.why != "" {
				require.ErrorIs(t, err, ErrFailed)
				require.ErrorContains(t, err, c.why)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.file, got.Digest)
			require.Equal(t, c.p.Database != nil, got.Certificate != nil)
		})
	}
	got, err := s.UKI(deadline(t), both, []Policy{{UKI: &UKIPolicy{Digest: both}}, {UKI: &UKIPolicy{Database: db}}, {UKI: &UKIPolicy{Database: database(t, theirs.pem(), nil)}}})
	require.NoError(t, err)
	require.Equal(t, "CN=Our UKIs", got.Signer(), "the first policy with certificates is told")
	_, err = s.UKI(deadline(t), both, []Policy{{UKI: &UKIPolicy{Database: db}}, {Name: "the operator", UKI: &UKIPolicy{Database: database(t, old.pem(), nil)}}})
	require.ErrorIs(t, err, ErrFailed)
	require.ErrorContains(t, err, "by the operator")
}

func TestAFileThatIsNotHereWholeIsNotJudged(t *testing.T) {
	s := newSite(t)
	p := []Policy{{UKI: &UKIPolicy{Database: database(t, firmwareKey(t, 0, "Our UKIs", time.Now().Add(time.Hour)).pem(), nil)}}}
	_, err := s.UKI(deadline(t), digestOf(nil), p)
	require.ErrorIs(t, err, boot.ErrNotReady)
	require.NotErrorIs(t, err, ErrFailed)
	_, err = New(s.store, arriving{}).UKI(deadline(t), digestOf(nil), p)
	require.ErrorIs(t, err, boot.ErrNotReady)
}

func TestEqualPoliciesHaveEqualKeys(t *testing.T) {
	one, two := newKey(t), newKey(t)
	valid := time.Now().Add(time.Hour)
	a, b := firmwareKey(t, 0, "a", valid), firmwareKey(t, 1, "b", valid)
	identities := func(all ...sigstore.Identity) Policy {
		return Policy{Image: &ImagePolicy{Sigstore: sigstore.Policy{Identities: all}}}
	}
	withUKI := func(p UKIPolicy) Policy { return Policy{UKI: &p} }
	x, y := sigstore.Identity{Issuer: "i", Subject: "x"}, sigstore.Identity{Issuer: "i", SubjectRegExp: "x"}
	named := asks(SignedAny, one)
	named.Name = "the operator"

	for name, pair := range map[string][2]Policy{
		"keys in another order":         {asks(SignedAny, one, two), asks(SignedAny, two, one, two)},
		"any, said and unsaid":          {asks(SignedAny, one), asks("", one)},
		"whose it is":                   {asks(SignedAny, one), named},
		"identities in another order":   {identities(x, y), identities(y, x)},
		"certificates in another order": {withUKI(UKIPolicy{Database: database(t, append(a.pem(), b.pem()...), nil)}), withUKI(UKIPolicy{Database: database(t, append(b.pem(), a.pem()...), nil)})},
	} {
		require.Equal(t, pair[0].Key(), pair[1].Key(), name)
	}
	different := []Policy{
		{}, asks(SignedAny, one), asks(SignedAny, two), asks(SignedIndex, one), asks(SignedAny, one, two),
		identities(x), identities(y), identities(sigstore.Identity{Issuer: `i" "x`}),
		{Image: &ImagePolicy{Sigstore: sigstore.Policy{Identities: []sigstore.Identity{x}, TrustedRoot: []byte("root")}}},
		withUKI(UKIPolicy{}), withUKI(UKIPolicy{Required: true}), withUKI(UKIPolicy{RefuseExpired: true}), withUKI(UKIPolicy{Digest: digestOf(nil)}),
		withUKI(UKIPolicy{Database: database(t, a.pem(), nil)}), withUKI(UKIPolicy{Database: database(t, b.pem(), nil)}), withUKI(UKIPolicy{Database: database(t, a.pem(), b.pem())}),
	}
	seen := map[string]int{}
	for i, p := range different {
		other, ok := seen[p.Key()]
		require.False(t, ok, "%d and %d", i, other)
		seen[p.Key()] = i
	}
}

func TestThoseWhoSignComposedUKIsAreJudgedBeforehand(t *testing.T) {
	valid := time.Now().Add(time.Hour)
	ours, theirs, old := firmwareKey(t, 0, "Our UKIs", valid), firmwareKey(t, 1, "Their UKIs", valid), firmwareKey(t, 2, "Old UKIs", time.Now().Add(-time.Hour))
	db := database(t, append(ours.pem(), old.pem()...), nil)
	signer := func(i identity) *uki.Signer {
		s, err := uki.NewSigner(i.key, i.cert)
		require.NoError(t, err)
		return s
	}
	v := New(nil, nil)
	for name, c := range map[string]struct {
		s   *uki.Signer
		p   UKIPolicy
		err error
	}{
		"ours":                          {signer(ours), UKIPolicy{Database: db}, nil},
		"nobody, where nobody asks":     {nil, UKIPolicy{}, nil},
		"nobody":                        {nil, UKIPolicy{Database: db}, ErrFailed},
		"others":                        {signer(theirs), UKIPolicy{Database: db}, ErrFailed},
		"expired, as firmware takes it": {signer(old), UKIPolicy{Database: db}, nil},
		"expired":                       {signer(old), UKIPolicy{Database: db, RefuseExpired: true}, ErrFailed},
		"a digest":                      {signer(ours), UKIPolicy{Database: db, Digest: digestOf(nil)}, ErrFailed},
		"no certificates":               {signer(ours), UKIPolicy{Required: true}, ErrPolicy},
	} {
		require.ErrorIs(t, v.Signer(c.s, []Policy{{}, {UKI: &c.p}}), c.err, name)
	}
}

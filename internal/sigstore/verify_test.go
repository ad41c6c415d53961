package sigstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	common "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/testing/data"
	"github.com/stretchr/testify/require"
)

func TestEveryKindOfKeySignsInBothFormats(t *testing.T) {
	for name, k := range kinds() {
		for _, hash := range []crypto.Hash{crypto.SHA256, hashes(k.Public())[0]} {
			t.Run(fmt.Sprint(name, " ", hash), func(t *testing.T) {
				p := keyPolicy(t, k)
				payload := simple(digestOf(image))
				old := dotSig(payload, sign(t, k, hash, payload), nil)
				got := accepted(t, p, old)
				require.Equal(t, Attestation{Format: CosignSignature, Signer: "key " + Fingerprint(k.Public()), Digest: old.Digest}, got)

				b := pack(t, keyBundle(t, k, hash, statementOf(signed, digestOf(image))))
				got = accepted(t, p, b)
				require.Equal(t, Attestation{Format: SigstoreBundle, Signer: "key " + Fingerprint(k.Public()), Digest: b.Digest}, got)
			})
		}
	}
}

func TestABundleMayHoldTheSignatureOfTheManifestItself(t *testing.T) {
	for _, name := range []string{"ECDSA P-256", "ECDSA P-384", "RSA 2048"} {
		k := kinds()[name]
		sum := digestOf(image)
		b := keyBundle(t, k, crypto.SHA256, nil)
		b.Content = message(hexOf(t, sum.Hex()), sign(t, k, crypto.SHA256, image))
		accepted(t, keyPolicy(t, k), pack(t, b))
		b.Content = message(hexOf(t, sum.Hex()), sign(t, k, crypto.SHA256, other))
		refused(t, keyPolicy(t, k), "none of the policy's keys", pack(t, b))
	}
}

// Ed25519 signs content: with the digest alone the library would verify the
// signature of nothing.
func TestAnEd25519SignatureOfNothingIsNoneOfAnImage(t *testing.T) {
	k := kinds()["Ed25519"]
	b := keyBundle(t, k, 0, nil)
	b.Content = message(hexOf(t, digestOf(image).Hex()), sign(t, k, 0, nil))
	refused(t, keyPolicy(t, k), "none of the policy's keys", pack(t, b))
}

func TestAMessageOfAnotherHashSaysWhatToDo(t *testing.T) {
	k := kinds()["ECDSA P-384"]
	b := keyBundle(t, k, crypto.SHA384, nil)
	m := message(make([]byte, 48), sign(t, k, crypto.SHA384, image))
	m.MessageSignature.MessageDigest.Algorithm = common.HashAlgorithm_SHA2_384
	b.Content = m
	refused(t, keyPolicy(t, k), "SHA2_384", pack(t, b))
}

func TestAnyOneOfTheKeysIsEnough(t *testing.T) {
	p := keyPolicy(t, kinds()["RSA 2048"], kinds()["Ed25519"], ecdsaKey())
	payload := simple(digestOf(image))
	accepted(t, p, dotSig(payload, sign(t, ecdsaKey(), crypto.SHA256, payload), nil))
}

func TestTheSignatureThatCountsIsFoundAmongOthers(t *testing.T) {
	payload := simple(digestOf(image))
	good := dotSig(payload, sign(t, ecdsaKey(), crypto.SHA256, payload), nil)
	junk := attach(v03, []byte("junk"), nil)
	foreign := pack(t, keyBundle(t, kinds()["Ed25519"], 0, statementOf(signed, digestOf(image))))
	require.Equal(t, good.Digest, accepted(t, keyPolicy(t, ecdsaKey()), junk, foreign, good).Digest)
}

func TestKeySignaturesThatDoNotCount(t *testing.T) {
	k, foreign := ecdsaKey(), kinds()["Ed25519"]
	p := keyPolicy(t, k)
	payload := simple(digestOf(image))
	sig := sign(t, k, crypto.SHA256, payload)
	ofOther := simple(digestOf(other))
	statement := statementOf(signed, digestOf(image))
	broken := keyBundle(t, k, crypto.SHA256, statement)
	broken.GetDsseEnvelope().Payload = []byte(strings.Replace(string(statement), `"predicate":{}`, `"predicate":[]`, 1))
	two := keyBundle(t, k, crypto.SHA256, statement)
	two.GetDsseEnvelope().Signatures = append(two.GetDsseEnvelope().Signatures, two.GetDsseEnvelope().Signatures[0])
	notInToto := keyBundle(t, k, crypto.SHA256, statement)
	notInToto.GetDsseEnvelope().PayloadType = "text/plain"
	atomic := []byte(strings.Replace(string(payload), "cosign container image", "atomic container", 1))

	for name, c := range map[string]struct {
		a   Attachment
		why string
	}{
		"a payload of another image":          {dotSig(ofOther, sign(t, k, crypto.SHA256, ofOther), nil), "it is a signature of " + string(digestOf(other))},
		"a payload that was changed":          {dotSig(simple(digestOf(image)+" "), sig, nil), "none of the policy's keys"},
		"another payload of the same image":   {dotSig(append(payload, ' '), sig, nil), "none of the policy's keys"},
		"another key":                         {dotSig(payload, sign(t, foreign, 0, payload), nil), "a key that it does not name"},
		"another type of payload":             {dotSig(atomic, sign(t, k, crypto.SHA256, atomic), nil), "atomic container signature"},
		"no signature":                        {attach(typeSimpleSigning, payload, nil), annotationSignature},
		"a signature that is no base64":       {attach(typeSimpleSigning, payload, map[string]string{annotationSignature: "!"}), annotationSignature},
		"a payload that is no JSON":           {dotSig([]byte("junk"), sig, nil), "not valid JSON"},
		"a huge payload":                      {dotSig(make([]byte, maxPayload+1), sig, nil), "65536 are the most"},
		"a huge annotation":                   {dotSig(payload, make([]byte, maxAnnotation), nil), "65536 are the most"},
		"a statement about another image":     {pack(t, keyBundle(t, k, crypto.SHA256, statementOf(signed, digestOf(other)))), "its statement is of " + string(digestOf(other))},
		"a statement about nothing":           {pack(t, keyBundle(t, k, crypto.SHA256, statementOf(signed))), "its statement is of"},
		"a statement that is no signature":    {pack(t, keyBundle(t, k, crypto.SHA256, statementOf("https://in-toto.io/attestation/test-result/v0.1", digestOf(image)))), "test-result"},
		"a statement that was changed":        {pack(t, broken), "none of the policy's keys"},
		"two signatures in one":               {pack(t, two), "none of the policy's keys"},
		"an envelope of something else":       {pack(t, notInToto), "none of the policy's keys"},
		"something else as statement":         {pack(t, keyBundle(t, k, crypto.SHA256, []byte(`{"_type":"x"}`))), "not an in-toto statement"},
		"no JSON as statement":                {pack(t, keyBundle(t, k, crypto.SHA256, []byte("junk"))), "not valid JSON"},
		"a bundle by another key":             {pack(t, keyBundle(t, foreign, 0, statement)), "by key " + Fingerprint(foreign.Public())},
		"a bundle that is no JSON":            {attach(v03, []byte("junk"), nil), "cannot be read"},
		"a bundle that is empty":              {attach(v03, []byte("{}"), nil), "not valid"},
		"a bundle of a version to come":       {attach(v03, []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v9+json"}`), nil), "not valid"},
		"a bundle of a MiB and a byte":        {attach(v03, make([]byte, maxContent+1), nil), "1048576 are the most"},
		"an attachment of an unknown type":    {attach("text/html", nil, nil), "text/html"},
		"a certificate that cannot be read":   {dotSig(payload, sig, map[string]string{annotationCertificate: "junk"}), "no certificate"},
		"a log entry that cannot be read":     {dotSig(payload, sig, map[string]string{annotationLog: "junk"}), "not valid JSON"},
		"a timestamp that cannot be read":     {dotSig(payload, sig, map[string]string{annotationTimestamp: "junk"}), "not valid JSON"},
		"a log entry whose log has no name":   {dotSig(payload, sig, map[string]string{annotationLog: `{"Payload":{"logID":"x"}}`}), "logID"},
		"a log entry with a body that is bad": {dotSig(payload, sig, map[string]string{annotationLog: `{"Payload":{"logID":"00","body":"eA=="}}`}), "body"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, p, c.why, c.a) })
	}
	// What is tampered with above counts as it is.
	accepted(t, p, dotSig(payload, sig, nil))
	accepted(t, p, pack(t, keyBundle(t, k, crypto.SHA256, statement)))
}

func TestNothingAttachedIsNotSigned(t *testing.T) {
	_, err := Verify(digestOf(image), nil, keyPolicy(t, ecdsaKey()))
	require.ErrorIs(t, err, ErrUnsigned)
	_, err = Verify("sha256:short", nil, keyPolicy(t, ecdsaKey()))
	require.ErrorIs(t, err, ErrUntrusted)
}

func TestAKeyNeedsNoLogButAWrongEntryIsWrong(t *testing.T) {
	a, k := newAuthority(t), ecdsaKey()
	withRoot, without := keyPolicy(t, k), keyPolicy(t, k)
	withRoot.TrustedRoot = a.root(t, parts{})
	payload := simple(digestOf(image))
	sig := sign(t, k, crypto.SHA256, payload)
	logged := func(content, signature []byte) Attachment {
		e := a.entry(t, loggedBody(t, k, content, signature), time.Now())
		return dotSig(payload, sig, map[string]string{annotationLog: logAnnotation(t, e)})
	}

	right := logged(payload, sig)
	require.True(t, accepted(t, without, right).LoggedTime.IsZero())
	require.WithinDuration(t, time.Now(), accepted(t, withRoot, right).LoggedTime, 5*time.Second)

	wrong := logged(simple(digestOf(other)), sign(t, k, crypto.SHA256, simple(digestOf(other))))
	refused(t, without, "its log entry is of another signature", wrong)
	refused(t, withRoot, "its log entry is of another signature", wrong)

	e := a.entry(t, loggedBody(t, k, payload, sig), time.Now())
	e.InclusionPromise.SignedEntryTimestamp = sign(t, k, crypto.SHA256, payload)
	forged := dotSig(payload, sig, map[string]string{annotationLog: logAnnotation(t, e)})
	refused(t, withRoot, "its log entry does not hold", forged)

	// Another log than those of the root proves nothing, and contradicts nothing.
	withRoot.TrustedRoot = newAuthority(t).root(t, parts{})
	require.True(t, accepted(t, withRoot, right).LoggedTime.IsZero())
}

func TestKeylessSignaturesHoldInEveryForm(t *testing.T) {
	a := newAuthority(t)
	statement, payload := statementOf(signed, digestOf(image)), simple(digestOf(image))
	onlyStamp := a.attests(t, builder, statement)
	onlyStamp.entry = nil
	old := a.signs(t, builder, image).bundle()
	old.MediaType = v01
	stamped := a.signs(t, builder, payload)
	stampedSig := stamped.dotSig(t, payload)
	stampedSig.Annotations[annotationTimestamp] = fmt.Sprintf(`{"SignedRFC3161Timestamp":%q}`, base64Of(stamped.stamps[0]))
	delete(stampedSig.Annotations, annotationLog)
	v2, err := a.AttestHashedRekordV2(builder, issuer, statement)
	require.NoError(t, err)
	entries, err := v2.TlogEntries()
	require.NoError(t, err)
	// Such a log says that it has the entry, not when it took it: a timestamp does.
	proven := a.taken(t, v2, soon())
	proven.entry = entries[0].TransparencyLogEntry()
	noLogs := a.policy(t)
	noLogs.TrustedRoot = a.root(t, parts{noLogs: true})

	for name, c := range map[string]struct {
		p      Policy
		a      Attachment
		format Format
		logged bool
	}{
		"a statement":                      {a.policy(t), pack(t, a.attests(t, builder, statement).bundle()), SigstoreBundle, true},
		"provenance":                       {a.policy(t), pack(t, a.attests(t, builder, statementOf(predicates[1], digestOf(other), digestOf(image))).bundle()), SigstoreBundle, true},
		"the manifest itself":              {a.policy(t), pack(t, a.signs(t, builder, image).bundle()), SigstoreBundle, true},
		"in a log of version 2":            {a.policy(t), pack(t, proven.bundle()), SigstoreBundle, false},
		"an old bundle":                    {a.policy(t), pack(t, old), SigstoreBundle, true},
		"a .sig tag":                       {a.policy(t), a.signs(t, builder, payload).dotSig(t, payload), CosignSignature, true},
		"a timestamp without a log":        {noLogs, pack(t, onlyStamp.bundle()), SigstoreBundle, false},
		"a .sig tag with only a timestamp": {noLogs, stampedSig, CosignSignature, false},
	} {
		t.Run(name, func(t *testing.T) {
			got := accepted(t, c.p, c.a)
			require.Equal(t, builder+" ("+issuer+")", got.Signer)
			require.Equal(t, c.format, got.Format)
			require.Equal(t, c.logged, !got.LoggedTime.IsZero())
			require.Equal(t, c.a.Digest, got.Digest)
			// A key does as well, and the other way round.
			both := keyPolicy(t, ecdsaKey())
			both.Identities, both.TrustedRoot = c.p.Identities, c.p.TrustedRoot
			accepted(t, both, c.a)
		})
	}
}

func TestKeylessSignaturesThatDoNotCount(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	p := a.policy(t)
	statement, payload := statementOf(signed, digestOf(image)), simple(digestOf(image))
	good := a.attests(t, builder, statement)

	bare := good
	bare.entry, bare.stamps = nil, nil
	unlogged := good
	unlogged.entry = nil
	otherEntry := good
	otherEntry.entry = a.attests(t, builder, statementOf(signed, digestOf(other))).entry
	forgedEntry := good
	forgedEntry.entry = foreign.attests(t, builder, statement).entry
	late, err := a.SignAtTime(builder, issuer, image, time.Now().Add(30*time.Minute))
	require.NoError(t, err)
	swapped := good
	swapped.certificate = a.attests(t, builder, statement).certificate

	for name, c := range map[string]struct {
		a   Attachment
		why string
	}{
		"another identity":                {pack(t, a.attests(t, "mallory@example.com", statement).bundle()), "by mallory@example.com (" + issuer + ")"},
		"another authority":               {pack(t, foreign.attests(t, builder, statement).bundle()), "does not hold"},
		"no time":                         {pack(t, bare.bundle()), "does not hold"},
		"no log entry, where logs are":    {pack(t, unlogged.bundle()), "not enough verified log entries"},
		"the log entry of another":        {pack(t, otherEntry.bundle()), "does not match"},
		"the log entry of another log":    {pack(t, forgedEntry.bundle()), "not enough verified log entries"},
		"an expired certificate":          {pack(t, a.taken(t, late, time.Now().Add(30*time.Minute)).bundle()), "validity"},
		"the certificate of another key":  {pack(t, swapped.bundle()), "does not hold"},
		"a .sig tag of another identity":  {a.signs(t, "mallory@example.com", payload).dotSig(t, payload), "by mallory@example.com"},
		"a .sig tag without a log entry":  {strip(a.signs(t, builder, payload).dotSig(t, payload), annotationLog), "does not hold"},
		"a .sig tag of another image":     {a.signs(t, builder, simple(digestOf(other))).dotSig(t, simple(digestOf(other))), "it is a signature of " + string(digestOf(other))},
		"a .sig tag with another payload": {a.signs(t, builder, simple(digestOf(other))).dotSig(t, payload), "does not"},
		"a statement of another image":    {pack(t, a.attests(t, builder, statementOf(signed, digestOf(other))).bundle()), "its statement is of"},
		"a signature by a key":            {pack(t, keyBundle(t, ecdsaKey(), crypto.SHA256, statement)), "names identities only"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, p, c.why, c.a) })
	}
	wrongIssuer := p
	wrongIssuer.Identities = []Identity{{Issuer: "https://other.example.com", Subject: builder}}
	refused(t, wrongIssuer, "by "+builder+" ("+issuer+")", pack(t, good.bundle()))
	withSCT := p
	withSCT.TrustedRoot = a.root(t, parts{ctLogs: true})
	refused(t, withSCT, "SCT", pack(t, good.bundle()))
	accepted(t, p, pack(t, good.bundle()))
}

func strip(a Attachment, annotation string) Attachment {
	delete(a.Annotations, annotation)
	return a
}

func TestTheWholeOfASubjectHasToMatch(t *testing.T) {
	a := newAuthority(t)
	b := pack(t, a.attests(t, builder, statementOf(signed, digestOf(image))).bundle())
	for pattern, good := range map[string]bool{
		`.*@example\.com`: true, `builder@example\.com`: true, `(?i)BUILDER@.*`: true,
		`builder`: false, `example\.com`: false, `builder@example`: false, `x|builder`: false, `(?m)^builder@example.com$.*`: true,
	} {
		p := a.policy(t)
		p.Identities = []Identity{{Issuer: issuer, SubjectRegExp: pattern}}
		if good {
			accepted(t, p, b)
		} else {
			refused(t, p, "by "+builder, b)
		}
	}
}

// A chain that cosign attached leads to the root, where the trusted root has only
// that.
func TestAnAttachedChainLeadsToTheRoot(t *testing.T) {
	a := newAuthority(t)
	payload := simple(digestOf(image))
	p := a.policy(t)
	full, err := rootWithout(p.TrustedRoot)
	require.NoError(t, err)
	p.TrustedRoot = full
	sig := a.signs(t, builder, payload).dotSig(t, payload)
	refused(t, p, "does not hold", sig)
	sig.Annotations[annotationChain] = a.chainPEM()
	accepted(t, p, sig)
	sig.Annotations[annotationChain] = newAuthority(t).chainPEM()
	refused(t, p, "does not hold", sig)
	sig.Annotations[annotationChain] = strings.Repeat(a.chainPEM(), maxChain+1)
	refused(t, p, "more than 8 certificates", sig)
}

// A bundle from a public sigstore instance, with what no fixture here has: a
// certificate that a certificate transparency log has taken.
func TestABundleFromElsewhereHolds(t *testing.T) {
	b := data.Bundle(t, "othername.sigstore.json")
	r, err := data.TrustedRoot(t, "scaffolding.json").MarshalJSON()
	require.NoError(t, err)
	text, err := b.MarshalJSON()
	require.NoError(t, err)
	e, err := readBundle(text)
	require.NoError(t, err)
	subject := digestOfSum(e.signature.MessageSignatureContent().Digest())
	p := Policy{Identities: []Identity{{Issuer: "http://oidc.local:8080", SubjectRegExp: ".*"}}, TrustedRoot: r}
	got, err := Verify(subject, []Attachment{attach(v03, text, nil)}, p)
	require.NoError(t, err)
	require.False(t, got.LoggedTime.IsZero())
}

func TestAFailureTellsOfAFewSignaturesOnOneLine(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a := newAuthority(t)
	var all []Attachment
	for range 30 {
		all = append(all, pack(t, keyBundle(t, k, crypto.SHA256, statementOf(signed, digestOf(image)))))
	}
	p := keyPolicy(t, ecdsaKey())
	p.Identities, p.TrustedRoot = a.policy(t).Identities, a.root(t, parts{})
	_, err = Verify(digestOf(image), all, p)
	require.ErrorIs(t, err, ErrUntrusted)
	require.ErrorContains(t, err, "and 27 more")
	require.ErrorContains(t, err, Fingerprint(k.Public()))
	require.Less(t, len(err.Error()), 1500)

	evil := keyBundle(t, k, crypto.SHA256, statementOf(signed, digestOf(image)))
	evil.VerificationMaterial.GetPublicKey().Hint = "line one\nline two\x1b[31m" + strings.Repeat("x", 10_000)
	_, err = Verify(digestOf(image), []Attachment{pack(t, evil)}, p)
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), "\x1b")
	require.Less(t, len(err.Error()), 1500)
}

func (a authority) chainPEM() string {
	f := a.FulcioCertificateAuthorities()[0]
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: intermediateOf(f).Raw}))
}

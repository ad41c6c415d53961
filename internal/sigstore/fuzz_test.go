package sigstore

import (
	"crypto"
	"testing"
)

// seeds are what an identity signs, in both formats.
func seeds(t testing.TB) (p Policy, bundle, dotSig Attachment) {
	t.Helper()
	a := newAuthority(t)
	p = keyPolicy(t, ecdsaKey())
	p.Identities, p.TrustedRoot = a.policy(t).Identities, a.root(t, parts{})
	k := a.signs(t, builder, simple(digestOf(image)))
	dotSig = k.dotSig(t, simple(digestOf(image)))
	dotSig.Annotations[annotationChain] = a.chainPEM()
	dotSig.Annotations[annotationTimestamp] = `{"SignedRFC3161Timestamp":"` + base64Of(k.stamps[0]) + `"}`
	return p, pack(t, a.attests(t, builder, statementOf(signed, digestOf(image))).bundle()), dotSig
}

// judge goes the way of Verify without its net for panics.
func judge(t *testing.T, p Policy, a Attachment) {
	t.Helper()
	c, err := p.compile()
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := read(a)
	if err != nil {
		return
	}
	_ = e.signer()
	_ = e.isOf(digestOf(image))
	_, _, _ = c.check(digestOf(image), e)
}

func FuzzDotSig(f *testing.F) {
	k := ecdsaKey()
	payload := simple(digestOf(image))
	f.Add(payload, "AA==", "", "", "", "")
	p, _, whole := seeds(f)
	a := whole.Annotations
	f.Add(whole.Content, a[annotationSignature], a[annotationCertificate], a[annotationChain], a[annotationLog], a[annotationTimestamp])
	f.Add(payload, base64Of(sign(f, k, crypto.SHA256, payload)), "", "", "", "")
	f.Fuzz(func(t *testing.T, content []byte, signature, certificate, chain, log, timestamp string) {
		judge(t, p, attach(typeSimpleSigning, content, map[string]string{
			annotationSignature: signature, annotationCertificate: certificate, annotationChain: chain, annotationLog: log, annotationTimestamp: timestamp,
		}))
	})
}

func FuzzBundle(f *testing.F) {
	p, bundle, _ := seeds(f)
	f.Add(bundle.Content)
	f.Add(pack(f, keyBundle(f, ecdsaKey(), crypto.SHA256, statementOf(signed, digestOf(image)))).Content)
	f.Fuzz(func(t *testing.T, content []byte) { judge(t, p, attach(v03, content, nil)) })
}

// FuzzLogEntry reaches what base64 in JSON keeps a fuzzer from.
func FuzzLogEntry(f *testing.F) {
	a := newAuthority(f)
	p := keyPolicy(f, ecdsaKey())
	p.Identities, p.TrustedRoot = a.policy(f).Identities, a.root(f, parts{})
	k := a.attests(f, builder, statementOf(signed, digestOf(image)))
	f.Add(k.entry.CanonicalizedBody, "dsse", "0.0.1")
	f.Add(a.signs(f, builder, image).entry.CanonicalizedBody, "hashedrekord", "0.0.1")
	f.Add([]byte(`{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"envelope":{"payloadType":"x","signatures":[{"sig":"QUE9PQ==","publicKey":"QUE9PQ=="}]},"hash":{"algorithm":"sha256","value":"`+digestOf(image).Hex()+`"}}}}`), "intoto", "0.0.2")
	f.Fuzz(func(t *testing.T, body []byte, kind, version string) {
		k := k
		k.entry = a.entry(t, []byte(`{}`), soon())
		k.entry.CanonicalizedBody, k.entry.KindVersion.Kind, k.entry.KindVersion.Version = body, kind, version
		b := k.bundle()
		if !validText(kind, version) {
			return
		}
		judge(t, p, pack(t, b))
		b.VerificationMaterial = byKey(t, ecdsaKey())
		b.VerificationMaterial.TlogEntries = k.material().TlogEntries
		judge(t, p, pack(t, b))
	})
}

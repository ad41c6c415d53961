package bootconfig

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
)

// fakeVerifier takes an image for signed if one of the demanded keys is its, and a
// file if db is "good". It keeps what it was asked.
type fakeVerifier struct {
	mu     sync.Mutex
	images []string
	files  []boot.Digest
	signer *uki.Signer
	asked  []Demands
	// key is the one that signed everything; fails, what goes wrong besides; with any,
	// everything is signed by whoever should have.
	key   string
	fails error
	any   bool
	// refuses is the source of what the operator's policy refuses, unsigned that of
	// what it wants signed.
	refuses, unsigned string
	// policed has the operator's policy ask for a signature of every image.
	policed bool
}

func (v *fakeVerifier) Image(_ context.Context, image artifact.Image, d Demands, _ artifact.Credentials) (*v1alpha1.ImageAttestation, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.images, v.asked = append(v.images, image.Source), append(v.asked, d)
	if v.refuses == image.Source {
		return nil, fmt.Errorf("%w: it comes from no registry", ErrUnverified)
	}
	if v.policed && v.fails == nil {
		return &v1alpha1.ImageAttestation{Subject: string(ukiDigest), Signed: v1alpha1.SignedManifest, Format: "SigstoreBundle", Signer: v.key, Attestation: string(newDigest)}, nil
	}
	if d.Image == nil || v.fails != nil {
		return nil, v.fails
	}
	for _, k := range d.Image.Keys {
		if v.any || string(k) == v.key {
			return &v1alpha1.ImageAttestation{
				Subject: string(ukiDigest), Signed: v1alpha1.SignedManifest, Format: "SigstoreBundle", Signer: v.key, Attestation: string(newDigest),
			}, nil
		}
	}
	return nil, fmt.Errorf("%w: signed by %s", ErrUnverified, v.key)
}

func (v *fakeVerifier) File(_ context.Context, a boot.Artifact, _ string, d Demands) (*v1alpha1.UKISignature, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.files, v.asked = append(v.files, a.Digest), append(v.asked, d)
	switch {
	case d.File == nil || !d.File.Signed:
		return nil, nil //nolint:nilnil // nobody asks for a signature
	case !v.any && string(d.File.DB) != "good":
		return nil, fmt.Errorf("%w: not signed by who is in db", ErrUnverified)
	}
	return &v1alpha1.UKISignature{Digest: string(a.Digest), Signer: "CN=lab", Certificate: string(newDigest)}, nil
}

func (v *fakeVerifier) Signer(s *uki.Signer, image string, d Demands) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.signer = s
	if v.unsigned == image && s == nil {
		return fmt.Errorf("%w: it is not signed", ErrUnverified)
	}
	if d.File != nil && d.File.Signed && (s == nil || string(d.File.DB) != "good") {
		return fmt.Errorf("%w: the signer is not in db", ErrUnverified)
	}
	return nil
}

func (v *fakeVerifier) set(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

func withVerifier(v *fakeVerifier) func(*Options) {
	return func(o *Options) { o.Verifier = v }
}

func secretRef(name string) *corev1.LocalObjectReference {
	return &corev1.LocalObjectReference{Name: name}
}

func signedBy(secret string) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.Verification = &v1alpha1.Verification{Image: &v1alpha1.ImageVerification{KeysSecretRef: secretRef(secret), Signed: v1alpha1.SignedAny}}
	}
}

func TestAnImageWhoseSignatureIsAnothersIsNeverPulled(t *testing.T) {
	f := newFixture(t)
	v := &fakeVerifier{key: "ours"}
	f.run(withVerifier(v))
	f.secret("keys", map[string]string{"cosign.pub": "theirs"})
	c := f.machine("m", signedBy("keys"))
	got := f.shows(c, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonVerificationFailed)
	assert.Contains(t, got.Message, "signed by ours", "it says who did sign")
	f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonVerificationFailed)
	assert.Equal(t, v1alpha1.StateError, c.Status.State)
	assert.Nil(t, c.Status.Verification)
	assert.Empty(t, c.Status.Artifacts)
	assert.False(t, f.store.Has(ukiDigest))

	// The key is replaced by the right one: nobody has to touch the config.
	f.update(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "keys"}}, func() {})
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "keys"}}
	f.update(s, func() { s.Data = map[string][]byte{"cosign.pub": []byte("ours"), "next.pub": []byte("next")} })
	f.ready(c)
	require.NotNil(t, c.Status.Verification)
	assert.Equal(t, "ours", c.Status.Verification.Image.Signer)
	assert.Contains(t, meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionArtifactsReady).Message, "the image is signed by ours")
}

func TestAKeyThatIsWithdrawnTakesBackWhatItSigned(t *testing.T) {
	f := newFixture(t)
	v := &fakeVerifier{key: "ours"}
	f.run(withVerifier(v))
	f.secret("keys", map[string]string{"cosign.pub": "ours"})
	pinned := "registry.example.com/os/image@" + string(ukiDigest)
	f.store.publish(pinned, ukiDigest)
	c := f.machine("m", signedBy("keys"), func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = pinned })
	f.ready(c)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "keys"}}
	f.update(s, func() { s.Data = map[string][]byte{"cosign.pub": []byte("another")} })
	f.shows(c, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonVerificationFailed)
	assert.Empty(t, c.Status.Artifacts, "although the blob is here, and its digest is what it was")
}

func TestARegistryThatIsDownTakesNoVerifiedImageBack(t *testing.T) {
	f := newFixture(t)
	v := &fakeVerifier{key: "ours"}
	f.run(withVerifier(v), func(o *Options) { o.ResolveInterval = 100 * time.Millisecond })
	f.secret("keys", map[string]string{"cosign.pub": "ours"})
	c := f.machine("m", signedBy("keys"))
	f.ready(c)
	v.set(func() { v.fails = errors.New("connection refused") })
	f.eventually(c, "told of", func() bool {
		return strings.Contains(meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionArtifactsReady).Message, "connection refused")
	})
	f.ready(c)
	assert.NotNil(t, c.Status.Verification)
}

func TestATagThatMovesToWhatNobodySignedIsNotFollowed(t *testing.T) {
	f := newFixture(t)
	v := &fakeVerifier{key: "ours"}
	f.run(withVerifier(v), func(o *Options) { o.ResolveInterval = 100 * time.Millisecond })
	f.secret("keys", map[string]string{"cosign.pub": "ours"})
	c := f.machine("m", signedBy("keys"))
	f.ready(c)
	f.store.publish(imageTag, newDigest)
	v.set(func() { v.key = "somebody" })
	f.shows(c, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonVerificationFailed)
	assert.False(t, f.store.Has(newDigest), "what was not verified is not pulled")
}

func TestWithSecureBootOnlyWhatFirmwareStartsIsReady(t *testing.T) {
	secure := func(secret string) func(*v1alpha1.HTTPBootConfig) {
		return func(c *v1alpha1.HTTPBootConfig) {
			c.Spec.SecureBoot = true
			c.Spec.Verification = &v1alpha1.Verification{UKI: &v1alpha1.UKIVerification{CertificatesSecretRef: secretRef(secret), Expired: v1alpha1.ExpiredRefuse}}
		}
	}
	f := newFixture(t)
	v := &fakeVerifier{}
	f.run(withVerifier(v))
	f.secret("good", map[string]string{"db": "good", "dbx": "bad"})
	f.secret("other", map[string]string{"db": "other"})
	f.secret("empty", map[string]string{"dbx": "bad"})

	good := f.machine("good", secure("good"))
	f.ready(good)
	require.NotNil(t, good.Status.Verification)
	assert.Equal(t, "CN=lab", good.Status.Verification.UKI.Signer)
	v.set(func() {
		last := v.asked[len(v.asked)-1]
		assert.Equal(t, &FileDemand{Signed: true, DB: []byte("good"), DBX: []byte("bad"), RefuseExpired: true}, last.File)
	})
	f.shows(f.machine("other", secure("other")), v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonVerificationFailed)
	got := f.shows(f.machine("empty", secure("empty")), v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonSecretKeyMissing)
	assert.Contains(t, got.Message, "/empty has no key db")
	f.shows(f.machine("none", secure("none")), v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonSecretNotFound)
}

func TestSignaturesAreNotAskedForWhereNobodyCanCheckThem(t *testing.T) {
	f := newFixture(t)
	f.run()
	f.secret("keys", map[string]string{"cosign.pub": "ours"})
	f.shows(f.machine("image", signedBy("keys")), v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonVerificationInvalid)
	f.shows(f.machine("secure", func(c *v1alpha1.HTTPBootConfig) { c.Spec.SecureBoot = true }), v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonVerificationInvalid)
}

func TestWhatIsNotPulledCannotBeVerified(t *testing.T) {
	f := newFixture(t)
	v := &fakeVerifier{unsigned: "https://elsewhere.example.com/policed.efi"}
	f.run(withVerifier(v))
	policed := f.machine("policed", func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image, c.Spec.UKIURL = "", v.unsigned })
	f.shows(policed, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonVerificationFailed)
	c := f.machine("told", func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.Image, c.Spec.UKIURL, c.Spec.SecureBoot = "", "https://elsewhere.example.com/os.efi", true
	})
	f.shows(c, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonVerificationFailed)

	script := &v1alpha1.IPXEBootConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: "urls"},
		Spec: v1alpha1.IPXEBootConfigSpec{
			NetworkIdentifiers: []string{"10.0.0.6"}, SecureBoot: true,
			KernelURL: "http://elsewhere.example.com/vmlinuz", InitrdURL: "http://elsewhere.example.com/initrd",
		},
	}
	f.create(script)
	got := f.shows(script, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonSecureBootUnsupported)
	assert.Contains(t, got.Message, "spec.image")
}

func TestTheOperatorsPolicyIsNotEvadedByAURL(t *testing.T) {
	f := newFixture(t)
	const url = "https://boot.example.com/os.efi"
	f.store.set(func() { f.store.urls[url] = ukiDigest })
	f.run(withVerifier(&fakeVerifier{refuses: url}))
	c := f.machine("m", func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image, c.Spec.UKIURL = "", url })
	f.shows(c, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonVerificationFailed)
	assert.False(t, f.store.Has(ukiDigest), "nothing is pulled")
	other := f.machine("other", func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image, c.Spec.UKIURL = "", url+"2" })
	f.store.set(func() { f.store.urls[url+"2"] = newDigest })
	f.ready(other)
}

func TestWhatOnlyTheOperatorsPolicyAsksForIsLookedAtAgain(t *testing.T) {
	f := newFixture(t)
	v := &fakeVerifier{key: "ours", policed: true}
	f.run(withVerifier(v), func(o *Options) { o.ResolveInterval = 100 * time.Millisecond })
	pinned := "registry.example.com/os/image@" + string(ukiDigest)
	f.store.publish(pinned, ukiDigest)
	c := f.machine("m", func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = pinned })
	f.ready(c)
	v.set(func() { v.fails = fmt.Errorf("%w: its signature is gone", ErrUnverified) })
	f.shows(c, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonVerificationFailed)
}

func TestIPXEThatIsNotSignedIsNotForSecureBoot(t *testing.T) {
	f := newFixture(t)
	f.store.set(func() {
		source := "registry.example.com/os/image@" + string(ukiDigest)
		f.store.images["registry.example.com/os/live:1"] = artifact.Image{Source: source, Name: "registry.example.com/os/live", Artifacts: []boot.Artifact{
			{Role: boot.RoleKernel, Digest: ukiDigest, Size: 1, Source: source}, {Role: boot.RoleInitrd, Digest: newDigest, Size: 1, Source: source},
		}}
	})
	v := &fakeVerifier{}
	f.run(withVerifier(v), func(o *Options) {
		o.SignedIPXE = func(arch boot.Architecture) error {
			if arch == boot.ARM64 {
				return errors.New("snponly-arm64.efi is not signed")
			}
			return nil
		}
	})
	f.secret("good", map[string]string{"db": "good"})
	secure := func(name string, arch v1alpha1.Architecture, n int) *v1alpha1.IPXEBootConfig {
		c := &v1alpha1.IPXEBootConfig{
			ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: name},
			Spec: v1alpha1.IPXEBootConfigSpec{
				NetworkIdentifiers: []string{fmt.Sprintf("10.0.0.%d", n)}, Image: "registry.example.com/os/live:1", Architecture: arch, SecureBoot: true,
				Verification: &v1alpha1.Verification{UKI: &v1alpha1.UKIVerification{CertificatesSecretRef: secretRef("good"), Expired: v1alpha1.ExpiredAllow}},
			},
		}
		f.create(c)
		return c
	}
	got := f.shows(secure("arm", "arm64", 7), v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonSecureBootUnsupported)
	assert.Contains(t, got.Message, "snponly-arm64.efi is not signed")
	assert.Contains(t, got.Message, "HTTPBootConfig", "it says what to do")
	amd := secure("amd", "amd64", 8)
	f.ready(amd)
	assert.Equal(t, string(ukiDigest), amd.Status.Verification.UKI.Digest, "the kernel is what firmware starts")
}

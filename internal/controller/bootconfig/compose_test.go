package bootconfig

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
)

const (
	partsTag    = "registry.example.com/os/parts:1"
	driversTag  = "registry.example.com/os/drivers:1"
	stubDigest  = boot.Digest("sha256:1111111111111111111111111111111111111111111111111111111111111111")
	linuxDigest = boot.Digest("sha256:2222222222222222222222222222222222222222222222222222222222222222")
	rootDigest  = boot.Digest("sha256:3333333333333333333333333333333333333333333333333333333333333333")
	extraDigest = boot.Digest("sha256:4444444444444444444444444444444444444444444444444444444444444444")
)

// fakeComposer makes UKIs of which nothing is known but what they were made for.
type fakeComposer struct {
	mu    sync.Mutex
	made  int
	fails error
	// documents are what each config's document was found to be as its UKI was made.
	documents map[string]string
}

func (c *fakeComposer) Compose(_ context.Context, cfg v1alpha1.Config, attempt int64, s *uki.Signer) (*v1alpha1.ComposedUKI, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fails != nil {
		return nil, c.fails
	}
	c.made++
	if c.documents == nil {
		c.documents = map[string]string{}
	}
	c.documents[cfg.GetName()] = meta.FindStatusCondition(cfg.ConfigStatus().Conditions, v1alpha1.ConditionIgnitionValid).Reason
	made := &v1alpha1.ComposedUKI{Attempt: attempt, Digest: string(newDigest), Size: int64(len(cfg.ConfigStatus().Artifacts))}
	if s != nil {
		made.Signer = s.Certificate().Subject.String()
	}
	return made, nil
}

func (c *fakeComposer) UpToDate(_ context.Context, cfg v1alpha1.Config, attempt int64, s *uki.Signer) (bool, error) {
	made := cfg.ConfigStatus().Composed
	signer := ""
	if s != nil {
		signer = s.Certificate().Subject.String()
	}
	return made.Attempt == attempt && made.Signer == signer, nil
}

func (c *fakeComposer) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *fakeComposer) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// newComposing is a world with an image of parts, and one of drivers.
func newComposing(t *testing.T) (*fixture, *fakeComposer) {
	t.Helper()
	f := newFixture(t)
	c := &fakeComposer{}
	f.bootstrap.Composer = c
	f.opener.coming = 1
	image := func(reference string, parts ...boot.Artifact) {
		source := "registry.example.com/os/parts@" + string(stubDigest)
		for i := range parts {
			parts[i].Source, parts[i].Size = source, 10
		}
		f.store.images[reference] = artifact.Image{Source: source, Name: "registry.example.com/os/parts", Artifacts: parts}
	}
	image(partsTag, boot.Artifact{Role: boot.RoleStub, Digest: stubDigest}, boot.Artifact{Role: boot.RoleKernel, Digest: linuxDigest}, boot.Artifact{Role: boot.RoleInitrd, Digest: rootDigest})
	image(driversTag, boot.Artifact{Role: boot.RoleInitrd, Digest: extraDigest})
	return f, c
}

func ofParts(c *v1alpha1.HTTPBootConfig) { c.Spec.Image = partsTag }

func composing(change func(*v1alpha1.Compose)) func(*v1alpha1.HTTPBootConfig) {
	return func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.Image, c.Spec.Compose = partsTag, &v1alpha1.Compose{}
		change(c.Spec.Compose)
	}
}

// signingSecret makes a Secret with a new key.
func (f *fixture) signingSecret(name, subject string) {
	f.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(f.t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: subject}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(f.t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(f.t, err)
	data := map[string][]byte{
		corev1.TLSCertKey:       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		corev1.TLSPrivateKeyKey: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: f.ns, Name: name}, Type: corev1.SecretTypeTLS, Data: data}
	if err := f.client.Create(f.t.Context(), s); err != nil {
		f.update(s, func() { s.Data = data })
	}
}

func TestAUKIIsComposedOfPartsForTheBootThatComes(t *testing.T) {
	f, composer := newComposing(t)
	f.run()
	c := f.machine("m", ofParts)
	f.ready(c)
	require.NotNil(t, c.Status.Composed)
	assert.EqualValues(t, 1, c.Status.Composed.Attempt)
	assert.Empty(t, c.Status.Composed.Signer)
	assert.Len(t, c.Status.Artifacts, 3)

	// A boot was delivered: the next one gets its own.
	f.opener.set(func() { f.opener.coming = 2 })
	f.bootedIn(c, 1)
	f.eventually(c, "composed anew", func() bool { return c.Status.Composed.Attempt == 2 })
	made := composer.count()
	f.update(c, func() { c.Labels = map[string]string{"any": "change"} })
	f.ready(c)
	assert.Equal(t, made, composer.count(), "nothing that counts has changed")
}

// bootedIn writes what the observer writes when a UKI was delivered.
func (f *fixture) bootedIn(c *v1alpha1.HTTPBootConfig, attempt int64) {
	f.t.Helper()
	f.reread(c)
	now := metav1.NowMicro()
	c.Status.Boot = &v1alpha1.BootStatus{Attempt: attempt, OpenedTime: &now, OpenedBy: "SpecChanged", Stages: []v1alpha1.BootStage{
		{Name: v1alpha1.BootStageName(boot.StageUKI), Attempt: attempt, StartedTime: &now, CompletedTime: &now},
	}}
	require.NoError(f.t, f.client.Status().Update(f.t.Context(), c))
}

func TestAnAttemptThatLapsesGetsItsUKIComposedAnew(t *testing.T) {
	f, _ := newComposing(t)
	f.opener.until = time.Now().Add(500 * time.Millisecond)
	f.run()
	c := f.machine("m", ofParts)
	f.ready(c)
	f.opener.set(func() { f.opener.coming, f.opener.until = 2, time.Time{} })
	f.eventually(c, "composed anew", func() bool { return c.Status.Composed.Attempt == 2 })
}

func TestWhatIsSpentIsNotComposedAnew(t *testing.T) {
	f, composer := newComposing(t)
	f.run()
	c := f.machine("m", ofParts)
	f.ready(c)
	made := composer.count()
	f.opener.set(func() { f.opener.spent = boot.ErrSpent })
	f.bootedIn(c, 1)
	f.update(c, func() { c.Annotations = map[string]string{v1alpha1.RequestBootAnnotation: "again"} })
	f.eventually(c, "opened", func() bool { return f.opener.count("m") > 1 })
	f.ready(c)
	assert.Equal(t, made, composer.count())
	assert.EqualValues(t, 1, c.Status.Composed.Attempt)
}

func TestAUKIIsComposedForWhatTheDocumentIs(t *testing.T) {
	f, composer := newComposing(t)
	f.secret("cloud", map[string]string{"format": "cloud-config", "value": "#cloud-config\n"})
	f.run()
	f.ready(f.machine("m", ofParts, withIgnition("cloud")))
	f.ready(f.machine("none", ofParts))
	composer.set(func() {
		assert.Equal(t, map[string]string{"m": v1alpha1.ReasonCloudConfig, "none": v1alpha1.ReasonNoIgnition}, composer.documents)
	})
}

func TestAFinishedUKIIsNeverAltered(t *testing.T) {
	f, composer := newComposing(t)
	f.run()
	arguments := func(c *v1alpha1.HTTPBootConfig) { c.Spec.KernelArguments = []string{"console=ttyS1"} }
	c := f.machine("m", arguments)
	got := f.shows(c, v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonComposeRequired)
	assert.Contains(t, got.Message, "bootctl image push --stub", "it says what to do")
	assert.Zero(t, composer.count())

	f.shows(f.machine("url", arguments, func(c *v1alpha1.HTTPBootConfig) { c.Spec.Image, c.Spec.UKIURL = "", "https://boot.example.com/os.efi" }),
		v1alpha1.ConditionArtifactsReady, isFalse, v1alpha1.ReasonComposeRequired)

	f.update(c, func() { c.Spec.Image = partsTag })
	f.ready(c)
	assert.NotNil(t, c.Status.Composed)

	// And back: what is composed goes with the arguments.
	f.update(c, func() { c.Spec.Image, c.Spec.KernelArguments = imageTag, nil })
	f.eventually(c, "finished again", func() bool { return c.Status.Composed == nil && digestOf(c) == string(ukiDigest) })
}

func TestPartsBesideAUKIAreComposedOnRequest(t *testing.T) {
	f, _ := newComposing(t)
	image := f.store.images[partsTag]
	image.Artifacts = append(image.Artifacts, boot.Artifact{Role: boot.RoleUKI, Digest: ukiDigest, Size: 10, Source: image.Source})
	f.store.images[partsTag] = image
	f.run()
	finished := f.machine("finished", ofParts)
	f.ready(finished)
	assert.Equal(t, string(ukiDigest), digestOf(finished))
	assert.Nil(t, finished.Status.Composed)

	c := f.machine("composed", composing(func(c *v1alpha1.Compose) { c.InitrdImage = driversTag }))
	f.ready(c)
	require.NotNil(t, c.Status.Composed)
	roles := map[v1alpha1.ArtifactRole]string{}
	for _, a := range c.Status.Artifacts {
		roles[a.Role] = a.Digest
	}
	assert.Equal(t, map[v1alpha1.ArtifactRole]string{"Stub": string(stubDigest), "Kernel": string(linuxDigest), "Initrd": string(rootDigest), "ExtraInitrd": string(extraDigest)}, roles)
}

func TestComposedUKIsAreSignedWithTheKeyThatIsNamed(t *testing.T) {
	f, composer := newComposing(t)
	f.signingSecret("operator", "the operator's")
	f.run(func(o *Options) { o.SigningSecret = types.NamespacedName{Namespace: f.ns, Name: "operator"} })
	c := f.machine("m", ofParts)
	f.ready(c)
	assert.Equal(t, "CN=the operator's", c.Status.Composed.Signer)

	own := f.machine("own", composing(func(c *v1alpha1.Compose) { c.SigningSecretRef = secretRef("own") }))
	f.shows(own, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonSecretNotFound)
	f.signingSecret("own", "ours")
	f.ready(own)
	assert.Equal(t, "CN=ours", own.Status.Composed.Signer)

	// The key is rotated: what is not booted yet is signed anew.
	f.signingSecret("own", "the next")
	f.eventually(own, "signed anew", func() bool { return own.Status.Composed.Signer == "CN=the next" })
	assert.Positive(t, composer.count())

	f.secret("password", map[string]string{"password": "hunter2"})
	wrong := f.machine("wrong", composing(func(c *v1alpha1.Compose) { c.SigningSecretRef = secretRef("password") }))
	got := f.shows(wrong, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonSigningKeyInvalid)
	assert.Contains(t, got.Message, "kubectl create secret tls")
	assert.NotContains(t, got.Message, "hunter2")
}

func TestWithSecureBootAComposedUKIIsSignedByWhoIsInDB(t *testing.T) {
	f, _ := newComposing(t)
	f.run(withVerifier(&fakeVerifier{}))
	f.secret("good", map[string]string{"db": "good"})
	f.signingSecret("key", "ours")
	c := f.machine("m", composing(func(*v1alpha1.Compose) {}), func(c *v1alpha1.HTTPBootConfig) {
		c.Spec.SecureBoot = true
		c.Spec.Verification = &v1alpha1.Verification{UKI: &v1alpha1.UKIVerification{CertificatesSecretRef: secretRef("good"), Expired: v1alpha1.ExpiredAllow}}
	})
	f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonVerificationFailed)
	assert.Nil(t, c.Status.Composed, "nothing is there that firmware would refuse")
	f.update(c, func() { c.Spec.Compose.SigningSecretRef = secretRef("key") })
	f.ready(c)
	assert.Equal(t, "CN=ours", c.Status.Composed.Signer)
}

func TestWhatCannotBeComposedSaysWhy(t *testing.T) {
	f, composer := newComposing(t)
	composer.fails = fmt.Errorf("%w: the stub has a section .pcrsig", boot.ErrInvalid)
	f.run()
	c := f.machine("m", ofParts)
	got := f.shows(c, v1alpha1.ConditionReady, isFalse, v1alpha1.ReasonComposeFailed)
	assert.Contains(t, got.Message, "has a section .pcrsig")
	composer.set(func() { composer.fails = errors.New("the disk is busy") })
	f.update(c, func() { c.Spec.KernelArguments = []string{"quiet"} })
	f.eventually(c, "tried again", func() bool {
		r := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady)
		return r.Reason == v1alpha1.ReasonComposeFailed && r.ObservedGeneration == c.Generation
	})
	composer.set(func() { composer.fails = nil })
	f.ready(c)
}

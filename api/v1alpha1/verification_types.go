package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Verification says what has to be signed, and by whom, before a machine is given
// it. What the operator's own policy asks for comes on top.
type Verification struct {
	// image asks for a sigstore signature of the image, which is checked offline.
	// +optional
	Image *ImageVerification `json:"image,omitempty"`
	// uki asks for an Authenticode signature of what firmware starts: the UKI of an
	// HTTPBootConfig, the kernel of an IPXEBootConfig.
	// +optional
	UKI *UKIVerification `json:"uki,omitempty"`
}

// ImageVerification says who has to have signed an image. Any one of the keys and
// identities is enough.
// +kubebuilder:validation:XValidation:rule="has(self.keysSecretRef) || (has(self.identities) && size(self.identities) > 0)",message="say who signs the image: keysSecretRef, or identities"
type ImageVerification struct {
	// keysSecretRef names a Secret in the same namespace, each of whose entries
	// holds a public key as PEM, such as cosign.pub.
	// +optional
	KeysSecretRef *corev1.LocalObjectReference `json:"keysSecretRef,omitempty"`
	// identities of keyless signatures (Fulcio certificates).
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Identities []SigningIdentity `json:"identities,omitempty"`
	// trustedRootSecretRef names a Secret in the same namespace whose key
	// "trusted_root.json" holds a sigstore trusted root, for identities. Without it
	// the operator's --sigstore-trusted-root-file is used; nothing is downloaded.
	// +optional
	TrustedRootSecretRef *corev1.LocalObjectReference `json:"trustedRootSecretRef,omitempty"`
	// signed says what has to be signed: Index, the index that the reference names;
	// Manifest, the manifest of the machine's architecture; or Any, either of them.
	// +optional
	// +kubebuilder:default=Any
	Signed SignedSubject `json:"signed,omitempty"`
}

// SignedSubject is the part of an image that a signature is of.
// +kubebuilder:validation:Enum=Any;Index;Manifest
type SignedSubject string

// The parts of an image that can be signed.
const (
	SignedAny      SignedSubject = "Any"
	SignedIndex    SignedSubject = "Index"
	SignedManifest SignedSubject = "Manifest"
)

// SigningIdentity is who a keyless signature was made by.
// +kubebuilder:validation:XValidation:rule="has(self.subject) != has(self.subjectRegExp)",message="set either subject or subjectRegExp"
type SigningIdentity struct {
	// issuer is the URL of the OpenID provider, such as
	// https://token.actions.githubusercontent.com.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Issuer string `json:"issuer"`
	// subject is the certificate's subject alternative name: a mail address or the
	// URL of a workflow.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Subject string `json:"subject,omitempty"`
	// subjectRegExp is a regular expression (RE2) that the whole of the subject has
	// to match.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	SubjectRegExp string `json:"subjectRegExp,omitempty"`
}

// UKIVerification says who has to have signed what firmware starts.
type UKIVerification struct {
	// certificatesSecretRef names a Secret in the same namespace whose key "db" holds
	// the certificates that the machine's firmware trusts, as PEM or as an EFI
	// signature list, and whose key "dbx", if it has one, what it refuses. Without it
	// the operator's --secure-boot-db-file is used.
	// +optional
	CertificatesSecretRef *corev1.LocalObjectReference `json:"certificatesSecretRef,omitempty"`
	// expired says whether a signature whose certificate has expired is enough: Allow,
	// as firmware does, or Refuse.
	// +optional
	// +kubebuilder:default=Allow
	Expired ExpiredCertificates `json:"expired,omitempty"`
	// digest is the SHA-256 that the UKI, or the kernel, has to have, as
	// sha256:<64 hexadecimal digits>.
	// +optional
	// +kubebuilder:validation:MaxLength=71
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Digest string `json:"digest,omitempty"`
}

// ExpiredCertificates says what an expired certificate is worth.
// +kubebuilder:validation:Enum=Allow;Refuse
type ExpiredCertificates string

// What to do about expired certificates.
const (
	ExpiredAllow  ExpiredCertificates = "Allow"
	ExpiredRefuse ExpiredCertificates = "Refuse"
)

// VerificationStatus is what was checked, and found to be right.
type VerificationStatus struct {
	// image is the signature of the image.
	// +optional
	Image *ImageAttestation `json:"image,omitempty"`
	// uki is the signature of the UKI or the kernel.
	// +optional
	UKI *UKISignature `json:"uki,omitempty"`
}

// ImageAttestation is a sigstore signature that was checked.
type ImageAttestation struct {
	// subject is the digest that was signed.
	// +kubebuilder:validation:MaxLength=71
	Subject string `json:"subject"`
	// signed says what that is: Index or Manifest.
	Signed SignedSubject `json:"signed"`
	// format is SigstoreBundle, or CosignSignature for the older .sig tags.
	// +kubebuilder:validation:MaxLength=32
	Format string `json:"format"`
	// signer is the key, by the SHA-256 of its SubjectPublicKeyInfo, or the identity
	// and its issuer.
	// +kubebuilder:validation:MaxLength=1100
	Signer string `json:"signer"`
	// attestation is the digest of the signature's own blob in the registry.
	// +kubebuilder:validation:MaxLength=71
	Attestation string `json:"attestation"`
	// loggedTime is when a transparency log took it, where it did.
	// +optional
	LoggedTime *metav1.Time `json:"loggedTime,omitempty"`
}

// UKISignature is an Authenticode signature that was checked.
type UKISignature struct {
	// digest of the file that was checked.
	// +kubebuilder:validation:MaxLength=71
	Digest string `json:"digest"`
	// signer is the subject of the signing certificate.
	// +kubebuilder:validation:MaxLength=512
	Signer string `json:"signer"`
	// certificate is the SHA-256 of the signing certificate.
	// +kubebuilder:validation:MaxLength=71
	Certificate string `json:"certificate"`
	// trustedBy is the subject of the certificate in db that vouches for it.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	TrustedBy string `json:"trustedBy,omitempty"`
}

// Compose says how a UKI is composed for the machine, of the stub, the kernel and
// the initrd that its image carries.
type Compose struct {
	// signingSecretRef names a Secret of type kubernetes.io/tls in the same namespace
	// with the RSA key (tls.key) and the certificate (tls.crt) that the UKI is signed
	// with. Without it the operator's --uki-signing-secret is used; without that, too,
	// the UKI is not signed.
	// +optional
	SigningSecretRef *corev1.LocalObjectReference `json:"signingSecretRef,omitempty"`
	// initrdImage is an OCI image whose initrd is appended to that of the image, by
	// tag or digest.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self == '' || (self.matches('^[A-Za-z0-9][A-Za-z0-9._:/@-]*$') && !self.contains('://'))",message="initrdImage must be an OCI reference without scheme or spaces, such as registry.example.com/os/drivers:1.2"
	InitrdImage string `json:"initrdImage,omitempty"`
}

// ComposedUKI is the UKI that was composed for the machine. Any replica makes its
// bytes again of the artifacts, the spec and the token keys; they are served to the
// machine alone.
type ComposedUKI struct {
	// attempt that it belongs to: the one that the next boot will be.
	Attempt int64 `json:"attempt"`
	// digest is the SHA-256 of the file, as sha256:<64 hexadecimal digits>.
	// +kubebuilder:validation:MaxLength=71
	Digest string `json:"digest"`
	// size of the file in bytes.
	Size int64 `json:"size"`
	// tokenKey is the ID of the key that signed its token.
	TokenKey int32 `json:"tokenKey"`
	// signer is the subject of the certificate that it was signed with.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Signer string `json:"signer,omitempty"`
	// signature is the PKCS #7 signature of its Authenticode hash; empty where it is
	// not signed.
	// +optional
	// +kubebuilder:validation:MaxLength=16384
	Signature []byte `json:"signature,omitempty"`
}

package v1alpha1

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// The names of the kinds.
const (
	KindHTTPBootConfig = "HTTPBootConfig"
	KindIPXEBootConfig = "IPXEBootConfig"
)

// Config is what both kinds have in common.
// +kubebuilder:object:generate=false
type Config interface {
	metav1.Object
	runtime.Object

	// Kind is the name of the kind, which TypeMeta of a cached object lacks.
	Kind() string
	// Common returns what both specs say.
	Common() CommonSpec
	// ConfigStatus returns the status itself, not a copy.
	ConfigStatus() *ConfigStatus
}

// CommonSpec is what the specs of both kinds say.
// +kubebuilder:object:generate=false
type CommonSpec struct {
	SystemUUID string
	// Identifiers are IP and MAC addresses as they were written.
	Identifiers          []string
	Image                string
	Architecture         Architecture
	PullSecretRef        *corev1.LocalObjectReference
	IgnitionSecretRef    *corev1.LocalObjectReference
	MetaDataSecretRef    *corev1.LocalObjectReference
	NetworkDataSecretRef *corev1.LocalObjectReference
	BootPolicy           BootPolicy
	MinimumProof         Proof
	Verification         *Verification
	SecureBoot           bool
}

// Kind returns HTTPBootConfig.
func (c *HTTPBootConfig) Kind() string { return KindHTTPBootConfig }

// Common returns what both specs say.
func (c *HTTPBootConfig) Common() CommonSpec {
	s := &c.Spec
	return CommonSpec{
		SystemUUID: s.SystemUUID, Identifiers: s.NetworkIdentifiers, Image: s.Image, Architecture: s.Architecture,
		PullSecretRef: s.PullSecretRef, IgnitionSecretRef: s.IgnitionSecretRef, MetaDataSecretRef: s.MetaDataSecretRef,
		NetworkDataSecretRef: s.NetworkDataSecretRef, BootPolicy: s.BootPolicy, MinimumProof: s.MinimumProof,
		Verification: s.Verification, SecureBoot: s.SecureBoot,
	}
}

// ConfigStatus returns the status itself, not a copy.
func (c *HTTPBootConfig) ConfigStatus() *ConfigStatus { return &c.Status }

// Kind returns IPXEBootConfig.
func (c *IPXEBootConfig) Kind() string { return KindIPXEBootConfig }

// Common returns what both specs say.
func (c *IPXEBootConfig) Common() CommonSpec {
	s := &c.Spec
	return CommonSpec{
		SystemUUID: s.SystemUUID, Identifiers: slices.Concat(s.SystemIPs, s.NetworkIdentifiers), Image: s.Image, Architecture: s.Architecture,
		PullSecretRef: s.PullSecretRef, IgnitionSecretRef: s.IgnitionSecretRef, MetaDataSecretRef: s.MetaDataSecretRef,
		NetworkDataSecretRef: s.NetworkDataSecretRef, BootPolicy: s.BootPolicy, MinimumProof: s.MinimumProof,
		Verification: s.Verification, SecureBoot: s.SecureBoot,
	}
}

// ConfigStatus returns the status itself, not a copy.
func (c *IPXEBootConfig) ConfigStatus() *ConfigStatus { return &c.Status }

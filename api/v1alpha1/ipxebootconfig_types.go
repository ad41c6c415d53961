package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// IPXEBootConfigSpec says what one machine boots with iPXE, and how the machine
// is known.
// +kubebuilder:validation:XValidation:rule="(has(self.image) && size(self.image) > 0) || has(self.ipxeScriptSecretRef) || (has(self.kernelURL) && size(self.kernelURL) > 0 && has(self.initrdURL) && size(self.initrdURL) > 0)",message="say what to boot: image, or kernelURL and initrdURL, or ipxeScriptSecretRef"
type IPXEBootConfigSpec struct {
	// systemUUID is the SMBIOS UUID of the machine, in any notation; upper and
	// lower case, and the byte order of EFI_GUID, are the same machine.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^(urn:uuid:)?[{]?[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}[}]?$')",message="systemUUID must be a UUID such as 00112233-4455-6677-8899-aabbccddeeff (on the machine: dmidecode -s system-uuid)"
	SystemUUID string `json:"systemUUID,omitempty"`
	// systemIPs are IP addresses of the machine; networkIdentifiers can say the
	// same, and MAC addresses too.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:MinLength=2
	// +kubebuilder:validation:XValidation:rule="self.all(i, i.matches('^[0-9a-fA-F.:]+(%[0-9A-Za-z._-]+)?$'))",message="every entry of systemIPs must be an IP address such as 10.0.0.5; MAC addresses go into networkIdentifiers"
	SystemIPs []string `json:"systemIPs,omitempty"`
	// networkIdentifiers are the IP and MAC addresses of the machine, in any
	// notation. An IP address lets the machine prove who it is by where its
	// requests come from.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:MinLength=2
	// +kubebuilder:validation:XValidation:rule="self.all(i, i.matches('^[0-9a-fA-F.:-]+(%[0-9A-Za-z._-]+)?$'))",message="every networkIdentifier must be an IP address such as 10.0.0.5 or a MAC address such as 52:54:00:aa:bb:01; prefixes and host names name no single machine"
	NetworkIdentifiers []string `json:"networkIdentifiers,omitempty"`
	// image is an OCI image reference, by tag or digest, with a kernel, an
	// initrd and optionally a squashfs by media type.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self == '' || (self.matches('^[A-Za-z0-9][A-Za-z0-9._:/@-]*$') && !self.contains('://'))",message="image must be an OCI reference without scheme or spaces, such as registry.example.com/os/images:1.2 or registry.example.com/os/images@sha256:…"
	Image string `json:"image,omitempty"`
	// architecture of the machine. Without it the operator's --architecture is used.
	// +optional
	Architecture Architecture `json:"architecture,omitempty"`
	// pullSecretRef names a Secret of type kubernetes.io/dockerconfigjson in the
	// same namespace, for registries that ask for credentials.
	// +optional
	PullSecretRef *corev1.LocalObjectReference `json:"pullSecretRef,omitempty"`
	// kernelURL is the http or https URL of a kernel. It is required where
	// neither image nor ipxeScriptSecretRef is set.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^https?://[^/ ]+/[^ \\t\\r\\n]*$')",message="kernelURL must be an absolute http or https URL without white space"
	KernelURL string `json:"kernelURL,omitempty"`
	// initrdURL is the http or https URL of an initrd. It is required where
	// neither image nor ipxeScriptSecretRef is set.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^https?://[^/ ]+/[^ \\t\\r\\n]*$')",message="initrdURL must be an absolute http or https URL without white space"
	InitrdURL string `json:"initrdURL,omitempty"`
	// squashfsURL is the http or https URL of a root file system for live images.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^https?://[^/ ]+/[^ \\t\\r\\n]*$')",message="squashfsURL must be an absolute http or https URL without white space"
	SquashfsURL string `json:"squashfsURL,omitempty"`
	// kernelArguments are added to the kernel's command line, one argument each.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.all(a, a.matches('^[!-~]+$'))",message="every kernelArgument must be one argument of printable ASCII without spaces"
	// +kubebuilder:validation:XValidation:rule="self.all(a, !a.contains('$' + '{'))",message="no kernelArgument may contain $ and {, one after the other, which iPXE would expand"
	KernelArguments []string `json:"kernelArguments,omitempty"`
	// scriptTemplate takes the place of the operator's iPXE script template for
	// this machine. It begins with #!ipxe; what it can use is in docs/ipxe.md.
	// +optional
	// +kubebuilder:validation:MaxLength=16384
	// +kubebuilder:validation:XValidation:rule="self == '' || self.startsWith('#!ipxe')",message="a scriptTemplate begins with #!ipxe"
	ScriptTemplate string `json:"scriptTemplate,omitempty"`
	// ipxeServerURL is not used any more.
	// Deprecated: the operator knows its own address.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	IPXEServerURL string `json:"ipxeServerURL,omitempty"`
	// ignitionSecretRef names a Secret in the same namespace whose key "ignition",
	// "value" or "userData" holds the machine's Ignition document, Butane if its key
	// "format" is "fcos", or user data for cloud-init if that is "cloud-config".
	// Without "format" the document's beginning tells user data from Ignition.
	// +optional
	IgnitionSecretRef *corev1.LocalObjectReference `json:"ignitionSecretRef,omitempty"`
	// metaDataSecretRef names a Secret in the same namespace whose key "metaData"
	// holds a mapping of strings as YAML or JSON, of at most 64 KiB. It goes with
	// the document of ignitionSecretRef: into cloud-init's meta-data, or into
	// /etc/boot-operator/meta-data.json by way of Ignition.
	// +optional
	MetaDataSecretRef *corev1.LocalObjectReference `json:"metaDataSecretRef,omitempty"`
	// networkDataSecretRef names a Secret in the same namespace whose key
	// "networkData" holds OpenStack network data (network_data.json) as JSON or
	// YAML, of at most 64 KiB. It is converted to networking config version 2 and
	// goes with the document of ignitionSecretRef: as cloud-init's network-config,
	// or into /etc/boot-operator/network-config.yaml by way of Ignition.
	// +optional
	NetworkDataSecretRef *corev1.LocalObjectReference `json:"networkDataSecretRef,omitempty"`
	// ipxeScriptSecretRef names a Secret in the same namespace whose key
	// "ipxe-script" holds the machine's own iPXE script.
	// +optional
	IPXEScriptSecretRef *corev1.LocalObjectReference `json:"ipxeScriptSecretRef,omitempty"`
	// bootPolicy says how often the machine may boot this: Always, for a diskless
	// machine, or Once for each attempt, for an installation.
	// +optional
	// +kubebuilder:default=Always
	BootPolicy BootPolicy `json:"bootPolicy,omitempty"`
	// minimumProof is the weakest proof of identity that is enough to get
	// secrets: BMC, Relay, Proxy, Address or, for anyone who says the UUID,
	// Claimed. Without it the operator's --minimum-proof is used.
	// +optional
	MinimumProof Proof `json:"minimumProof,omitempty"`
	// verification says what has to be signed, and by whom, before the machine is
	// given it.
	// +optional
	Verification *Verification `json:"verification,omitempty"`
	// secureBoot says that the machine has UEFI Secure Boot on: it is given nothing
	// whose signature does not verify, against spec.verification.uki or the operator's
	// --secure-boot-db-file.
	// +optional
	SecureBoot bool `json:"secureBoot,omitempty"`
}

// IPXEBootConfig gives one machine a kernel and an initrd, or a script of its
// own, over iPXE, and its Ignition.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=ibc,categories=boot
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.bootPolicy`
// +kubebuilder:printcolumn:name="Kernel",type=string,JSONPath=`.status.artifacts[?(@.role=="Kernel")].digest`
// +kubebuilder:printcolumn:name="Attempt",type=integer,JSONPath=`.status.boot.attempt`
// +kubebuilder:printcolumn:name="Script",type=string,JSONPath=`.status.conditions[?(@.type=="IPXEScriptFetched")].status`
// +kubebuilder:printcolumn:name="Ignition",type=string,JSONPath=`.status.conditions[?(@.type=="IgnitionDataFetched")].status`
// +kubebuilder:printcolumn:name="Client",type=string,JSONPath=`.status.boot.lastClientAddress`
// +kubebuilder:printcolumn:name="Boot",type=string,JSONPath=`.status.boot.id`,priority=1
// +kubebuilder:printcolumn:name="UUID",type=string,JSONPath=`.spec.systemUUID`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type IPXEBootConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what the machine boots.
	Spec IPXEBootConfigSpec `json:"spec"`
	// status says what the operator made of it, and what the machine fetched.
	// +optional
	Status ConfigStatus `json:"status,omitempty"`
}

// IPXEBootConfigList is a list of IPXEBootConfigs.
// +kubebuilder:object:root=true
type IPXEBootConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IPXEBootConfig `json:"items"`
}

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Architecture is a processor architecture as OCI images name it.
// +kubebuilder:validation:Enum=amd64;arm64
type Architecture string

// The architectures of machines.
const (
	ArchitectureAMD64 Architecture = "amd64"
	ArchitectureARM64 Architecture = "arm64"
)

// BootPolicy says how often a machine may boot what it is given.
// +kubebuilder:validation:Enum=Always;Once
type BootPolicy string

// The boot policies.
const (
	// BootPolicyAlways: at every boot; for diskless machines.
	BootPolicyAlways BootPolicy = "Always"
	// BootPolicyOnce: exactly once for each attempt; for installations.
	BootPolicyOnce BootPolicy = "Once"
)

// Proof is how the operator knows which machine is asking.
// +kubebuilder:validation:Enum=BMC;Relay;Proxy;Address;Claimed
type Proof string

// State sums up the conditions for older clients: it is derived from Ready.
// +kubebuilder:validation:Enum=Ready;Pending;Error
type State string

// The states.
const (
	StateReady   State = "Ready"
	StatePending State = "Pending"
	StateError   State = "Error"
)

// ArtifactRole says what an artifact is for.
// +kubebuilder:validation:Enum=UKI;Kernel;Initrd;Squashfs;Stub;ExtraInitrd
type ArtifactRole string

// Artifact is one verified blob that a machine is given.
type Artifact struct {
	// role says what the blob is for: UKI, Kernel, Initrd, Squashfs, Stub or
	// ExtraInitrd.
	Role ArtifactRole `json:"role"`
	// digest is the SHA-256 of the blob, as sha256:<64 hexadecimal digits>.
	// +kubebuilder:validation:MaxLength=71
	Digest string `json:"digest"`
	// size of the blob in bytes.
	Size int64 `json:"size"`
	// source is where every replica pulls the blob from: the image as
	// registry/repository@digest, or the URL that was given.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Source string `json:"source,omitempty"`
	// url is where this operator serves the blob to anyone.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url,omitempty"`
}

// BootStageName names a step of a boot that the server sees.
// +kubebuilder:validation:Enum=IPXEScript;UKI;Ignition;CloudInit
type BootStageName string

// BootStage is what the server saw of one step of the last boot.
type BootStage struct {
	// name of the step: IPXEScript, UKI, Ignition or CloudInit.
	Name BootStageName `json:"name"`
	// attempt is the number of the boot attempt in which this was seen.
	Attempt int64 `json:"attempt"`
	// clientAddress is the IP address that asked.
	// +kubebuilder:validation:MaxLength=64
	ClientAddress string `json:"clientAddress,omitempty"`
	// proof is how the machine was identified: BMC, Relay, Proxy, Address or
	// Claimed.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Proof string `json:"proof,omitempty"`
	// startedTime is when the first delivery of this attempt began.
	StartedTime *metav1.MicroTime `json:"startedTime,omitempty"`
	// completedTime is when the first complete delivery of this attempt ended.
	// It is proof of delivery, not of what the machine did with it.
	// +optional
	CompletedTime *metav1.MicroTime `json:"completedTime,omitempty"`
	// digest of what was delivered, where it is an artifact.
	// +optional
	// +kubebuilder:validation:MaxLength=71
	Digest string `json:"digest,omitempty"`
	// sent is how many bytes of it were sent when this was written; while a delivery
	// goes on, that is every few seconds.
	// +optional
	Sent int64 `json:"sent,omitempty"`
	// size of what is delivered, in bytes.
	// +optional
	Size int64 `json:"size,omitempty"`
	// macAddress is the NIC that the machine boots by, where it is known: from the offer
	// over DHCP that it followed, or from what iPXE said of itself.
	// +optional
	// +kubebuilder:validation:MaxLength=17
	MACAddress string `json:"macAddress,omitempty"`
}

// BootServed is the commit of the one delivery that a bootPolicy of Once
// allows for each attempt.
type BootServed struct {
	// attempt whose one delivery this is.
	Attempt int64 `json:"attempt"`
	// digest of the UKI that was delivered.
	// +kubebuilder:validation:MaxLength=71
	Digest string `json:"digest"`
	// delivery identifies the one response that was allowed to finish.
	// +kubebuilder:validation:MaxLength=64
	Delivery string `json:"delivery"`
	// clientAddress is the IP address it was delivered to.
	// +kubebuilder:validation:MaxLength=64
	ClientAddress string `json:"clientAddress,omitempty"`
	// time of the commit.
	Time metav1.MicroTime `json:"time"`
}

// RelayPort is where a DHCP relay that the operator trusts sees the machine.
type RelayPort struct {
	// attempt in which it was seen there first.
	Attempt int64 `json:"attempt"`
	// relayAddress is the relay's IP address (giaddr).
	// +kubebuilder:validation:MaxLength=64
	RelayAddress string `json:"relayAddress"`
	// circuitID names the port (RFC 3046, sub-option 1), in hexadecimal digits
	// after 0x where it is not printable.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	CircuitID string `json:"circuitID,omitempty"`
	// remoteID names the switch (RFC 3046, sub-option 2), written likewise.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	RemoteID string `json:"remoteID,omitempty"`
}

// BootOffer is the last boot that the operator offered over DHCP.
type BootOffer struct {
	// attempt that the offered boot would belong to.
	Attempt int64 `json:"attempt"`
	// time of the first such offer.
	Time metav1.MicroTime `json:"time"`
	// macAddress that asked.
	// +kubebuilder:validation:MaxLength=17
	MACAddress string `json:"macAddress"`
	// firmware that asked, such as "x86-64 UEFI HTTP" or "x86 BIOS".
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Firmware string `json:"firmware,omitempty"`
}

// BootArmed says that a machine's BMC was told what to boot.
type BootArmed struct {
	// attempt that the URL in the BMC is for.
	Attempt int64 `json:"attempt"`
}

// NetworkBootStep is how far a boot through the machine's BMC has come.
// +kubebuilder:validation:Enum=PowerOff;Arm;PowerOn;AwaitFetch;Delivered;Failed
type NetworkBootStep string

// The steps of a boot through the machine's BMC. Each is written before what it
// names is done.
const (
	// NetworkBootPowerOff: the machine is being switched off.
	NetworkBootPowerOff NetworkBootStep = "PowerOff"
	// NetworkBootArm: the BMC is being told to boot from the network once.
	NetworkBootArm NetworkBootStep = "Arm"
	// NetworkBootPowerOn: the machine is being switched on.
	NetworkBootPowerOn NetworkBootStep = "PowerOn"
	// NetworkBootAwaitFetch: the machine has to fetch what it boots.
	NetworkBootAwaitFetch NetworkBootStep = "AwaitFetch"
	// NetworkBootDelivered: it did; nothing is armed again by itself.
	NetworkBootDelivered NetworkBootStep = "Delivered"
	// NetworkBootFailed: every tactic was tried; a new request is needed.
	NetworkBootFailed NetworkBootStep = "Failed"
)

// NetworkBootTime says when a step of a boot through the machine's BMC began.
type NetworkBootTime struct {
	// step that began: PowerOff, Arm, PowerOn, AwaitFetch, Delivered or Failed.
	Step NetworkBootStep `json:"step"`
	// time at which it began last.
	Time metav1.MicroTime `json:"time"`
}

// NetworkBoot is one boot from the network that was asked for through the
// machine's BMC. It is written before each side effect, so that after a crash
// nothing is done twice.
type NetworkBoot struct {
	// request identifies what asked for this boot.
	// +kubebuilder:validation:MaxLength=256
	Request string `json:"request"`
	// step is how far it has come: PowerOff, Arm, PowerOn, AwaitFetch, Delivered or
	// Failed.
	Step NetworkBootStep `json:"step"`
	// since is when that step began.
	Since metav1.MicroTime `json:"since"`
	// steps holds when each step of the present try began, by name.
	// +optional
	// +listType=map
	// +listMapKey=step
	// +kubebuilder:validation:MaxItems=8
	Steps []NetworkBootTime `json:"steps,omitempty"`
	// attempt is the boot attempt that this is for.
	// +optional
	Attempt int64 `json:"attempt,omitempty"`
	// try counts the times that the machine was armed for this request, from 1.
	// +optional
	Try int32 `json:"try,omitempty"`
	// cut counts those of them that ended in a delivery that was cut.
	// +optional
	Cut int32 `json:"cut,omitempty"`
	// tactic is what the BMC was asked for: UefiHttp, UefiHttpWithoutMode or Pxe.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Tactic string `json:"tactic,omitempty"`
	// pinnedBy is the property of the BMC that holds the URL until it is cleared:
	// HttpBootUri, HttpDev1Uri or UrlBootFile.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	PinnedBy string `json:"pinnedBy,omitempty"`
	// disarmed says that what arming left in the BMC was taken back after the
	// delivery.
	// +optional
	Disarmed bool `json:"disarmed,omitempty"`
	// lastReset is the BMC's LastResetTime from before the machine was switched on,
	// by the BMC's own clock.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	LastReset string `json:"lastReset,omitempty"`
	// message says what went wrong last.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// BootStatus is what the operator knows of the machine's boots.
type BootStatus struct {
	// attempt is the number of the present boot attempt, counted from 1. A
	// change of spec, the annotation boot.ironcore.dev/request-boot and, with
	// bootPolicy Always, a boot of the identified machine open the next one.
	Attempt int64 `json:"attempt,omitempty"`
	// id names this boot in the operator's logs and traces: 32 hexadecimal digits, which
	// is also the ID of its trace (W3C Trace Context).
	// +optional
	// +kubebuilder:validation:MaxLength=32
	ID string `json:"id,omitempty"`
	// openedTime is when the attempt was opened. It closes 2 minutes after its
	// secret was delivered for the first time, or after 30 minutes.
	OpenedTime *metav1.MicroTime `json:"openedTime,omitempty"`
	// openedBy says what opened the attempt: SpecChanged, Requested or
	// BootDelivery.
	// +kubebuilder:validation:Enum=SpecChanged;Requested;BootDelivery
	OpenedBy string `json:"openedBy,omitempty"`
	// openedGeneration is the generation of the spec for which an attempt was
	// opened last.
	OpenedGeneration int64 `json:"openedGeneration,omitempty"`
	// request is the value of the annotation boot.ironcore.dev/request-boot for
	// which an attempt was opened last.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Request string `json:"request,omitempty"`
	// aborted is the attempt that was aborted last, by the annotation
	// boot.ironcore.dev/abort-boot. Nothing is delivered in it any more, and no boot
	// opens another: a change of spec or the annotation boot.ironcore.dev/request-boot
	// does.
	// +optional
	Aborted int64 `json:"aborted,omitempty"`
	// lastClientAddress is the IP address from which the machine booted or
	// fetched something last.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	LastClientAddress string `json:"lastClientAddress,omitempty"`
	// proof is how the machine was identified: BMC, Relay, Proxy, Address or
	// Claimed.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Proof string `json:"proof,omitempty"`
	// served is the commit of the one delivery of a bootPolicy of Once.
	// +optional
	Served *BootServed `json:"served,omitempty"`
	// offer is the last boot that the operator offered over DHCP.
	// +optional
	Offer *BootOffer `json:"offer,omitempty"`
	// relayPort is where a trusted DHCP relay sees the machine. Nothing is offered
	// at another port until a change of spec or the annotation
	// boot.ironcore.dev/request-boot opens an attempt.
	// +optional
	RelayPort *RelayPort `json:"relayPort,omitempty"`
	// armed says that the machine's BMC was told what to boot: until that attempt
	// is over nothing is offered over DHCP beside it.
	// +optional
	Armed *BootArmed `json:"armed,omitempty"`
	// pinsURL is the property of the machine's BMC that can hold the boot URL, and
	// so proves the machine: HttpBootUri, HttpDev1Uri or UrlBootFile.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	PinsURL string `json:"pinsURL,omitempty"`
	// pinsProof is what a URL in that property proves: BMC, or Proxy where the
	// connection to the BMC or the boot itself is not protected by TLS.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	PinsProof string `json:"pinsProof,omitempty"`
	// networkBoot is the last boot that was asked for through the machine's BMC.
	// +optional
	NetworkBoot *NetworkBoot `json:"networkBoot,omitempty"`
	// secretAddress is the IP address that fetched this attempt's secret first;
	// no other address gets it.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SecretAddress string `json:"secretAddress,omitempty"`
	// stages holds what was seen of the last boot, by name.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Stages []BootStage `json:"stages,omitempty"`
}

// ConfigStatus is what the operator says of an HTTPBootConfig or an
// IPXEBootConfig.
type ConfigStatus struct {
	// state sums up the conditions: Ready, Pending or Error. It is derived from
	// the condition Ready.
	// +optional
	State State `json:"state,omitempty"`
	// observedGeneration is the generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: ArtifactsReady, IgnitionValid, Identifiable and Ready say what
	// the operator made of the spec; UKIFetched, IPXEScriptFetched,
	// IgnitionDataFetched and CloudInitDataFetched say what the machine fetched;
	// ClientAddressAmbiguous and ForeignBootOffer, what was in its way.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// artifacts that the machine is given, by role.
	// +optional
	// +listType=map
	// +listMapKey=role
	// +kubebuilder:validation:MaxItems=8
	Artifacts []Artifact `json:"artifacts,omitempty"`
	// verification is what was checked besides digests: the attestation of the image,
	// and the signature of what firmware starts.
	// +optional
	Verification *VerificationStatus `json:"verification,omitempty"`
	// composed is the UKI that was composed for the machine, where one is.
	// +optional
	Composed *ComposedUKI `json:"composed,omitempty"`
	// boot is what the operator knows of the machine's boots.
	// +optional
	Boot *BootStatus `json:"boot,omitempty"`
}

// SecretReference names a Secret in the same namespace.
type SecretReference = corev1.LocalObjectReference

// PausedAnnotation, with any value, makes the operator leave a config alone: it
// is neither reconciled nor served.
const PausedAnnotation = "boot.ironcore.dev/paused"

// RequestBootAnnotation opens a new boot attempt whenever its value changes.
const RequestBootAnnotation = "boot.ironcore.dev/request-boot"

// AbortBootAnnotation aborts the boot attempt whose number is its value: nothing is
// delivered in it any more, its tokens are void, nothing is armed again, and no boot
// opens another. A number that is not that of the present attempt does nothing.
const AbortBootAnnotation = "boot.ironcore.dev/abort-boot"

// The keys of Secrets that a config names.
const (
	// SecretKeyIgnition holds the Ignition or Butane document, or the user data.
	SecretKeyIgnition = "ignition"
	// SecretKeyValue is what Cluster API's bootstrap providers call the same.
	SecretKeyValue = "value"
	// SecretKeyMetal3UserData is what users of BareMetalHosts call the same.
	SecretKeyMetal3UserData = "userData"
	// SecretKeyFormat says how to read it: "ignition", "fcos" for Butane or
	// "cloud-config" for user data for cloud-init. Without it the document's
	// beginning tells; under SecretKeyIgnition any other word means Ignition JSON.
	SecretKeyFormat = "format"
	// SecretKeyUserData holds user data for cloud-init, where it is not under
	// SecretKeyIgnition or SecretKeyValue.
	SecretKeyUserData = "user-data"
	// SecretKeyMetaData holds a mapping of strings, as YAML or JSON.
	SecretKeyMetaData = "metaData"
	// SecretKeyNetworkData holds OpenStack network data, as JSON or YAML.
	SecretKeyNetworkData = "networkData"
	// SecretKeyVendorData and SecretKeyNetworkConfig hold the optional files of
	// cloud-init's NoCloud data source.
	SecretKeyVendorData    = "vendor-data"
	SecretKeyNetworkConfig = "network-config"
	// SecretKeyIPXEScript holds an iPXE script.
	SecretKeyIPXEScript = "ipxe-script"
	// SecretKeyDB and SecretKeyDBX hold what firmware trusts and refuses, as PEM or as
	// EFI signature lists.
	SecretKeyDB  = "db"
	SecretKeyDBX = "dbx"
	// SecretKeyTrustedRoot holds a sigstore trusted root (JSON).
	SecretKeyTrustedRoot = "trusted_root.json"
	// FormatIgnition is the value of SecretKeyFormat for Ignition JSON.
	FormatIgnition = "ignition"
	// FormatButane is the value of SecretKeyFormat for Butane of any variant.
	FormatButane = "fcos"
	// FormatCloudConfig is the value of SecretKeyFormat for cloud-init.
	FormatCloudConfig = "cloud-config"
)

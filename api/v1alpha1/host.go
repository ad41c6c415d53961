package v1alpha1

// The annotations of a BareMetalHost (metal3.io/v1alpha1) that this operator
// reads and writes.
const (
	// HostSystemUUIDAnnotation is the SMBIOS UUID of the machine. The operator
	// records it when it has first read it from the BMC; a BMC that tells another
	// one later is in front of another machine, and nothing is done to that. Remove
	// it to accept the machine. Where the operator does not speak to the BMC, who
	// makes the host may write it.
	HostSystemUUIDAnnotation = "boot.ironcore.dev/system-uuid"
	// HostBootPolicyAnnotation is Once, for an installation, or Always, for a
	// diskless machine. Without it spec.image.format decides: live-iso is Always,
	// raw or none is Once.
	HostBootPolicyAnnotation = "boot.ironcore.dev/boot-policy"
	// HostPullSecretAnnotation names a Secret of type
	// kubernetes.io/dockerconfigjson in the host's namespace, for the registry of
	// the image, where spec.image.ociAuthSecretName is not set.
	HostPullSecretAnnotation = "boot.ironcore.dev/pull-secret"
	// HostAddressesAnnotation are the IP addresses that the machine will have when
	// it boots, with commas between them: an address proves who is asking.
	HostAddressesAnnotation = "boot.ironcore.dev/addresses"
	// HostKernelArgumentsAnnotation are arguments for the kernel's command line, with
	// spaces between them: at most 64, of printable ASCII. A finished UKI takes none; of
	// an image with a stub, a kernel and an initrd the operator composes one.
	HostKernelArgumentsAnnotation = "boot.ironcore.dev/kernel-arguments"
	// HostProvisionedWhenAnnotation is ImageAndUserData, Image or UserData: what the
	// machine must have fetched to be provisioned. Default: ImageAndUserData.
	HostProvisionedWhenAnnotation = "boot.ironcore.dev/provisioned-when"
	// HostTakeOverAnnotation, with any value, says that baremetal-operator does not
	// manage this host any more, although it left its traces.
	HostTakeOverAnnotation = "boot.ironcore.dev/take-over"
	// HostRestartAnnotation is the operator's own: a restart that it is about to do
	// to a host that must not be switched off, so that a crash repeats none. Its
	// value is the BMC's LastResetTime from before.
	HostRestartAnnotation = "boot.ironcore.dev/restarting"
)

// HostRequestBootAnnotation, on a BareMetalHost, asks for one more boot from the
// network whenever its value changes, as it does on a config.
const HostRequestBootAnnotation = RequestBootAnnotation

// ProvisionedWhen says what a machine must have fetched to be provisioned.
type ProvisionedWhen string

// What must have been fetched.
const (
	// ProvisionedWhenImageAndUserData: the image and, where the host has some, the
	// user data.
	ProvisionedWhenImageAndUserData ProvisionedWhen = "ImageAndUserData"
	// ProvisionedWhenImage: the image alone, for one that reads no user data.
	ProvisionedWhenImage ProvisionedWhen = "Image"
	// ProvisionedWhenUserData: the user data alone, for a machine that has its
	// image from elsewhere too.
	ProvisionedWhenUserData ProvisionedWhen = "UserData"
)

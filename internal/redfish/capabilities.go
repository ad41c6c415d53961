package redfish

import (
	"context"
	"crypto/x509"
	"time"
)

// Power switches a machine.
type Power interface {
	// Power reads the state now.
	Power(ctx context.Context) (PowerReading, error)
	// On switches the machine on; one that is on is left alone. A request whose
	// answer was lost returns ErrLost: read the state, and do not repeat blindly.
	On(ctx context.Context) error
	// Off pulls the plug (ForceOff); a machine that is off is left alone.
	Off(ctx context.Context) error
	// Shutdown asks the operating system to switch off (GracefulShutdown). It
	// returns ErrUnsupported where the BMC cannot ask.
	Shutdown(ctx context.Context) error
	// Restart resets a machine that is on without switching it off, for machines
	// that must not be switched off.
	Restart(ctx context.Context) error
}

// PowerState is ComputerSystem.PowerState; empty where the BMC does not say.
type PowerState string

// The power states.
const (
	PowerOn          PowerState = "On"
	PowerOff         PowerState = "Off"
	PowerPoweringOn  PowerState = "PoweringOn"
	PowerPoweringOff PowerState = "PoweringOff"
)

// PowerReading is what a BMC says of its machine at one moment.
type PowerReading struct {
	State PowerState
	// LastReset is ComputerSystem.LastResetTime as the BMC wrote it. Its clock is
	// its own: compare it only with an earlier value of itself.
	LastReset string
	// Progress is BootProgress.LastState; empty where the BMC does not say.
	Progress string
}

// BootOnce tells a machine to boot from the network once.
type BootOnce interface {
	// BootPaths reads what the BMC can be told; it writes nothing.
	BootPaths(ctx context.Context) (BootPaths, error)
	// Arm sets one network boot and reads it back. It returns ErrUnsupported
	// where this tactic cannot work on this BMC, and ErrBusy, with the time to
	// wait, where the BMC cannot take it now.
	Arm(ctx context.Context, r BootRequest) (Armed, error)
	// Disarm takes back what Arm left behind: the override, and the URL in the
	// property that Armed.PinnedBy named (empty: none). What is gone already is
	// no error.
	Disarm(ctx context.Context, pinnedBy string) error
	// PreferNetwork puts the network boot of the NIC with this MAC address (empty:
	// any) first in the machine's persistent boot order, HTTP before PXE or PXE
	// alone. It returns ErrUnsupported where the order cannot be written.
	PreferNetwork(ctx context.Context, mac string, http bool) error
}

// Tactic is one way to ask a BMC for a network boot.
type Tactic string

// The tactics, in the order in which they are tried.
const (
	TacticHTTP            Tactic = "UefiHttp"
	TacticHTTPWithoutMode Tactic = "UefiHttpWithoutMode"
	TacticPXE             Tactic = "Pxe"
)

// BootRequest is one network boot.
type BootRequest struct {
	Tactic Tactic
	// URL is what the firmware is to boot, where the BMC can be told; empty: the
	// DHCP server says.
	URL string
	// MAC is the NIC to boot from, where that can be chosen; empty: any.
	MAC string
}

// Armed is what a BMC made of a BootRequest.
type Armed struct {
	Tactic Tactic
	// PinnedBy is the property that holds the URL: HttpBootUri, HttpDev1Uri or
	// UrlBootFile; empty where the URL could not be set.
	PinnedBy string
	// Confirmed says that reading back showed what was written.
	Confirmed bool
	// Warnings are what was odd, each a sentence for a person; they hold no URL.
	Warnings []string
}

// BootPaths are the ways to boot over the network that a BMC knows.
type BootPaths struct {
	// HTTP and PXE say whether the override can name them: allowable values, or
	// what is known of this BMC where it publishes none.
	HTTP, PXE bool
	// PinsURL is the property that can hold the URL; empty: only DHCP can say it.
	PinsURL string
	// Order says whether the persistent boot order can be written.
	Order bool
	// IgnoresOnce says that this BMC is known to boot again what was asked once.
	IgnoresOnce bool
}

// Inventory reads what a machine is.
type Inventory interface {
	// Identity reads which machine this is.
	Identity(ctx context.Context) (Identity, error)
	// Hardware reads what the machine is made of. A part that cannot be read is
	// left out and told in Hardware.Missing.
	Hardware(ctx context.Context) (Hardware, error)
}

// Identity is which machine is behind a BMC.
type Identity struct {
	// SystemPath is the @odata.id of the ComputerSystem.
	SystemPath string
	// UUID is as the BMC writes it; some write it in EFI_GUID byte order.
	UUID, Serial, SKU      string
	Manufacturer, Model    string
	HostName               string
	BMCModel, BMCFirmware  string
	RedfishVersion, Vendor string
}

// Hardware is what a machine is made of, as its BMC says.
type Hardware struct {
	BIOSVersion string
	// MemoryMiB is the memory in MiB.
	MemoryMiB int
	CPU       CPU
	NICs      []NIC
	Disks     []Disk
	// Missing are the parts that could not be read, each with why.
	Missing []string
}

// CPU is all processors together.
type CPU struct {
	// Architecture is amd64, arm64, or empty where the BMC does not say.
	Architecture string
	Model        string
	// Count is the number of threads, or of cores where threads are not told.
	Count int
	// MaxMHz is the highest clock speed in MHz.
	MaxMHz int
}

// NIC is one network interface.
type NIC struct {
	// Name is the BMC's, not the operating system's.
	Name, Model string
	// MAC is canonical: lower case with colons.
	MAC string
	// Addrs are its IP addresses, canonical.
	Addrs    []string
	SpeedMbs int
	LinkUp   bool
}

// Disk is one drive.
type Disk struct {
	Name, Vendor, Model, Serial string
	// Bytes is the capacity.
	Bytes int64
	// Type is HDD, SSD or NVME; empty where the BMC does not say.
	Type       string
	Rotational bool
	// WWN is the drive's World Wide Name, where it has one.
	WWN string
}

// SecureBoot reads and sets UEFI Secure Boot (SecureBoot, DSP0268).
type SecureBoot interface {
	// SecureBoot says whether Secure Boot is on, and will be at the next boot.
	SecureBoot(ctx context.Context) (SecureBootState, error)
	// SetSecureBoot sets it for the next boot.
	SetSecureBoot(ctx context.Context, on bool) error
}

// SecureBootState is what a BMC says of UEFI Secure Boot.
type SecureBootState struct {
	// Enabled is SecureBootEnable, for the next boot; Current is what the present
	// boot runs with: Enabled, Disabled, or empty.
	Enabled bool
	Current string
	// Mode is SetupMode, UserMode, AuditMode or DeployedMode.
	Mode string
}

// SecureBootDatabases reads and changes what firmware trusts under UEFI Secure Boot
// (SecureBootDatabase 1.0, DSP0268). Its methods return ErrUnsupported where the BMC
// has no databases, or not this one.
type SecureBootDatabases interface {
	// SecureBootDatabaseIDs are the databases that there are, such as PK, KEK, db, dbx
	// and their defaults, dbDefault.
	SecureBootDatabaseIDs(ctx context.Context) ([]string, error)
	// SecureBootDatabase reads one database.
	SecureBootDatabase(ctx context.Context, id string) (SecureBootDatabase, error)
	// AddSecureBootCertificate adds a PEM certificate to a database, unless it is there
	// already, and reads the database back. It returns boot.ErrInvalid for what is no
	// certificate, and ErrRefused, with the BMC's words, where it takes none now: some
	// do so in Setup Mode only, or after somebody allowed it in the firmware's setup.
	AddSecureBootCertificate(ctx context.Context, id string, pem []byte) (Enrolled, error)
	// ResetSecureBootKeys empties a database, or makes it what its maker had in it; an
	// empty id is all databases.
	ResetSecureBootKeys(ctx context.Context, id string, how ResetKeys) error
}

// The databases of UEFI Secure Boot (UEFI 2.10, section 32) that are spoken of here.
const (
	DatabasePK  = "PK"
	DatabaseKEK = "KEK"
	DatabaseDB  = "db"
	DatabaseDBX = "dbx"
)

// SecureBootDatabase is what a BMC says of one database.
type SecureBootDatabase struct {
	ID string
	// Certificates are at most 64 of those in it.
	Certificates []SecureBootCertificate
	// Signatures is how many hashes and other signatures are in it.
	Signatures int
}

// SecureBootCertificate is a certificate in a database.
type SecureBootCertificate struct {
	// Path is its resource.
	Path string
	// Certificate is nil where the BMC does not show it whole; then Subject, Issuer and
	// Fingerprint are what it says, as it writes them, and may be empty.
	Certificate                  *x509.Certificate
	Subject, Issuer, Fingerprint string
}

// Enrolled is what became of a certificate that was to be added.
type Enrolled struct {
	// Already says that it was there, and nothing was sent.
	Already bool
	// Shown says that reading back shows it. Where it does not, the BMC may give it to
	// the firmware at the next boot.
	Shown bool
	// Messages are what the BMC said of it, for a person.
	Messages []string
	// Database is as it was read back.
	Database SecureBootDatabase
}

// ResetKeys is a ResetKeysType (SecureBoot and SecureBootDatabase, DSP0268).
type ResetKeys string

// How keys are reset.
const (
	ResetToDefault ResetKeys = "ResetAllKeysToDefault"
	ResetDeleteAll ResetKeys = "DeleteAllKeys"
	// ResetDeletePK puts the firmware in Setup Mode; it is for all databases only.
	ResetDeletePK ResetKeys = "DeletePK"
)

// BootCertificates are the certificate authorities that firmware trusts for HTTPS
// boot (ComputerSystem Boot/Certificates, 1.7).
type BootCertificates interface {
	// AddBootCertificate installs a PEM certificate, unless it is there already.
	AddBootCertificate(ctx context.Context, pem []byte) error
}

// VirtualMedia inserts an image into a virtual drive.
type VirtualMedia interface {
	// InsertMedia inserts the image at url into the first drive for CDs.
	InsertMedia(ctx context.Context, url string) error
	// EjectMedia empties that drive.
	EjectMedia(ctx context.Context) error
}

// BMC is one machine's BMC, for as long as Clients.Do lends it.
type BMC interface {
	Power
	BootOnce
	Inventory
	SecureBoot
	SecureBootDatabases
	BootCertificates
	VirtualMedia
	// Quirks are the rows of the quirks table that apply to this BMC.
	Quirks() []Quirk
}

// Connection says which BMC, and as whom.
type Connection struct {
	Address            Address
	Username, Password string
	// CA is a PEM bundle of authorities that are trusted beside the system's.
	CA []byte
	// InsecureSkipVerify takes any certificate.
	InsecureSkipVerify bool
	// Session logs in and out, in place of basic authentication.
	Session bool
	// UUID and Serial are the machine that is expected; empty: any. Before
	// anything is done the system is asked for them, and another machine is
	// ErrWrongSystem.
	UUID, Serial string
}

// Verified says whether the connection proves that it is this BMC's: what is set
// over it was set on no other.
func (c Connection) Verified() bool { return c.Address.TLS && !c.InsecureSkipVerify }

// Quirk is one thing that a BMC does differently from what the schemas say.
type Quirk struct {
	// Name is short, such as "no-mode-write".
	Name string
	// Reason is what was seen, for a person.
	Reason string
}

// Limits keep BMCs from being asked too much. The zero value is the default.
type Limits struct {
	// Global is how many BMCs are spoken to at once. Default: 64.
	Global int
	// PerSecond is how many requests a second one BMC gets at most. Default: 10.
	PerSecond float64
	// Timeout bounds one request. Default: 60 s.
	Timeout time.Duration
	// Operation bounds one call of Clients.Do, waiting for its turn included.
	// Default: 5 min.
	Operation time.Duration
	// MaxBody bounds one answer in bytes, unpacked. Default: 8 MiB.
	MaxBody int64
	// BreakAfter failures to connect in a row, a BMC is left alone for a time that
	// doubles from BreakFor up to 5 minutes. Defaults: 3, 5 s.
	BreakAfter int
	BreakFor   time.Duration
}

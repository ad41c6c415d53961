package bmcsim

import (
	"context"
	"errors"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

// ErrNoBootOrder: the machine's persistent boot order cannot be written.
var ErrNoBootOrder = errors.New("this machine has no boot order that can be written")

// Machine is what a BMC powers. The BMC calls On, Off, Shutdown and SetBootOrder
// one at a time; IsOn and BootOrder may be called at any time.
type Machine interface {
	// On switches the machine on; one that is on is left alone. What next names is
	// tried first, once; then the machine's own boot order goes on.
	On(ctx context.Context, next NextBoot) error
	// Off pulls the plug; a machine that is off is left alone.
	Off() error
	// Shutdown asks the operating system to switch off (ACPI) and returns when it
	// was asked. IsOn says when, and whether, it obeyed.
	Shutdown(ctx context.Context) error
	// IsOn says whether the machine has power now.
	IsOn() bool
	// OnReset tells the machine whom to ask what to boot first when it resets from
	// inside (a reboot of its operating system). The machine asks once for each
	// such reset, never from within one of its own methods, and holding no lock
	// that these take. OnReset is called once, before the machine is first
	// switched on.
	OnReset(func() NextBoot)
	// BootOrder is the persistent boot order, first to last; nil where the machine
	// has none that can be read.
	BootOrder() []BootOption
	// SetBootOrder writes the persistent boot order: the references of BootOrder,
	// in the order wanted; those that are left out are not tried. It returns
	// ErrNoBootOrder where the order cannot be written.
	SetBootOrder(references []string) error
}

// SecureBooter is a Machine that keeps the keys of its UEFI Secure Boot itself, as real
// firmware does. For any other the BMC keeps them, and plays the firmware. The BMC
// calls SetSecureBoot as it calls SetBootOrder, the others as BootOrder.
type SecureBooter interface {
	// HasSecureBoot says whether the firmware knows Secure Boot at all.
	HasSecureBoot() bool
	// SecureBoot reads what there is; it returns an error where it cannot be read.
	SecureBoot() (SecureBoot, error)
	// SetSecureBoot sets Enable and Keys for the next boot.
	SetSecureBoot(enable bool, keys qemu.Keys) error
	// DefaultKeys are those that the machine was made with.
	DefaultKeys() qemu.Keys
}

// SecureBoot is what firmware has of UEFI Secure Boot (UEFI 2.10, section 32).
type SecureBoot struct {
	// Enable says whether the next boot is to check signatures; it does where there is
	// a PK. Current says whether the present boot does, as the firmware says.
	Enable, Current bool
	// Keys are the signatures in PK, KEK, db and dbx.
	Keys qemu.Keys
}

// Kind is what a machine boots from.
type Kind string

// The kinds.
const (
	KindDefault Kind = ""     // the machine's own boot order
	KindHTTP    Kind = "HTTP" // UEFI HTTP Boot
	KindPXE     Kind = "PXE"
	KindDisk    Kind = "Disk"
	KindCD      Kind = "CD"
	KindSetup   Kind = "Setup" // the firmware's setup menu: nothing boots
)

// NextBoot is what the firmware tries first at one power-on or reset.
type NextBoot struct {
	Kind Kind
	// URL is what HTTP Boot or a virtual CD loads; empty: the DHCP server says, or
	// there is none.
	URL string
	// MAC is the NIC to boot from, canonical; empty: any.
	MAC string
	// TLSOnly says that the firmware refuses to boot over plain HTTP. Only a
	// machine that plays its own firmware can heed it.
	TLSOnly bool
}

// BootOption is one entry of a boot order (UEFI 2.10, section 3.1.3).
type BootOption struct {
	// Reference is its name in the variable store, such as Boot0003.
	Reference string
	// Name is for people.
	Name string
	Kind Kind
	// MAC is that of the NIC it boots from, URL what it loads; empty where it has
	// none.
	MAC, URL string
	// DevicePath is its UEFI device path as text; optional.
	DevicePath string
}

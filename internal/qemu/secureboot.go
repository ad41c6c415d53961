package qemu

import (
	"errors"
	"fmt"
	"slices"
)

// Database is one of the variables in which firmware keeps the keys of UEFI Secure
// Boot (UEFI 2.10, section 32.3).
type Database string

// The databases.
const (
	// PK is the platform key; firmware without one is in Setup Mode, and checks
	// nothing.
	PK Database = "PK"
	// KEK are the keys that may change DB and DBX.
	KEK Database = "KEK"
	// DB is what firmware starts, DBX what it does not start in any case.
	DB  Database = "db"
	DBX Database = "dbx"
)

// Databases are all of them.
var Databases = []Database{PK, KEK, DB, DBX}

// SecureBoot describes firmware that checks signatures before it starts anything. The
// zero value is in Setup Mode: it has no keys, and starts what it likes.
type SecureBoot struct {
	// PK, KEK and DB are PEM bundles of the certificates in these databases; a PK has
	// one. With a PK, Secure Boot is on.
	PK, KEK, DB []byte
	// Off: it is switched off, whatever keys there are.
	Off bool
}

// Keys are the signatures in the databases that have some.
type Keys map[Database][]Signature

// Keys reads the bundles.
func (o SecureBoot) Keys() (Keys, error) {
	keys := Keys{}
	for _, d := range []struct {
		name   Database
		bundle []byte
	}{{PK, o.PK}, {KEK, o.KEK}, {DB, o.DB}} {
		if len(d.bundle) == 0 {
			continue
		}
		all, err := CertificateSignatures(d.bundle)
		if err != nil {
			return nil, fmt.Errorf("reading the keys of %s: %w", d.name, err)
		}
		keys[d.name] = all
	}
	if n := len(keys[PK]); n > 1 {
		return nil, fmt.Errorf("reading the keys of %s: it has one certificate, not %d", PK, n)
	}
	return keys, nil
}

var (
	// imageSecurity is EFI_IMAGE_SECURITY_DATABASE_GUID, the vendor of db and dbx.
	imageSecurity = guid{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
	// secureBootEnable is EDK2's gEfiSecureBootEnableDisableGuid, the vendor of the
	// variable of this name.
	secureBootEnable = guid{0xc7, 0x0b, 0xa3, 0xf0, 0x08, 0xaf, 0x56, 0x45, 0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44}
)

// enableVariable is EDK2's switch. Where there is a PK and no such variable, EDK2
// makes it, with 1, as it starts.
const enableVariable = "SecureBootEnable"

func (d Database) vendor() guid {
	if d == DB || d == DBX {
		return imageSecurity
	}
	return globalVariable
}

// Signatures reads a database; one that is not there has none.
func (s *VarStore) Signatures(d Database) ([]Signature, error) {
	data, err := s.get(string(d), d.vendor())
	if errors.Is(err, ErrNoVariable) {
		return nil, nil
	}
	all, err := parseSignatures(data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", d, err)
	}
	return all, nil
}

// Keys reads all databases.
func (s *VarStore) Keys() (Keys, error) {
	keys := Keys{}
	for _, d := range Databases {
		all, err := s.Signatures(d)
		if err != nil {
			return nil, err
		}
		if len(all) > 0 {
			keys[d] = all
		}
	}
	return keys, nil
}

// SetSignatures writes a database, as firmware does that need not ask anybody: what is
// written is not signed by any key. Without signatures the database goes.
func (s *VarStore) SetSignatures(d Database, all []Signature) error {
	if len(all) == 0 {
		s.delete(string(d), d.vendor())
		return nil
	}
	old, err := s.Signatures(d)
	if err == nil && slices.EqualFunc(old, all, Signature.Same) {
		return nil
	}
	h := variableHeader{Attributes: nonVolatile | bootAccess | runtimeAccess | timeAuthenticated, Vendor: d.vendor(), Time: keysTime}
	if v, err := s.find(string(d), d.vendor()); err == nil {
		h.Time = v.header.Time // a later signed change has to be younger
	}
	return s.set(string(d), encodeSignatures(all), h)
}

// keysTime is the EFI_TIME of the keys that we write: 2020-01-01.
var keysTime = [16]byte{0xe4, 0x07, 1, 1}

// SecureBootEnabled tells whether the firmware has switched Secure Boot on: it checks
// signatures then. It is right once the firmware has started with the keys that there
// are.
func (s *VarStore) SecureBootEnabled() bool {
	_, noKey := s.get(string(PK), PK.vendor())
	on, err := s.get(enableVariable, secureBootEnable)
	return noKey == nil && err == nil && len(on) == 1 && on[0] == 1
}

// SwitchSecureBoot switches Secure Boot on or off for the next start. Switching on is
// the firmware's to do, as it starts with a PK; until then SecureBootEnabled is false.
func (s *VarStore) SwitchSecureBoot(on bool) error {
	switch {
	case on && s.SecureBootEnabled():
		return nil
	case on:
		s.delete(enableVariable, secureBootEnable)
		return nil
	}
	return s.set(enableVariable, []byte{0}, variableHeader{Attributes: nonVolatile | bootAccess, Vendor: secureBootEnable})
}

// SecureBootSwitchedOff tells whether SwitchSecureBoot, or the guest, has switched
// Secure Boot off.
func (s *VarStore) SecureBootSwitchedOff() bool {
	on, err := s.get(enableVariable, secureBootEnable)
	return err == nil && len(on) == 1 && on[0] == 0
}

// SetKeys writes what the machine's firmware trusts, and whether it is to check it. The
// machine must be off, or in OnReset's function, and must have been made with
// MachineOptions.SecureBoot.
func (v *VM) SetKeys(keys Keys, on bool) error {
	if v.options.SecureBoot == nil {
		return v.noSecureBoot()
	}
	return v.edit(func(s *VarStore) error { return s.setKeys(keys, on) })
}

func (s *VarStore) setKeys(keys Keys, on bool) error {
	for _, d := range Databases {
		if err := s.SetSignatures(d, keys[d]); err != nil {
			return fmt.Errorf("writing %s: %w", d, err)
		}
	}
	return s.SwitchSecureBoot(on)
}

func (v *VM) noSecureBoot() error {
	return fmt.Errorf("%s was made without Secure Boot: %w", v.options.Name, errors.ErrUnsupported)
}

// Package claim reads from a config which machine it claims.
package claim

import (
	"errors"
	"fmt"
	"slices"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// Machine returns the machine that cfg is for, its identifiers canonical and
// without repetition. def is the architecture of a config that names none. It
// returns boot.ErrInvalid, naming every identifier that is wrong; the machine
// then holds those that are right.
func Machine(cfg v1alpha1.Config, def boot.Architecture) (boot.Machine, error) {
	c := cfg.Common()
	m := boot.Machine{Architecture: def}
	if c.Architecture != "" {
		m.Architecture = boot.Architecture(c.Architecture)
	}
	var errs []error
	if c.SystemUUID != "" {
		uuid, err := boot.ParseUUID(c.SystemUUID)
		if err != nil {
			errs = append(errs, fmt.Errorf("spec.systemUUID: %w", err))
		}
		m.UUID = uuid
	}
	for _, id := range c.Identifiers {
		addr, mac, err := boot.ParseIdentifier(id)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("spec.networkIdentifiers: %w", err))
		case mac != "" && !slices.Contains(m.MACs, mac):
			m.MACs = append(m.MACs, mac)
		case addr.IsValid() && !slices.Contains(m.Addrs, addr):
			m.Addrs = append(m.Addrs, addr)
		}
	}
	return m, errors.Join(errs...)
}

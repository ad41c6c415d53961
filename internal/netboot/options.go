package netboot

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Options is what a Server needs. All but Relays, AnswerEveryone, Registerer and
// Now must be set.
type Options struct {
	Source   boot.Source
	Attempts boot.Attempts
	Issuer   *boot.Issuer
	// Interfaces are the names of the Ethernet interfaces to serve on. Each
	// segment that machines boot from is either attached by one of them, or
	// reached through one of Relays.
	Interfaces []string
	// Relays are where trusted DHCP relays are: of a relayed message both the
	// address that it came from and its giaddr must lie in one of them.
	Relays []netip.Prefix
	// AnswerEveryone offers a boot to machines without a plan too, so that any
	// client on the segment that tries to boot from the network does: HTTP Boot
	// gets <base>/httpboot, PXE gets iPXE, and iPXE gets <base>/boot.ipxe.
	AnswerEveryone bool
	// BaseURL returns the URL of the boot server, without a slash at the end, for
	// clients at the interface with this address. Its host should be a literal
	// IP: firmware may have no name server.
	BaseURL func(local netip.Addr) string
	// ProgramDir holds the network boot programs, see the package's comment.
	ProgramDir string
	Logger     logr.Logger
	Registerer prometheus.Registerer
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

func (o *Options) validate() error {
	switch {
	case o.Source == nil || o.Attempts == nil || o.Issuer == nil || o.BaseURL == nil:
		return errors.New("netboot needs a source, attempts, an issuer and a base URL")
	case len(o.Interfaces) == 0:
		return errors.New("netboot needs at least one interface")
	}
	for _, p := range o.Relays {
		if !p.IsValid() || !p.Addr().Is4() {
			return fmt.Errorf("relay %s is not an IPv4 prefix such as 10.0.0.1/32", p)
		}
	}
	if _, err := os.ReadDir(o.ProgramDir); err != nil {
		return fmt.Errorf("reading the directory of network boot programs: %w", err)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

package boot

import (
	"net/netip"
	"time"
)

const (
	// AttemptLifetime is how long an attempt stays open when no secret is
	// fetched, counted from its opening.
	AttemptLifetime = 30 * time.Minute
	// SecretGrace is how long an attempt stays open after the first complete
	// delivery of its secret: a client may try again.
	SecretGrace = 2 * time.Minute
	// HeldBack is how many bytes at the end of a blob wait for its digest to
	// be verified, and for the commit of a plan that says Once.
	HeldBack = 64 << 10
)

// Attempt is one boot of one machine, from the moment that the control plane
// or a boot delivery opens it. Secrets are only served while it is open.
type Attempt struct {
	// Number counts the attempts of one object from 1; 0 means none yet.
	Number   int64
	OpenedAt time.Time
	// SecretServedAt is the end of the first complete delivery of a secret.
	SecretServedAt time.Time
	// SecretAddr is the address that fetched the secret first. Nobody else
	// gets it in this attempt.
	SecretAddr netip.Addr
	// BootServedAt is the end of the first complete delivery of boot bytes.
	BootServedAt time.Time
	// Spent says that the one delivery of a plan that says Once is committed.
	Spent bool
	// BootAddr is the address of this attempt's first complete delivery of boot
	// bytes, or of the first one that began, and BootProof how the machine was
	// known there. From then on, and only while the attempt is open, that address
	// names the machine too.
	BootAddr  netip.Addr
	BootProof Proof
	// Armed says that a URL with a token of this attempt was set through the
	// machine's BMC: no weaker path is offered beside it.
	Armed bool
	// Port is where a trusted DHCP relay sees the machine; zero until it did.
	Port RelayPort
	// Aborted says that somebody ended the attempt: nothing is delivered in it any
	// more, and no boot opens another.
	Aborted bool
	// Ambiguous says that requests for several machines came from this
	// machine's address in this attempt: the address proves nothing any more.
	Ambiguous bool
}

// Open says whether secrets may be served at this time.
func (a Attempt) Open(now time.Time) bool {
	if a.Number == 0 || a.Aborted || now.After(a.OpenedAt.Add(AttemptLifetime)) {
		return false
	}
	return a.SecretServedAt.IsZero() || now.Before(a.SecretServedAt.Add(SecretGrace))
}

// Admit says whether the secret of this attempt may be delivered to addr now.
// It returns ErrClosed or ErrContested, and ErrNotReady when there never was
// an attempt.
func (a Attempt) Admit(addr netip.Addr, now time.Time) error {
	switch {
	case a.Number == 0:
		return ErrNotReady
	case a.SecretAddr.IsValid() && a.SecretAddr != addr:
		return ErrContested
	case !a.Open(now):
		return ErrClosed
	}
	return nil
}

// RelayPort is the port of a switch as a DHCP relay names it (RFC 3046).
type RelayPort struct {
	// Relay is the relay's address (giaddr).
	Relay netip.Addr
	// Circuit and Remote are the sub-options 1 and 2 of option 82: as text where
	// they are printable, else in hexadecimal digits after "0x".
	Circuit, Remote string
}

// Client is a machine that is proven, as it begins to boot.
type Client struct {
	Addr  netip.Addr
	Proof Proof
	// Attempt is the one that the client's token is for; 0 without a token.
	Attempt int64
}

// Stage is a step of a boot that the server sees.
type Stage string

// The stages of a boot, and what happens beside them.
const (
	StageIPXEScript Stage = "IPXEScript"
	StageUKI        Stage = "UKI"
	StageIgnition   Stage = "Ignition"
	// StageCloudInit is the delivery of user data to cloud-init.
	StageCloudInit Stage = "CloudInit"
	// StageContested: a second address asked for the attempt's secret.
	StageContested Stage = "SecretContested"
	// StageAmbiguous: a request for another machine came from this machine's
	// address.
	StageAmbiguous Stage = "ClientAddressAmbiguous"
	// StageOffer: a boot was offered to the machine over DHCP.
	StageOffer Stage = "BootOffer"
	// StageForeignOffer: another DHCP server offers the machine a boot.
	StageForeignOffer Stage = "ForeignBootOffer"
	// StageNoProgram: the network boot program for this client is missing.
	StageNoProgram Stage = "NoBootProgram"
	// StageTranslated: a request that names the machine came from a node of our own
	// cluster, as it does where the machine's address is translated on its way. It
	// proves nothing, and takes nothing away either: anyone there can send it.
	StageTranslated Stage = "ClientAddressTranslated"
	// StagePortChanged: a relay saw the machine at another port than before, and
	// nothing was offered there.
	StagePortChanged Stage = "RelayPortChanged"
)

// Observation is what the server saw of one machine's boot.
type Observation struct {
	Object  Ref
	Attempt int64
	Stage   Stage
	// Complete says that every byte was handed to the kernel for sending; a
	// delivery that was cut is reported too, with Complete false.
	Complete bool
	Addr     netip.Addr
	Proof    Proof
	Digest   Digest
	Time     time.Time
	// Sent is how many bytes of the blob were sent so far, and Size how many it has,
	// where it is told: at the end of a delivery, and every few seconds while it goes
	// on. Then Complete is false.
	Sent, Size int64
	// UnderWay says that the delivery goes on. One that is neither complete nor under
	// way was cut.
	UnderWay bool
	// MAC, Firmware and Port are told of offers: the client's MAC address, what
	// it is ("x86-64 UEFI HTTP", …), and where a relay saw it. MAC is told of scripts
	// too, where the client named one of the machine's.
	MAC      MAC
	Firmware string
	Port     RelayPort
	// Detail completes the message of an event: the URL that a foreign server
	// offers, the file that is missing.
	Detail string
}

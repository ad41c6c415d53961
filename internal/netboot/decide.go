package netboot

import (
	"errors"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// The ports of DHCP and PXE (RFC 2131 section 4.1; PXE 2.1 section 2.2.3).
const (
	portServer = 67
	portClient = 68
	portPXE    = 4011
)

// maxURL is the longest URL that is offered: option 67 holds 255 bytes, and some
// firmware less.
const maxURL = 200

// refusal is why a client is not answered, as it is counted.
type refusal string

const (
	// refusedMalformed: no valid DHCP message.
	refusedMalformed refusal = "malformed"
	// refusedRate: too many messages, from all or from this machine.
	refusedRate refusal = "rate"
	// refusedForged: the frame does not come from the machine that it names.
	refusedForged refusal = "forged"
	// refusedRelay: from a relay that is not trusted.
	refusedRelay refusal = "relay"
	// refusedPort: a relay saw the machine at another port than before, or it is
	// on the attached segment now.
	refusedPort refusal = "port"
	// refusedUnknown: the machine has no plan.
	refusedUnknown refusal = "unknown"
	// refusedIdentity: MAC address and UUID name two machines.
	refusedIdentity refusal = "identity"
	// refusedAmbiguous: two objects claim the machine.
	refusedAmbiguous refusal = "ambiguous"
	// refusedArchitecture: no plan of any kind, or not this one, is for it.
	refusedArchitecture refusal = "architecture"
	// refusedKind: the machine's plan cannot be booted this way.
	refusedKind refusal = "kind"
	// refusedNotReady: the plan cannot be served yet.
	refusedNotReady refusal = "not-ready"
	// refusedSpent: the plan says Once, and it was.
	refusedSpent refusal = "spent"
	// refusedAborted: somebody ended the attempt, and nothing asked for another.
	refusedAborted refusal = "aborted"
	// refusedArmed: a boot that was set through the BMC is in force.
	refusedArmed refusal = "armed"
	// refusedUnproven: the plan asks for more proof than an offer can carry.
	refusedUnproven refusal = "unproven"
	// refusedProgram: the network boot program for this firmware is missing.
	refusedProgram refusal = "program"
	// refusedURL: the URL is too long for firmware.
	refusedURL refusal = "url"
	// refusedUnavailable: what is needed to answer is out of reach.
	refusedUnavailable refusal = "unavailable"
)

// verdict is what becomes of a request: a reply, or a refusal.
type verdict struct {
	request request
	refusal refusal
	reply   *dhcpv4.DHCPv4
	// plan is nil for a machine without one.
	plan *boot.Plan
	// seen is to be observed, once for each machine, stage and attempt.
	seen []boot.Observation
}

// answer decides about a packet that was sent to one of our ports. A verdict
// without reply and refusal means that the packet is none of our business.
func (s *Server) answer(packet []byte, a arrival) verdict {
	r, err := readRequest(packet, a.port)
	switch {
	case errors.Is(err, errNotForUs):
		return verdict{}
	case err != nil:
		r.firmware.label = labelOf(r)
		return verdict{request: r, refusal: refusedMalformed}
	case !s.all.AllowN(s.options.Now(), 1):
		return verdict{request: r, refusal: refusedRate}
	}
	v := s.decide(r, a)
	if v.reply != nil && !s.allow(r.mac) {
		return verdict{request: r, refusal: refusedRate}
	}
	return v
}

// labelOf is the architecture that a request is counted under.
func labelOf(r request) string {
	if r.firmware.label == "" {
		return unknownFirmware
	}
	return r.firmware.label
}

// decide applies the rules, in an order that looks at nothing of the machine's
// before the message has proven what it can.
func (s *Server) decide(r request, a arrival) verdict {
	v := verdict{request: r}
	proof, port, refused := s.proofOf(r, a)
	if refused == "" && (r.firmware.arch == "" || r.kind == clientHTTP && r.firmware.bios) {
		refused = refusedArchitecture
	}
	var candidates []candidate
	if refused == "" {
		candidates, refused = s.machineOf(r)
	}
	if refused == refusedUnknown && s.options.AnswerEveryone {
		return s.offerUnknown(v, a)
	}
	var chosen candidate
	if refused == "" {
		chosen, refused = choose(r, candidates)
	}
	if refused != "" {
		v.refusal = refused
		return v
	}
	v.plan = chosen.plan
	attempt, refused := s.gate(chosen, candidates)
	if refused != "" {
		v.refusal = refused
		return v
	}
	if !chosen.byMAC {
		proof, port = boot.Unproven, boot.RelayPort{}
	}
	return s.offer(v, a, offering{proof: proof, port: port, attempt: attempt.Number})
}

// offering is what an offer to a known machine goes by.
type offering struct {
	proof   boot.Proof
	port    boot.RelayPort
	attempt int64
}

// offer makes the reply to a machine with a plan that can be served.
func (s *Server) offer(v verdict, a arrival, o offering) verdict {
	event := boot.Observation{
		Object: v.plan.Object, Attempt: o.attempt, Stage: boot.StageOffer, Complete: true, Proof: o.proof,
		Time: s.options.Now(), MAC: v.request.mac, Firmware: v.request.text(), Port: o.port,
	}
	known := s.options.Attempts.Current(v.plan).Port
	if o.proof != boot.Unproven && known != (boot.RelayPort{}) && known != o.port {
		event.Stage, event.Complete = boot.StagePortChanged, false
		if o.port == (boot.RelayPort{}) {
			event.Detail = "it asked on the segment of " + a.local.String() + ", through no relay"
		}
		return v.refuse(refusedPort, event)
	}
	file, refused := s.fileFor(v, a, o)
	switch {
	case refused == refusedProgram:
		event.Stage, event.Complete = boot.StageNoProgram, false
		event.Detail = missing(v.request.firmware, s.options.ProgramDir)
		return v.refuse(refused, event)
	case refused != "":
		return v.refuse(refused)
	}
	v.reply = s.reply(v.request, a, file)
	v.seen = append(v.seen, event)
	return v
}

func (v verdict) refuse(r refusal, seen ...boot.Observation) verdict {
	v.refusal, v.seen = r, append(v.seen, seen...)
	return v
}

// fileFor returns the URL or the name of the program that the client loads.
func (s *Server) fileFor(v verdict, a arrival, o offering) (string, refusal) {
	token, refused := s.token(v.plan, o, v.request.kind != clientPXE)
	if refused != "" {
		return "", refused
	}
	switch v.request.kind {
	case clientPXE:
		return s.program(v.request.firmware)
	case clientIPXE:
		if token != "" {
			return a.base + "/ipxe/t/" + token, ""
		}
		return a.base + "/boot.ipxe", ""
	case clientHTTP:
	}
	url := a.base + "/httpboot"
	if _, ok := v.plan.Artifact(boot.RoleUKI); !ok && !v.plan.Composes {
		// No firmware follows a redirect, but an offer can name any server.
		url, token = v.plan.Foreign[boot.RoleUKI], ""
	}
	if token != "" {
		url += "/t/" + token + "/uki.efi"
	}
	switch {
	case url == "":
		return "", refusedKind
	case len(url) > maxURL:
		return "", refusedURL
	}
	return url, ""
}

// token returns the machine's boot token, where it is wanted and can be had:
// there is none for a machine that the message does not prove, nor without keys.
// Such a machine is still known by its address, if that is enough for its plan.
func (s *Server) token(p *boot.Plan, o offering, wanted bool) (string, refusal) {
	var token string
	if o.proof >= boot.Address && o.proof >= p.MinimumProof && wanted {
		var err error
		token, err = s.minted(p, o)
		// gate has seen that the attempt is ready, so it is the keys that are not.
		if refused := refusalOf(err); refused != "" && refused != refusedNotReady {
			return "", refused
		}
	}
	if p.MinimumProof > boot.Address && token == "" && (wanted || o.proof < p.MinimumProof) {
		return "", refusedUnproven
	}
	return token, ""
}

// mintedFor is who a token was minted for, and when: to the minute.
type mintedFor struct {
	object  string
	attempt int64
	proof   boot.Proof
	minute  time.Time
}

// minted returns the token of an offer. One is minted once a minute for a machine at
// most, however often it asks: all clients together could keep a processor busy with
// that. What an error says may be over with the next message, so it is not kept.
func (s *Server) minted(p *boot.Plan, o offering) (string, error) {
	key := mintedFor{p.Object.UID, o.attempt, o.proof, s.options.Now().Truncate(time.Minute)}
	if token, ok := s.tokens.peek(key); ok {
		return token, nil
	}
	token, err := s.options.Issuer.Boot(p, boot.Client{Proof: o.proof})
	if err == nil {
		s.tokens.get(key, func() string { return token })
	}
	return token, err //nolint:wrapcheck // the caller makes a refusal of it
}

// program returns the name of the program to load by TFTP.
func (s *Server) program(f firmware) (string, refusal) {
	p, ok := s.catalog.Load().forFirmware(f)
	if !ok {
		return "", refusedProgram
	}
	return p.Name, ""
}

// offerUnknown answers a machine without a plan, when everyone is answered.
func (s *Server) offerUnknown(v verdict, a arrival) verdict {
	var file string
	switch v.request.kind {
	case clientHTTP:
		file = a.base + "/httpboot"
	case clientIPXE:
		file = a.base + "/boot.ipxe"
	case clientPXE:
		var refused refusal
		if file, refused = s.program(v.request.firmware); refused != "" {
			return v.refuse(refused)
		}
	}
	v.reply = s.reply(v.request, a, file)
	return v
}

// reply builds an OFFER, or the ACK that port 4011 answers with. It leases
// nothing: there is no address and no lease time in it.
func (s *Server) reply(r request, a arrival, file string) *dhcpv4.DHCPv4 {
	d := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: r.dhcp.HWType, ClientHWAddr: r.dhcp.ClientHWAddr,
		TransactionID: r.dhcp.TransactionID, Flags: r.dhcp.Flags,
		ServerIPAddr: a.local.AsSlice(), GatewayIPAddr: r.dhcp.GatewayIPAddr,
		Options: dhcpv4.Options{
			optType:     {byte(dhcpv4.MessageTypeOffer)},
			optServer:   a.local.AsSlice(),
			optClass:    []byte("PXEClient"),
			optBootFile: []byte(file),
		},
	}
	if a.port == portPXE {
		d.ClientIPAddr = r.dhcp.ClientIPAddr
		d.Options[optType] = []byte{byte(dhcpv4.MessageTypeAck)}
	}
	if !addrOf(r.dhcp.GatewayIPAddr).IsUnspecified() {
		d.SetUnicast() // the relay would broadcast it, token and all
	}
	switch r.kind {
	case clientHTTP:
		d.Options[optClass] = []byte("HTTPClient")
	case clientPXE:
		d.Options[optVendor] = discovery(r.dhcp.Options[optVendor])
		d.BootFileName = file
	case clientIPXE:
		if len(file) < 128 { // longer ones stand in option 67 alone
			d.BootFileName = file
		}
	}
	for _, echoed := range []uint8{optMachine, optRelay} {
		if value, ok := r.dhcp.Options[echoed]; ok {
			d.Options[echoed] = value
		}
	}
	return d
}

// discovery is option 43 of an offer: PXE_DISCOVERY_CONTROL 8 tells the client to
// load the file of this offer (PXE 2.1, table 2-1), where EDK2 would ask port
// 4011 otherwise. The boot item that a client asks for there is repeated.
func discovery(asked []byte) []byte {
	value := []byte{6, 1, 8}
	sub := make(dhcpv4.Options)
	if err := sub.FromBytes(asked); err == nil && len(sub[71]) == 4 {
		value = append(append(value, 71, 4), sub[71]...)
	}
	return append(value, 255)
}

// missing says which file to add, and where.
func missing(f firmware, dir string) string {
	return "no network boot program for " + f.label + ": add " + strings.Join(wanted(f), " or ") + " to " + dir
}

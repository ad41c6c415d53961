package netboot

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

const (
	httpX64 = "HTTPClient:Arch:00016:UNDI:003001"
	pxeX64  = "PXEClient:Arch:00007:UNDI:003016"
	pxeBIOS = "PXEClient:Arch:00000:UNDI:002001"
)

// file is what a reply tells the client to load.
func file(v verdict) string { return string(v.reply.Options[optBootFile]) }

func TestAnHTTPClientGetsItsURLWithAToken(t *testing.T) {
	w := newWorld(t)
	v := w.answer(discover(macA, httpX64, 16), attachedArrival(macA))
	require.NotNil(t, v.reply, v.refusal)

	require.True(t, strings.HasPrefix(file(v), baseURL+"/httpboot/t/"), file(v))
	require.True(t, strings.HasSuffix(file(v), "/uki.efi"))
	token := w.tokenIn(file(v))
	require.Equal(t, boot.Proxy, token.Proof)
	require.Equal(t, boot.UUID(httpPlan().Object.UID), token.Object)
	require.EqualValues(t, 1, token.Attempt)

	d, err := dhcpv4.FromBytes(v.reply.ToBytes())
	require.NoError(t, err)
	require.Equal(t, dhcpv4.OpcodeBootReply, d.OpCode)
	require.Equal(t, dhcpv4.MessageTypeOffer, d.MessageType())
	require.Equal(t, "HTTPClient", string(d.Options[optClass]))
	require.Equal(t, guid(uuidA), d.Options[optMachine])
	require.Equal(t, []byte{10, 77, 0, 1}, d.Options[optServer])
	require.Equal(t, dhcpv4.TransactionID{1, 2, 3, 4}, d.TransactionID)
	require.True(t, d.YourIPAddr.IsUnspecified(), "a proxy gives no address")
	require.NotContains(t, d.Options, uint8(50))
	require.NotContains(t, d.Options, uint8(51))
	require.NotContains(t, d.Options, uint8(optVendor))

	require.Len(t, v.seen, 1)
	o := v.seen[0]
	require.Equal(t, boot.StageOffer, o.Stage)
	require.EqualValues(t, 1, o.Attempt)
	require.Equal(t, macA, o.MAC)
	require.Equal(t, "x86-64 UEFI HTTP", o.Firmware)
	require.Equal(t, boot.Proxy, o.Proof)
}

func TestEveryDiscoverOfABootGetsTheSameToken(t *testing.T) {
	w := newWorld(t)
	w.now = t0.Truncate(15 * time.Minute)
	first := w.answer(discover(macA, httpX64, 16), attachedArrival(macA))
	w.now = w.now.Add(14 * time.Minute)
	again := w.answer(discover(macA2, httpX64, 16), attachedArrival(macA2))
	require.Equal(t, file(first), file(again))
}

func TestTheArchitectureDecidesWhatIsOffered(t *testing.T) {
	for name, c := range map[string]struct {
		class string
		arch  uint16
		plan  boot.Architecture
		want  string // a prefix of the file
		no    refusal
	}{
		"BIOS":                      {pxeBIOS, 0, boot.AMD64, "undionly.kpxe", ""},
		"x86-64":                    {pxeX64, 7, boot.AMD64, "snponly.efi", ""},
		"x86-64 as EFI byte code":   {"PXEClient:Arch:00009", 9, boot.AMD64, "snponly.efi", ""},
		"arm64":                     {"PXEClient:Arch:00011", 11, boot.ARM64, "arm64/snponly.efi", ""},
		"x86-64 HTTP":               {httpX64, 16, boot.AMD64, baseURL + "/httpboot/t/", ""},
		"arm64 HTTP":                {"HTTPClient:Arch:00019", 19, boot.ARM64, baseURL + "/httpboot/t/", ""},
		"arm64, plan for x86-64":    {"PXEClient:Arch:00011", 11, boot.AMD64, "", refusedArchitecture},
		"x86-64, plan for arm64":    {httpX64, 16, boot.ARM64, "", refusedArchitecture},
		"IA32":                      {"PXEClient:Arch:00006", 6, boot.AMD64, "", refusedArchitecture},
		"IA32 HTTP":                 {"HTTPClient:Arch:00015", 15, boot.AMD64, "", refusedArchitecture},
		"arm 32 HTTP":               {"HTTPClient:Arch:00018", 18, boot.ARM64, "", refusedArchitecture},
		"riscv64":                   {"PXEClient:Arch:00027", 27, boot.AMD64, "", refusedArchitecture},
		"a number nobody gave":      {"PXEClient:Arch:60000", 60000, boot.AMD64, "", refusedArchitecture},
		"HTTP Boot of a BIOS":       {"HTTPClient", 0, boot.AMD64, "", refusedArchitecture},
		"plan without architecture": {"PXEClient:Arch:00011", 11, "", "arm64/snponly.efi", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			h, i := httpPlan(), ipxePlan()
			h.Machine.Architecture, i.Machine.Architecture = c.plan, c.plan
			w.source.plans = []*boot.Plan{h, i}
			v := w.answer(discover(macA, c.class, c.arch), attachedArrival(macA))
			require.Equal(t, c.no, v.refusal)
			if c.no != "" {
				require.Nil(t, v.reply)
				return
			}
			require.True(t, strings.HasPrefix(file(v), c.want), file(v))
		})
	}
}

func TestTheArchitectureIsFoundWhereverFirmwareSaysIt(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*message){
		"several values, the first known one counts": option(optArch, 0xff, 0xff, 0, 16, 0, 19),
		"only in the vendor class":                   option(optArch),
		"an odd byte at the end":                     option(optArch, 0, 16, 0),
		"a single byte":                              option(optArch, 16),
	} {
		v := w.answer(discover(macA, httpX64, 16, change), attachedArrival(macA))
		require.Empty(t, v.refusal, name)
	}
	v := w.answer(discover(macA, "HTTPClient", 16, option(optArch)), attachedArrival(macA))
	require.Equal(t, refusedArchitecture, v.refusal)
}

func TestAPXEClientIsToldToLoadTheFileOfTheOffer(t *testing.T) {
	w := newWorld(t)
	v := w.answer(discover(macA, pxeX64, 7), attachedArrival(macA))
	require.NotNil(t, v.reply, v.refusal)
	require.Equal(t, "snponly.efi", v.reply.BootFileName)
	require.Equal(t, "snponly.efi", file(v))
	require.Equal(t, "10.77.0.1", v.reply.ServerIPAddr.String())
	require.Equal(t, "PXEClient", string(v.reply.Options[optClass]))
	require.Equal(t, []byte{6, 1, 8, 255}, v.reply.Options[optVendor], "without it EDK2 asks port 4011")
	require.Equal(t, guid(uuidA), v.reply.Options[optMachine])
	require.NotContains(t, string(v.reply.ToBytes()), "/t/")
}

func TestIPXEGetsAScript(t *testing.T) {
	for name, class := range map[string][]byte{
		"bare":            []byte("iPXE"),
		"with its length": []byte("\x04iPXE"),
		"among others":    []byte("\x03abc\x04iPXE"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.source.plans = []*boot.Plan{ipxePlan(), httpPlan()}
			v := w.answer(discover(macA, pxeBIOS, 0, option(optUserClass, class...)), attachedArrival(macA))
			require.NotNil(t, v.reply, v.refusal)
			require.True(t, strings.HasPrefix(file(v), baseURL+"/ipxe/t/"), file(v))
			require.Equal(t, file(v), v.reply.BootFileName)
			require.Equal(t, boot.UUID(ipxePlan().Object.UID), w.tokenIn(file(v)).Object)
			require.Equal(t, "PXEClient", string(v.reply.Options[optClass]))
		})
	}
	for _, class := range []string{"iPXE2", "\x05iPXE", "\x00iPXE", "\x04iPX", "\xff"} {
		require.False(t, isIPXE([]byte(class)), "%q", class)
	}
}

func TestAMachineBootsByThePlanThatFitsItsClient(t *testing.T) {
	ipxe := option(optUserClass, []byte("iPXE")...)
	for name, c := range map[string]struct {
		plans []*boot.Plan
		sent  []byte
		want  string
		no    refusal
	}{
		"UEFI iPXE with a UKI only":    {[]*boot.Plan{httpPlan()}, discover(macA, pxeX64, 7, ipxe), baseURL + "/ipxe/t/", ""},
		"UEFI PXE with a UKI only":     {[]*boot.Plan{httpPlan()}, discover(macA, pxeX64, 7), "snponly.efi", ""},
		"BIOS iPXE with a UKI only":    {[]*boot.Plan{httpPlan()}, discover(macA, pxeBIOS, 0, ipxe), "", refusedKind},
		"BIOS with a UKI only":         {[]*boot.Plan{httpPlan()}, discover(macA, pxeBIOS, 0), "", refusedKind},
		"HTTP Boot with a script only": {[]*boot.Plan{ipxePlan()}, discover(macA, httpX64, 16), "", refusedKind},
		"UEFI PXE with a script only":  {[]*boot.Plan{ipxePlan()}, discover(macA, pxeX64, 7), "snponly.efi", ""},
		"a plan without a UKI":         {[]*boot.Plan{change(httpPlan(), func(p *boot.Plan) { p.Artifacts = nil })}, discover(macA, httpX64, 16), "", refusedKind},
		"a composed UKI": {[]*boot.Plan{change(httpPlan(), func(p *boot.Plan) {
			p.Artifacts, p.Composes = []boot.Artifact{{Role: boot.RoleStub}, {Role: boot.RoleKernel}}, true
		})}, discover(macA, httpX64, 16), baseURL + "/httpboot/t/", ""},
		"a foreign UKI": {[]*boot.Plan{change(httpPlan(), func(p *boot.Plan) {
			p.Artifacts, p.Foreign = nil, map[boot.Role]string{boot.RoleUKI: "http://192.0.2.1/uki.efi"}
		})}, discover(macA, httpX64, 16), "http://192.0.2.1/uki.efi", ""},
		"a foreign URL that is too long": {[]*boot.Plan{change(httpPlan(), func(p *boot.Plan) {
			p.Artifacts, p.Foreign = nil, map[boot.Role]string{boot.RoleUKI: "http://192.0.2.1/" + strings.Repeat("x", 200)}
		})}, discover(macA, httpX64, 16), "", refusedURL},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.source.plans = c.plans
			v := w.answer(c.sent, attachedArrival(macA))
			require.Equal(t, c.no, v.refusal)
			if c.no == "" {
				require.True(t, strings.HasPrefix(file(v), c.want), file(v))
			}
		})
	}
}

func change(p *boot.Plan, c func(*boot.Plan)) *boot.Plan {
	c(p)
	return p
}

func TestAMachineIsKnownByMACAndUUIDInEitherByteOrder(t *testing.T) {
	b, err := uuidA.Bytes()
	require.NoError(t, err)
	unswapped := append([]byte{0}, b[:]...)
	zeros := make([]byte, 17)
	other := change(httpPlan(), func(p *boot.Plan) {
		p.Machine.UUID, p.Machine.MACs, p.Object.UID = uuidB, []boot.MAC{macB}, "33333333-3333-3333-3333-333333333333"
	})
	macOnly := change(httpPlan(), func(p *boot.Plan) { p.Machine.UUID = "" })
	for name, c := range map[string]struct {
		plans []*boot.Plan
		mac   boot.MAC
		uuid  []byte
		token bool
		no    refusal
	}{
		"EFI order":                        {[]*boot.Plan{httpPlan(), other}, macA, guid(uuidA), true, ""},
		"printed order":                    {[]*boot.Plan{httpPlan(), other}, macA, unswapped, true, ""},
		"the second NIC of one config":     {[]*boot.Plan{httpPlan()}, macA2, guid(uuidA), true, ""},
		"no UUID":                          {[]*boot.Plan{httpPlan()}, macA, nil, true, ""},
		"zeros":                            {[]*boot.Plan{httpPlan()}, macA, zeros, true, ""},
		"a placeholder of a vendor":        {[]*boot.Plan{httpPlan()}, macA, guid("03000200-0400-0500-0006-000700080009"), true, ""},
		"the other order of a placeholder": {[]*boot.Plan{httpPlan()}, macA, append([]byte{0}, 3, 0, 2, 0, 4, 0, 5, 0, 0, 6, 0, 7, 0, 8, 0, 9), true, ""},
		"another type of identifier":       {[]*boot.Plan{httpPlan()}, macA, append([]byte{1}, b[:]...), true, ""},
		"a short UUID":                     {[]*boot.Plan{httpPlan()}, macA, []byte{0, 1, 2}, true, ""},
		"a plan without UUID":              {[]*boot.Plan{macOnly}, macA, guid(uuidA), true, ""},
		"only the UUID is known":           {[]*boot.Plan{httpPlan()}, macB, guid(uuidA), false, ""},
		"only the UUID, other order":       {[]*boot.Plan{httpPlan()}, macB, unswapped, false, ""},
		"a UUID that nobody knows":         {[]*boot.Plan{httpPlan()}, macA, guid(uuidB), false, refusedIdentity},
		"MAC of one, UUID of another":      {[]*boot.Plan{httpPlan(), other}, macA, guid(uuidB), false, refusedIdentity},
		"MAC-only plan, UUID of another":   {[]*boot.Plan{macOnly, other}, macA, guid(uuidB), false, refusedIdentity},
		"two configs for one MAC":          {[]*boot.Plan{httpPlan(), change(httpPlan(), func(p *boot.Plan) { p.Object.UID = other.Object.UID })}, macA, nil, false, refusedAmbiguous},
		"nobody's":                         {[]*boot.Plan{httpPlan()}, macB, guid(uuidB), false, refusedUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.source.plans = c.plans
			v := w.answer(discover(c.mac, httpX64, 16, option(optMachine, c.uuid...)), attachedArrival(c.mac))
			require.Equal(t, c.no, v.refusal)
			switch {
			case c.no != "":
				require.Nil(t, v.reply)
			case c.token:
				require.Contains(t, file(v), "/t/")
				require.Equal(t, c.uuid, v.reply.Options[optMachine], "whatever it is, it is echoed")
			default:
				require.Equal(t, baseURL+"/httpboot", file(v))
				require.Equal(t, boot.Unproven, v.seen[0].Proof)
			}
		})
	}
}

func TestPlansOfTwoKindsMustBeForOneMachine(t *testing.T) {
	w := newWorld(t)
	script := change(ipxePlan(), func(p *boot.Plan) { p.Machine.MACs, p.Machine.UUID = nil, uuidA })
	w.source.plans = []*boot.Plan{httpPlan(), script}
	v := w.answer(discover(macA, pxeX64, 7, option(optUserClass, []byte("iPXE")...)), attachedArrival(macA))
	require.Equal(t, baseURL+"/boot.ipxe", file(v), "the script's plan is known by UUID alone")

	stranger := change(ipxePlan(), func(p *boot.Plan) { p.Machine.MACs = []boot.MAC{macB} })
	macOnly := change(httpPlan(), func(p *boot.Plan) { p.Machine.UUID = "" })
	w.source.plans = []*boot.Plan{macOnly, stranger}
	v = w.answer(discover(macA, httpX64, 16), attachedArrival(macA))
	require.Equal(t, refusedIdentity, v.refusal)
}

func TestAForgedDiscoverGetsNothing(t *testing.T) {
	w := newWorld(t)
	v := w.answer(discover(macA, httpX64, 16), attachedArrival(macB))
	require.Equal(t, refusedForged, v.refusal)
	require.Nil(t, v.reply)

	v = w.answer(discover(macA, httpX64, 16, func(d *message) { d.HopCount = 1 }), attachedArrival(macA))
	require.Equal(t, refusedRelay, v.refusal, "it went through a relay that does not say so")
}

func TestAGatewayAddressIsOnlyBelievedFromATrustedRelay(t *testing.T) {
	stranger := relayed()
	stranger.source = attachedArrival(macA).source
	on4011 := relayed()
	on4011.port = portPXE
	for name, c := range map[string]struct {
		sent  []byte
		from  arrival
		proof boot.Proof
		no    refusal
	}{
		"with option 82":         {discover(macA, httpX64, 16, via(relay, "port 7")), relayed(), boot.Relay, ""},
		"without option 82":      {discover(macA, httpX64, 16, via(relay, "")), relayed(), boot.Unproven, ""},
		"option 82 says nothing": {discover(macA, httpX64, 16, via(relay, ""), option(optRelay, 9, 1, 1)), relayed(), boot.Unproven, ""},
		"option 82 lies":         {discover(macA, httpX64, 16, via(relay, ""), option(optRelay, 1, 200, 'x')), relayed(), boot.Unproven, ""},
		"from a machine":         {discover(macA, httpX64, 16, via(relay, "port 7")), stranger, 0, refusedRelay},
		"for a foreign network":  {discover(macA, httpX64, 16, via(local, "port 7")), relayed(), 0, refusedRelay},
		"to port 4011":           {discover(macA, httpX64, 16, via(relay, "port 7"), option(optType, 3)), on4011, 0, refusedRelay},
		"hops in a circle":       {discover(macA, httpX64, 16, via(relay, "port 7"), func(d *message) { d.HopCount = 17 }), relayed(), 0, refusedMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.answer(c.sent, c.from)
			require.Equal(t, c.no, v.refusal)
			if c.no != "" {
				require.Nil(t, v.reply)
				return
			}
			require.Equal(t, c.proof, v.seen[0].Proof)
			require.Equal(t, c.proof == boot.Relay, strings.Contains(file(v), "/t/"), file(v))
			require.False(t, v.reply.IsBroadcast(), "the relay would broadcast the token")
			require.Equal(t, relay.String(), v.reply.GatewayIPAddr.String())
		})
	}
}

func TestOption82IsEchoedExactlyAndRecorded(t *testing.T) {
	w := newWorld(t)
	value := []byte{1, 6, 0, 4, 0, 10, 1, 7, 2, 4, 's', 'w', ' ', '1', 151, 2, 0xff, 0}
	v := w.answer(discover(macA, httpX64, 16, via(relay, ""), option(optRelay, value...)), relayed())
	require.NotNil(t, v.reply, v.refusal)
	d, err := dhcpv4.FromBytes(v.reply.ToBytes())
	require.NoError(t, err)
	require.Equal(t, value, d.Options[optRelay])
	require.Equal(t, boot.RelayPort{Relay: relay, Circuit: "0x0004000a0107", Remote: "sw 1"}, v.seen[0].Port)
	require.Equal(t, boot.Relay, w.tokenIn(file(v)).Proof)
}

func TestOption82OfASnoopingSwitchIsEchoedToo(t *testing.T) {
	w := newWorld(t)
	v := w.answer(discover(macA, httpX64, 16, option(optRelay, 1, 1, 'x')), attachedArrival(macA))
	require.Equal(t, []byte{1, 1, 'x'}, v.reply.Options[optRelay])
	require.Equal(t, boot.Proxy, v.seen[0].Proof)
	require.Zero(t, v.seen[0].Port, "no relay of ours vouches for it")
}

func TestAMachineAtAnotherPortGetsNothing(t *testing.T) {
	w := newWorld(t)
	first := w.answer(discover(macA, httpX64, 16, via(relay, "port 7")), relayed())
	require.NotNil(t, first.reply)
	w.attempts.current[httpPlan().Object.UID] = boot.Attempt{Port: first.seen[0].Port}

	require.NotNil(t, w.answer(discover(macA, httpX64, 16, via(relay, "port 7")), relayed()).reply)
	v := w.answer(discover(macA, httpX64, 16, via(relay, "port 8")), relayed())
	require.Nil(t, v.reply)
	require.Equal(t, refusedPort, v.refusal)
	require.Len(t, v.seen, 1)
	require.Equal(t, boot.StagePortChanged, v.seen[0].Stage)
	require.Equal(t, "port 8", v.seen[0].Port.Circuit)
}

func TestAHexadecimalPortCannotBePretended(t *testing.T) {
	require.NotEqual(t, printable([]byte{0xab}), printable([]byte("0xab")))
	require.Equal(t, "0xab", printable([]byte{0xab}))
	require.Equal(t, "Gi1/0/7", printable([]byte("Gi1/0/7")))
	require.Equal(t, "0x610a", printable([]byte("a\n")))
}

func TestNothingIsOfferedThatCannotBeDelivered(t *testing.T) {
	uid := httpPlan().Object.UID
	for name, c := range map[string]struct {
		change func(*world)
		no     refusal
	}{
		"not ready":           {func(w *world) { w.source.plans[0].NotReady = "pulling" }, refusedNotReady},
		"spent":               {func(w *world) { w.attempts.coming[uid] = boot.ErrSpent }, refusedSpent},
		"no attempt yet":      {func(w *world) { w.attempts.coming[uid] = boot.ErrNotReady }, refusedNotReady},
		"set through the BMC": {func(w *world) { w.attempts.current[uid] = boot.Attempt{Armed: true} }, refusedArmed},
		"another plan of the machine set through the BMC": {func(w *world) {
			w.source.plans = append(w.source.plans, ipxePlan())
			w.attempts.current[ipxePlan().Object.UID] = boot.Attempt{Armed: true}
		}, refusedArmed},
		"more proof asked for": {func(w *world) { w.source.plans[0].MinimumProof = boot.BMC }, refusedUnproven},
		"source not synced":    {func(w *world) { w.source.broken = boot.ErrUnavailable }, refusedUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			for _, sent := range [][]byte{discover(macA, httpX64, 16), discover(macA, pxeX64, 7)} {
				w := newWorld(t)
				w.source.plans = []*boot.Plan{httpPlan()}
				c.change(w)
				if c.no == refusedArmed && len(w.source.plans) == 1 {
					require.True(t, w.attempts.Current(w.source.plans[0]).Armed)
				}
				v := w.answer(sent, attachedArrival(macA))
				require.Equal(t, c.no, v.refusal)
				require.Nil(t, v.reply)
			}
		})
	}
}

func TestWithoutKeysThePlainURLIsOffered(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Issuer = boot.NewIssuer(&boot.Keyring{}, o.Attempts, o.Now)
	})
	v := w.answer(discover(macA, httpX64, 16), attachedArrival(macA))
	require.Equal(t, baseURL+"/httpboot", file(v))

	w.source.plans[0].MinimumProof = boot.Proxy
	v = w.answer(discover(macA, httpX64, 16), attachedArrival(macA))
	require.Equal(t, refusedUnproven, v.refusal, "an address would not do for this plan")
}

func TestAMissingProgramIsNamed(t *testing.T) {
	for label, c := range map[string]struct {
		class string
		arch  uint16
		plan  boot.Architecture
		want  string
	}{
		"x86-64": {pxeX64, 7, boot.AMD64, "add snponly.efi or ipxe.efi to "},
		"arm64":  {"PXEClient:Arch:00011", 11, boot.ARM64, "add arm64/snponly.efi or snponly-arm64.efi to "},
		"BIOS":   {pxeBIOS, 0, boot.AMD64, "add undionly.kpxe to "},
	} {
		t.Run(label, func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.ProgramDir = t.TempDir() })
			w.source.plans = []*boot.Plan{change(ipxePlan(), func(p *boot.Plan) { p.Machine.Architecture = c.plan })}
			v := w.answer(discover(macA, c.class, c.arch), attachedArrival(macA))
			require.Nil(t, v.reply)
			require.Equal(t, refusedProgram, v.refusal)
			require.Len(t, v.seen, 1)
			require.Equal(t, boot.StageNoProgram, v.seen[0].Stage)
			require.Contains(t, v.seen[0].Detail, c.want+w.options.ProgramDir)
		})
	}
}

func TestAnsweringEveryoneStillAnswersNoLiar(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.AnswerEveryone = true })
	w.source.plans = nil
	for want, sent := range map[string][]byte{
		baseURL + "/httpboot":  discover(macB, httpX64, 16),
		"snponly.efi":          discover(macB, pxeX64, 7),
		"undionly.kpxe":        discover(macB, pxeBIOS, 0),
		baseURL + "/boot.ipxe": discover(macB, pxeBIOS, 0, option(optUserClass, []byte("iPXE")...)),
	} {
		v := w.answer(sent, attachedArrival(macB))
		require.Equal(t, want, file(v))
		require.Empty(t, v.seen)
		require.Equal(t, refusedForged, w.answer(sent, attachedArrival(macA)).refusal)
	}
	w.source.plans = []*boot.Plan{change(httpPlan(), func(p *boot.Plan) { p.NotReady = "pulling" })}
	require.Equal(t, refusedNotReady, w.answer(discover(macA, httpX64, 16), attachedArrival(macA)).refusal)
}

func TestPort4011AnswersRequestsWithAnAck(t *testing.T) {
	w := newWorld(t)
	a := attachedArrival(macA)
	a.port = portPXE
	asked := []byte{71, 4, 0, 0, 0, 0, 255}
	v := w.answer(discover(macA, pxeX64, 7, option(optType, 3), option(optVendor, asked...), func(d *message) {
		d.ClientIPAddr = []byte{10, 77, 0, 50}
	}), a)
	require.NotNil(t, v.reply, v.refusal)
	require.Equal(t, dhcpv4.MessageTypeAck, v.reply.MessageType())
	require.Equal(t, "10.77.0.50", v.reply.ClientIPAddr.String())
	require.Equal(t, []byte{6, 1, 8, 71, 4, 0, 0, 0, 0, 255}, v.reply.Options[optVendor])
	require.NotNil(t, w.answer(discover(macA, pxeX64, 7, option(optType, 8)), a).reply)
	require.Nil(t, w.answer(discover(macA, pxeX64, 7), a).reply, "a DISCOVER belongs to port 67")
}

func TestWhatIsNotForUsIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	for name, sent := range map[string][]byte{
		"an installed system":          discover(macA, "MSFT 5.0", 7),
		"no vendor class":              discover(macA, "", 7, option(optClass)),
		"a request to a DHCP server":   discover(macA, pxeX64, 7, option(optType, 3)),
		"an offer":                     discover(macA, pxeX64, 7, option(optType, 2)),
		"no type (BOOTP)":              discover(macA, pxeX64, 7, option(optType)),
		"a reply to the server's port": discover(macA, pxeX64, 7, func(d *message) { d.OpCode = dhcpv4.OpcodeBootReply }),
	} {
		v := w.answer(sent, attachedArrival(macA))
		require.Nil(t, v.reply, name)
		require.Empty(t, v.refusal, name)
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	w := newWorld(t)
	whole := discover(macA, httpX64, 16)
	require.NotNil(t, w.answer(whole, attachedArrival(macA)).reply)
	end := len(whole)
	for whole[end-1] == 0 {
		end--
	}
	for n := range end {
		v := w.answer(whole[:n], attachedArrival(macA))
		require.Equal(t, refusedMalformed, v.refusal, "cut after %d bytes", n)
		require.Nil(t, v.reply)
	}
	for name, c := range map[string]func(*message){
		"zero MAC":          func(d *message) { d.ClientHWAddr = make([]byte, 6) },
		"multicast MAC":     func(d *message) { d.ClientHWAddr = []byte{1, 0, 0x5e, 0, 0, 1} },
		"Infiniband":        func(d *message) { d.HWType = 32 },
		"long address":      func(d *message) { d.ClientHWAddr = make([]byte, 16) },
		"short address":     func(d *message) { d.ClientHWAddr = d.ClientHWAddr[:5] },
		"overload of 4":     option(optOverload, 4),
		"overload of 0":     option(optOverload, 0),
		"overload too long": option(optOverload, 1, 1),
		"overloaded file, lying length": func(d *message) {
			d.Options[optOverload] = []byte{1}
			d.BootFileName = "\x61\xf0x"
		},
	} {
		v := w.answer(discover(macA, httpX64, 16, c), attachedArrival(macA))
		require.Equal(t, refusedMalformed, v.refusal, name)
	}
	lying := discover(macA, httpX64, 16)
	lying[241] = 250 // the length of the first option
	require.Equal(t, refusedMalformed, w.answer(lying, attachedArrival(macA)).refusal)
}

func TestOverloadedFieldsHoldOptions(t *testing.T) {
	w := newWorld(t)
	sent := discover(macA, httpX64, 16, option(optClass), option(optMachine), option(optOverload, 3), func(d *message) {
		d.BootFileName = "\x3c\x05HTTPC\xff" // continued below (RFC 3396)
		d.ServerHostName = "\x3c\x05lient\xff"
	})
	v := w.answer(sent, attachedArrival(macA))
	require.NotNil(t, v.reply, v.refusal)
	require.Contains(t, file(v), "/httpboot/t/")

	other := discover(macA, httpX64, 16, option(optMachine), option(optOverload, 2), func(d *message) {
		d.ServerHostName = "\x61\x11" + string(guid(uuidB)) + "\xff"
	})
	require.Equal(t, refusedIdentity, w.answer(other, attachedArrival(macA)).refusal)
}

func TestAFloodIsAnsweredAndRememberedWithinBounds(t *testing.T) {
	w := newWorld(t)
	for range perMACBurst {
		require.NotNil(t, w.answer(discover(macA, httpX64, 16), attachedArrival(macA)).reply)
	}
	require.Equal(t, refusedRate, w.answer(discover(macA, httpX64, 16), attachedArrival(macA)).refusal)
	require.NotNil(t, w.answer(discover(macA2, httpX64, 16), attachedArrival(macA2)).reply, "another NIC")
	w.now = w.now.Add(perMACEvery)
	require.NotNil(t, w.answer(discover(macA, httpX64, 16), attachedArrival(macA)).reply)

	r := newRecent[int, int](10)
	for i := range 1000 {
		v, known := r.get(i%500, func() int { return i })
		require.False(t, known, v)
		require.LessOrEqual(t, r.len(), 20)
	}
	_, known := r.get(499, func() int { return 0 })
	require.True(t, known, "the last one is remembered")
}

func TestAllClientsTogetherAreBounded(t *testing.T) {
	w := newWorld(t)
	answered := 0
	for range 2 * answersBurst {
		if w.answer(discover(macB, httpX64, 16, option(optMachine)), attachedArrival(macB)).refusal == refusedUnknown {
			answered++
		}
	}
	require.Equal(t, answersBurst, answered)
}

func TestASightingIsToldOnceAndWithoutItsToken(t *testing.T) {
	w := newWorld(t)
	var token string
	for range 5 {
		v := w.answer(discover(macA, httpX64, 16), attachedArrival(macA))
		token = strings.Split(file(v), "/")[5]
		w.account(v)
	}
	require.Len(t, w.attempts.observed, 1)
	w.attempts.current[httpPlan().Object.UID] = boot.Attempt{Number: 1}
	w.account(w.answer(discover(macA, httpX64, 16), attachedArrival(macA)))
	require.Len(t, w.attempts.observed, 2, "the next attempt")
	require.Len(t, token, 80)
	require.NotContains(t, w.log.String(), token)
	require.Contains(t, w.log.String(), string(macA))
}

// minting counts the tokens that are asked of an issuer: it asks which attempt comes.
type minting struct {
	*fakeAttempts
	asked int
}

func (m *minting) Coming(p *boot.Plan) (boot.Attempt, error) {
	m.asked++
	return m.fakeAttempts.Coming(p)
}

func TestATokenIsNotMintedForEveryDiscover(t *testing.T) {
	var issued *minting
	w := newWorld(t, func(o *Options) {
		issued = &minting{fakeAttempts: o.Attempts.(*fakeAttempts)}
		keys, err := boot.NewKeyring(boot.TokenKey{ID: 1, Secret: bytes.Repeat([]byte{7}, 32)})
		require.NoError(t, err)
		o.Issuer = boot.NewIssuer(keys, issued, o.Now)
	})
	urls := map[string]bool{}
	ask := func(n int) {
		for range n {
			v := w.answer(discover(macA, httpX64, 16), attachedArrival(macA))
			require.NotNil(t, v.reply, v.refusal)
			urls[file(v)] = true
		}
	}
	ask(10)
	require.Equal(t, 1, issued.asked)
	require.Len(t, urls, 1)
	w.attempts.current[httpPlan().Object.UID] = boot.Attempt{Number: 1}
	ask(5)
	require.Equal(t, 2, issued.asked, "the next attempt has a token of its own")
	require.Len(t, urls, 2)
	w.now = w.now.Add(time.Minute)
	ask(5)
	require.Equal(t, 3, issued.asked, "keys may have been rotated meanwhile")
}

func TestNothingIsOfferedInAnAttemptThatWasAborted(t *testing.T) {
	w := newWorld(t)
	w.attempts.coming[httpPlan().Object.UID] = fmt.Errorf("%w: boot attempt 1 was aborted", boot.ErrClosed)
	v := w.answer(discover(macA, httpX64, 16), attachedArrival(macA))
	require.Nil(t, v.reply)
	require.Equal(t, refusedAborted, v.refusal)
	w.account(v)
	require.Contains(t, w.log.String(), `"boot"="`+boot.NewID(httpPlan().Object.UID, 0).String(), "logs name the boot")
}

func TestFilesAreServedToAClientWithinBounds(t *testing.T) {
	w := newWorld(t)
	one, other := netip.MustParseAddr("10.77.0.50"), netip.MustParseAddr("10.77.0.51")
	for range filesBurst {
		require.True(t, w.allowFiles(one))
	}
	require.False(t, w.allowFiles(one))
	require.True(t, w.allowFiles(other))
	w.now = w.now.Add(time.Second / filesPerSecond)
	require.True(t, w.allowFiles(one))
}

package timeline

import (
	"fmt"
	"slices"
	"time"
)

// gapRule says what happens between two milestones.
type gapRule struct {
	from []Milestone // nil: whatever it was
	to   []Milestone
	what string
	// usual is how long it takes at most where all is well; 0: it may take any time.
	usual time.Duration
	// help says what it points to where it takes longer.
	help string
}

var (
	switchedOn = []Milestone{PowerOn, AwaitFetch}
	firstFetch = []Milestone{ScriptStarted, ScriptDelivered, UKIStarted, UKIDelivered}
	documents  = []Milestone{IgnitionStarted, IgnitionDelivered, UserDataStarted, UserDataDelivered}
)

const (
	whatFirmware = "firmware starts: memory is trained, devices are initialised, the link comes up, a lease is asked for"
	helpFirmware = "other boot entries that are tried first, a switch port that waits for spanning tree (use an edge port), or a DHCP server that is slow to answer"
)

// gapRules are looked at in this order; the first that fits is used.
var gapRules = []gapRule{
	{[]Milestone{Opened}, []Milestone{PowerOff}, "the operator checks how the machine will be known, and what it is to boot", time.Minute,
		"an image that was still being pulled, or a BMC that answers slowly"},
	{nil, []Milestone{PowerOff}, "the operator comes to the machine", 0, ""},
	{nil, []Milestone{Armed}, "the operating system is shut down, or the plug is pulled, until the BMC says that the machine is off", 2 * time.Minute,
		"an operating system that does not shut down, or a BMC that is slow to notice"},
	{nil, []Milestone{PowerOn}, "the BMC is told what to boot, and read back", 30 * time.Second,
		"a BMC that is busy or slow, as after its own restart"},
	{nil, []Milestone{AwaitFetch}, "the BMC switches the machine on", time.Minute,
		"a BMC that is slow to switch, or to say that it did"},
	{switchedOn, append([]Milestone{Offered}, firstFetch...), whatFirmware, 5 * time.Minute, helpFirmware},
	{[]Milestone{Offered}, firstFetch, "firmware takes the offer and a lease, and connects", time.Minute,
		"a boot URL that the machine reaches slowly, or a first offer that was another server's"},
	{[]Milestone{Opened}, append([]Milestone{Offered}, firstFetch...), "the machine was not on yet, or its firmware was starting", 0, ""},
	{[]Milestone{UKIStarted}, []Milestone{UKIDelivered}, "the UKI is sent", 0, ""},
	{[]Milestone{ScriptDelivered}, documents, "iPXE loads the kernel and the initrd, and the operating system starts until it asks for its document", 3 * time.Minute,
		"a large initrd over a slow path, a kernel without a driver for this NIC, or DHCP in the initrd that waits for a link"},
	{[]Milestone{UKIDelivered}, documents, "firmware checks and starts the UKI, and the operating system boots until it asks for its document", 2 * time.Minute,
		"a kernel without a driver for this NIC, DHCP in the initrd that waits for a link, or a document that was asked for again and again while its attempt was not known"},
	{documents, documents, "the document is sent, or asked for again", time.Minute,
		"a Secret that could not be read at once, or a cut connection"},
	{switchedOn, []Milestone{Failed}, "the machine asked for nothing", 0, ""},
	{nil, []Milestone{Failed}, "the operator tried what it could", 0, ""},
}

// slow is a rate of transfer, in bytes a second, below which it is called slow: a tenth
// of what an Ethernet of 100 Mbit/s carries.
const slow = 1 << 20

// gap says what happened between a milestone and the next one.
func gap(from Milestone, to Entry, took time.Duration, now State) *Gap {
	g := &Gap{Took: took}
	if to.Kind == Now {
		g.What, g.Long, g.Help = awaited(from), now.Stuck, now.Help
		return g
	}
	g.What = "nothing was seen of the machine"
	for _, r := range gapRules {
		if (r.from == nil || slices.Contains(r.from, from)) && slices.Contains(r.to, to.Kind) {
			g.What, g.Long = r.what, r.usual > 0 && took > r.usual
			if g.Long {
				g.Help = r.help
			}
			break
		}
	}
	if from == UKIStarted && to.Kind == UKIDelivered {
		g.rate(to.Bytes)
	}
	return g
}

// rate says how fast something was sent, and what it points to that it was slow.
func (g *Gap) rate(bytes int64) {
	if bytes <= 0 {
		return
	}
	rate := float64(bytes) / g.Took.Seconds()
	g.What = fmt.Sprintf("%s, at %s/s", g.What, Bytes(int64(rate)))
	if g.Long = rate < slow; g.Long {
		g.Help = "firmware with a small TCP window on a long way, packet loss, a BMC's shared port, or an image that was still coming from its registry"
	}
}

// awaited says what happens after a milestone, where the next one has not come yet.
func awaited(from Milestone) string {
	switch from {
	case Opened:
		return "the machine has to boot from the network"
	case PowerOff:
		return "the machine is switching off"
	case Armed:
		return "the BMC is being told"
	case PowerOn:
		return "the machine is switching on"
	case AwaitFetch:
		return whatFirmware
	case Offered:
		return "firmware takes a lease, and connects"
	case ScriptStarted, UKIStarted, IgnitionStarted, UserDataStarted:
		return "bytes are being sent"
	case ScriptDelivered, UKIDelivered:
		return "the operating system starts, until it asks for its document"
	}
	return "nothing has been seen since"
}

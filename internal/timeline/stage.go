package timeline

import (
	"time"
)

// Stage is how far a machine is.
type Stage string

// The stages, in the order of a boot. Docs: bootctl.md has a line for each.
const (
	StageRemoving         Stage = "Removing"         // its objects are going, or its image is being taken away
	StagePaused           Stage = "Paused"           // somebody wants it to be left alone
	StageAvailable        Stage = "Available"        // a host that is to boot nothing
	StageOff              Stage = "Off"              // a host that is to be off, and is
	StagePreparing        Stage = "Preparing"        // what it boots is being pulled, or its host inspected
	StageNotReady         Stage = "NotReady"         // something is wrong with what it is to boot
	StageWaiting          Stage = "Waiting"          // everything is in place; the machine has not asked
	StagePoweringOff      Stage = "PoweringOff"      // the BMC switches it off
	StageArming           Stage = "Arming"           // the BMC is told to boot from the network
	StagePoweringOn       Stage = "PoweringOn"       // the BMC switches it on
	StageAwaitingFetch    Stage = "AwaitingFetch"    // it is on; its firmware has to ask
	StageOffered          Stage = "Offered"          // a boot was offered over DHCP
	StageFetchingScript   Stage = "FetchingScript"   // its iPXE script is sent
	StageFetchingUKI      Stage = "FetchingUKI"      // its UKI is sent
	StageStartingOS       Stage = "StartingOS"       // it has what it boots, and did not ask for its document yet
	StageFetchingIgnition Stage = "FetchingIgnition" // its Ignition is sent
	StageFetchingUserData Stage = "FetchingUserData" // its user data is sent
	StageBooted           Stage = "Booted"           // everything that it was to fetch was sent
	StageIncomplete       Stage = "Incomplete"       // it has what it boots, and never asked for its document
	StageFailed           Stage = "Failed"           // its BMC failed, or every tactic was tried
	StageAborted          Stage = "Aborted"          // somebody ended the attempt
)

// Stages are all of them, in the order of a boot.
var Stages = []Stage{
	StageRemoving, StagePaused, StageAvailable, StageOff, StagePreparing, StageNotReady, StageWaiting, StagePoweringOff, StageArming,
	StagePoweringOn, StageAwaitingFetch, StageOffered, StageFetchingScript, StageFetchingUKI, StageStartingOS, StageFetchingIgnition,
	StageFetchingUserData, StageBooted, StageIncomplete, StageFailed, StageAborted,
}

// Ended says that nothing more comes by itself: the boot is over, and did not come
// about.
func (s Stage) Ended() bool { return s == StageIncomplete || s == StageFailed || s == StageAborted }

// Progress is how much of something is sent, in bytes.
type Progress struct{ Sent, Size int64 }

// Percent is rounded down, so that 100 means all of it; -1 where the size is not known.
func (p Progress) Percent() int {
	switch {
	case p.Size <= 0:
		return -1
	case p.Sent >= p.Size:
		return 100
	}
	return int(float64(max(p.Sent, 0)) / float64(p.Size) * 100)
}

// State is how a machine is now.
type State struct {
	Stage Stage
	// Since is when the stage began; zero where nothing tells.
	Since time.Time
	// Progress is set while something is sent whose size is known.
	Progress *Progress
	// Why says in a sentence what is waited for, or what is wrong; it is empty where all
	// is well. It holds no running time, so that it changes only when something happens.
	Why string
	// Help says what would help; it is empty where nothing has to be done.
	Help string
	// Stuck: it takes longer than it should, or does not go on by itself.
	Stuck bool

	// Attempt is the number of the present boot attempt; 0 before the first.
	Attempt int64
	// BootID names the attempt in logs and traces; empty where it is not known.
	BootID string
	// Address and Proof are those of the machine's last request.
	Address, Proof string
}

// How long things may take before a machine is called stuck. Servers take minutes to
// train memory and to ask each device in turn whether it boots.
const (
	powerPatience    = 3 * time.Minute
	preparePatience  = 10 * time.Minute
	fetchPatience    = 8 * time.Minute
	offerPatience    = 2 * time.Minute
	transferPatience = 45 * time.Second // firmware gives up after 5 idle seconds; progress is written every 5 s
	osPatience       = 5 * time.Minute
)

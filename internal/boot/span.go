package boot

import "time"

// SpanName says which part of a boot a span is about.
type SpanName string

// The spans of a boot. SpanBoot is the whole of it, and the parent of the others.
const (
	SpanBoot      SpanName = "boot"
	SpanResolve   SpanName = "resolve"   // a tag became a digest that was not known before
	SpanPull      SpanName = "pull"      // a blob came from its registry
	SpanVerify    SpanName = "verify"    // signatures were checked
	SpanCompose   SpanName = "compose"   // a UKI was composed and signed
	SpanPowerOff  SpanName = "power off" // until the BMC said so
	SpanArm       SpanName = "arm"       // the BMC was told what to boot
	SpanPowerOn   SpanName = "power on"  // until the BMC said so
	SpanAwait     SpanName = "await"     // from power-on to the machine's first request
	SpanOffer     SpanName = "offer"     // a boot was offered over DHCP
	SpanScript    SpanName = "fetch script"
	SpanUKI       SpanName = "fetch UKI"
	SpanIgnition  SpanName = "fetch ignition"
	SpanCloudInit SpanName = "fetch cloud-init"
)

// Span is a part of one boot that is over. It never holds a token or a secret.
type Span struct {
	Boot       ID
	Name       SpanName
	Start, End time.Time
	// Err is why the part failed; nil where it did not.
	Err error
	// Attributes say more, in pairs of a key and its value: object, digest, address.
	Attributes []string
}

// Spans takes the spans of boots. Record returns at once, loses spans rather than
// wait or grow without bound, and may be called by any number of goroutines.
type Spans interface {
	Record(s Span)
}

// NoSpans drops what it is given.
type NoSpans struct{}

// Record implements Spans.
func (NoSpans) Record(Span) {}

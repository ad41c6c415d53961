package httpserver

import (
	"fmt"
	"time"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// spanOf names the span of a stage's delivery.
var spanOf = map[boot.Stage]boot.SpanName{
	boot.StageIPXEScript: boot.SpanScript, boot.StageUKI: boot.SpanUKI,
	boot.StageIgnition: boot.SpanIgnition, boot.StageCloudInit: boot.SpanCloudInit,
}

// record tells of a response that was part of a boot. Attributes say nothing of the
// client but the kind of its address.
func (s *Server) record(x *exchange, p *boot.Plan, attempt int64, name boot.SpanName, err error, attributes ...string) {
	now := s.now()
	kind := "IPv4"
	if x.peer.addr.Is6() {
		kind = "IPv6"
	}
	s.spans.Record(boot.Span{
		Boot: boot.NewID(p.Object.UID, attempt), Name: name, Start: now.Add(-time.Since(x.start)), End: now, Err: err,
		Attributes: append(attributes, "object", p.Object.String(), "client", kind),
	})
}

// cutShort is the error of a response that ended before its last byte; nil where it
// did not. What the connection said would name the client.
func cutShort(sent, length int64) error {
	if sent >= length {
		return nil
	}
	return fmt.Errorf("cut after %d of %d bytes", sent, length)
}

// secretDelivery is a document of a machine that was served, for the log.
type secretDelivery struct {
	object  boot.Ref
	attempt int64
	stage   boot.Stage
	proof   boot.Proof
}

func (d *secretDelivery) fields(x *exchange, now time.Time, suppressed int) []any {
	f := []any{"boot", boot.NewID(d.object.UID, d.attempt).String(), "stage", string(d.stage), "client", x.peer.addr.String(), "object", d.object.String(),
		"attempt", d.attempt, "proof", d.proof.String(), "bytes", x.bytes, "duration", now.Sub(x.start).Round(time.Millisecond).String()}
	if x.err != nil {
		f = append(f, "reason", x.reason(), "error", clip(x.err.Error(), 200))
	}
	if suppressed > 0 {
		f = append(f, "suppressed", suppressed)
	}
	return f
}

// ended returns errEnded while the machine's present attempt is aborted: nothing is
// delivered then, and no boot opens another.
func (s *Server) ended(p *boot.Plan) error {
	if s.attempts.Current(p).Aborted {
		return errEnded
	}
	return nil
}

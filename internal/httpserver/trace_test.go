package httpserver

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

type spanRecorder struct {
	mu  sync.Mutex
	all []boot.Span
}

func (r *spanRecorder) Record(s boot.Span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, s)
}

func (r *spanRecorder) of(name boot.SpanName) []boot.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []boot.Span
	for _, s := range r.all {
		if s.Name == name {
			out = append(out, s)
		}
	}
	return out
}

// Everything that a boot leaves behind is found by one ID, and nothing of it tells a
// token or where the machine is.
func TestABootIsFoundByItsID(t *testing.T) {
	spans := &spanRecorder{}
	w := newWorld(t, withTokens, func(w *world) {
		w.options.Spans = spans
		w.plan.HasCloudInit = true
		w.secrets.clouds[w.plan.Object.UID] = boot.CloudInit{UserData: []byte("#cloud-config\n")}
	})
	base := w.bootServer()
	boot1 := boot.NewID(w.plan.Object.UID, 1)
	token := w.mint(w.plan, 1, boot.AudienceBoot, boot.Proxy, netip.Addr{})
	ask(t, addrA, http.MethodHead, base+"/httpboot")
	require.Empty(t, spans.all, "a HEAD delivers nothing")
	require.Equal(t, 200, get(t, base+"/httpboot/t/"+token+"/uki.efi").StatusCode)
	require.Equal(t, 200, get(t, base+"/ignition").StatusCode)
	require.Equal(t, 200, get(t, base+"/cloud-init/user-data").StatusCode)
	for _, name := range []boot.SpanName{boot.SpanUKI, boot.SpanIgnition, boot.SpanCloudInit} {
		eventually(t, string(name), func() bool { return len(spans.of(name)) == 1 })
		s := spans.of(name)[0]
		require.Equal(t, boot1, s.Boot)
		require.NoError(t, s.Err)
		require.False(t, s.End.Before(s.Start))
		require.Contains(t, s.Attributes, w.plan.Object.String())
		text := strings.Join(s.Attributes, " ")
		require.NotContains(t, text, token[:20])
		require.NotContains(t, text, "127.0.0.1")
		require.Zero(t, len(s.Attributes)%2)
	}
	lines := linesWith(w.log.String(), `"boot"="`+boot1.String()+`"`)
	require.Equal(t, 1, strings.Count(lines, "Served boot bytes"))
	require.Equal(t, 2, strings.Count(lines, "Served a machine's document"))

	// Refusals of a known machine, too.
	w.clock.step(2 * boot.AttemptLifetime)
	require.Equal(t, 403, get(t, base+"/ignition").StatusCode)
	refusal := linesWith(w.log.String(), "Refused request")
	require.Contains(t, refusal, boot1.String())
	require.NotContains(t, w.log.String(), token[:20])
}

func TestACutDeliveryIsACutSpan(t *testing.T) {
	spans := &spanRecorder{}
	w := newWorld(t, func(w *world) {
		w.options.Spans = spans
		w.blobs.wrap = func(b boot.Blob) boot.Blob {
			return &arriving{Blob: b, before: func(pos int64) error {
				if pos > 100_000 {
					return boot.ErrUnavailable
				}
				return nil
			}}
		}
	})
	require.Error(t, get(t, w.bootServer()+"/httpboot").err)
	eventually(t, "the span", func() bool { return len(spans.of(boot.SpanUKI)) == 1 })
	require.ErrorContains(t, spans.of(boot.SpanUKI)[0].Err, "of 300000 bytes")
}

func TestAScriptIsASpan(t *testing.T) {
	spans := &spanRecorder{}
	w := newWorld(t, ipxe, func(w *world) { w.options.Spans = spans })
	base := w.bootServer()
	require.NotEqual(t, leaves, script(t, addrA, base+"/ipxe/"+string(macA)))
	require.Len(t, spans.of(boot.SpanScript), 1)
	require.NotEqual(t, leaves, script(t, addrB, base+"/ipxe/"+string(macA)))
	require.Len(t, spans.of(boot.SpanScript), 1, "a claim is no boot")
}

func linesWith(text, part string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			out.WriteString(line)
		}
	}
	return out.String()
}

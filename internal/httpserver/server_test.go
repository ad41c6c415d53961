package httpserver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestOptionsAreChecked(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*Options){
		"no source":        func(o *Options) { o.Source = nil },
		"no scheme":        func(o *Options) { o.ImageServerURL = "10.0.0.1:8083/httpboot" },
		"another scheme":   func(o *Options) { o.ImageServerURL = "ftp://10.0.0.1/" },
		"a query":          func(o *Options) { o.ImageServerURL = "http://10.0.0.1/?a=b" },
		"a line break":     func(o *Options) { o.ImageServerURL = "http://10.0.0.1/\nx" },
		"metrics of yours": func(o *Options) { o.Registerer = w.registry },
	} {
		o := w.options
		o.Registerer = prometheus.NewRegistry()
		_, err := New(o)
		require.NoError(t, err, "the control")
		o.Registerer = prometheus.NewRegistry()
		change(&o)
		_, err = New(o)
		require.Error(t, err, name)
	}
}

func TestEveryErrorOfTheVocabularyHasItsAnswer(t *testing.T) {
	for err, want := range map[error]int{
		boot.ErrNotFound: 404, boot.ErrAmbiguous: 404, errUnknown: 404, errRefused: 404, errVoid: 404,
		boot.ErrNotReady: 503, boot.ErrUnavailable: 503, errNoAttempt: 503,
		boot.ErrSpent: 403, boot.ErrClosed: 403, boot.ErrContested: 403, errWeakTLS: 403,
		errMethod: 405, errForwarded: 400, errRange: 416, fmt.Errorf("anything else"): 500,
	} {
		require.Equal(t, want, failureOf(fmt.Errorf("doing something: %w", err)).status, err.Error())
	}
}

func TestInternalErrorsTellNothing(t *testing.T) {
	w := newWorld(t, func(w *world) { w.blobs.broken = fmt.Errorf("/var/lib/secret-path: permission denied") })
	a := get(t, w.bootServer()+"/httpboot")
	require.Equal(t, 500, a.StatusCode)
	require.NotContains(t, string(a.body), "secret-path")
	require.Contains(t, w.log.String(), "secret-path", "the log does")
}

func TestMetricsAreBoundedAndNameNobody(t *testing.T) {
	w := newWorld(t)
	base := w.bootServer()
	for i := range 30 {
		get(t, fmt.Sprintf("%s/%d?token=%d", base, i, i))
		ask(t, addrA, fmt.Sprintf("METHOD%d", i), base+"/httpboot")
		get(t, fmt.Sprintf("%s/ignition/00112233-4455-6677-8899-aabbccdd%04d", base, i))
	}
	get(t, base+"/httpboot")
	get(t, base+"/ignition")
	families, err := w.registry.Gather()
	require.NoError(t, err)
	series := 0
	var text strings.Builder
	for _, f := range families {
		series += len(f.GetMetric())
		text.WriteString(f.String())
	}
	require.Less(t, series, 60)
	for _, secret := range []string{string(uuidA), "127.0.0.1", "00112233", "METHOD", w.plan.Object.Name + `"`, "registry.example"} {
		require.NotContains(t, text.String(), secret)
	}
	require.Contains(t, text.String(), `"/httpboot"`, "the control")
	require.Contains(t, text.String(), "boot_operator_http_refusals_total")
}

func TestRefusalsDoNotFloodTheLog(t *testing.T) {
	w := newWorld(t)
	h := w.server.BootHandler()
	for range 500 {
		r := httptest.NewRequest(http.MethodGet, "/httpboot", nil)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	require.LessOrEqual(t, strings.Count(w.log.String(), "Refused request"), 30)
	require.Positive(t, strings.Count(w.log.String(), "Refused request"))
}

// Whoever looks for what is not there is in the log with an address.
func TestRefusalsNameTheClient(t *testing.T) {
	w := newWorld(t)
	r := httptest.NewRequest(http.MethodGet, "/nothing/here", nil)
	r.RemoteAddr = "10.9.8.7:1234"
	w.server.BootHandler().ServeHTTP(httptest.NewRecorder(), r)
	require.Contains(t, w.log.String(), `"client"="10.9.8.7"`)
}

func TestLimiterTellsWhatItSuppressed(t *testing.T) {
	l := limiter{burst: 2, window: time.Second}
	now := time.Unix(100, 0)
	for i, want := range []bool{true, true, false, false} {
		_, ok := l.allow(now)
		require.Equal(t, want, ok, i)
	}
	n, ok := l.allow(now.Add(time.Second))
	require.True(t, ok)
	require.Equal(t, 2, n)
}

func TestFirmwareThatResetsIsNoError(t *testing.T) {
	w := newWorld(t)
	base := w.bootServer()
	require.Equal(t, 200, get(t, base+"/httpboot").StatusCode)
	eventually(t, "the log line", func() bool { return strings.Contains(w.log.String(), "Served boot bytes") })
	require.NotContains(t, w.log.String(), "Refused")
	require.NotContains(t, strings.ToLower(w.log.String()), "error")
}

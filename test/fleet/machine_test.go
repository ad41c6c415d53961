package fleet

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// booting is a fleet of one machine whose only replica is this handler.
func booting(t *testing.T, h http.Handler) (*Fleet, *Machine) {
	t.Helper()
	b, err := NewBalancer(t.Context(), true)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	mux.Handle("/", h)
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	b.Add(t.Context(), "a", l.Addr().String(), "http://"+l.Addr().String()+"/readyz")
	require.Eventually(t, func() bool { return b.Ready("a") }, 10*time.Second, 10*time.Millisecond)
	m := newMachine(0, &Image{Digest: "sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0", bytes: []byte("aaa")})
	f := &Fleet{o: Options{IgnitionPatience: time.Second}.withDefaults(), balancer: b}
	return f, m
}

// image answers as the operator does, but for what change makes of it.
func image(change func(w http.ResponseWriter, r *http.Request, body *[]byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body := []byte("aaa")
		w.Header().Set("Content-Type", "application/efi")
		w.Header().Set("Etag", `"sha256:9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"`)
		if change != nil {
			change(w, r, &body)
		}
		if w.Header().Get("Content-Length") == "" {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		_, _ = w.Write(body)
	}
}

func TestFirmwareTakesItsOwnImageAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w http.ResponseWriter, r *http.Request, body *[]byte)
		want   error
	}{
		{"its own", nil, nil},
		{"the bytes of another", func(_ http.ResponseWriter, _ *http.Request, b *[]byte) { *b = []byte("bbb") }, ErrForeign},
		{"the image of another", func(w http.ResponseWriter, _ *http.Request, _ *[]byte) { w.Header().Set("Etag", `"sha256:00"`) }, ErrForeign},
		{"another type", func(w http.ResponseWriter, _ *http.Request, _ *[]byte) { w.Header().Set("Content-Type", "text/plain") }, ErrAnswer},
		{"another length", func(_ http.ResponseWriter, _ *http.Request, b *[]byte) { *b = []byte("aaaa") }, ErrAnswer},
		{"refused", func(w http.ResponseWriter, _ *http.Request, _ *[]byte) { w.WriteHeader(http.StatusForbidden) }, ErrRefused},
		{"redirected", func(w http.ResponseWriter, _ *http.Request, _ *[]byte) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusFound)
		}, ErrRefused},
		{"closed after HEAD", func(w http.ResponseWriter, r *http.Request, _ *[]byte) {
			if r.Method == http.MethodHead {
				w.Header().Set("Connection", "close")
			}
		}, ErrClosed},
		{"cut", func(w http.ResponseWriter, r *http.Request, _ *[]byte) {
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Length", "3")
				_, _ = w.Write([]byte("a"))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		}, ErrCut},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, m := booting(t, image(c.change))
			replica, err := f.load(t.Context(), m, "/httpboot")
			require.Equal(t, "a", replica)
			require.ErrorIs(t, err, c.want)
			if c.want == nil {
				require.NoError(t, err)
			}
		})
	}
}

func TestAnOperatingSystemTakesItsOwnIgnitionAndAsksAgainAt503Only(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []string // "" is 503
		again   int
		want    error
	}{
		{"its own", []string{document("machine-000")}, 0, nil},
		{"its own, later", []string{"", document("machine-000")}, 1, nil},
		{"of another", []string{document("machine-001")}, 0, ErrForeign},
		{"nobody's", []string{"{}"}, 0, ErrForeign},
		{"never", []string{"403"}, 0, ErrNoIgnition},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := 0
			f, m := booting(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				answer := c.answers[min(asked, len(c.answers)-1)]
				asked++
				switch answer {
				case "":
					w.WriteHeader(http.StatusServiceUnavailable)
				case "403":
					w.WriteHeader(http.StatusForbidden)
				default:
					_, _ = w.Write([]byte(answer))
				}
			}))
			by, again, err := f.ignite(t.Context(), m)
			require.Equal(t, "a", by)
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.again, again)
			require.Equal(t, c.again+1, asked)
		})
	}
}

func TestAStatusTellsOfABootOnlyIfAllOfItIsOfThatBoot(t *testing.T) {
	began := time.Now()
	at := func(d time.Duration) *metav1.MicroTime { m := metav1.NewMicroTime(began.Add(d)); return &m }
	m := newMachine(3, &Image{Digest: "sha256:aa"}) // one that is installed once
	good := func() *v1alpha1.HTTPBootConfig {
		c := &v1alpha1.HTTPBootConfig{}
		c.Status.Boot = &v1alpha1.BootStatus{
			Attempt: 7, LastClientAddress: m.Addr.String(), Served: &v1alpha1.BootServed{Attempt: 7},
			Stages: []v1alpha1.BootStage{
				{Name: "UKI", Attempt: 7, ClientAddress: m.Addr.String(), Digest: m.Image.Digest, CompletedTime: at(time.Second)},
				{Name: "Ignition", Attempt: 7, ClientAddress: m.Addr.String(), CompletedTime: at(2 * time.Second)},
			},
		}
		return c
	}
	require.NoError(t, tells(good(), m, began))
	for name, spoil := range map[string]func(*v1alpha1.BootStatus){
		"a stage of an earlier attempt":   func(b *v1alpha1.BootStatus) { b.Stages[1].Attempt = 6 },
		"a stage of an earlier boot":      func(b *v1alpha1.BootStatus) { b.Stages[0].CompletedTime = at(-time.Second) },
		"a stage that was not completed":  func(b *v1alpha1.BootStatus) { b.Stages[0].CompletedTime = nil },
		"a stage at another address":      func(b *v1alpha1.BootStatus) { b.Stages[0].ClientAddress = "10.64.9.9" },
		"another image":                   func(b *v1alpha1.BootStatus) { b.Stages[0].Digest = "sha256:bb" },
		"no Ignition":                     func(b *v1alpha1.BootStatus) { b.Stages = b.Stages[:1] },
		"another client":                  func(b *v1alpha1.BootStatus) { b.LastClientAddress = "10.64.9.9" },
		"an attempt that can boot anew":   func(b *v1alpha1.BootStatus) { b.Served = nil },
		"the delivery of another attempt": func(b *v1alpha1.BootStatus) { b.Served.Attempt = 6 },
	} {
		c := good()
		spoil(c.Status.Boot)
		require.Error(t, tells(c, m, began), name)
	}
	require.Error(t, tells(&v1alpha1.HTTPBootConfig{}, m, began))
}

// The header as section 2.2 of the specification has it, byte for byte.
func TestProxyHeader(t *testing.T) {
	got := proxyHeader(netip.MustParseAddrPort("10.64.1.2:258"), netip.MustParseAddrPort("127.0.0.1:80"))
	want := "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a" + "\x21\x11\x00\x0c" + "\x0a\x40\x01\x02" + "\x7f\x00\x00\x01" + "\x01\x02" + "\x00\x50"
	require.True(t, bytes.Equal([]byte(want), got), fmt.Sprintf("%x", got))
}

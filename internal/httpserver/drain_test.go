package httpserver

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// firmware asks as UEFI does: HEAD, then GET on the same connection, and nothing
// again.
type firmware struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func powerOn(t testing.TB, base string) *firmware {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	return &firmware{t: t, conn: conn, in: bufio.NewReader(conn)}
}

// ask returns the answer and what came of its body.
func (f *firmware) ask(method string) (*http.Response, []byte, error) {
	f.t.Helper()
	_, err := io.WriteString(f.conn, method+" /httpboot HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n")
	if err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(f.in, &http.Request{Method: method})
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// draining is a server whose end can be asked for.
type draining struct {
	base string
	end  context.CancelFunc
	done chan error
}

func (w *world) drain(o ServeOptions) draining {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(w.t.Context())
	d := draining{base: "http://" + ln.Addr().String(), end: cancel, done: make(chan error, 1)}
	go func() { d.done <- w.server.Serve(ctx, ln, w.server.BootHandler(), o) }()
	w.t.Cleanup(cancel)
	return d
}

func (d draining) ended(t testing.TB) {
	t.Helper()
	select {
	case err := <-d.done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("the server did not end")
	}
}

// refuses waits until a server accepts nothing any more.
func refuses(t testing.TB, base string) {
	t.Helper()
	eventually(t, "the end of accepting", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
}

// A server that ends between a firmware's HEAD and its GET must not end its boot.
func TestDrainingKeepsAConnectionBetweenHeadAndGet(t *testing.T) {
	w := newWorld(t)
	d := w.drain(ServeOptions{DrainTime: 10 * time.Second, DrainIdle: time.Second})
	f, silent := powerOn(t, d.base), powerOn(t, d.base)
	for _, f := range []*firmware{f, silent} {
		resp, _, err := f.ask(http.MethodHead)
		require.NoError(t, err)
		require.Equal(t, int64(len(w.data)), resp.ContentLength)
	}
	d.end()
	refuses(t, d.base)
	require.InDelta(t, 1, testutil.ToFloat64(w.server.metrics.draining), 0)
	time.Sleep(300 * time.Millisecond) // the firmware prints, and allocates memory

	resp, _, err := f.ask(http.MethodHead)
	require.NoError(t, err)
	require.Empty(t, resp.Header.Get("Connection"), "a GET comes after a HEAD")
	resp, body, err := f.ask(http.MethodGet)
	require.NoError(t, err)
	require.Equal(t, w.data, body)
	require.True(t, resp.Close, "the answer to GET ends the connection")
	_, err = f.in.ReadByte()
	require.ErrorIs(t, err, io.EOF)

	_, err = silent.in.ReadByte()
	require.ErrorIs(t, err, io.EOF, "who stays silent is not waited for")
	began := time.Now()
	d.ended(t)
	require.Less(t, time.Since(began), 5*time.Second)
	require.Zero(t, testutil.ToFloat64(w.server.metrics.draining))
	require.NotContains(t, w.log.String(), "Cut transfers")
}

// The negative control: what http.Server.Shutdown does to the same firmware.
func TestPlainShutdownEndsABootBetweenHeadAndGet(t *testing.T) {
	w := newWorld(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{Handler: w.server.BootHandler(), ReadHeaderTimeout: headerTimeout}
	go func() { _ = srv.Serve(ln) }()
	f := powerOn(t, "http://"+ln.Addr().String())
	_, _, err = f.ask(http.MethodHead)
	require.NoError(t, err)
	time.Sleep(50 * time.Millisecond) // net/http notes that the connection is idle
	require.NoError(t, srv.Shutdown(t.Context()))
	_, _, err = f.ask(http.MethodGet)
	require.Error(t, err)
}

func TestDrainingAcceptsForItsDelay(t *testing.T) {
	w := newWorld(t)
	d := w.drain(ServeOptions{DrainDelay: 700 * time.Millisecond, DrainTime: 5 * time.Second, DrainIdle: 100 * time.Millisecond})
	resp, _, err := powerOn(t, d.base).ask(http.MethodGet)
	require.NoError(t, err)
	require.False(t, resp.Close, "the control")
	d.end()
	eventually(t, "draining", func() bool { return testutil.ToFloat64(w.server.metrics.draining) == 1 })
	f := powerOn(t, d.base)
	_, _, err = f.ask(http.MethodHead)
	require.NoError(t, err)
	resp, body, err := f.ask(http.MethodGet)
	require.NoError(t, err)
	require.Equal(t, w.data, body)
	require.True(t, resp.Close)
	d.ended(t)
	refuses(t, d.base)
}

func TestDrainingCutsWhatRunsForTooLong(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.data = randomBytes(32 << 20)
		w.plan.Artifacts = append(w.plan.Artifacts[:0], w.blobs.add(w.t, w.data))
	})
	d := w.drain(ServeOptions{DrainTime: 300 * time.Millisecond})
	resp, err := client(addrA).Get(d.base + "/httpboot") // nobody reads the body
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	d.end()
	d.ended(t)
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err)
	require.Contains(t, w.log.String(), "Cut transfers")
	eventually(t, "the cut delivery's observation", func() bool { return len(w.attempts.observed("UKI")) == 1 })
}

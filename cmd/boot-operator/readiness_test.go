package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// readyzOf asks a replica, as a kubelet does.
func readyzOf(p *parts, query string) (int, string) {
	w := httptest.NewRecorder()
	p.readyz(w, httptest.NewRequest(http.MethodGet, "/readyz"+query, nil))
	return w.Code, w.Body.String()
}

// A replica that just began lacks everything, and says what.
func TestReadinessSaysWhatIsMissing(t *testing.T) {
	s, err := parse(t, nil, "--artifact-dir="+t.TempDir(), "--ipxe-service-url=http://10.0.0.1:8082")
	require.NoError(t, err)
	s.namespace = "ours"
	c, err := connect(&rest.Config{Host: "http://127.0.0.1:1"}, logr.Discard())
	require.NoError(t, err)
	before := metrics.Registry
	metrics.Registry = prometheus.NewRegistry()
	t.Cleanup(func() { metrics.Registry = before })
	p := &parts{settings: s, logger: logr.Discard(), cluster: c, clock: newClusterClock(logr.Discard())}
	require.NoError(t, errors.Join(p.buildStore(t.Context()), p.buildInventory(t.Context()), p.buildPrefetch(t.Context())))
	t.Cleanup(func() { _ = p.store.Close() })
	p.keyring = &boot.Keyring{}
	p.tokenKeys = &tokenKeys{secret: types.NamespacedName{Namespace: "ours", Name: "keys"}}
	full := errors.New("writing to the artifact store: no space left on device")
	p.storeWatch = &storeWatch{usable: func() error { return full }}

	code, text := readyzOf(p, "")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, `[+] running: ok
[-] caches: caches have not synced: configs, nodes and namespaces are still being listed
[-] ports: the ports that machines reach are not open yet
[-] store: its directory was not looked at yet
[-] token keys: the keys of boot tokens have not been read from the Secret ours/keys
[-] artifacts: configs have not been listed yet
`, text)
	require.ErrorContains(t, p.ready(), "caches: caches have not synced")

	require.NoError(t, p.keyring.Replace(boot.TokenKey{ID: 1, Secret: bytes.Repeat([]byte{1}, 32)}))
	p.serving.Store(true)
	p.storeWatch.last.Store(&storeLook{at: time.Now(), err: full})
	_, text = readyzOf(p, "")
	require.Contains(t, text, "[+] token keys: ok\n")
	require.Contains(t, text, "[+] ports: ok\n")
	require.Contains(t, text, "[-] store: writing to the artifact store: no space left on device\n")
	p.ending.Store(true)
	_, text = readyzOf(p, "?verbose")
	require.Contains(t, text, "[-] running: this replica is ending\n")
}

// What is no part of a process is not waited for.
func TestAProcessThatOffersBootsNeedsNoArtifacts(t *testing.T) {
	names := func(args ...string) (out []string) {
		s, err := parse(t, nil, args...)
		require.NoError(t, err)
		for _, n := range (&parts{settings: s}).needs() {
			out = append(out, n.name)
		}
		return out
	}
	require.Equal(t, []string{"running", "caches", "ports", "store", "artifacts"}, names())
	require.Equal(t, []string{"running", "caches", "ports", "store", "token keys", "artifacts"}, names("--ipxe-service-url=http://10.0.0.1:8082"))
	require.Equal(t, []string{"running", "caches", "ports", "store", "token keys"}, names(offering...))
}

// Readiness is no before the ports are bound, and yes only after.
func TestPortsAreBoundBeforeTheReplicaSaysSo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	p := &parts{listeners: []listener{{address: "127.0.0.1:0"}, {address: taken.Addr().String()}}, logger: logr.Discard()}
	require.ErrorContains(t, p.serve(t.Context()), "address already in use")
	require.Error(t, p.portsOpen())

	over, cancel := context.WithCancel(t.Context())
	p = &parts{logger: logr.Discard()}
	cancel()
	require.NoError(t, p.serve(over))
	require.NoError(t, p.portsOpen(), "the control: a process without ports has nothing to open")
}

func TestAStoreThatHangsIsNotUsable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		broken := errors.New("read-only file system")
		answers := make(chan error, 2)
		w := &storeWatch{usable: func() error {
			select {
			case err := <-answers:
				return err
			case <-hang:
				return nil
			}
		}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = w.Run(ctx) }()
		answers <- nil
		answers <- broken
		synctest.Wait()
		require.NoError(t, w.verdict())
		time.Sleep(storePeriod)
		synctest.Wait()
		require.ErrorIs(t, w.verdict(), broken)
		time.Sleep(storePeriod + storeSilence)
		synctest.Wait()
		require.ErrorContains(t, w.verdict(), "has not answered for 25s")
		cancel()
		<-ended // a disk that hangs does not keep the process
		close(hang)
	})
}

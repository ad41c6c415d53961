package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/test/demoimage"
)

// blobRegistry serves one blob, at a bounded speed, and counts who asks.
type blobRegistry struct {
	blob           []byte
	digest         string
	bytesPerSecond int
	pulls          atomic.Int64
}

// newBlobRegistry makes a UKI of this size that compresses badly.
func newBlobRegistry(size, bytesPerSecond int) (*blobRegistry, error) {
	blob, err := demoimage.Padded("amd64", "bench", size)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(blob)
	return &blobRegistry{blob: blob, digest: "sha256:" + hex.EncodeToString(sum[:]), bytesPerSecond: bytesPerSecond}, nil
}

func (b *blobRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/blobs/"+b.digest) {
		if r.URL.Path != "/v2/" {
			http.NotFound(w, r)
		}
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", fmt.Sprint(len(b.blob)))
	if r.Method == http.MethodHead {
		return
	}
	b.pulls.Add(1)
	const step = 1 << 20
	for rest := b.blob; len(rest) > 0; {
		n := min(step, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			return
		}
		rest = rest[n:]
		if b.bytesPerSecond > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(b.bytesPerSecond))
		}
	}
}

// serveOne runs a replica whose only config names the registry's blob.
func serveOne(ctx context.Context, binary, dir string, b *blobRegistry, machines int) (*replica, func(), error) {
	registry := httptest.NewServer(b)
	host := strings.TrimPrefix(registry.URL, "http://")
	source := host + "/os/uki@sha256:" + strings.Repeat("cd", 32)
	api := httptest.NewServer(newAPIServer(machines, []byte(ignitionDocument), func(i int) *v1alpha1.HTTPBootConfig {
		return machineConfig(i, b.digest, int64(len(b.blob)), source)
	}))
	r, err := startReplica(ctx, binary, dir, api, "--plain-http-registries="+host)
	stop := func() {
		if r != nil {
			r.stop()
		}
		for _, s := range []*httptest.Server{api, registry} {
			s.CloseClientConnections()
			s.Close()
		}
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return r, stop, nil
}

// throughput compares sixteen machines that download a 256 MiB blob from the
// operator with the same from nginx with sendfile, of the same file.
func throughput(ctx context.Context, binary, dir string) error {
	const size = 256 << 20
	b, err := newBlobRegistry(size, 0)
	if err != nil {
		return err
	}
	r, stop, err := serveOne(ctx, binary, dir, b, 16)
	if err != nil {
		return err
	}
	defer stop()
	if err := r.ready(ctx); err != nil {
		return err
	}
	file := filepath.Join(dir, "store", "artifacts", "blobs", "sha256", strings.TrimPrefix(b.digest, "sha256:"))
	nginx, stopNginx, err := startNginx(ctx, dir, file)
	if err != nil {
		return err
	}
	defer stopNginx()
	from := make([]netip.Addr, 16)
	for i := range from {
		from[i] = machineAddress(i)
	}
	ours := func() (float64, error) { return download("http://"+r.boot+"/images/"+b.digest+"/uki.efi", size, from) }
	theirs := func() (float64, error) { return download(nginx, size, from) }
	v, err := paired(5, ours, theirs)
	if err != nil {
		return err
	}
	ratio("throughput-256MiB-16-clients-vs-nginx-sendfile", v, ">=0.95")
	return nil
}

// startNginx serves one file with sendfile, and returns its URL.
func startNginx(ctx context.Context, dir, file string) (string, func(), error) {
	work := filepath.Join(dir, "nginx")
	if err := os.MkdirAll(filepath.Join(work, "www"), 0o755); err != nil {
		return "", nil, err
	}
	if err := os.Symlink(file, filepath.Join(work, "www", "uki.efi")); err != nil {
		return "", nil, err
	}
	address := freeAddress()
	conf := fmt.Sprintf(`daemon off; worker_processes %d; pid %s/pid; error_log %s/error.log;
events { worker_connections 256; }
http { access_log off; sendfile on; tcp_nopush on; types { application/efi efi; }
 client_body_temp_path %s; proxy_temp_path %s; fastcgi_temp_path %s; uwsgi_temp_path %s; scgi_temp_path %s;
 server { listen %s; root %s/www; } }
`, runtime.NumCPU(), work, work, work, work, work, work, work, address, work)
	if os.Geteuid() == 0 {
		conf = "user root;\n" + conf
	}
	path := filepath.Join(work, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return "", nil, err
	}
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		return "", nil, fmt.Errorf("%w: the throughput figure compares with nginx; on Debian: apt-get install nginx-light", err)
	}
	cmd := exec.CommandContext(ctx, nginx, "-p", work, "-c", path, "-e", filepath.Join(work, "error.log"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop := func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() }
	if err := waitFor(address); err != nil {
		stop()
		log, _ := os.ReadFile(filepath.Join(work, "error.log"))
		return "", nil, fmt.Errorf("starting nginx: %w\n%s", err, log)
	}
	return "http://" + address + "/uki.efi", stop, nil
}

// coldBlob lets 500 machines ask at once for a 64 MiB blob that is still being
// pulled: one pull, and bounded memory.
func coldBlob(ctx context.Context, binary, dir string) error {
	const size, machines = 64 << 20, 500
	b, err := newBlobRegistry(size, 16<<20)
	if err != nil {
		return err
	}
	r, stop, err := serveOne(ctx, binary, dir, b, machines)
	if err != nil {
		return err
	}
	defer stop()
	var wg sync.WaitGroup
	errs := make(chan error, machines)
	for i := range machines {
		wg.Go(func() {
			if _, err := download("http://"+r.boot+"/httpboot", size, []netip.Addr{machineAddress(i)}); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return fmt.Errorf("500 machines and a cold blob: %w", err)
	}
	peak, err := r.memory("VmHWM")
	if err != nil {
		return err
	}
	ratio("cold-64MiB-500-clients-pulls", float64(b.pulls.Load()), "=1")
	ratio("cold-64MiB-500-clients-peak-MiB", peak, "<=200")
	return nil
}

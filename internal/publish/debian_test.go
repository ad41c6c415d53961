package publish

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const debianRegistry = "/usr/bin/docker-registry"

// A real registry, Debian's docker-registry, which knows no referrers API.
func TestDebiansRegistryTakesImages(t *testing.T) {
	host := startDebianRegistry(t)
	roundTrip(t, host, options())
	from := open(t, host+"/os/signed:13", options())
	pushed, along := published(t, from)

	other := startDebianRegistry(t)
	to := open(t, other+"/mirror/signed:13", options())
	copied, err := from.CopyTo(deadline(t), to, false, false)
	require.NoError(t, err)
	require.Equal(t, pushed.Digest, copied.Digest)
	require.ElementsMatch(t, along, copied.Referrers)
	_, err = to.Pull(deadline(t), t.TempDir())
	require.NoError(t, err)
	back := open(t, host+"/mirror/signed:14", options())
	copied, err = to.CopyTo(deadline(t), back, true, false)
	require.NoError(t, err)
	require.ElementsMatch(t, along, copied.Referrers, "they are found again")
}

func startDebianRegistry(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat(debianRegistry); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: apt-get install docker-registry", debianRegistry)
		}
		t.Skipf("SKIPPED: %s is missing: apt-get install docker-registry", debianRegistry)
	}
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	host := l.Addr().String()
	require.NoError(t, l.Close())
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n", dir, host)
	file := filepath.Join(dir, "config.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	cmd := exec.Command(debianRegistry, "serve", file)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + host + "/v2/")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, 20*time.Second, 10*time.Millisecond, "the registry listens")
	return host
}

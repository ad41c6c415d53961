package artifact

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/registry"
)

// childEnv makes the test binary a process that pulls, for its parent to kill.
const childEnv = "ARTIFACT_TEST_CHILD"

type child struct {
	Dir, Host string
	Artifact  boot.Artifact
}

func TestMain(m *testing.M) {
	if c := os.Getenv(childEnv); c != "" {
		os.Exit(pullAsChild(c))
	}
	os.Exit(m.Run())
}

func pullAsChild(env string) int {
	var c child
	if err := json.Unmarshal([]byte(env), &c); err != nil {
		return 2
	}
	s, err := New(Options{Dir: c.Dir, AllowedRegistries: []string{c.Host}, PlainHTTPRegistries: []string{c.Host}})
	if err != nil {
		return 3
	}
	if err := s.Pull(context.Background(), c.Artifact, Credentials{}); err != nil {
		return 4
	}
	return 0
}

// A process that is killed in the middle of a pull leaves nothing that looks
// like a blob, and the next one goes on where it was.
func TestKilledInTheMiddleOfAPull(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	data := random(8 << 20)
	a := artifactIn(reg, data)
	reached := int64(0)
	for _, stop := range []int64{1 << 20, 1 << 20, 3 << 20} {
		release := reg.Hold(stop)
		cmd := startChild(t, child{Dir: o.Dir, Host: reg.Host, Artifact: a})
		reached += stop
		ingest := o.Dir + "/ingest/" + a.Digest.Hex()
		eventually(t, "the child has written", func() bool {
			st, err := os.Stat(ingest)
			return err == nil && st.Size() >= reached
		})
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		release()
		requireEmpty(t, o.Dir+"/blobs/sha256")

		o.Registerer = nil
		s := open(t, o)
		require.False(t, s.Has(a.Digest))
		_, err := s.Open(deadline(t), a.Digest)
		require.ErrorIs(t, err, boot.ErrNotReady)
		require.NoError(t, s.Close())
	}
	s := open(t, o)
	reg.Forget()
	require.NoError(t, s.Pull(deadline(t), a, Credentials{}))
	requireHolds(t, s, data)
	require.Len(t, reg.Requests(), 1)
	require.Equal(t, "bytes=5242880-8388607", reg.Requests()[0].Range)
}

func TestAProcessThatIsNotKilledLeavesABlob(t *testing.T) {
	reg := serve(t, registry.Options{})
	o := options(t, reg)
	data := random(1 << 20)
	require.NoError(t, startChild(t, child{Dir: o.Dir, Host: reg.Host, Artifact: artifactIn(reg, data)}).Wait())
	requireHolds(t, open(t, o), data)
}

func startChild(t *testing.T, c child) *exec.Cmd {
	t.Helper()
	env, err := json.Marshal(c)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0]) //nolint:gosec // this test binary
	cmd.Env = append(os.Environ(), childEnv+"="+string(env))
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

package render

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

var (
	plain  = Links{Base: "http://10.0.0.1:8082"}
	tokens = Links{Base: "http://10.0.0.1:8082", BootToken: "BootTokenBootToken", SecretToken: "SecretTokenSecretToken"}
)

// golden compares with testdata/name, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "testdata/%s (go test -update writes it)", name)
}

// plan returns a plan of a kernel, an initrd and a squashfs in the store.
func plan(change ...func(p *boot.Plan)) *boot.Plan {
	p := samplePlan()
	for _, c := range change {
		c(p)
	}
	return p
}

func without(roles ...boot.Role) func(p *boot.Plan) {
	return func(p *boot.Plan) {
		var kept []boot.Artifact
		for _, a := range p.Artifacts {
			drop := false
			for _, role := range roles {
				drop = drop || a.Role == role
			}
			if !drop {
				kept = append(kept, a)
			}
		}
		p.Artifacts = kept
	}
}

func foreign(role boot.Role, url string) func(p *boot.Plan) {
	return func(p *boot.Plan) {
		without(role)(p)
		if p.Foreign == nil {
			p.Foreign = map[boot.Role]string{}
		}
		p.Foreign[role] = url
	}
}

func arguments(args ...string) func(p *boot.Plan) {
	return func(p *boot.Plan) { p.KernelArguments = args }
}

func ukiOnly(p *boot.Plan) {
	p.Foreign = nil
	p.Artifacts = []boot.Artifact{{Role: boot.RoleUKI, Digest: boot.Digest("sha256:" + strings.Repeat("d", 64))}}
}

func nobody(p *boot.Plan) {
	p.Machine.UUID, p.HasIgnition, p.KernelArguments = "", false, nil
}

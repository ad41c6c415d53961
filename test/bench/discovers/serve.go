package discovers

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/netboot"
)

// Serve runs a server with a plan for every machine of the generator on the
// interface that Measure made, until ctx ends. It is what the program does when
// it is called with Command.
func Serve(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "discovers-")
	if err != nil {
		return fmt.Errorf("making a directory of programs: %w", err)
	}
	defer os.RemoveAll(dir)
	keys, err := boot.NewKeyring(boot.TokenKey{ID: 1, Secret: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		return fmt.Errorf("making token keys: %w", err)
	}
	source := newSource()
	s, err := netboot.New(netboot.Options{
		Source: source, Attempts: source, Issuer: boot.NewIssuer(keys, source, time.Now), Interfaces: []string{serverNIC},
		BaseURL:    func(local netip.Addr) string { return "http://" + local.String() + ":8082" },
		ProgramDir: dir, Logger: logr.Discard(), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return fmt.Errorf("making a server: %w", err)
	}
	fmt.Println(ready)
	return s.Run(ctx) //nolint:wrapcheck // says what it did
}

// source knows the generator's machines, each with an attempt to come.
type source struct{ byMAC map[boot.MAC][]*boot.Plan }

func newSource() *source {
	s := &source{byMAC: make(map[boot.MAC][]*boot.Plan, machines)}
	for i := range machines {
		mac, err := boot.ParseMAC(fmt.Sprintf("%x", hardware(i)))
		if err != nil {
			panic(err) // hardware makes no other
		}
		s.byMAC[mac] = []*boot.Plan{{
			Object:       boot.Ref{Kind: "HTTPBootConfig", Namespace: "bench", Name: fmt.Sprint(i), UID: fmt.Sprintf("00000000-0000-0000-0001-%012x", i)},
			Machine:      boot.Machine{MACs: []boot.MAC{mac}, Architecture: boot.AMD64},
			Artifacts:    []boot.Artifact{{Role: boot.RoleUKI}},
			Policy:       boot.Always,
			MinimumProof: boot.Address,
		}}
	}
	return s
}

func (s *source) ByMAC(m boot.MAC) ([]*boot.Plan, error) {
	if p, ok := s.byMAC[m]; ok {
		return p, nil
	}
	return nil, boot.ErrNotFound
}

func (s *source) ByAddr(netip.Addr) ([]*boot.Plan, error)   { return nil, boot.ErrNotFound }
func (s *source) ByUUID(boot.UUID) ([]*boot.Plan, error)    { return nil, boot.ErrNotFound }
func (s *source) ByBootAddr(netip.Addr) (*boot.Plan, error) { return nil, boot.ErrNotFound }
func (s *source) ByObject(string) (*boot.Plan, error)       { return nil, boot.ErrNotFound }
func (s *source) ProvesNothing(netip.Addr) bool             { return false }
func (s *source) PublicArtifact(boot.Digest) (boot.Artifact, error) {
	return boot.Artifact{}, boot.ErrNotFound
}

func (s *source) Current(*boot.Plan) boot.Attempt { return boot.Attempt{} }
func (s *source) Coming(*boot.Plan) (boot.Attempt, error) {
	return boot.Attempt{Number: 1}, nil
}
func (s *source) Begin(*boot.Plan, boot.Client) (boot.Attempt, error) {
	return boot.Attempt{}, boot.ErrNotReady
}
func (s *source) Commit(context.Context, *boot.Plan, boot.Attempt, boot.Digest, netip.Addr, string) error {
	return boot.ErrNotReady
}
func (s *source) Refresh(context.Context, *boot.Plan) (boot.Attempt, error) {
	return boot.Attempt{}, boot.ErrNotReady
}
func (s *source) Observe(boot.Observation) {}

package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/compose"
	"github.com/boot-operator/boot-operator/internal/uki"
)

// partStore holds the parts of the lab's OS as an artifact store does.
type partStore map[boot.Digest]string

func (s partStore) Open(_ context.Context, d boot.Digest) (boot.Blob, error) {
	f, err := os.Open(s[d])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", boot.ErrNotReady, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return partBlob{f, info.Size()}, nil
}

type partBlob struct {
	file *os.File
	size int64
}

func (b partBlob) Read(p []byte) (int, error)         { return b.file.Read(p) }
func (b partBlob) Seek(o int64, w int) (int64, error) { return b.file.Seek(o, w) }
func (b partBlob) Close() error                       { return b.file.Close() }
func (b partBlob) Size() int64                        { return b.size }
func (b partBlob) File() *os.File                     { return b.file }

// planOf returns a plan whose UKI is composed of the lab's OS, and the store of its
// parts.
func planOf(t *testing.T, architecture string, arguments ...string) (partStore, *boot.Plan) {
	t.Helper()
	store := partStore{}
	p := &boot.Plan{
		Object:  boot.Ref{Kind: "HTTPBootConfig", Namespace: "lab", Name: architecture, UID: "0a1b2c3d-4e5f-4a6b-8c7d-000000000001"},
		Machine: boot.Machine{Architecture: boot.Architecture(architecture)}, Composes: true, HasIgnition: true, HasCloudInit: true,
		KernelArguments: append([]string{"console=" + platforms[architecture].serial, "quiet", "panic=-1", "lab.shell"}, arguments...),
	}
	for role, name := range map[boot.Role]string{boot.RoleStub: "stub", boot.RoleKernel: "linux", boot.RoleInitrd: "initrd"} {
		content := osPart(t, architecture, name)
		sum := sha256.Sum256(content)
		a := boot.Artifact{Role: role, Digest: boot.Digest("sha256:" + hex.EncodeToString(sum[:])), Size: int64(len(content))}
		file := t.TempDir() + "/" + name
		require.NoError(t, os.WriteFile(file, content, 0o600))
		store[a.Digest] = file
		p.Artifacts = append(p.Artifacts, a)
	}
	return store, p
}

// A composed UKI is started by firmware, with and without Secure Boot, and by
// systemd-stub with the machine's own command line, padded as it is; and the OS
// finds in its initrd what only this machine is told.
func TestAMachineBootsTheUKIThatWasComposedForIt(t *testing.T) {
	for _, c := range []struct {
		name, architecture string
		secureBoot         bool
	}{{"amd64", "amd64", false}, {"amd64 with Secure Boot", "amd64", true}, {"arm64", "arm64", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.architecture == "arm64" {
				Require(t, ARM64)
			}
			options := MachineOptions{Arch: c.architecture}
			var signer *uki.Signer
			if c.secureBoot {
				key := Snakeoil(t)
				signer, options.SecureBoot = key.signer, key.Firmware()
			}
			bootComposed(t, c.architecture, options, signer)
		})
	}
}

func bootComposed(t *testing.T, architecture string, options MachineOptions, signer *uki.Signer) {
	t.Helper()
	n := NewNetwork(t, NetworkOptions{})
	url := fmt.Sprintf("http://%s:8080", n.Gateway())
	ca := NewCA(t, "boot server")
	keys, err := boot.NewKeyring(boot.TokenKey{ID: 1, Secret: make([]byte, 32)})
	require.NoError(t, err)
	store, p := planOf(t, architecture, "machine=one", `quoted="two`, `words"`)
	composer, err := compose.New(compose.Options{Blobs: store, Keyring: keys, BaseURL: url, CA: ca.PEM})
	require.NoError(t, err)
	made, err := composer.Compose(t.Context(), p, 7, signer)
	require.NoError(t, err)
	p.Composed = &made
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		blob, err := composer.OpenComposed(r.Context(), p)
		if assert.NoError(t, err) {
			defer func() { _ = blob.Close() }()
			w.Header().Set("Content-Type", "application/efi")
			http.ServeContent(w, r, "", time.Time{}, blob)
		}
	})
	go func() { _ = http.Serve(n.Listen("tcp4", ":8080"), serve) }()
	n.DHCP(DHCPOptions{BootURL: url + "/httpboot"})
	m := n.Machine(t, options)
	m.PowerOn()
	booted := m.ExpectLine(`^UKI-BOOTED uuid=\S+ cmdline=(.*)$`, patience)
	assert.Equal(t, strings.Join(p.KernelArguments, " "), booted[1], "the whole command line, without its padding")
	m.ExpectLine(map[bool]string{true: `^SECURE-BOOT enabled$`, false: `^SECURE-BOOT disabled$`}[signer != nil], patience)
	m.Expect("SHELL-READY", patience)
	for command, want := range map[string]string{
		"cat /usr/lib/ignition/user.ign":                  `"replace":\{"source":"` + url + `/ignition\?token=[\w-]{80}"\}`,
		"stat -c '%a %u' /usr/lib/ignition/user.ign":      `^400 0$`,
		"cat /etc/boot-operator/ignition-url":             `^` + url + `/ignition\?token=[\w-]{80}$`,
		"cat /etc/boot-operator/cloud-init-url":           `^` + url + `/cloud-init/t/[\w-]{80}/$`,
		"cat /etc/cloud/cloud.cfg.d/99-boot-operator.cfg": `"seedfrom":"` + url + `/cloud-init/t/[\w-]{80}/"`,
		"sha256sum /etc/boot-operator/ca.pem":             fmt.Sprintf(`^%x  /etc/boot-operator/ca.pem$`, sha256.Sum256(ca.PEM)),
		"ls /lib/modules.load":                            `^/lib/modules.load$`, // of the OS's own initrd
	} {
		m.Send(command + "\r")
		m.ExpectLine(want, patience)
	}
	m.Send("poweroff -f\r")
	m.WaitOff(patience)
}

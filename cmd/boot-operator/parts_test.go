package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/controller/bootconfig"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/demoimage"
)

// oneBlob opens a file whatever the digest; its knob is that it is still arriving.
type oneBlob struct {
	file     *os.File
	size     int64
	arriving bool
}

func (b oneBlob) Open(context.Context, boot.Digest) (boot.Blob, error) { return b, nil }
func (b oneBlob) Read(p []byte) (int, error)                           { return b.file.Read(p) }
func (b oneBlob) Seek(offset int64, whence int) (int64, error)         { return b.file.Seek(offset, whence) }
func (b oneBlob) Close() error                                         { return nil }
func (b oneBlob) Size() int64                                          { return b.size }

func (b oneBlob) File() *os.File {
	if b.arriving {
		return nil
	}
	return b.file
}

// aUKI is one with this command line.
func aUKI(t *testing.T, commandLine string) oneBlob {
	t.Helper()
	stub, err := demoimage.Greeting(uki.ARM64, "hello")
	require.NoError(t, err)
	image, err := uki.Assemble(stub, uki.Section{Name: ".cmdline", Data: []byte(commandLine)}, uki.Section{Name: ".linux", Data: []byte("kernel")})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "uki.efi")
	require.NoError(t, os.WriteFile(path, image, 0o600))
	f, err := os.Open(path) //nolint:gosec // just written
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return oneBlob{file: f, size: int64(len(image))}
}

func TestAUKITellsWhatItIsForAndWhatItReads(t *testing.T) {
	for commandLine, want := range map[string]bootconfig.Formats{
		"quiet":                         {},
		"quiet ds=nocloud":              {CloudInit: true},
		"quiet ignition.platform.id=qm": {Ignition: true},
	} {
		blob := aUKI(t, commandLine)
		arch, err := madeFor(t.Context(), blob, "")
		require.NoError(t, err)
		require.Equal(t, boot.ARM64, arch)
		got, err := takes(t.Context(), blob, "")
		require.NoError(t, err)
		require.Equal(t, want, got, commandLine)
		blob.arriving = true
		_, err = takes(t.Context(), blob, "")
		require.ErrorIs(t, err, boot.ErrNotReady)
	}
}

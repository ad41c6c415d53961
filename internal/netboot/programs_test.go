package netboot

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

var (
	uefiX64   = firmwares[7]
	uefiARM64 = firmwares[11]
	bios      = firmwares[0]
)

func nameFor(c *catalog, f firmware) string {
	p, _ := c.forFirmware(f)
	return p.Name
}

func TestTheProgramIsChosenByWhatItWasBuiltFor(t *testing.T) {
	dir := programs(t)
	c, wrong := scan(dir, &catalog{})
	require.Empty(t, wrong)
	require.Equal(t, "snponly.efi", nameFor(c, uefiX64))
	require.Equal(t, "arm64/snponly.efi", nameFor(c, uefiARM64))
	require.Equal(t, "undionly.kpxe", nameFor(c, bios))

	write(t, dir, "snponly.efi", pe(0xaa64, "an arm64 build under that name"))
	c, wrong = scan(dir, c)
	require.Empty(t, wrong)
	require.Equal(t, "ipxe.efi", nameFor(c, uefiX64))
	require.Equal(t, "snponly.efi", nameFor(c, uefiARM64))
}

func TestAShimIsOfferedWithWhatItLoads(t *testing.T) {
	dir := programs(t)
	write(t, dir, "shimx64.efi", pe(0x8664, "shim"))
	c, _ := scan(dir, &catalog{})
	require.Equal(t, "snponly.efi", nameFor(c, uefiX64), "the shim would find nothing to load")
	write(t, dir, "grubx64.efi", pe(0x8664, "second stage"))
	c, _ = scan(dir, c)
	require.Equal(t, "shimx64.efi", nameFor(c, uefiX64))
	write(t, dir, "snponly-shim.efi", pe(0x8664, "shim"))
	c, _ = scan(dir, c)
	require.Equal(t, "snponly-shim.efi", nameFor(c, uefiX64))
}

func TestWhatIsNoProgramIsNotServed(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "ipxe.efi", []byte("<html>404</html>"))
	write(t, dir, "snponly.efi", pe(0x014c, "32 bits"))
	write(t, dir, "undionly.kpxe", pe(0x8664, "a UEFI program"))
	write(t, dir, "autoexec.ipxe", []byte("#!/bin/sh"))
	write(t, dir, "mmx64.efi", nil)
	write(t, dir, "passwd", []byte("secret"))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "shimx64.efi"), 0o755))
	big, err := os.Create(filepath.Join(dir, "grubx64.efi"))
	require.NoError(t, err)
	require.NoError(t, big.Truncate(maxProgram+1))
	require.NoError(t, big.Close())
	c, wrong := scan(dir, &catalog{})
	require.Empty(t, c.programs())
	require.Len(t, wrong, 7)
	for _, err := range wrong {
		require.ErrorIs(t, err, boot.ErrInvalid)
	}
}

func TestAProgramIsReadAgainWhenItChanges(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, Unknown, w.catalog.Load().files["ipxe.efi"].Build.HTTPS, "nothing shows that it is iPXE")
	write(t, w.options.ProgramDir, "ipxe.efi", pe(0x8664, "#!ipxe\x001.21.1+ (g1a2b3c)\x00https\x00imgverify\x00autoexec.ipxe\x00"))
	require.NoError(t, os.Remove(filepath.Join(w.options.ProgramDir, "undionly.kpxe")))
	w.rescan()
	require.Equal(t, Build{Version: "1.21.1+ (g1a2b3c)", HTTPS: Yes, ImgVerify: Yes, Autoexec: Yes}, w.catalog.Load().files["ipxe.efi"].Build)
	require.Empty(t, nameFor(w.catalog.Load(), bios))
	require.Len(t, w.Programs(), 3)
}

func TestDebiansBuildOf2019CanDoNoneOfIt(t *testing.T) {
	content, err := os.ReadFile("/usr/lib/ipxe/snponly.efi")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("Debian's package ipxe is not installed; in CI it has to be: %v", err)
	}
	if err != nil {
		t.Skipf("NOT TESTED: Debian's package ipxe is not there: %v", err)
	}
	if len(readBuild(content).Version) < 14 || readBuild(content).Version[:14] != "1.0.0+git-2019" {
		t.Skip("NOT TESTED: this is another build")
	}
	b := readBuild(content)
	require.Equal(t, Build{Version: "1.0.0+git-20190125.36a4c85-5.1", HTTPS: No, ImgVerify: No, Autoexec: No}, b)
	c, wrong := scan("/usr/lib/ipxe", &catalog{})
	require.Empty(t, wrong)
	require.Equal(t, "snponly.efi", nameFor(c, uefiX64))
	require.Equal(t, "undionly.kpxe", nameFor(c, bios))
	require.Equal(t, "/boot/ipxe.efi", c.files["ipxe.efi"].Path, "Debian's link leads out of the directory")
}

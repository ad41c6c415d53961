package publish

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func TestFilesAreFoundByTheirNames(t *testing.T) {
	// As mkosi leaves them, and beside them what it leaves too.
	dir := t.TempDir()
	write(t, dir, map[string][]byte{
		"image.efi": nil, "image.vmlinuz": nil, "image.initrd": nil, "linuxx64.efi.stub": nil, "image.squashfs": nil,
		"os-release": nil, "cmdline": []byte("console=ttyS0\n"), "image.raw": nil, "SHA256SUMS": nil, "more/vmlinuz": nil,
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	all, err := FromDirectory(dir)
	require.NoError(t, err)
	require.Equal(t, []Sources{{
		UKI: in("image.efi"), Kernel: in("image.vmlinuz"), Initrds: []string{in("image.initrd")}, Stub: in("linuxx64.efi.stub"),
		Squashfs: in("image.squashfs"), OSRelease: in("os-release"), CommandLine: "console=ttyS0",
	}}, all)

	dir = t.TempDir()
	write(t, dir, map[string][]byte{"arm64/uki.efi": nil, "amd64/vmlinuz": nil, "amd64/initrd.img-1": nil, "amd64/initrd.img-2": nil, "README": nil})
	all, err = FromDirectory(dir)
	require.NoError(t, err)
	require.Equal(t, []Sources{
		{Architecture: boot.AMD64, Kernel: filepath.Join(dir, "amd64/vmlinuz"), Initrds: []string{filepath.Join(dir, "amd64/initrd.img-1"), filepath.Join(dir, "amd64/initrd.img-2")}},
		{Architecture: boot.ARM64, UKI: filepath.Join(dir, "arm64/uki.efi")},
	}, all)
}

func TestADirectoryWithoutAnImageSaysWhatItHas(t *testing.T) {
	dir := t.TempDir()
	_, err := FromDirectory(dir)
	require.ErrorIs(t, err, ErrFile)
	require.ErrorContains(t, err, "has neither a UKI (uki.efi) nor a kernel (vmlinuz); it has no files")
	write(t, dir, map[string][]byte{"disk.raw": nil, "notes": nil})
	_, err = FromDirectory(dir)
	require.ErrorContains(t, err, "; it has disk.raw, notes")
	write(t, dir, map[string][]byte{"1": nil, "2": nil, "3": nil, "4": nil, "5": nil, "6": nil, "7": nil})
	_, err = FromDirectory(dir)
	require.ErrorContains(t, err, " and 1 more")
	write(t, dir, map[string][]byte{"vmlinuz-1": nil, "vmlinuz-2": nil})
	_, err = FromDirectory(dir)
	require.ErrorContains(t, err, "vmlinuz-2 could each be the kernel; name the files themselves")
	_, err = FromDirectory(filepath.Join(dir, "nowhere"))
	require.ErrorContains(t, err, "no such file or directory")
}

func TestAnOSIsFoundAsDistributionsLeaveIt(t *testing.T) {
	kernel := greeting(t, "amd64")
	for name, c := range map[string]struct {
		files                   map[string][]byte
		kernel, initrd, release string
		stub                    string
	}{
		"Debian": {map[string][]byte{
			"boot/vmlinuz-6.12.0-1-amd64": kernel, "boot/initrd.img-6.12.0-1-amd64": nil, "boot/config-6.12.0-1-amd64": nil,
			"usr/lib/os-release": nil, "usr/lib/systemd/boot/efi/linuxx64.efi.stub": nil, "usr/lib/systemd/boot/efi/linuxaa64.efi.stub": nil,
		}, "boot/vmlinuz-6.12.0-1-amd64", "boot/initrd.img-6.12.0-1-amd64", "usr/lib/os-release", "usr/lib/systemd/boot/efi/linuxx64.efi.stub"},
		"Fedora": {map[string][]byte{
			"usr/lib/modules/6.17.1/vmlinuz": kernel, "boot/vmlinuz-6.17.1": kernel, "boot/initramfs-6.17.1.img": nil,
			"boot/vmlinuz-0-rescue-abc": kernel, "boot/initramfs-0-rescue-abc.img": nil, "usr/lib/os-release": nil,
		}, "usr/lib/modules/6.17.1/vmlinuz", "boot/initramfs-6.17.1.img", "usr/lib/os-release", ""},
		"image based": {map[string][]byte{
			"usr/lib/modules/6.17.1/vmlinuz": kernel, "usr/lib/modules/6.17.1/initramfs.img": nil, "etc/os-release": nil,
		}, "usr/lib/modules/6.17.1/vmlinuz", "usr/lib/modules/6.17.1/initramfs.img", "etc/os-release", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, c.files)
			s, err := FromRoot(dir, "")
			require.NoError(t, err)
			want := Sources{Kernel: filepath.Join(dir, c.kernel), Initrds: []string{filepath.Join(dir, c.initrd)}, OSRelease: filepath.Join(dir, c.release)}
			if c.stub != "" {
				want.Stub = filepath.Join(dir, c.stub)
			}
			require.Equal(t, want, s)
		})
	}
}

func TestAnOSWithoutWhatItBootsSaysWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	_, err := FromRoot(dir, "")
	require.ErrorIs(t, err, ErrFile)
	require.ErrorContains(t, err, "has no kernel; it would be one of usr/lib/modules/*/vmlinuz, lib/modules/*/vmlinuz, boot/vmlinuz-*")
	write(t, dir, map[string][]byte{"boot/vmlinuz-1": greeting(t, "amd64"), "boot/initrd.img-2": nil})
	_, err = FromRoot(dir, "")
	require.ErrorContains(t, err, "has no initrd for the kernel 1; it would be one of usr/lib/modules/1/initrd")
	write(t, dir, map[string][]byte{"boot/vmlinuz-2": greeting(t, "amd64")})
	_, err = FromRoot(dir, "")
	require.ErrorContains(t, err, "has several kernels, 1, 2; say which with --kernel-version")
	_, err = FromRoot(dir, "3")
	require.ErrorContains(t, err, "has no kernel 3; it has 1, 2")
	s, err := FromRoot(dir, "2")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "boot/vmlinuz-2"), s.Kernel)
	write(t, dir, map[string][]byte{"boot/vmlinuz-2": []byte("\x1f\x8b")})
	_, err = FromRoot(dir, "2")
	require.ErrorContains(t, err, "it looks like a gzip archive")
	_, err = FromRoot(filepath.Join(dir, "nowhere"), "")
	require.ErrorContains(t, err, "no such file or directory")
}

// A link in an image of an OS is of that OS, and never of this machine.
func TestALinkOutOfTheRootIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string][]byte{"boot/vmlinuz-1": greeting(t, "amd64"), "usr/lib/real": []byte("ID=a"), "boot/initrd.img-1": nil})
	require.NoError(t, os.Symlink("/etc/os-release", filepath.Join(dir, "usr/lib/os-release")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	require.NoError(t, os.Symlink("../usr/lib/real", filepath.Join(dir, "etc/os-release")))
	s, err := FromRoot(dir, "")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "etc/os-release"), s.OSRelease)
}

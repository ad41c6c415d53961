package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/test/cache"
)

// buildTimeout bounds the download and build of the OS's parts.
const buildTimeout = 10 * time.Minute

// OS returns the lab's operating system as a UKI with the given kernel command
// line, to which the serial console is added. See BuildOS. It skips the test on
// a host that is not Debian.
func OS(t testing.TB, architecture, cmdline string) []byte {
	t.Helper()
	Require(t, Debian)
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	image, err := BuildOS(ctx, architecture, cmdline)
	if err != nil {
		t.Fatalf("building the lab's OS: %v", err)
	}
	return image
}

// Kernel returns the kernel of the lab's operating system, to boot with Initrd
// and a command line as BuildOS describes it. It skips the test on a host that is
// not Debian.
func Kernel(t testing.TB, architecture string) []byte {
	t.Helper()
	return osPart(t, architecture, "linux")
}

// Initrd returns what Kernel boots with.
func Initrd(t testing.TB, architecture string) []byte {
	t.Helper()
	return osPart(t, architecture, "initrd")
}

// OSFile returns the file of a part of the lab's operating system, for programs:
// stub, linux or initrd. It must not be written.
func OSFile(t testing.TB, architecture, name string) string {
	t.Helper()
	Require(t, Debian)
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	directory, err := osParts(ctx, architecture)
	if err != nil {
		t.Fatalf("building the lab's OS: %v", err)
	}
	return filepath.Join(directory, name)
}

func osPart(t testing.TB, architecture, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(OSFile(t, architecture, name))
	if err != nil {
		t.Fatalf("building the lab's OS: %v", err)
	}
	return b
}

// BuildOS makes a UKI of Debian's kernel, an initrd with busybox and Debian's
// real Ignition, and systemd's stub. The first call for an architecture
// downloads packages (nothing is installed) and keeps the parts in the cache;
// delete them there to have newer ones.
//
// The OS gets an address on the first NIC with a cable, fetches what its command
// line names, runs Ignition's stages fetch and files against /sysroot, and
// switches off. It says, each in a line on the serial port, whatever console= is:
//
//	UKI-BOOTED uuid=<SMBIOS UUID> cmdline=<the kernel's>
//	SECURE-BOOT enabled             or SECURE-BOOT disabled, as the firmware says; also where
//	                                it knows nothing of it
//	DHCP-OK <address>               or DHCP-FAILED; not with ip=dhcp6 or ip=auto6
//	IPV6-OK <address>               or IPV6-FAILED; only with those two or an IPv6 literal in
//	                                a URL; the address is Network.SLAAC's, there is no DHCPv6
//	SQUASHFS-FETCHED sha256:<hex>   or SQUASHFS-FAILED <HTTP status>; with gl.url=
//	IGNITION-FILES <path> …
//	IGNITION-APPLIED <content>      of lab.file, by default /etc/boot-operator-lab;
//	                                or IGNITION-FAILED <HTTP status>, or IGNITION-NONE
//	                                without ignition.config.url= or a user.ign in its initrd
//	CLOUD-INIT-META instance-id=<id> <key>=<value> …
//	CLOUD-INIT-NETWORK-CONFIG <lines, joined with spaces>
//	CLOUD-INIT-USER-DATA <first line that is not #cloud-config>
//	CLOUD-INIT-VENDOR-DATA <likewise>
//	                                or CLOUD-INIT-FAILED <HTTP status> <file>; with
//	                                ds=nocloud;s=<URL>/ or ds=nocloud-net;s=<URL>/
//	LAB-DONE                        or SHELL-READY
//
// The files of cloud-init and the squashfs are tried 11 times while the server
// answers 5xx or not at all.
//
// Of its own are the parameters lab.file=, lab.nic= (a NIC, whatever has a
// cable), lab.clientid=none (send no DHCP client identifier, as OVMF),
// lab.fetch-timeout= (Ignition's, default 60s) and lab.shell (a shell instead of
// power-off, until the power button is pressed: then it says POWER-BUTTON).
func BuildOS(ctx context.Context, architecture, cmdline string) ([]byte, error) {
	p, err := platformOf(architecture)
	if err != nil {
		return nil, err
	}
	parts, err := osParts(ctx, architecture)
	if err != nil {
		return nil, err
	}
	return assembleOS(parts, fmt.Sprintf("console=%s quiet panic=-1 %s", p.serial, cmdline))
}

// assembleOS puts the parts in directory together.
func assembleOS(directory, cmdline string) ([]byte, error) {
	parts := map[string][]byte{}
	for _, name := range []string{"stub", "linux", "initrd"} {
		b, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			return nil, err
		}
		parts[name] = b
	}
	var image bytes.Buffer
	err := uki.Build(&image, uki.Parts{
		Stub: parts["stub"], Linux: input(parts["linux"]), Initrds: []uki.Input{input(parts["initrd"])}, CommandLine: cmdline,
		OSRelease: "ID=boot-operator-lab\nNAME=\"boot-operator lab\"\nVERSION_ID=1\n",
	})
	return image.Bytes(), err
}

func input(b []byte) uki.Input { return uki.Input{R: bytes.NewReader(b), Size: int64(len(b))} }

// osParts returns the directory with the files stub, linux, initrd and packages
// (what they were made of), made when it is not in the cache.
func osParts(ctx context.Context, architecture string) (string, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	recipe := sha256.New()
	recipe.Write(release)
	recipe.Write(initScript)
	fmt.Fprint(recipe, driverNames, packageNames(architecture))
	path := filepath.Join(cache.Dir("lab"), fmt.Sprintf("os-%s-%x", architecture, recipe.Sum(nil)[:6]))
	return path, cache.Make(path, func(tmp string) error { return buildParts(ctx, architecture, tmp) })
}

// buildParts fills directory.
func buildParts(ctx context.Context, architecture, directory string) error {
	work, err := os.MkdirTemp("", "boot-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	packages, err := downloadPackages(ctx, architecture, work)
	if err != nil {
		return fmt.Errorf("downloading packages: %w", err)
	}
	root := filepath.Join(work, "root")
	for _, file := range packages {
		if _, err := run(ctx, work, "dpkg-deb", "--extract", file, root); err != nil {
			return err
		}
	}
	tree, err := openSysroot(root)
	if err != nil {
		return err
	}
	initrd, err := buildInitrd(tree)
	if err != nil {
		return err
	}
	stub, err := tree.readEnd(platforms[architecture].stub)
	if err != nil {
		return err
	}
	linux, err := tree.kernel()
	if err != nil {
		return err
	}
	return writeParts(directory, map[string][]byte{
		"stub": stub, "linux": linux, "initrd": initrd,
		"packages": []byte(strings.Join(packages, "\n") + "\n"),
	})
}

func writeParts(directory string, parts map[string][]byte) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	for name, content := range parts {
		if err := os.WriteFile(filepath.Join(directory, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s *sysroot) kernel() ([]byte, error) {
	for _, name := range s.files {
		if strings.HasPrefix(filepath.Base(name), "vmlinuz-") {
			return s.read(name)
		}
	}
	return nil, errors.New("the kernel's package has no vmlinuz")
}

// packageNames are Debian's; the first one only depends on the current kernel.
func packageNames(architecture string) []string {
	return []string{"linux-image-cloud-" + architecture, "busybox-static", "ignition", "libblkid1", "libc6", "systemd-boot-efi"}
}

// downloadPackages fetches packages of any architecture to directory and
// returns their files' names. apt works on a state of its own, with the host's
// sources and keys: the host's packages and lists stay as they are.
func downloadPackages(ctx context.Context, architecture, directory string) ([]string, error) {
	options, err := aptState(directory, architecture)
	if err != nil {
		return nil, err
	}
	// An unrelated source that has nothing for this architecture is no reason to
	// stop: what is missing shows in the download.
	_, updateErr := run(ctx, directory, "apt-get", append(options, "update")...)
	names := packageNames(architecture)
	out, err := run(ctx, directory, "apt-cache", append(options, "depends", names[0])...)
	if err != nil {
		return nil, errors.Join(err, updateErr)
	}
	kernel := ""
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			kernel = "linux-image-" + name
		}
	}
	if kernel == "" {
		return nil, errors.Join(fmt.Errorf("package %s names no kernel", names[0]), updateErr)
	}
	if _, err := run(ctx, directory, "apt-get", append(options, append([]string{"download", kernel}, names[1:]...)...)...); err != nil {
		return nil, errors.Join(err, updateErr)
	}
	files, err := filepath.Glob(filepath.Join(directory, "*.deb"))
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	return files, err
}

// aptState makes an empty state and returns the options that select it.
func aptState(directory, architecture string) ([]string, error) {
	state := filepath.Join(directory, "apt")
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(state, dir), 0o755); err != nil {
			return nil, err
		}
	}
	status := filepath.Join(state, "status")
	options := []string{"-q"}
	for _, option := range []string{
		"APT::Architecture=" + architecture,
		"APT::Architectures=" + architecture,
		"Dir::State=" + state,
		"Dir::State::status=" + status,
		"Dir::Cache=" + filepath.Join(state, "cache"),
		"APT::Sandbox::User=root", // the directory is ours alone
		"Acquire::Languages=none",
		"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"Acquire::Retries=3",
	} {
		options = append(options, "-o", option)
	}
	return options, os.WriteFile(status, nil, 0o644)
}

// run runs a command in directory and returns its output.
func run(ctx context.Context, directory, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = directory, &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[len(args)-1], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

package publish

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
)

const (
	// maxStub and maxText bound what is held in memory: EFI stubs have some 100 KB,
	// files such as os-release some hundred bytes.
	maxStub = 16 << 20
	maxText = 64 << 10
)

// Sources are the files that one architecture of an image is made of: a UKI, a kernel
// with its initrds, or both; or initrds alone, which are appended to those of another
// image.
type Sources struct {
	// Architecture is amd64 or arm64; empty is what the files say of themselves.
	Architecture boot.Architecture
	// UKI is a finished one. Stub is an EFI stub, of which the operator composes
	// UKIs with Kernel and Initrds.
	UKI, Stub, Kernel string
	Initrds           []string
	Squashfs          string
	// OSRelease is the os-release file of the OS. It becomes a section of the stub,
	// so that composed UKIs have it.
	OSRelease string
	// CommandLine is what the kernel is usually started with, for those who read
	// annotations; that of a UKI is read from it.
	CommandLine string
}

// Image is what one architecture boots.
type Image struct {
	Architecture boot.Architecture
	// Layers in the order of the manifest, one of each role at most.
	Layers []Layer
	// Annotations say what is in it: see the constants Annotation….
	Annotations map[string]string
}

// Layer is a blob that is booted.
type Layer struct {
	Role    boot.Role
	Content Content
}

// layerNames are the names of files that layers are pulled to, in the order that
// manifests have them.
var layerNames = []struct {
	role boot.Role
	name string
}{
	{boot.RoleUKI, "uki.efi"},
	{boot.RoleStub, "stub.efi"},
	{boot.RoleKernel, "vmlinuz"},
	{boot.RoleInitrd, "initrd"},
	{boot.RoleSquashfs, "rootfs.squashfs"},
}

// layerName is the name of a layer's file; the role itself where it is none of ours.
func layerName(r boot.Role) string {
	for _, l := range layerNames {
		if l.role == r {
			return l.name
		}
	}
	return strings.ToLower(string(r))
}

// Image checks the files, and says what they are. It returns ErrFile for one that is
// not what it was given as, is of another architecture than the others, or is missing
// for those that are there.
func (s Sources) Image() (Image, error) {
	if err := s.complete(); err != nil {
		return Image{}, err
	}
	b := builder{Sources: s, Image: Image{Architecture: s.Architecture, Annotations: map[string]string{}}}
	if s.Architecture != "" {
		b.because = "it was said to be"
	}
	for _, add := range []func() error{b.addUKI, b.addStub, b.addKernel, b.addInitrd, b.addSquashfs, b.describe} {
		if err := add(); err != nil {
			return Image{}, err
		}
	}
	switch b.Image.Architecture {
	case uki.AMD64, uki.ARM64:
		return b.Image, nil
	case "":
		return Image{}, fmt.Errorf("%w: the files do not say which architecture they are for; say it with --arch", ErrFile)
	}
	return Image{}, fmt.Errorf("%w: the files are for %s; amd64 and arm64 are what machines boot", ErrFile, b.Image.Architecture)
}

// complete finds what is missing for what is there.
func (s Sources) complete() error {
	missing := ""
	switch initrd := len(s.Initrds) > 0; {
	case s.Kernel != "" && !initrd:
		missing = "the kernel " + s.Kernel + " needs an initrd"
	case s.Kernel == "" && initrd && s.UKI+s.Stub+s.Squashfs != "":
		missing = "the initrd " + s.Initrds[0] + " is of no use without a kernel; that of a UKI is in it"
	case s.Kernel == "" && s.Stub != "":
		missing = "the stub " + s.Stub + " is of no use without a kernel and an initrd; a UKI has one in it"
	case s.Kernel == "" && s.UKI == "" && !initrd:
		missing = "an image needs a UKI, or a kernel and an initrd"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrFile, missing)
}

// builder is an Image that grows.
type builder struct {
	Sources
	Image
	// because says who decided on the architecture.
	because string
	os      map[string]string
}

func (b *builder) add(r boot.Role, c Content) {
	b.Layers = append(b.Layers, Layer{Role: r, Content: c})
}

// is notes which architecture a file is for. All are for the same one.
func (b *builder) is(path, architecture string) error {
	switch a := boot.Architecture(architecture); {
	case b.Image.Architecture == "":
		b.Image.Architecture, b.because = a, "as "+path+" is"
	case b.Image.Architecture != a:
		return fmt.Errorf("%w: %s is for %s; it should be for %s, %s", ErrFile, path, a, b.Image.Architecture, b.because)
	}
	return nil
}

func (b *builder) addUKI() error {
	path := b.UKI
	if path == "" {
		return nil
	}
	content, err := Files(path)
	if err != nil {
		return err
	}
	var info uki.Info
	var d uki.Description
	err = reading(path, func(f *os.File, size int64) error {
		if info, err = uki.Inspect(f, size); err == nil && info.UKI {
			if info, err = uki.Check(f, size, ""); err == nil {
				d, err = uki.Describe(f, size)
			}
		}
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s is no UKI: %w", ErrFile, path, err)
	case !info.UKI:
		return fmt.Errorf("%w: %s is an EFI application without a kernel in it (a section .linux), and no UKI; a stub is given as one", ErrFile, path)
	}
	b.Annotations[AnnotationUKIDigest] = string(d.Digest)
	if len(d.Profiles) > 0 {
		p := d.Profiles[0]
		b.os = p.OSRelease
		b.note(AnnotationCommandLine, p.CommandLine)
		b.note(AnnotationKernelVersion, p.Uname)
	}
	b.add(boot.RoleUKI, content)
	return b.is(path, info.Architecture)
}

// addStub adds the stub with the os-release file in it: what the operator composes
// has the sections of its stub.
func (b *builder) addStub() error {
	path := b.Stub
	if path == "" {
		return nil
	}
	stub, err := readFile(path, maxStub)
	if err != nil {
		return err
	}
	info, err := uki.Inspect(bytes.NewReader(stub), int64(len(stub)))
	_, measured := info.Section(".pcrsig")
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s is no EFI stub: %w", ErrFile, path, err)
	case info.UKI:
		return fmt.Errorf("%w: %s is a whole UKI, and no stub", ErrFile, path)
	case info.Signed:
		return fmt.Errorf("%w: the stub %s is signed: what is composed of it would break the signature; give the unsigned one", ErrFile, path)
	case measured:
		return fmt.Errorf("%w: the stub %s has a section .pcrsig, which no UKI composed of it could fulfil", ErrFile, path)
	}
	if b.OSRelease != "" {
		if stub, err = b.bake(stub, info); err != nil {
			return err
		}
	}
	b.add(boot.RoleStub, Bytes(stub))
	return b.is(path, info.Architecture)
}

// bake returns the stub with the section .osrel.
func (b *builder) bake(stub []byte, info uki.Info) ([]byte, error) {
	release, err := readFile(b.OSRelease, maxText)
	if err != nil {
		return nil, err
	}
	if section, ok := info.Section(".osrel"); ok {
		have, err := io.ReadAll(section.Open(bytes.NewReader(stub)))
		if err != nil {
			return nil, fmt.Errorf("reading the section .osrel of %s: %w", b.Stub, err)
		}
		if !bytes.Equal(bytes.TrimRight(have, "\x00"), bytes.TrimRight(release, "\x00")) {
			return nil, fmt.Errorf("%w: the stub %s has a section .osrel already, with other content than %s", ErrFile, b.Stub, b.OSRelease)
		}
		return stub, nil
	}
	baked, err := uki.Assemble(stub, uki.Section{Name: ".osrel", Data: release})
	if err != nil {
		return nil, fmt.Errorf("%w: adding %s to the stub %s: %w", ErrFile, b.OSRelease, b.Stub, err)
	}
	return baked, nil
}

func (b *builder) addKernel() error {
	path := b.Kernel
	if path == "" {
		return nil
	}
	content, err := Files(path)
	if err != nil {
		return err
	}
	var k kernel
	if err := reading(path, func(f *os.File, size int64) error {
		k, err = inspectKernel(f, size)
		return err
	}); err != nil {
		return fmt.Errorf("%w: %s is no kernel that machines boot: %w", ErrFile, path, err)
	}
	if b.Stub != "" && !k.efi {
		return fmt.Errorf("%w: the kernel %s has no EFI stub of its own (CONFIG_EFI_STUB), so that no UKI can be composed of it", ErrFile, path)
	}
	b.note(AnnotationKernelVersion, k.version)
	b.add(boot.RoleKernel, content)
	if k.architecture == "" {
		return nil
	}
	return b.is(path, k.architecture)
}

func (b *builder) addInitrd() error {
	if len(b.Initrds) == 0 {
		return nil
	}
	content, err := Files(b.Initrds...)
	if err != nil {
		return err
	}
	for _, path := range b.Initrds {
		if err := checkMagic(path, "an initrd (a cpio archive, compressed or not)", initrdMagics); err != nil {
			return err
		}
	}
	b.add(boot.RoleInitrd, content)
	return nil
}

func (b *builder) addSquashfs() error {
	if b.Squashfs == "" {
		return nil
	}
	content, err := Files(b.Squashfs)
	if err != nil {
		return err
	}
	b.add(boot.RoleSquashfs, content)
	return checkMagic(b.Squashfs, "a squashfs file system", []string{"hsqs"})
}

// describe adds what is known of the OS to the annotations.
func (b *builder) describe() error {
	if b.OSRelease != "" {
		text, err := readFile(b.OSRelease, maxText)
		if err != nil {
			return err
		}
		if b.os = uki.ParseOSRelease(text); b.os["ID"] == "" && b.os["NAME"] == "" {
			return fmt.Errorf("%w: %s is no os-release file: it has neither ID nor NAME", ErrFile, b.OSRelease)
		}
	}
	b.note(AnnotationCommandLine, b.CommandLine)
	b.note(AnnotationOS, b.os["ID"])
	b.note(AnnotationOSVersion, b.os["VERSION_ID"])
	b.note(AnnotationOSName, b.os["PRETTY_NAME"])
	for _, key := range []string{"IMAGE_VERSION", "VERSION_ID", "BUILD_ID"} {
		b.note(AnnotationVersion, b.os[key])
	}
	return nil
}

// note keeps what was said first.
func (b *builder) note(key, value string) {
	if value = strings.TrimSpace(strings.Trim(value, "\x00")); value != "" && b.Annotations[key] == "" {
		b.Annotations[key] = value
	}
}

// reading opens a file for f.
func reading(path string, f func(file *os.File, size int64) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return f(file, info.Size())
}

// readFile reads a whole file of at most so many bytes.
func readFile(path string, most int64) ([]byte, error) {
	var data []byte
	err := reading(path, func(f *os.File, size int64) error {
		if size > most {
			return fmt.Errorf("%s has %d bytes; %d are the most", path, size, most)
		}
		var err error
		data, err = io.ReadAll(io.LimitReader(f, most))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	return data, nil
}

// isMissing says whether there is no such file.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// clone is a map of its own, never nil.
func clone(m map[string]string) map[string]string {
	c := maps.Clone(m)
	if c == nil {
		c = map[string]string{}
	}
	return c
}

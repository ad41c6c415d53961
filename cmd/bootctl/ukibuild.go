package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// buildFlags are those of the verb uki build.
type buildFlags struct {
	stub, linux, output      string
	initrds, ucode, sections []string
	commandLine, osRelease   string
	uname, sbat, splash, dtb string

	files []*os.File
}

const buildLong = `Build puts a kernel, its initrds and its command line into one file that UEFI firmware
starts: a unified kernel image (UKI), as the UAPI Group's specification and systemd's
ukify lay it out. The same inputs make the same bytes.

--linux is a kernel with an EFI stub of its own (CONFIG_EFI_STUB), not compressed as a
whole. --stub is systemd's, which this needs from the package systemd-boot-efi,
systemd-boot-unsigned or systemd; without it the one in ` + stubDirectory + ` is taken
that fits the kernel. Where a value is text, @FILE is the text of a file.`

const buildExample = `  bootctl uki build --linux vmlinuz --initrd initrd.img --cmdline 'console=ttyS0' --osrel /etc/os-release --output debian.efi
  bootctl uki build --stub linuxaa64.efi.stub --linux Image --initrd base.cpio --initrd drivers.cpio --cmdline @cmdline --output debian-arm64.efi`

// stubDirectory is where systemd's stubs are.
const stubDirectory = "/usr/lib/systemd/boot/efi"

// newUKIBuildCommand makes the verb uki build.
func newUKIBuildCommand(env *environment) *cobra.Command {
	var o buildFlags
	cmd := &cobra.Command{
		Use:     "build --linux FILE --output FILE [flags]",
		Short:   "Build a UKI of a stub, a kernel, initrds and a command line",
		Long:    buildLong,
		Example: buildExample,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return o.run(env)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.stub, "stub", "", "EFI stub (default: systemd's, if it is installed)")
	f.StringVar(&o.linux, "linux", "", "kernel; required")
	f.StringArrayVar(&o.initrds, "initrd", nil, "initrd; may be repeated, and the later ones add to the earlier")
	f.StringArrayVar(&o.ucode, "ucode", nil, "early microcode as cpio archive; may be repeated")
	f.StringVar(&o.commandLine, "cmdline", "", "kernel command line, or @FILE")
	f.StringVar(&o.osRelease, "osrel", "", "os-release file of the OS")
	f.StringVar(&o.uname, "uname", "", "what uname -r will say")
	f.StringVar(&o.sbat, "sbat", "", "SBAT entries to add to the stub's, or @FILE")
	f.StringVar(&o.splash, "splash", "", "picture to show while it boots, as BMP")
	f.StringVar(&o.dtb, "dtb", "", "compiled device tree")
	f.StringArrayVar(&o.sections, "section", nil, "NAME=FILE, another section, such as .pcrpkey=key.pem; may be repeated")
	f.StringVarP(&o.output, "output", "o", "", "where to write the UKI; required")
	return cmd
}

func (o *buildFlags) run(env *environment) error {
	if err := required(named{"linux", o.linux}, named{"output", o.output}); err != nil {
		return err
	}
	defer o.close()
	parts, err := o.parts()
	if err != nil {
		return err
	}
	err = writeFile(o.output, func(w io.Writer) error { return uki.Build(w, parts) })
	if err != nil {
		return fmt.Errorf("building the UKI: %w", err)
	}
	return tellFile(env, o.output)
}

// parts reads what the flags name.
func (o *buildFlags) parts() (p uki.Parts, err error) {
	if p.Linux, err = o.open("linux", o.linux); err != nil {
		return p, err
	}
	if err := o.findStub(p.Linux); err != nil {
		return p, err
	}
	for _, small := range []struct {
		flag, path string
		to         *[]byte
	}{{"stub", o.stub, &p.Stub}, {"splash", o.splash, &p.Splash}, {"dtb", o.dtb, &p.DTB}} {
		if *small.to, err = readSmall(small.flag, small.path); err != nil {
			return p, err
		}
	}
	if p.Initrds, err = o.openAll("initrd", o.initrds); err != nil {
		return p, err
	}
	if p.Ucode, err = o.openAll("ucode", o.ucode); err != nil {
		return p, err
	}
	if p.CommandLine, err = textOrFile("cmdline", o.commandLine); err != nil {
		return p, err
	}
	if p.SBAT, err = textOrFile("sbat", o.sbat); err != nil {
		return p, err
	}
	release, err := readSmall("osrel", strings.TrimPrefix(o.osRelease, "@"))
	if err != nil {
		return p, err
	}
	p.OSRelease, p.Uname = string(release), o.uname
	p.Extra, err = o.extra()
	return p, err
}

// findStub finds the stub that fits the kernel, where none was named.
func (o *buildFlags) findStub(linux uki.Input) error {
	if o.stub != "" {
		return nil
	}
	info, err := uki.Inspect(linux.R, linux.Size)
	if err != nil {
		return fmt.Errorf("--linux %s is no kernel with an EFI stub: %w", o.linux, err)
	}
	name := map[string]string{uki.AMD64: "linuxx64.efi.stub", uki.ARM64: "linuxaa64.efi.stub"}[info.Architecture]
	if name == "" {
		return usageError{fmt.Errorf("--stub is missing: for %s none is known here", info.Architecture)}
	}
	o.stub = stubDirectory + "/" + name
	if _, err := os.Stat(o.stub); err != nil {
		return usageError{fmt.Errorf("--stub is missing, and %s is not installed (Debian's package systemd-boot-efi has it)", o.stub)}
	}
	return nil
}

func (o *buildFlags) openAll(flag string, paths []string) ([]uki.Input, error) {
	var all []uki.Input
	for _, path := range paths {
		in, err := o.open(flag, path)
		if err != nil {
			return nil, err
		}
		all = append(all, in)
	}
	return all, nil
}

func (o *buildFlags) open(flag, path string) (uki.Input, error) {
	f, size, err := openInput(path)
	if err != nil {
		return uki.Input{}, fmt.Errorf("reading --%s: %w", flag, err)
	}
	o.files = append(o.files, f)
	if size == 0 {
		return uki.Input{}, fmt.Errorf("reading --%s: %s is empty", flag, path)
	}
	return uki.Input{R: f, Size: size}, nil
}

func (o *buildFlags) close() {
	for _, f := range o.files {
		_ = f.Close()
	}
}

// extra reads the sections of --section.
func (o *buildFlags) extra() ([]uki.Section, error) {
	var all []uki.Section
	for _, s := range o.sections {
		name, path, ok := strings.Cut(s, "=")
		if !ok || name == "" || path == "" {
			return nil, usageError{fmt.Errorf("--section is %q; it must be NAME=FILE, such as .pcrpkey=key.pem", s)}
		}
		if !strings.HasPrefix(name, ".") {
			return nil, usageError{fmt.Errorf("--section: %q is no name of a section; it begins with a dot", name)}
		}
		data, err := readSmall("section", path)
		if err != nil {
			return nil, err
		}
		all = append(all, uki.Section{Name: name, Data: data})
	}
	return all, nil
}

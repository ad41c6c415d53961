package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/publish"
)

// sourceGroups are the flags of image push that name files. They come in groups, one
// for each architecture; --arch begins another.
type sourceGroups struct {
	all []*sourceGroup
}

// sourceGroup are the flags of one architecture.
type sourceGroup struct {
	publish.Sources
	root, kernelVersion string
}

// named says whether any file was named.
func (g *sourceGroups) named() bool {
	return slices.ContainsFunc(g.all, (*sourceGroup).named)
}

func (s *sourceGroup) named() bool {
	return s.UKI != "" || s.Stub != "" || s.Kernel != "" || len(s.Initrds) > 0 || s.Squashfs != "" || s.root != ""
}

// last is the group that flags belong to now.
func (g *sourceGroups) last() *sourceGroup {
	if len(g.all) == 0 {
		g.all = append(g.all, &sourceGroup{})
	}
	return g.all[len(g.all)-1]
}

// add adds the flags.
func (g *sourceGroups) add(cmd *cobra.Command) {
	f := flags{cmd, g}
	f.call("arch", "architecture of the files that follow: amd64 or arm64 (default: what they say)", g.begin)
	f.flag("uki", "a finished unified kernel image", func(s *sourceGroup) *string { return &s.UKI })
	f.flag("kernel", "kernel", func(s *sourceGroup) *string { return &s.Kernel })
	f.call("initrd", "initrd; may be repeated, and the later ones add to the earlier", func(value string) error {
		g.last().Initrds = append(g.last().Initrds, value)
		return nil
	})
	f.flag("stub", "EFI stub, for UKIs that the operator composes of it, the kernel and the initrd", func(s *sourceGroup) *string { return &s.Stub })
	f.flag("squashfs", "root file system that the initrd fetches", func(s *sourceGroup) *string { return &s.Squashfs })
	f.flag("osrel", "os-release file of the OS", func(s *sourceGroup) *string { return &s.OSRelease })
	f.flag("cmdline", "kernel command line, or @FILE: an annotation for people; that of a UKI is read from it", func(s *sourceGroup) *string { return &s.CommandLine })
	f.flag("from-root", "root directory of an OS, whose kernel, initrd, os-release and stub are taken", func(s *sourceGroup) *string { return &s.root })
	f.flag("kernel-version", "which kernel of --from-root, where there are several", func(s *sourceGroup) *string { return &s.kernelVersion })
}

// flags adds flags whose place among the others counts.
type flags struct {
	cmd    *cobra.Command
	groups *sourceGroups
}

// flag adds one that an architecture has once.
func (f flags) flag(name, usage string, field func(s *sourceGroup) *string) {
	f.call(name, usage, func(value string) error { return f.groups.set(name, field(f.groups.last()), value) })
}

func (f flags) call(name, usage string, set func(value string) error) {
	f.cmd.Flags().Var(sourceFlag{name, set}, name, usage)
}

// set sets what one architecture has once.
func (g *sourceGroups) set(name string, to *string, value string) error {
	if *to != "" {
		return fmt.Errorf("it is given twice for one architecture; begin the files of another with --arch, before --%s", name)
	}
	*to = value
	return nil
}

// begin begins the files of another architecture, unless none were named yet.
func (g *sourceGroups) begin(value string) error {
	arch, err := publish.ParseArchitecture(value)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(g.all, func(s *sourceGroup) bool { return s.Architecture == arch }) {
		return fmt.Errorf("it begins the files of %s twice", arch)
	}
	g.all = append(g.all, &sourceGroup{Sources: publish.Sources{Architecture: arch}})
	return nil
}

// sources are the files of all architectures.
func (g *sourceGroups) sources() ([]publish.Sources, error) {
	groups := g.all
	var common sourceGroup
	if first := groups[0]; first.Architecture == "" && !first.named() {
		common, groups = *first, groups[1:]
	}
	var all []publish.Sources
	for _, s := range groups {
		one, err := s.complete(common)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// complete finds the files of an OS, and adds what is common to all architectures.
func (s *sourceGroup) complete(common sourceGroup) (publish.Sources, error) {
	one := s.Sources
	if s.kernelVersion != "" && s.root == "" {
		return one, usageError{fmt.Errorf("--kernel-version %s chooses a kernel of --from-root, which is missing", s.kernelVersion)}
	}
	if s.root != "" {
		found, err := publish.FromRoot(s.root, s.kernelVersion)
		if err != nil {
			return one, err
		}
		one.Kernel, one.Stub, one.OSRelease = first(one.Kernel, found.Kernel), first(one.Stub, found.Stub), first(one.OSRelease, found.OSRelease)
		if len(one.Initrds) == 0 {
			one.Initrds = found.Initrds
		}
	}
	one.OSRelease = first(one.OSRelease, common.OSRelease)
	text, err := textOrFile("cmdline", first(one.CommandLine, common.CommandLine))
	one.CommandLine = text
	return one, err
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// sourceFlag is a flag whose place among the others counts.
type sourceFlag struct {
	name string
	set  func(value string) error
}

// String is its default.
func (sourceFlag) String() string { return "" }

// Type is what help calls its value.
func (f sourceFlag) Type() string {
	if f.name == "arch" || f.name == "cmdline" || f.name == "kernel-version" {
		return "string"
	}
	return "file"
}

// Set is called in the order of the command line.
func (f sourceFlag) Set(value string) error {
	if value == "" {
		return fmt.Errorf("it is empty")
	}
	return f.set(value)
}

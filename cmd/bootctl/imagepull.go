package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/publish"
)

// pullFlags are those of the verb image pull.
type pullFlags struct {
	registryFlags
	dir           string
	architectures []string
	format        string
}

const pullLong = `Pull writes what machines boot of an image into a directory: <architecture>/uki.efi,
stub.efi, vmlinuz, initrd, rootfs.squashfs. Every file is verified by its digest before it
has its name. A pull that was interrupted goes on where it was, when it is called again.`

// newImagePullCommand makes the verb image pull.
func newImagePullCommand(env *environment) *cobra.Command {
	var o pullFlags
	cmd := &cobra.Command{
		Use:     "pull REFERENCE --output DIRECTORY [flags]",
		Short:   "Write the files of an image into a directory",
		Long:    pullLong,
		Example: "  bootctl image pull registry.example.com/os/debian:13 --output debian\n  bootctl image pull registry.example.com/os/debian@sha256:… --output debian --arch arm64",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "output", "", "directory to write to; required")
	f.StringSliceVar(&o.architectures, "arch", nil, "amd64 or arm64; may be repeated (default: all that the image has)")
	f.StringVarP(&o.format, "format", "o", "text", "how to print what was written: text or json")
	o.registryFlags.add(cmd)
	return cmd
}

func (o *pullFlags) run(ctx context.Context, env *environment, reference string) error {
	if o.format != "text" && o.format != "json" {
		return usageError{fmt.Errorf("-o is %q; it must be text or json, and the directory is --output", o.format)}
	}
	if err := errors.Join(required(named{"output", o.dir}), o.check()); err != nil {
		return err
	}
	architectures, err := parseArchitectures(o.architectures)
	if err != nil {
		return err
	}
	r, err := o.open(ctx, env, reference, newProgress(env, o.quiet))
	if err != nil {
		return err
	}
	pulled, err := r.Pull(ctx, o.dir, architectures...)
	if err != nil {
		return err
	}
	if o.format == "json" {
		return printJSON(env.Out, pulled)
	}
	w := tabwriter.NewWriter(env.Out, 0, 0, 2, ' ', 0)
	row := rows(w)
	row("FILE", "SIZE", "DIGEST")
	for _, f := range pulled.Files {
		row(f.Path, amount(f.Size), string(f.Digest))
	}
	return w.Flush()
}

func parseArchitectures(names []string) ([]boot.Architecture, error) {
	var all []boot.Architecture
	for _, name := range names {
		arch, err := publish.ParseArchitecture(strings.TrimSpace(name))
		if err != nil {
			return nil, usageError{fmt.Errorf("--arch: %w", err)}
		}
		all = append(all, arch)
	}
	return all, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/publish"
)

// epochVariable is where reproducible builds say when they are (SOURCE_DATE_EPOCH of
// reproducible-builds.org): seconds since 1970.
const epochVariable = "SOURCE_DATE_EPOCH"

// pushFlags are those of the verb image push.
type pushFlags struct {
	registryFlags
	groups         sourceGroups
	fromDir        string
	version        string
	created        string
	annotations    []string
	append, noOver bool
	output         string
}

const pushLong = `Push publishes an image that machines boot: an OCI index with a manifest for each
architecture, whose layers are the files. What the registry has already is not sent
again, and the tag moves last. The reference with its digest goes to the standard output.

The files are named one by one, or found: in a directory by their names (--from-dir), or
in the root directory of an installed OS (--from-root). A UKI, a kernel with its initrd,
or both make an image; with a stub beside the kernel the operator composes UKIs, for which
the os-release file is put into the stub. Files say themselves which architecture they are
for; --arch begins those of another one. What stands before the first --arch, and is no
file that boots, is for all.

The same files and the same --created make the same digest. Credentials are those of
docker login, or --username with --password-stdin.`

const pushExample = `  bootctl image push registry.example.com/os/debian:13 --uki debian.efi
  bootctl image push registry.example.com/os/debian:13 --osrel os-release \
    --arch amd64 --stub linuxx64.efi.stub --kernel vmlinuz --initrd initrd.img \
    --arch arm64 --uki debian-arm64.efi
  bootctl image push registry.example.com/os/debian:13 --from-root /srv/debian --no-overwrite
  bootctl image push registry.example.com/os/debian:13 --from-dir mkosi.output --append`

// newImagePushCommand makes the verb image push.
func newImagePushCommand(env *environment) *cobra.Command {
	var o pushFlags
	cmd := &cobra.Command{
		Use:     "push REFERENCE [flags]",
		Short:   "Publish an image of files, of a directory or of an OS",
		Long:    pushLong,
		Example: pushExample,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0])
		},
	}
	o.groups.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.fromDir, "from-dir", "", "directory whose files have conventional names, such as uki.efi, vmlinuz and initrd, or whose amd64 and arm64 do")
	f.StringVar(&o.version, "version", "", "version of the image (default: what os-release says)")
	f.StringVar(&o.created, "created", "", "when it was made, as 2026-01-31T12:00:00Z or in seconds since 1970 (default: $"+epochVariable+", or now)")
	f.StringArrayVar(&o.annotations, "annotation", nil, "KEY=VALUE, an annotation of index and manifests; may be repeated")
	f.BoolVar(&o.append, "append", false, "leave the other architectures of an image that is there")
	f.BoolVar(&o.noOver, "no-overwrite", false, "fail where the tag names another image already")
	f.StringVarP(&o.output, "output", "o", "text", "how to print: text or json")
	o.registryFlags.add(cmd)
	return cmd
}

func (o *pushFlags) run(ctx context.Context, env *environment, reference string) error {
	if err := errors.Join(printFormat(o.output), o.check()); err != nil {
		return err
	}
	options, err := o.options()
	if err != nil {
		return err
	}
	images, err := o.images()
	if err != nil {
		return err
	}
	r, err := o.open(ctx, env, reference, newProgress(env, o.quiet))
	if err != nil {
		return err
	}
	pushed, err := r.Push(ctx, images, options)
	if err != nil {
		return err
	}
	if !o.quiet {
		fmt.Fprintf(env.Err, "%s: %s for %s\n", pushed.Reference, amount(pushed.Size), list(architecturesOf(pushed)))
	}
	if o.output == "json" {
		return printJSON(env.Out, pushed)
	}
	_, err = fmt.Fprintln(env.Out, pushed.Pinned)
	return err
}

func architecturesOf(p publish.Pushed) []string {
	var all []string
	for _, m := range p.Manifests {
		all = append(all, string(m.Architecture))
	}
	return all
}

// options are what the flags say of the image as a whole.
func (o *pushFlags) options() (publish.PushOptions, error) {
	p := publish.PushOptions{Version: o.version, Append: o.append, KeepTag: o.noOver}
	if o.append && o.noOver {
		return p, usageError{errors.New("--append and --no-overwrite exclude each other: adding an architecture changes what the tag names")}
	}
	var err error
	if p.Annotations, err = publish.ParseAnnotations(o.annotations); err != nil {
		return p, usageError{fmt.Errorf("--annotation: %w", err)}
	}
	text, from := o.created, "--created"
	if text == "" {
		text, from = os.Getenv(epochVariable), epochVariable
	}
	if text == "" {
		p.Created = time.Now()
		return p, nil
	}
	if p.Created, err = parseTime(text); err != nil {
		return p, usageError{fmt.Errorf("%s is %q; it must be a time such as 2026-01-31T12:00:00Z, or seconds since 1970", from, text)}
	}
	return p, nil
}

// parseTime reads RFC 3339, or seconds since 1970.
func parseTime(text string) (time.Time, error) {
	const year10000 = 253402300800
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		if seconds < 0 || seconds >= year10000 {
			return time.Time{}, errors.New("out of range")
		}
		return time.Unix(seconds, 0), nil
	}
	return time.Parse(time.RFC3339, text)
}

// images reads what is published.
func (o *pushFlags) images() ([]publish.Image, error) {
	var all []publish.Sources
	var err error
	switch {
	case o.fromDir != "" && o.groups.named():
		return nil, usageError{errors.New("--from-dir finds the files itself: it excludes --uki, --kernel, --from-root and the like")}
	case o.fromDir != "":
		all, err = publish.FromDirectory(o.fromDir)
	case !o.groups.named():
		return nil, usageError{errors.New("nothing to publish is named: use --uki, --kernel with --initrd, --from-dir or --from-root")}
	default:
		all, err = o.groups.sources()
	}
	if err != nil {
		return nil, err
	}
	var images []publish.Image
	for _, s := range all {
		img, err := s.Image()
		if err != nil {
			return nil, err
		}
		images = append(images, img)
	}
	return images, nil
}

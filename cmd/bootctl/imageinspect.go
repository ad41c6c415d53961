package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/publish"
)

// imageInspectFlags are those of the verb image inspect.
type imageInspectFlags struct {
	registryFlags
	pull   bool
	output string
}

const imageInspectLong = `Inspect prints what an image in a registry is: what a machine of each architecture boots
of it, its layers, and of its UKIs the sections and who signed them. It says that of any
image, whoever published it, by the same code that the operator has.

UKIs are pulled for that, and thrown away; --pull=false says only what the manifests say.`

// newImageInspectCommand makes the verb image inspect.
func newImageInspectCommand(env *environment) *cobra.Command {
	var o imageInspectFlags
	cmd := &cobra.Command{
		Use:     "inspect REFERENCE [flags]",
		Short:   "Print what machines boot of an image, its layers and signers",
		Long:    imageInspectLong,
		Example: "  bootctl image inspect registry.example.com/os/debian:13\n  bootctl image inspect registry.example.com/os/debian:13 -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0])
		},
	}
	cmd.Flags().BoolVar(&o.pull, "pull", true, "pull UKIs, and say what is in them")
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "how to print: text or json")
	o.registryFlags.add(cmd)
	return cmd
}

// imageReport is all that is known of an image.
type imageReport struct {
	publish.Description
	// UKIs are what is in the UKIs, by architecture.
	UKIs map[boot.Architecture]ukiReport `json:"ukis,omitempty"`
	// Problems are why a UKI could not be read, by architecture.
	Problems map[boot.Architecture]string `json:"problems,omitempty"`
}

func (o *imageInspectFlags) run(ctx context.Context, env *environment, reference string) error {
	if err := errors.Join(printFormat(o.output), o.check()); err != nil {
		return err
	}
	r, err := o.open(ctx, env, reference, newProgress(env, o.quiet))
	if err != nil {
		return err
	}
	var report imageReport
	err = withBlobs(r, func(b *publish.Blobs) error {
		if report.Description, err = r.Describe(ctx, b); err != nil || !o.pull {
			return err
		}
		return report.readUKIs(ctx, b)
	})
	if err != nil {
		return err
	}
	if o.output == "json" {
		return printJSON(env.Out, report)
	}
	return report.print(env.Out)
}

// withBlobs is for what is pulled only to be looked at.
func withBlobs(r *publish.Repository, use func(*publish.Blobs) error) error {
	dir, err := os.MkdirTemp("", "bootctl-")
	if err != nil {
		return err
	}
	b, err := r.Blobs(dir)
	if err == nil {
		err = errors.Join(use(b), b.Close())
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// readUKIs pulls and reads the UKIs. One that cannot be read says so, beside what is
// known of the rest.
func (r *imageReport) readUKIs(ctx context.Context, b *publish.Blobs) error {
	r.UKIs, r.Problems = map[boot.Architecture]ukiReport{}, map[boot.Architecture]string{}
	for _, one := range r.Boots {
		l, ok := one.Layer(boot.RoleUKI)
		if !ok {
			continue
		}
		a, err := one.Image.Artifact(boot.RoleUKI)
		if err != nil {
			return err
		}
		u, err := readUKI(ctx, b, a, fmt.Sprintf("%s %s", one.Architecture, l.Name))
		switch {
		case ctx.Err() != nil:
			return err
		case err != nil:
			r.Problems[one.Architecture] = err.Error()
			continue
		}
		if u.Architecture != string(one.Architecture) {
			r.Problems[one.Architecture] = fmt.Sprintf("the UKI is for %s: no machine of this architecture starts it", u.Architecture)
		}
		r.UKIs[one.Architecture] = u
	}
	return nil
}

func readUKI(ctx context.Context, b *publish.Blobs, a boot.Artifact, name string) (ukiReport, error) {
	blob, err := b.Fetch(ctx, a, name)
	if err != nil {
		return ukiReport{}, err
	}
	defer blob.Close() //nolint:errcheck // it was read
	return newUKIReport(blob.File(), a.Size)
}

// print prints an image for people.
func (r imageReport) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := rows(w)
	row("image", r.Reference)
	row("digest", string(r.Digest))
	row("kind", joined(", ", r.ArtifactType, r.MediaType))
	for _, a := range []struct{ name, key string }{
		{"version", publish.AnnotationVersion}, {"created", publish.AnnotationCreated}, {"OS", publish.AnnotationOSName},
		{"kernel", publish.AnnotationKernelVersion}, {"command line", publish.AnnotationCommandLine},
	} {
		if value := r.Annotations[a.key]; value != "" {
			row(a.name, value)
		}
	}
	row("size", fmt.Sprintf("%s in all", amount(r.Size)))
	row("")
	r.printBoots(row)
	row("")
	r.printLayers(row)
	if err := w.Flush(); err != nil {
		return err
	}
	return r.printUKIs(out)
}

// printBoots says what would boot, and through which of our kinds.
func (r imageReport) printBoots(row func(cells ...string)) {
	if len(r.Boots) == 0 {
		row("No machine boots it: it has nothing for " + architectureNames())
		return
	}
	row("ARCHITECTURE", "BOOTS", "BY", "SIZE")
	for _, b := range r.Boots {
		arch := string(b.Architecture)
		if b.Error != "" {
			row(arch, "nothing: "+b.Error, "-", "-")
			continue
		}
		if b.UKI {
			row(arch, "the UKI"+r.signers(b.Architecture), "HTTPBootConfig", total(b, boot.RoleUKI))
		}
		if b.Composed {
			row(arch, "a UKI composed of stub, kernel and initrd", "HTTPBootConfig", total(b, boot.RoleStub, boot.RoleKernel, boot.RoleInitrd))
		}
		if b.IPXE {
			row(arch, joined(" and ", "kernel, initrd", hasSquashfs(b)), "IPXEBootConfig", total(b, boot.RoleKernel, boot.RoleInitrd, boot.RoleSquashfs))
		}
		if _, initrd := b.Layer(boot.RoleInitrd); !b.UKI && !b.IPXE && initrd {
			row(arch, "nothing alone: an initrd to append to another image's", "spec.compose.initrdImage", total(b, boot.RoleInitrd))
		} else if !b.UKI && !b.IPXE {
			row(arch, "nothing: a UKI, or a kernel and an initrd, is missing", "-", "-")
		}
		if problem := r.Problems[b.Architecture]; problem != "" {
			row(arch, "not what it should be: "+problem, "-", "-")
		}
	}
}

func hasSquashfs(b publish.Boot) string {
	if _, ok := b.Layer(boot.RoleSquashfs); ok {
		return "squashfs"
	}
	return ""
}

// signers names those of a UKI whose signatures are intact.
func (r imageReport) signers(arch boot.Architecture) string {
	u, ok := r.UKIs[arch]
	if !ok {
		return ""
	}
	var all []string
	for _, s := range u.Signatures {
		if s.Intact {
			all = append(all, s.Signer)
		}
	}
	if len(all) == 0 {
		return ", not signed"
	}
	return ", signed by " + list(all)
}

// total is the size of what boots.
func total(b publish.Boot, roles ...boot.Role) string {
	var n int64
	for _, role := range roles {
		if l, ok := b.Layer(role); ok {
			n += l.Size
		}
	}
	return amount(n)
}

func architectureNames() string {
	var all []string
	for _, a := range publish.Architectures {
		all = append(all, string(a))
	}
	return list(all)
}

func (r imageReport) printLayers(row func(cells ...string)) {
	row("PLATFORM", "LAYER", "SIZE", "DIGEST", "MEDIA TYPE")
	for _, m := range r.Manifests {
		p := dash(m.Platform)
		if m.Error != "" {
			row(p, "unreadable: "+m.Error, "-", short(string(m.Digest)), m.MediaType)
		}
		if m.Error == "" && len(m.Layers) == 0 {
			row(p, "none", "-", short(string(m.Digest)), first(m.ArtifactType, m.MediaType))
		}
		for _, l := range m.Layers {
			row(p, dash(first(l.Name, strings.ToLower(string(l.Role)))), amount(l.Size), short(string(l.Digest)), l.MediaType)
		}
	}
}

func (r imageReport) printUKIs(out io.Writer) error {
	for _, b := range r.Boots {
		u, ok := r.UKIs[b.Architecture]
		if !ok {
			continue
		}
		fmt.Fprintf(out, "\n%s uki.efi\n\n", b.Architecture)
		if err := u.print(out); err != nil {
			return err
		}
	}
	return nil
}

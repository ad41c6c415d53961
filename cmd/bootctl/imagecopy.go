package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// copyFlags are those of the verb image copy.
type copyFlags struct {
	registryFlags
	from   registryFlags
	noOver bool
	bare   bool
	output string
}

const copyLong = `Copy copies an image with all its architectures to another repository or registry, as it
is: its digests stay, and so does what was signed. Its signatures go along, both referrers
and the older tags of cosign, and so does whatever else refers to it.

Flags that begin with --from- are about the source. Credentials are those of docker login
on both sides, unless a user is named.`

// newImageCopyCommand makes the verb image copy.
func newImageCopyCommand(env *environment) *cobra.Command {
	var o copyFlags
	cmd := &cobra.Command{
		Use:     "copy SOURCE DESTINATION [flags]",
		Short:   "Copy an image with its signatures to another place",
		Long:    copyLong,
		Example: "  bootctl image copy registry.example.com/os/debian:13 mirror.example.com/os/debian:13",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args[0], args[1])
		},
	}
	o.registryFlags.add(cmd)
	o.from.addNamed(cmd, "from-", "the registry of the source")
	f := cmd.Flags()
	f.BoolVar(&o.noOver, "no-overwrite", false, "fail where the tag names another image already")
	f.BoolVar(&o.bare, "without-signatures", false, "leave what refers to the image where it is")
	f.StringVarP(&o.output, "output", "o", "text", "how to print: text or json")
	return cmd
}

func (o *copyFlags) run(ctx context.Context, env *environment, source, destination string) error {
	if err := errors.Join(printFormat(o.output), o.check(), o.from.check()); err != nil {
		return err
	}
	if o.passwordStdin && o.from.passwordStdin {
		return usageError{errors.New("--password-stdin and --from-password-stdin exclude each other: there is one standard input; log in to the other registry with docker login")}
	}
	tell := newProgress(env, o.quiet)
	from, err := o.from.open(ctx, env, source, tell)
	if err != nil {
		return err
	}
	to, err := o.open(ctx, env, destination, tell)
	if err != nil {
		return err
	}
	copied, err := from.CopyTo(ctx, to, o.noOver, o.bare)
	if err != nil {
		return err
	}
	if !o.quiet {
		fmt.Fprintf(env.Err, "%s: %s sent; signatures and what else refers to it: %d\n", copied.Reference, amount(copied.Sent), len(copied.Referrers))
	}
	if o.output == "json" {
		return printJSON(env.Out, copied)
	}
	_, err = fmt.Fprintln(env.Out, copied.Pinned)
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/publish"
)

// newImageCommand makes the verb image, whose own verbs are about one image in a
// registry.
func newImageCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Push, pull, inspect, verify or copy an image in a registry",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return usageError{errors.New("a verb of image is missing")}
		},
	}
	cmd.AddCommand(newImagePushCommand(env), newImagePullCommand(env), newImageInspectCommand(env), newImageVerifyCommand(env), newImageCopyCommand(env))
	return cmd
}

// registryFlags say how to speak to a registry. Those for the source of a copy have a
// prefix.
type registryFlags struct {
	prefix        string
	username      string
	passwordStdin bool
	plainHTTP     bool
	caFile        string
	quiet         bool
}

func (o *registryFlags) add(cmd *cobra.Command) {
	o.addNamed(cmd, "", "the registry")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "do not say how far it is")
}

// addNamed adds the flags with a prefix to their names.
func (o *registryFlags) addNamed(cmd *cobra.Command, prefix, registry string) {
	o.prefix = prefix
	f := cmd.Flags()
	f.StringVar(&o.username, prefix+"username", "", "user name at "+registry+" (default: credentials of docker login)")
	f.BoolVar(&o.passwordStdin, prefix+"password-stdin", false, "read the password of the user from the standard input")
	f.BoolVar(&o.plainHTTP, prefix+"plain-http", false, "speak to "+registry+" without TLS")
	f.StringVar(&o.caFile, prefix+"ca-file", "", "PEM file with authorities of "+registry+" that are trusted beside the system's")
}

// check finds what is wrong with the flags before anybody is asked anything.
func (o *registryFlags) check() error {
	switch {
	case o.passwordStdin && o.username == "":
		return usageError{fmt.Errorf("--%spassword-stdin is the password of a user: --%[1]susername is missing", o.prefix)}
	case o.username != "" && !o.passwordStdin:
		return usageError{fmt.Errorf("--%susername needs --%[1]spassword-stdin: a password on the command line is one that everybody can read", o.prefix)}
	}
	return nil
}

// open opens a repository; p is told of transfers.
func (o *registryFlags) open(ctx context.Context, env *environment, reference string, p publish.Progress) (*publish.Repository, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	ref, err := artifact.ParseReference(reference)
	if err != nil {
		return nil, usageError{err}
	}
	with := publish.Options{PlainHTTP: o.plainHTTP, Progress: p}
	if with.CABundle, err = readSmall(o.prefix+"ca-file", o.caFile); err != nil {
		return nil, err
	}
	if with.Credentials, err = o.credentials(env, ref.Registry); err != nil {
		return nil, err
	}
	return publish.Open(ctx, reference, with)
}

func (o *registryFlags) credentials(env *environment, registry string) (publish.Credentials, error) {
	if o.username == "" {
		return publish.DockerCredentials()
	}
	password, err := readFirstLine(env.In, o.prefix+"password-stdin", "the password", "-")
	if err != nil {
		return publish.Credentials{}, err
	}
	return publish.PasswordCredentials(registry, o.username, password), nil
}

// list joins names for people.
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

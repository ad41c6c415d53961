package main

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// passphraseVariable is the environment variable that may hold a key's passphrase.
const passphraseVariable = "BOOTCTL_KEY_PASSPHRASE"

// signFlags are those of the verb uki sign.
type signFlags struct {
	key, cert, chain, passphraseFile, output string
}

const signLong = `Sign adds an Authenticode signature to a UKI or another EFI application, as UEFI Secure
Boot wants it: RSA with SHA-256. Signatures that are there stay; the file's other bytes
do too, but for what the format asks for.

The key is PEM: PKCS #1 or PKCS #8, encrypted or not. The passphrase comes from
--passphrase-file, from the environment variable ` + passphraseVariable + `, or is asked
for on a terminal. The machine's db needs the certificate, or one that it was issued by;
those in between go along with --chain.`

// newUKISignCommand makes the verb uki sign.
func newUKISignCommand(env *environment) *cobra.Command {
	var o signFlags
	cmd := &cobra.Command{
		Use:     "sign FILE --key FILE --cert FILE --output FILE [flags]",
		Short:   "Sign a UKI for Secure Boot",
		Long:    signLong,
		Example: "  bootctl uki sign debian.efi --key db.key --cert db.crt --output debian.signed.efi",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return o.run(env, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "private key (PEM); required")
	f.StringVar(&o.cert, "cert", "", "its certificate (PEM or DER); required")
	f.StringVar(&o.chain, "chain", "", "certificates between it and the one in db (PEM)")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "file whose first line is the passphrase of the key; - is the standard input")
	f.StringVarP(&o.output, "output", "o", "", "where to write the signed file; may be FILE itself; required")
	return cmd
}

func (o *signFlags) run(env *environment, path string) error {
	if err := required(named{"key", o.key}, named{"cert", o.cert}, named{"output", o.output}); err != nil {
		return err
	}
	f, size, err := openInput(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := uki.Inspect(f, size); err != nil {
		return fmt.Errorf("%s is nothing that firmware starts: %w", path, err)
	}
	signer, err := o.signer(env)
	if err != nil {
		return err
	}
	if err := writeFile(o.output, func(w io.Writer) error { return uki.Sign(w, f, size, signer) }); err != nil {
		return fmt.Errorf("signing %s: %w", path, err)
	}
	c := signer.Certificate()
	fmt.Fprintf(env.Err, "signed by %s\n", uki.Subject(c))
	switch now := time.Now(); {
	case now.After(c.NotAfter):
		fmt.Fprintf(env.Err, "warning: its certificate expired on %s; firmware takes it all the same, a policy may not\n", c.NotAfter.Format(time.DateOnly))
	case now.Before(c.NotBefore):
		fmt.Fprintf(env.Err, "warning: its certificate is valid from %s on only\n", c.NotBefore.Format(time.DateOnly))
	}
	return tellFile(env, o.output)
}

// signer reads the key and the certificates.
func (o *signFlags) signer(env *environment) (*uki.Signer, error) {
	key, err := o.readKey(env)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, c := range []struct{ flag, path string }{{"cert", o.cert}, {"chain", o.chain}} {
		text, err := readSmall(c.flag, c.path)
		if err != nil {
			return nil, err
		}
		if text == nil {
			continue
		}
		some, err := uki.ParseCertificates(text)
		if err != nil {
			return nil, fmt.Errorf("reading --%s %s: %w", c.flag, c.path, err)
		}
		all = append(all, some...)
	}
	s, err := uki.NewSigner(key, all...)
	if err != nil {
		return nil, fmt.Errorf("signing with %s and %s: %w", o.key, o.cert, err)
	}
	return s, nil
}

// readKey reads the key, and finds its passphrase where it has one.
func (o *signFlags) readKey(env *environment) (crypto.Signer, error) {
	text, err := readSmall("key", o.key)
	if err != nil {
		return nil, err
	}
	passphrase, err := o.passphrase(env)
	if err != nil {
		return nil, err
	}
	key, err := uki.ParseKey(text, passphrase)
	if errors.Is(err, uki.ErrEncrypted) && passphrase == nil {
		if passphrase, err = o.ask(env); err != nil {
			return nil, err
		}
		key, err = uki.ParseKey(text, passphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("reading --key %s: %w", o.key, err)
	}
	return key, nil
}

// passphrase finds it where nobody has to be asked; nil where it is not known.
func (o *signFlags) passphrase(env *environment) ([]byte, error) {
	if o.passphraseFile != "" {
		line, err := readFirstLine(env.In, "passphrase-file", "the passphrase", o.passphraseFile)
		return []byte(line), err
	}
	if p := os.Getenv(passphraseVariable); p != "" {
		return []byte(p), nil
	}
	return nil, nil
}

// ask asks a person for the passphrase.
func (o *signFlags) ask(env *environment) ([]byte, error) {
	terminal, is := env.In.(*os.File)
	if !is || !term.IsTerminal(int(terminal.Fd())) {
		return nil, fmt.Errorf("the key %s is encrypted, and there is no terminal to ask for its passphrase on: use --passphrase-file or the environment variable %s", o.key, passphraseVariable)
	}
	fmt.Fprintf(env.Err, "Passphrase of %s: ", o.key)
	p, err := term.ReadPassword(int(terminal.Fd()))
	fmt.Fprintln(env.Err)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	return p, nil
}

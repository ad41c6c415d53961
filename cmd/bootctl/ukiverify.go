package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// trustFlags say what a machine's firmware trusts.
type trustFlags struct {
	db, dbx       string
	refuseExpired bool
}

func (o *trustFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.db, "db", "", "what the machine trusts: certificates (PEM, DER) or EFI signature lists")
	f.StringVar(&o.dbx, "dbx", "", "what it refuses: the same formats")
	f.BoolVar(&o.refuseExpired, "refuse-expired", false, "refuse a certificate that has expired, which firmware does not")
}

// database reads db and dbx.
func (o *trustFlags) database() (*uki.Database, error) {
	db, err := readSmall("db", o.db)
	if err != nil {
		return nil, err
	}
	dbx, err := readSmall("dbx", o.dbx)
	if err != nil {
		return nil, err
	}
	d, err := uki.ParseDatabase(db, dbx)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", joined(" and ", o.db, o.dbx), err)
	}
	return d, nil
}

// verifyFlags are those of the verb uki verify.
type verifyFlags struct {
	trustFlags
	output string
}

const ukiVerifyLong = `Verify says whether a machine with this db and dbx starts the file with Secure Boot on,
and whose signature it is that counts. When it does not, the exit code is 1, and the
error says who did sign and why that is not enough.`

// newUKIVerifyCommand makes the verb uki verify.
func newUKIVerifyCommand(env *environment) *cobra.Command {
	var o verifyFlags
	cmd := &cobra.Command{
		Use:     "verify FILE --db FILE [flags]",
		Short:   "Check the signatures of a UKI against what a machine trusts",
		Long:    ukiVerifyLong,
		Example: "  bootctl uki verify debian.signed.efi --db db.crt\n  bootctl uki verify debian.signed.efi --db /sys/firmware/efi/efivars/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return o.run(env, args[0])
		},
	}
	o.add(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "how to print: text or json")
	return cmd
}

// verifyReport is a file that is trusted.
type verifyReport struct {
	Signature signatureReport `json:"signature"`
	// TrustedBy is the certificate in db that vouches for it.
	TrustedBy string `json:"trustedBy,omitempty"`
}

func (o *verifyFlags) run(env *environment, path string) error {
	if err := printFormat(o.output); err != nil {
		return err
	}
	if err := required(named{"db", o.db}); err != nil {
		return err
	}
	db, err := o.database()
	if err != nil {
		return err
	}
	f, size, err := openInput(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := uki.Verify(f, size, db, uki.VerifyOptions{RefuseExpired: o.refuseExpired, Now: time.Now()})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	r := verifyReport{Signature: newSignatureReport(s)}
	if s.TrustedBy != nil {
		r.TrustedBy = uki.Subject(s.TrustedBy)
	}
	if o.output == "json" {
		return printJSON(env.Out, r)
	}
	_, err = fmt.Fprintln(env.Out, r.text())
	return err
}

// text says in a line why a file is trusted.
func (r verifyReport) text() string {
	switch r.TrustedBy {
	case "":
		return "trusted: db holds its hash"
	case r.Signature.Signer:
		return "trusted: signed by " + r.Signature.Signer + ", whom db has"
	}
	return "trusted: signed by " + r.Signature.Signer + ", whom " + r.TrustedBy + " in db vouches for"
}

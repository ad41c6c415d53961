package main

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/uki"
)

const ukiInspectLong = `Inspect prints what is in a UKI or another EFI application: its sections, what it boots,
and who signed it. Of the signatures it says whether they are intact; whether a machine
trusts them is for the verb verify.`

// newUKIInspectCommand makes the verb uki inspect.
func newUKIInspectCommand(env *environment) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "inspect FILE [flags]",
		Short:   "Print the sections, profiles and signatures of a UKI",
		Long:    ukiInspectLong,
		Example: "  bootctl uki inspect debian.efi\n  bootctl uki inspect debian.efi -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := printFormat(output); err != nil {
				return err
			}
			f, size, err := openInput(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			r, err := newUKIReport(f, size)
			if err != nil {
				return fmt.Errorf("reading %s: %w", args[0], err)
			}
			if output == "json" {
				return printJSON(env.Out, r)
			}
			return r.print(env.Out)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "how to print: text or json")
	return cmd
}

// ukiReport is all that is known of a file.
type ukiReport struct {
	uki.Description
	// Problem is why firmware would not start it as a UKI.
	Problem    string            `json:"problem,omitempty"`
	Signatures []signatureReport `json:"signatures"`
	// SignaturesProblem is why its signatures could not be read.
	SignaturesProblem string `json:"signaturesProblem,omitempty"`
}

// signatureReport is one signature.
type signatureReport struct {
	Signer      string `json:"signer"`
	Issuer      string `json:"issuer,omitempty"`
	Certificate string `json:"certificate,omitempty"` // SHA-256
	Hash        string `json:"hash,omitempty"`
	NotBefore   string `json:"notBefore,omitempty"`
	NotAfter    string `json:"notAfter,omitempty"`
	SigningTime string `json:"signingTime,omitempty"`
	Intact      bool   `json:"intact"`
	Problem     string `json:"problem,omitempty"`
}

// newUKIReport reads a file.
func newUKIReport(r io.ReaderAt, size int64) (ukiReport, error) {
	d, err := uki.Describe(r, size)
	if err != nil {
		return ukiReport{}, err
	}
	report := ukiReport{Description: d, Signatures: []signatureReport{}}
	if d.UKI {
		if _, err := uki.Check(r, size, ""); err != nil {
			report.Problem = err.Error()
		}
	}
	all, err := uki.Signatures(r, size)
	if err != nil {
		report.SignaturesProblem = err.Error()
	}
	for _, s := range all {
		report.Signatures = append(report.Signatures, newSignatureReport(s))
	}
	return report, nil
}

func newSignatureReport(s uki.Signature) signatureReport {
	r := signatureReport{Signer: s.Signer(), Intact: s.Err == nil}
	if s.Err != nil {
		r.Problem = s.Err.Error()
	}
	if s.Hash != 0 {
		r.Hash = s.Hash.String()
	}
	if !s.SigningTime.IsZero() {
		r.SigningTime = s.SigningTime.UTC().Format(time.RFC3339)
	}
	if c := s.Certificate; c != nil {
		r.Issuer, r.Certificate = issuer(c), fmt.Sprintf("sha256:%x", sha256.Sum256(c.Raw))
		r.NotBefore, r.NotAfter = c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339)
	}
	return r
}

// issuer names who issued a certificate, as bounded and printable as its subject.
func issuer(c *x509.Certificate) string {
	return uki.Subject(&x509.Certificate{Subject: c.Issuer})
}

// print prints a file for people.
func (r ukiReport) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := rows(w)
	row("kind", kindOf(r.Description)+" for "+r.Architecture)
	row("size", fmt.Sprintf("%s (%d bytes); %s in memory", amount(r.Size), r.Size, amount(int64(r.SizeOfImage))))
	row("digest", string(r.Digest))
	if r.Problem != "" {
		row("problem", r.Problem)
	}
	r.printProfiles(row)
	if len(r.SBAT) > 0 {
		var all []string
		for _, e := range r.SBAT {
			all = append(all, visible(e.Component)+" "+visible(e.Generation))
		}
		row("SBAT", strings.Join(all, ", "))
	}
	row("")
	r.printSections(row)
	row("")
	r.printSignatures(row)
	return w.Flush()
}

// rows prints the rows of a table. What came out of a file does not reach the terminal
// as it is.
func rows(w io.Writer) func(cells ...string) {
	return func(cells ...string) {
		for i, c := range cells {
			cells[i] = visible(c)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
}

func (r ukiReport) printProfiles(row func(cells ...string)) {
	if len(r.Profiles) == 1 && r.Profiles[0].Name == "" {
		p := r.Profiles[0]
		for _, cells := range [][2]string{{"OS", p.PrettyName}, {"kernel", p.Uname}, {"command line", p.CommandLine}} {
			if cells[1] != "" {
				row(cells[0], cells[1])
			}
		}
		return
	}
	for i, p := range r.Profiles {
		name := "profile " + p.Name
		if i == 0 {
			name += " (default)"
		}
		row(name, dash(joined(", ", joined(" ", p.ID, p.Title), p.PrettyName, p.Uname)), p.CommandLine)
	}
}

func (r ukiReport) printSections(row func(cells ...string)) {
	row("SECTION", "PROFILE", "SIZE", "ADDRESS", "OFFSET", "SHA-256")
	for _, s := range r.Sections {
		row(s.Name, dash(s.Profile), amount(s.Size), fmt.Sprintf("0x%08x", s.VirtualAddress), fmt.Sprintf("0x%08x", s.Offset), short(string(s.Digest)))
	}
}

func (r ukiReport) printSignatures(row func(cells ...string)) {
	switch {
	case r.SignaturesProblem != "":
		row("The signatures cannot be read: " + r.SignaturesProblem)
		return
	case len(r.Signatures) == 0:
		row("It is not signed.")
		return
	}
	row("SIGNED BY", "ISSUED BY", "VALID UNTIL", "CERTIFICATE", "STATE")
	for _, s := range r.Signatures {
		state := "intact"
		if !s.Intact {
			state = "broken: " + s.Problem
		}
		until, _, _ := strings.Cut(s.NotAfter, "T")
		row(s.Signer, dash(s.Issuer), dash(until), dash(short(s.Certificate)), state)
	}
}

// short is enough of a digest to tell it from others by.
func short(digest string) string {
	const letters = 16
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(letters, len(hex))]
}

// visible replaces what a terminal would obey.
func visible(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || (c >= 0x7f && c < 0xa0) {
			return '?'
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
}

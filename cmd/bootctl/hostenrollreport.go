package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// enrollReport is what is in db, as JSON.
type enrollReport struct {
	Address    string       `json:"address"`
	Verified   bool         `json:"verified"`
	System     string       `json:"system"`
	BMC        bmcReport    `json:"bmc"`
	SecureBoot secureReport `json:"secureBoot"`
	// Certificates are those in db; Hashes is how many single files db trusts besides.
	Certificates []certificateReport `json:"certificates"`
	Hashes       int                 `json:"hashes"`
	// Added are the fingerprints of what was sent; Missing are those of what was asked
	// for and is not shown in db.
	Added    []string `json:"added"`
	Missing  []string `json:"missing"`
	Messages []string `json:"messages,omitempty"`
	Warnings []string `json:"warnings"`
}

// certificateReport is one certificate in db.
type certificateReport struct {
	Subject     string     `json:"subject"`
	Issuer      string     `json:"issuer"`
	Fingerprint string     `json:"fingerprint"`
	NotAfter    *time.Time `json:"notAfter,omitempty"`
	CA          bool       `json:"ca"`
	// Asked says that it is what was asked for, Foreign that it is not; both are false
	// where nothing was.
	Asked     bool `json:"asked"`
	Foreign   bool `json:"foreign"`
	Microsoft bool `json:"microsoft"`
}

// report says what is in db now.
func (e *enrolment) report() enrollReport {
	id := e.identity
	r := enrollReport{
		Address: e.con.Address.URL(), Verified: e.con.Verified(), System: id.SystemPath,
		BMC:        bmcReport{id.Vendor, id.BMCModel, id.BMCFirmware, id.RedfishVersion},
		SecureBoot: secureReport{Enabled: e.secure.Enabled, Current: e.secure.Current, Mode: e.secure.Mode},
		Hashes:     e.database.Signatures, Messages: e.messages,
		Certificates: []certificateReport{}, Added: []string{}, Missing: []string{}, Warnings: []string{},
	}
	for _, c := range e.database.Certificates {
		one := certificateReport{
			Subject: c.Subject, Issuer: c.Issuer, Fingerprint: c.Fingerprint, Asked: e.asked(c), Foreign: len(e.wanted) > 0 && !e.asked(c),
			Microsoft: strings.Contains(strings.ToLower(c.Subject+c.Issuer), "microsoft"),
		}
		if c.Certificate != nil {
			one.NotAfter, one.CA = &c.Certificate.NotAfter, c.Certificate.IsCA
		}
		r.Certificates = append(r.Certificates, one)
	}
	for _, c := range e.added {
		r.Added = append(r.Added, fingerprintOf(c))
	}
	for _, c := range e.missing() {
		r.Missing = append(r.Missing, fingerprintOf(c))
	}
	r.warn(e)
	return r
}

// warn says what somebody should know who relies on db.
func (r *enrollReport) warn(e *enrolment) {
	say := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	for _, c := range r.Certificates {
		switch {
		case c.Microsoft:
			say("%s", microsofts(c.Subject))
		case c.Foreign:
			say("%q was not asked for: what is signed by it boots too", c.Subject)
		}
	}
	if r.Hashes > 0 {
		say("db also trusts %s, whoever signed them", counted(r.Hashes, "single file", "single files"))
	}
	if len(r.Added) > 0 && len(r.Missing) > 0 {
		say("the BMC took %s and does not show it in db yet: it may give it to the firmware at the machine's next boot; look again then, with --list", counted(len(r.Added), "certificate", "certificates"))
	}
	for _, w := range e.wanted {
		if !isRSA(w) {
			say("%q has no RSA key: this operator, and much firmware, verify RSA signatures only", w.Subject.String())
		}
	}
	switch {
	case r.SecureBoot.Mode == "SetupMode":
		say("there is no platform key (PK): the firmware is in Setup Mode, and checks nothing")
	case !r.SecureBoot.Enabled:
		say("Secure Boot is off: the firmware checks nothing until it is switched on, as bootMode: UEFISecureBoot of a BareMetalHost does")
	}
}

// microsofts says what comes with a certificate of Microsoft's in db.
func microsofts(subject string) string {
	switch {
	case strings.Contains(subject, "Option ROM"):
		return fmt.Sprintf("%q is Microsoft's: drivers on cards that Microsoft signed are started", subject)
	case strings.Contains(subject, "UEFI CA") && !strings.Contains(subject, "Windows"):
		return fmt.Sprintf("%q is Microsoft's: ANY SHIM THAT MICROSOFT SIGNED BOOTS, and with it all that this shim trusts, not only what you signed. Remove it in the firmware's setup where the machine's cards start without it", subject)
	}
	return fmt.Sprintf("%q is Microsoft's: its boot loaders boot too", subject)
}

// print prints the report for people.
func (r enrollReport) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := rows(w)
	row("BMC", joined(" ", r.BMC.Vendor, r.BMC.Model, r.BMC.Firmware, "Redfish "+r.BMC.Redfish)+", "+r.Address)
	row("system", r.System)
	row("Secure Boot", joined(", ", map[bool]string{true: "on", false: "off"}[r.SecureBoot.Enabled], r.SecureBoot.Mode, r.present()))
	row("db", joined(", ", counted(len(r.Certificates), "certificate", "certificates"), counted(r.Hashes, "hash", "hashes")))
	row("")
	row("", "SUBJECT", "ISSUER", "UNTIL", "SHA-256")
	for _, c := range r.Certificates {
		until := "-"
		if c.NotAfter != nil {
			until = c.NotAfter.Format(time.DateOnly)
		}
		row(r.mark(c), dash(c.Subject), dash(c.Issuer), until, dash(c.Fingerprint))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("\n")
	for _, m := range r.Messages {
		fmt.Fprintf(&b, "The BMC says: %s\n", visible(m))
	}
	for _, text := range r.Warnings {
		fmt.Fprintf(&b, "Warning: %s.\n", visible(text))
	}
	b.WriteString(r.outcome())
	_, err := io.WriteString(out, b.String())
	return err
}

func (r enrollReport) present() string {
	if r.SecureBoot.Current == "" {
		return ""
	}
	return "the present boot: " + r.SecureBoot.Current
}

// mark says what a certificate is to whoever asked.
func (r enrollReport) mark(c certificateReport) string {
	for _, added := range r.Added {
		if c.Fingerprint == added {
			return "added"
		}
	}
	switch {
	case c.Asked:
		return "asked for"
	case c.Foreign && c.Microsoft:
		return "foreign, Microsoft's"
	case c.Foreign:
		return "foreign"
	case c.Microsoft:
		return "Microsoft's"
	}
	return ""
}

// outcome is the last line.
func (r enrollReport) outcome() string {
	switch {
	case len(r.Added) > 0 && len(r.Missing) == 0:
		return fmt.Sprintf("%s added to db, and read back; in force from the machine's next boot.\n", counted(len(r.Added), "certificate", "certificates"))
	case len(r.Added) > 0:
		return fmt.Sprintf("%s sent; not in db yet.\n", counted(len(r.Added), "certificate", "certificates"))
	case len(r.Missing) > 0:
		return fmt.Sprintf("Nothing was written; %s not in db.\n", counted(len(r.Missing), "certificate", "certificates"))
	}
	return "Nothing was written.\n"
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

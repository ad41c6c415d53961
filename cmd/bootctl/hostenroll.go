package main

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/redfish"
	"github.com/boot-operator/boot-operator/internal/uki"
)

// enrollFlags are those of the verb host enroll.
type enrollFlags struct {
	hostFlags
	bmc     probeFlags
	address string
	db      []string
	list    bool
	yes     bool
}

const enrollLong = `Enroll adds certificates to db, the database of what a machine's firmware starts with
Secure Boot on, through its BMC; it reads db back and prints every certificate in it, and
says which of them nobody asked for. With Microsoft's among them any shim that Microsoft
signed boots, and not only what you signed.

It names a BareMetalHost, whose BMC and credentials it finds in the cluster as the
operator does; or, with --address, a BMC, as bootctl bmc probe does. It speaks to the BMC
itself: the machine is not switched, nothing is deleted, and PK, KEK and dbx stay as they
are. --list only reads.

Some BMCs give the certificate to the firmware at the machine's next boot, and show it
only then.`

const enrollExample = `  bootctl host enroll machine-8 -n machines --db db.crt
  bootctl host enroll machine-8 --list -o json
  bootctl host enroll --address 10.0.1.12 --username operator --ca-file bmc.crt --db db.crt --yes`

// newHostEnrollCommand makes the verb host enroll.
func newHostEnrollCommand(env *environment) *cobra.Command {
	var o enrollFlags
	cmd := &cobra.Command{
		Use:     "enroll NAME|--address BMC --db FILE [flags]",
		Short:   "Add a certificate to the Secure Boot database db of a machine, and print what is in it",
		Long:    enrollLong,
		Example: enrollExample,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.cluster.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: as kubectl finds its own)")
	f.StringVar(&o.cluster.context, "context", "", "context in it (default: its current one)")
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace of the host (default: that of the context)")
	f.StringVar(&o.address, "address", "", "address of a BMC, in place of a host")
	o.bmc.add(cmd)
	f.StringArrayVar(&o.db, "db", nil, "file with the certificate to add (PEM, DER, or an EFI signature list); may be repeated")
	f.BoolVar(&o.list, "list", false, "only read db, and compare it with --db if that is given")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask before db is written")
	return cmd
}

func (o *enrollFlags) run(ctx context.Context, env *environment, args []string) error {
	if err := o.check(args); err != nil {
		return err
	}
	wanted, err := readEnrollments(o.db, time.Now())
	if err != nil {
		return err
	}
	con, err := o.connection(ctx, env, args)
	if err != nil {
		return err
	}
	e := enrolment{clients: o.bmc.clients(), con: con, wanted: wanted}
	if err := e.read(ctx); err != nil {
		return advise(err)
	}
	if missing := e.missing(); len(missing) > 0 && !o.list {
		if err := confirm(env, o.yes, e.question(missing)); err != nil {
			return err
		}
		if err := e.add(ctx, missing); err != nil {
			return advise(err)
		}
	}
	report := e.report()
	if o.bmc.output == "json" {
		return printJSON(env.Out, report)
	}
	return report.print(env.Out)
}

// check tells what is wrong with how it was called.
func (o *enrollFlags) check(args []string) error {
	o.timeout = o.bmc.timeout
	switch {
	case (len(args) == 1) == (o.address != ""):
		return usageError{errors.New("name a BareMetalHost, or a BMC with --address; one of the two")}
	case len(o.db) == 0 && !o.list:
		return usageError{errors.New("--db is missing: the certificate to add; --list only reads")}
	case o.address == "" && (o.bmc.username != "" || o.bmc.passwordFile != ""):
		return usageError{errors.New("--username and --password-file belong to --address: those of a host are in the Secret that it names")}
	case o.address == "" && o.bmc.insecure:
		return usageError{errors.New("--insecure-skip-verify belongs to --address: a host says it by spec.bmc.disableCertificateVerification")}
	}
	return o.bmc.check()
}

// connection says how to reach the BMC.
func (o *enrollFlags) connection(ctx context.Context, env *environment, args []string) (redfish.Connection, error) {
	if o.address != "" {
		return o.bmc.connection(env, o.address)
	}
	c, err := o.connect(env, args[0])
	if err != nil {
		return redfish.Connection{}, err
	}
	h, err := c.get(ctx)
	if err != nil {
		return redfish.Connection{}, err
	}
	con, err := c.bmc(ctx, h)
	if err != nil {
		return con, err
	}
	con.Session = o.bmc.session
	if con.CA, err = readOptional(o.bmc.caFile); err != nil {
		return con, fmt.Errorf("reading --ca-file: %w", err)
	}
	return con, nil
}

// bmc says how to reach the BMC of a host, as the operator does.
func (c *hosts) bmc(ctx context.Context, h *metal3.BareMetalHost) (redfish.Connection, error) {
	var none redfish.Connection
	if !h.HasBMCDetails() {
		return none, fmt.Errorf("host %s names no BMC: set spec.bmc.address and spec.bmc.credentialsName", c.key)
	}
	address, err := redfish.ParseAddress(h.Spec.BMC.Address)
	if err != nil {
		return none, fmt.Errorf("spec.bmc.address of host %s: %w", c.key, err)
	}
	var secret corev1.Secret
	key := h.CredentialsKey()
	if err := c.Get(ctx, key, &secret); apierrors.IsNotFound(err) {
		return none, fmt.Errorf("there is no Secret %s, which host %s names by spec.bmc.credentialsName", key, c.key)
	} else if err != nil {
		return none, fmt.Errorf("reading Secret %s: %w", key, err)
	}
	con := redfish.Connection{
		Address: address, Username: string(secret.Data["username"]), Password: string(secret.Data["password"]),
		InsecureSkipVerify: h.Spec.BMC.DisableCertificateVerification, UUID: h.Annotations[v1alpha1.HostSystemUUIDAnnotation],
	}
	if con.Username == "" || con.Password == "" {
		return none, fmt.Errorf("secret %s lacks the keys username and password, or one is empty", key)
	}
	if d := h.Status.HardwareDetails; d != nil && con.UUID == "" {
		con.Serial = d.SystemVendor.SerialNumber
	}
	return con, nil
}

// readEnrollments reads the certificates that are to be in db. A key, and a
// certificate that is over or not yet valid, is refused.
func readEnrollments(paths []string, now time.Time) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, path := range paths {
		data, err := readSmall("db", path)
		if err != nil {
			return nil, err
		}
		if isPrivateKey(data) {
			return nil, fmt.Errorf("reading --db: %s holds a private key, which stays with who signs; db takes the certificate that belongs to it", path)
		}
		certificates, err := uki.ParseCertificates(data)
		if err != nil {
			return nil, fmt.Errorf("reading --db: %s is no certificate in PEM or DER, nor an EFI signature list: %w", path, err)
		}
		for _, c := range certificates {
			if err := inForce(c, now); err != nil {
				return nil, fmt.Errorf("reading --db: %s: %w", path, err)
			}
		}
		all = append(all, certificates...)
	}
	return all, nil
}

// inForce says why a certificate is not valid now.
func inForce(c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("the certificate %q has expired on %s; firmware may take it all the same, and this operator's policy may not: enrol one that is in force", visible(c.Subject.String()), c.NotAfter.Format(time.DateOnly))
	case now.Before(c.NotBefore):
		return fmt.Errorf("the certificate %q is valid from %s only; look at this machine's clock", visible(c.Subject.String()), c.NotBefore.Format(time.DateOnly))
	}
	return nil
}

// isPrivateKey tells whether a file holds a private key, in PEM or DER.
func isPrivateKey(data []byte) bool {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return true
		}
	}
	_, pkcs8 := x509.ParsePKCS8PrivateKey(data)
	_, pkcs1 := x509.ParsePKCS1PrivateKey(data)
	_, ec := x509.ParseECPrivateKey(data)
	return pkcs8 == nil || pkcs1 == nil || ec == nil
}

// enrolment is what is found and done at one BMC.
type enrolment struct {
	clients *redfish.Clients
	con     redfish.Connection
	wanted  []*x509.Certificate

	identity redfish.Identity
	secure   redfish.SecureBootState
	database redfish.SecureBootDatabase
	// added were sent; messages are what the BMC said of that.
	added    []*x509.Certificate
	messages []string
}

// read reads what there is; it writes nothing.
func (e *enrolment) read(ctx context.Context) error {
	return e.clients.Do(ctx, e.con, func(ctx context.Context, bmc redfish.BMC) (err error) {
		if e.identity, err = bmc.Identity(ctx); err != nil {
			return err
		}
		if e.secure, err = bmc.SecureBoot(ctx); err != nil {
			return err
		}
		e.database, err = bmc.SecureBootDatabase(ctx, redfish.DatabaseDB)
		return err
	})
}

// missing are the certificates that were asked for and are not in db.
func (e *enrolment) missing() []*x509.Certificate {
	var missing []*x509.Certificate
	for _, w := range e.wanted {
		found := false
		for _, c := range e.database.Certificates {
			found = found || c.Fingerprint == fingerprintOf(w)
		}
		if !found {
			missing = append(missing, w)
		}
	}
	return missing
}

func (e *enrolment) question(missing []*x509.Certificate) string {
	var names []string
	for _, c := range missing {
		names = append(names, fmt.Sprintf("%q (SHA-256 %s)", visible(c.Subject.String()), fingerprintOf(c)))
	}
	return fmt.Sprintf("The firmware of the machine behind BMC %s is to start everything that is signed by %s.", e.con.Address.Host, strings.Join(names, " and by "))
}

// add adds certificates, and reads db back.
func (e *enrolment) add(ctx context.Context, missing []*x509.Certificate) error {
	return e.clients.Do(ctx, e.con, func(ctx context.Context, bmc redfish.BMC) error {
		for _, c := range missing {
			text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
			done, err := bmc.AddSecureBootCertificate(ctx, redfish.DatabaseDB, text)
			if err != nil {
				return err
			}
			e.messages, e.database = append(e.messages, done.Messages...), done.Database
			if done.Already {
				e.messages = append(e.messages, "it has this certificate already, and does not show it: "+c.Subject.String())
				continue
			}
			e.added = append(e.added, c)
		}
		return nil
	})
}

// asked says whether a certificate in db was asked for.
func (e *enrolment) asked(c redfish.SecureBootCertificate) bool {
	for _, w := range e.wanted {
		if c.Fingerprint == fingerprintOf(w) || (c.Certificate != nil && bytes.Equal(c.Certificate.Raw, w.Raw)) {
			return true
		}
	}
	return false
}

func fingerprintOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// isRSA tells whether firmware, and this operator, verify signatures by a certificate.
func isRSA(c *x509.Certificate) bool {
	_, is := c.PublicKey.(*rsa.PublicKey)
	return is
}

package uki

import "fmt"

// Trusts says whether firmware with this db and dbx would start what a signer signs,
// before there is anything signed. Its error wraps ErrUntrusted.
func (d *Database) Trusts(s *Signer, o VerifyOptions) error {
	made := Signature{Certificate: s.Certificate(), Intermediates: s.certificates[1:]}
	if c, refused := d.refused(made); refused {
		return fmt.Errorf("%w: dbx refuses the certificate %s", ErrUntrusted, Subject(c))
	}
	if _, err := d.chain(made, o); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUntrusted, made.Signer(), err)
	}
	return nil
}

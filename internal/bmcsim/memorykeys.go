package bmcsim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"maps"
	"math/big"
	"sync"
	"time"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

// memoryKeys are the keys of a machine that keeps none itself: the BMC plays its
// firmware. They are read and written under the BMC's lock.
type memoryKeys struct{ state SecureBoot }

// keysOf is where the keys of a machine are; nil where its firmware has no Secure Boot.
func keysOf(m Machine) SecureBooter {
	own, ok := m.(SecureBooter)
	switch {
	case ok && own.HasSecureBoot():
		return own
	case ok:
		return nil
	}
	k := &memoryKeys{}
	k.state.Keys = k.DefaultKeys()
	return k
}

// HasSecureBoot implements SecureBooter.
func (k *memoryKeys) HasSecureBoot() bool { return true }

// SecureBoot implements SecureBooter.
func (k *memoryKeys) SecureBoot() (SecureBoot, error) {
	s := k.state
	s.Keys = maps.Clone(s.Keys)
	return s, nil
}

// SetSecureBoot implements SecureBooter.
func (k *memoryKeys) SetSecureBoot(enable bool, keys qemu.Keys) error {
	k.state.Enable, k.state.Keys = enable, maps.Clone(keys)
	return nil
}

// DefaultKeys implements SecureBooter: those of a machine that comes from its maker,
// with a platform key and an empty db.
func (k *memoryKeys) DefaultKeys() qemu.Keys {
	maker := []qemu.Signature{qemu.CertificateSignature(makersKey())}
	return qemu.Keys{qemu.PK: maker, qemu.KEK: maker}
}

// boots is what the firmware does as it starts.
func (k *memoryKeys) boots() { k.state.Current = k.state.Enable && len(k.state.Keys[qemu.PK]) > 0 }

// makersKey is a certificate whose key nobody has.
var makersKey = sync.OnceValue(func() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // it never fails
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Simulated maker's platform key"},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err) // nor does this, with this template
	}
	return der
})

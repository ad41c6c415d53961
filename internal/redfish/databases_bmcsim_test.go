package redfish_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/redfish"
)

// newCertificate makes a certificate as PEM.
func newCertificate(t testing.TB, name string) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (s *simulation) enroll(text []byte) (e redfish.Enrolled, err error) {
	err = s.do(func(ctx context.Context, b redfish.BMC) error {
		e, err = b.AddSecureBootCertificate(ctx, redfish.DatabaseDB, text)
		return err
	})
	return e, err
}

// TestACertificateIsEnrolledAsEachVendorLetsOne is the column of the vendor table that
// is about db.
func TestACertificateIsEnrolledAsEachVendorLetsOne(t *testing.T) {
	const absent, staged = "absent", "staged"
	odd := map[string]string{
		"idrac9": staged, "idrac10": staged, "idrac10-system": staged, "ilo5": staged, "ilo6": staged, "ilo6-no-override": staged, "bluefield": staged,
		"openbmc": absent, "openbmc-no-override": absent,
	}
	for _, p := range bmcsim.Profiles() {
		t.Run(p.Name, func(t *testing.T) {
			s := simulate(t, p.Name)
			text := newCertificate(t, "ours")
			e, err := s.enroll(text)
			if odd[p.Name] == absent {
				require.ErrorIs(t, err, redfish.ErrUnsupported)
				require.Empty(t, s.sent())
				return
			}
			require.NoError(t, err)
			require.False(t, e.Already)
			require.Equal(t, odd[p.Name] != staged, e.Shown)
			require.Len(t, s.sent(), 1)
			if odd[p.Name] == staged {
				require.NotEmpty(t, e.Messages, "it says when")
				require.Empty(t, e.Database.Certificates)
				require.Empty(t, s.DatabaseCertificates("db"))
			}
			s.boots()
			s.ClearLog()
			require.Equal(t, []string{string(text)}, s.DatabaseCertificates("db"))
			e, err = s.enroll(text)
			require.NoError(t, err)
			require.True(t, e.Already)
			require.True(t, e.Shown)
			require.Equal(t, "CN=ours", e.Database.Certificates[0].Subject)
			require.Empty(t, s.sent(), "it is not sent again")
		})
	}
}

func TestABMCThatTakesNoCertificateNowSaysWhy(t *testing.T) {
	s := simulate(t, "generic")
	text := newCertificate(t, "ours")
	s.Keys(bmcsim.KeysReadOnly)
	_, err := s.enroll(text)
	require.ErrorIs(t, err, redfish.ErrUnsupported)
	s.Keys(bmcsim.KeysInSetupMode)
	_, err = s.enroll(text)
	require.ErrorIs(t, err, redfish.ErrRefused)
	require.ErrorContains(t, err, "in Setup Mode only")
	require.Empty(t, s.DatabaseCertificates("db"))

	s.Keys(bmcsim.KeysWritable)
	reset := func(id string, how redfish.ResetKeys) error {
		return s.do(func(ctx context.Context, b redfish.BMC) error { return b.ResetSecureBootKeys(ctx, id, how) })
	}
	require.NoError(t, reset("", redfish.ResetDeletePK))
	s.Keys(bmcsim.KeysInSetupMode)
	e, err := s.enroll(text)
	require.NoError(t, err)
	require.True(t, e.Shown)
	require.NoError(t, reset("", redfish.ResetToDefault))
	require.Empty(t, s.DatabaseCertificates("db"), "that is what its maker had in it")
	require.NotEmpty(t, s.DatabaseCertificates("PK"))

	s.InPOST(time.Minute)
	ilo := simulate(t, "ilo6")
	ilo.InPOST(time.Minute)
	_, err = ilo.enroll(text)
	require.ErrorIs(t, err, redfish.ErrBusy)
}

func TestOneDatabaseIsEmptiedAndTheOthersStay(t *testing.T) {
	s := simulate(t, "generic")
	_, err := s.enroll(newCertificate(t, "ours"))
	require.NoError(t, err)
	require.NoError(t, s.do(func(ctx context.Context, b redfish.BMC) error {
		return b.ResetSecureBootKeys(ctx, redfish.DatabaseDB, redfish.ResetDeleteAll)
	}))
	require.Empty(t, s.DatabaseCertificates("db"))
	require.Len(t, s.DatabaseCertificates("KEK"), 1)
	require.ErrorIs(t, s.do(func(ctx context.Context, b redfish.BMC) error {
		return b.ResetSecureBootKeys(ctx, "dbt", redfish.ResetDeleteAll)
	}), redfish.ErrUnsupported)
}

func TestAnEnrolmentWhoseAnswerIsLostIsNotRepeated(t *testing.T) {
	s := simulate(t, "generic")
	text := newCertificate(t, "ours")
	s.Inject(bmcsim.Fault{Method: http.MethodPost, Path: "/Certificates", Times: 1, LoseReply: true})
	_, err := s.enroll(text)
	require.ErrorIs(t, err, redfish.ErrLost)
	require.Len(t, s.DatabaseCertificates("db"), 1)
	e, err := s.enroll(text)
	require.NoError(t, err)
	require.True(t, e.Already, "asked again, it is there")
}

func TestAProbeSaysWhichDatabasesThereAre(t *testing.T) {
	s := simulate(t, "generic")
	p, err := s.clients.Probe(t.Context(), s.con)
	require.NoError(t, err)
	require.Equal(t, []string{"KEK", "PK", "db", "dbx"}, p.Databases)
	require.Equal(t, "UserMode", p.SecureBoot.Mode)
	require.Empty(t, s.sent())
	s = simulate(t, "openbmc")
	p, err = s.clients.Probe(t.Context(), s.con)
	require.NoError(t, err)
	require.Empty(t, p.Databases)
	require.Contains(t, p.Missing[len(p.Missing)-1], "has no SecureBootDatabases")
}

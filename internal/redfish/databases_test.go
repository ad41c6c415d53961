package redfish

import (
	"context"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// withDatabase gives a fake a db with these certificates.
func (f *fakeBMC) withDatabase(certificates ...doc) (path string) {
	secure := sysPath + "/SecureBoot"
	path = secure + "/SecureBootDatabases/db"
	f.docs[sysPath]["SecureBoot"] = ref(secure)
	f.docs[secure] = doc{"SecureBootEnable": true, "SecureBootMode": "UserMode", "SecureBootDatabases": ref(secure + "/SecureBootDatabases")}
	f.docs[secure+"/SecureBootDatabases"] = collection(path, secure+"/SecureBootDatabases/dbDefault")
	f.docs[path] = doc{"Id": "db", "DatabaseId": "db", "Certificates": ref(path + "/Certificates"), "Signatures": ref(path + "/Signatures")}
	var paths []string
	for i, d := range certificates {
		paths = append(paths, path+"/Certificates/"+string(rune('1'+i)))
		f.docs[paths[i]] = d
	}
	f.docs[path+"/Certificates"] = collection(paths...)
	f.docs[path+"/Signatures"] = doc{"Members": []doc{}, "Members@odata.count": 430}
	return path
}

func (f *fakeBMC) enroll(text []byte) (e Enrolled, err error) {
	err = f.do(func(ctx context.Context, b BMC) error {
		e, err = b.AddSecureBootCertificate(ctx, DatabaseDB, text)
		return err
	})
	return e, err
}

func TestADatabaseIsReadAsFarAsTheBMCShowsIt(t *testing.T) {
	f := newFake(t)
	whole := string(f.ca())
	f.withDatabase(
		doc{"CertificateString": whole, "Subject": doc{"CommonName": "a lie"}},
		doc{"Subject": doc{"CommonName": "Maker\nCA", "Organization": "Maker", "Country": 7}, "Issuer": doc{}, "Fingerprint": "AB:CD"},
		doc{"CertificateString": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no DER")})), "Fingerprint": "EE"},
		doc{"CertificateString": 7},
	)
	var d SecureBootDatabase
	require.NoError(t, f.do(func(ctx context.Context, b BMC) (err error) {
		ids, err := b.SecureBootDatabaseIDs(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"db", "dbDefault"}, ids)
		d, err = b.SecureBootDatabase(ctx, "DB")
		return err
	}))
	require.Equal(t, "db", d.ID)
	require.Equal(t, 430, d.Signatures, "they are counted and not read")
	require.Len(t, d.Certificates, 4)
	require.Equal(t, f.http.Certificate(), d.Certificates[0].Certificate)
	require.Equal(t, f.http.Certificate().Subject.String(), d.Certificates[0].Subject, "the certificate is believed, not what is said of it")
	require.Equal(t, fingerprint(f.http.Certificate().Raw), d.Certificates[0].Fingerprint)
	require.NotContains(t, d.Certificates[1].Subject, "\n")
	require.Contains(t, d.Certificates[1].Subject, "O=Maker")
	require.Equal(t, "abcd", d.Certificates[1].Fingerprint)
	require.Nil(t, d.Certificates[2].Certificate)
	require.Equal(t, fingerprint([]byte("no DER")), d.Certificates[2].Fingerprint, "what cannot be parsed still has one")
	require.Empty(t, d.Certificates[3].Fingerprint)
	require.Empty(t, f.writes())
}

func TestWhatIsNoCertificateIsNotSent(t *testing.T) {
	f := newFake(t)
	f.withDatabase()
	for name, text := range map[string][]byte{
		"text": []byte("x"), "nothing": nil, "a key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
		"no DER": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), "two": append(f.ca(), f.ca()...),
	} {
		_, err := f.enroll(text)
		require.ErrorIs(t, err, boot.ErrInvalid, name)
	}
	require.ErrorIs(t, f.do(func(ctx context.Context, b BMC) error { return b.ResetSecureBootKeys(ctx, "db", ResetDeletePK) }), boot.ErrInvalid)
	require.ErrorIs(t, f.do(func(ctx context.Context, b BMC) error { return b.ResetSecureBootKeys(ctx, "", "Everything") }), boot.ErrInvalid)
	require.Empty(t, f.writes())
}

func TestABMCWithoutDatabasesSaysSo(t *testing.T) {
	f := newFake(t)
	_, err := f.enroll(f.ca())
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, "has no SecureBoot")
	path := f.withDatabase()
	secure := sysPath + "/SecureBoot"
	delete(f.docs[secure], "SecureBootDatabases")
	_, err = f.enroll(f.ca())
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, "firmware's setup")
	f.withDatabase()
	f.docs[secure+"/SecureBootDatabases"] = collection(secure + "/SecureBootDatabases/dbDefault")
	_, err = f.enroll(f.ca())
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, "has no Secure Boot database db")
	f.withDatabase()
	delete(f.docs[path], "Certificates")
	_, err = f.enroll(f.ca())
	require.ErrorIs(t, err, ErrUnsupported)
	f.withDatabase()
	f.hooks["POST "+path+"/Certificates"] = func(w http.ResponseWriter, _ string) bool {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return true
	}
	_, err = f.enroll(f.ca())
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorIs(t, f.do(func(ctx context.Context, b BMC) error { return b.ResetSecureBootKeys(ctx, "db", ResetDeleteAll) }), ErrUnsupported, "it has no such action")
}

func TestACertificateThatTheBMCHidesIsNotAddedTwice(t *testing.T) {
	f := newFake(t)
	sum := strings.ToUpper(fingerprint(f.http.Certificate().Raw))
	path := f.withDatabase(doc{"Fingerprint": sum[:2] + ":" + sum[2:]})
	e, err := f.enroll(f.ca())
	require.NoError(t, err)
	require.True(t, e.Already)
	require.Empty(t, f.writes())

	f.withDatabase(doc{})
	f.refuseWith("POST "+path+"/Certificates", -1, http.StatusConflict, "ResourceAlreadyExists", "It is there.")
	e, err = f.enroll(f.ca())
	require.NoError(t, err)
	require.True(t, e.Already)
	require.False(t, e.Shown)
}

func TestASuccessThatAsksForSomebodyToBeThereIsARefusal(t *testing.T) {
	f := newFake(t)
	path := f.withDatabase()
	const says = "The operation failed because Physical Presence was not asserted."
	f.refuseWith("POST "+path+"/Certificates", -1, http.StatusOK, "PhysicalPresenceError", says)
	_, err := f.enroll(f.ca())
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, says)
	f.refuseWith("PATCH "+sysPath+"/SecureBoot", -1, http.StatusOK, "PhysicalPresenceError", says)
	err = f.do(func(ctx context.Context, b BMC) error { return b.SetSecureBoot(ctx, false) })
	require.ErrorIs(t, err, ErrRefused)
	require.Equal(t, true, f.docs[sysPath+"/SecureBoot"]["SecureBootEnable"])
}

package bmcsim

import (
	"net/http"
	"testing"
	"time"

	schema "github.com/stmcginnis/gofish/schemas"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/qemu"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/lab"
)

// keyed is a machine that keeps its keys itself.
type keyed struct {
	*MemoryMachine
	memoryKeys
	none bool
}

func (k *keyed) HasSecureBoot() bool { return !k.none }

func enrolment(t *testing.T, text string) string {
	return jsonText(t, object{"CertificateString": text, "CertificateType": "PEM"})
}

func TestKeysAreStagedRefusedOrTakenInSetupModeOnly(t *testing.T) {
	s := newBench(t, "generic")
	secure := s.SystemPath() + "/SecureBoot"
	db := secure + "/SecureBootDatabases/db"
	text := testCertificate(t)

	s.Keys(KeysReadOnly)
	require.Equal(t, http.StatusMethodNotAllowed, s.ask(http.MethodPost, db+"/Certificates", enrolment(t, text)).Code)
	require.Equal(t, http.StatusMethodNotAllowed, s.ask(http.MethodPost, db+"/Actions/SecureBootDatabase.ResetKeys", `{"ResetKeysType":"DeleteAllKeys"}`).Code)
	s.Keys(KeysInSetupMode)
	require.Equal(t, "OperationFailed", s.ask(http.MethodPost, db+"/Certificates", enrolment(t, text)).id())
	require.Empty(t, s.DatabaseCertificates("db"))

	s.Keys(KeysStaged)
	a := s.ask(http.MethodPost, db+"/Certificates", enrolment(t, text))
	require.Equal(t, http.StatusOK, a.Code)
	require.Equal(t, "SettingsWillBeAppliedOnNextReset", a.id())
	require.Equal(t, http.StatusOK, s.ask(http.MethodPost, secure+"/Actions/SecureBoot.ResetKeys", `{"ResetKeysType":"DeletePK"}`).Code)
	require.Empty(t, s.DatabaseCertificates("db"))
	require.Equal(t, "UserMode", s.get(secure)["SecureBootMode"])
	s.boots()
	require.Equal(t, []string{text}, s.DatabaseCertificates("db"))
	require.Equal(t, "SetupMode", s.get(secure)["SecureBootMode"], "one change does not undo the other")
}

func TestSecureBootIsSwitchedOnOnlyWithAPlatformKey(t *testing.T) {
	s := newBench(t, "generic")
	secure := s.SystemPath() + "/SecureBoot"
	pk := secure + "/SecureBootDatabases/PK/Certificates"
	require.EqualValues(t, 1, s.get(pk)["Members@odata.count"])
	text := testCertificate(t)
	require.Equal(t, "CreateLimitReachedForResource", s.ask(http.MethodPost, pk, enrolment(t, text)).id(), "there is one platform key")
	require.Equal(t, http.StatusOK, s.patch(secure, `{"SecureBootEnable":true}`).Code)
	require.Equal(t, http.StatusNoContent, s.ask(http.MethodPost, secure+"/SecureBootDatabases/PK/Actions/SecureBootDatabase.ResetKeys", `{"ResetKeysType":"DeleteAllKeys"}`).Code)
	require.Equal(t, false, s.get(secure)["SecureBootEnable"])
	s.boots()
	require.Equal(t, "Disabled", s.get(secure)["SecureBootCurrentBoot"])
	require.Equal(t, "PropertyValueConflict", s.patch(secure, `{"SecureBootEnable":true}`).id())
	require.Equal(t, http.StatusCreated, s.ask(http.MethodPost, pk, enrolment(t, text)).Code)
	require.Equal(t, http.StatusOK, s.patch(secure, `{"SecureBootEnable":true}`).Code)
	s.boots()
	require.Equal(t, "Enabled", s.get(secure)["SecureBootCurrentBoot"])
}

func TestAMachineWithoutSecureBootHasNoResourceForIt(t *testing.T) {
	s := newBench(t, "generic", func(o *Options) { o.Machine = &keyed{MemoryMachine: NewMemoryMachine(nil), none: true} })
	require.NotContains(t, s.get(s.SystemPath()), "SecureBoot")
	require.Equal(t, http.StatusNotFound, s.ask(http.MethodGet, s.SystemPath()+"/SecureBoot", "").Code)
	require.False(t, s.SecureBoot())
	require.Empty(t, s.DatabaseCertificates("db"))
	s.boots()
}

func TestHashesAreSignatures(t *testing.T) {
	lab.Require(t, lab.SecureBoot)
	store, err := qemu.OpenVarStore("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
	require.NoError(t, err)
	keys, err := store.Keys()
	require.NoError(t, err)
	k := &keyed{MemoryMachine: NewMemoryMachine(nil)}
	k.state.Keys = keys
	s := newBench(t, "generic", func(o *Options) { o.Machine = k })
	dbx := s.SystemPath() + "/SecureBoot/SecureBootDatabases/dbx"
	require.EqualValues(t, 0, s.get(dbx + "/Certificates")["Members@odata.count"])
	list := s.get(dbx + "/Signatures")
	require.EqualValues(t, 1, list["Members@odata.count"])
	one := s.get(list["Members"].([]any)[0].(object)["@odata.id"].(string))
	require.Equal(t, "EFI_CERT_SHA256_GUID", one["SignatureType"])
	require.Len(t, one["SignatureString"], 64)
	require.Equal(t, "a0baa8a3-041d-48a8-bc87-c36d121b5e3d", one["UefiSignatureOwner"])
	require.Len(t, s.DatabaseCertificates("db"), 2, "Microsoft's")
	for path, body := range crawl(s) {
		if match := typePattern.FindStringSubmatch(body["@odata.type"].(string)); body["Members"] == nil {
			requireKnown(t, path, match[1], body)
		}
	}
}

func TestGofishReadsAndResetsDatabases(t *testing.T) {
	s := newBench(t, "generic")
	client := connect(t, s, true)
	require.Equal(t, http.StatusCreated, s.ask(http.MethodPost, s.SystemPath()+"/SecureBoot/SecureBootDatabases/db/Certificates", enrolment(t, testCertificate(t))).Code)
	system, err := schema.GetComputerSystem(client, s.SystemPath())
	require.NoError(t, err)
	secure, err := system.SecureBoot()
	require.NoError(t, err)
	all, err := secure.SecureBootDatabases()
	require.NoError(t, err)
	require.Len(t, all, 4)
	for _, d := range all {
		certificates, err := d.Certificates()
		require.NoError(t, err)
		require.Len(t, certificates, map[string]int{"PK": 1, "KEK": 1, "db": 1}[d.DatabaseID], d.DatabaseID)
		signatures, err := d.Signatures()
		require.NoError(t, err)
		require.Empty(t, signatures)
		if d.DatabaseID == "db" {
			require.Equal(t, "test CA", certificates[0].Subject.CommonName)
			_, err = d.ResetKeys(schema.ResetAllKeysToDefaultSecureBootDatabaseResetKeysType)
			require.NoError(t, err)
		}
	}
	require.Empty(t, s.DatabaseCertificates("db"))
	_, err = secure.ResetKeys(schema.DeletePKResetKeysType)
	require.NoError(t, err)
	require.Empty(t, s.DatabaseCertificates("PK"))
}

// The whole way: what is enrolled through the BMC is in real firmware's variables, and
// what that says of itself is what the BMC says.
func TestRealFirmwareTrustsWhatIsEnrolledThroughItsBMC(t *testing.T) {
	t.Parallel()
	lab.Require(t, lab.SecureBoot)
	ours, theirs := lab.NewSigningKey(t, "ours"), lab.NewSigningKey(t, "theirs")
	m := lab.NewMachine(t, lab.MachineOptions{
		SecureBoot: theirs.Firmware(), NextBoot: ours.Sign(t, greeting(t, "IT-STARTED", demoimage.Greeting)), DiskFirst: true,
	})
	s := newBench(t, "generic", func(o *Options) { o.Machine, o.Now = newQEMU(t, m), time.Now })
	secure := s.SystemPath() + "/SecureBoot"
	shows := func(enable bool, current, mode string) {
		t.Helper()
		o := s.get(secure)
		require.Equal(t, []any{enable, current, mode}, []any{o["SecureBootEnable"], o["SecureBootCurrentBoot"], o["SecureBootMode"]})
	}
	shows(true, "Disabled", "UserMode")
	require.Equal(t, []string{string(theirs.Certificate)}, s.DatabaseCertificates("db"))
	require.Less(t, s.reset("On").Code, 300)
	m.Expect(lab.AccessDenied, bootPatience)
	shows(true, "Enabled", "UserMode")

	a := s.ask(http.MethodPost, secure+"/SecureBootDatabases/db/Certificates", enrolment(t, string(ours.Certificate)))
	require.Equal(t, http.StatusCreated, a.Code, a.Body)
	require.Equal(t, string(ours.Certificate), s.get(a.Header().Get("Location"))["CertificateString"])
	require.Len(t, s.DatabaseCertificates("db"), 2, "it is shown at once, and in force at the next start")
	require.Less(t, s.reset("ForceOff").Code, 300)
	require.Less(t, s.reset("On").Code, 300)
	m.Expect("IT-STARTED", bootPatience)
	m.WaitOff(bootPatience)
	shows(true, "Enabled", "UserMode")

	require.Equal(t, http.StatusNoContent, s.ask(http.MethodDelete, a.Header().Get("Location"), "").Code)
	require.Less(t, s.patch(secure, `{"SecureBootEnable":false}`).Code, 300)
	require.Less(t, s.reset("On").Code, 300)
	m.Expect("IT-STARTED", bootPatience)
	m.WaitOff(bootPatience)
	shows(false, "Disabled", "UserMode")
	require.Equal(t, []string{string(theirs.Certificate)}, s.DatabaseCertificates("db"))

	require.Equal(t, http.StatusNoContent, s.ask(http.MethodPost, secure+"/Actions/SecureBoot.ResetKeys", `{"ResetKeysType":"DeleteAllKeys"}`).Code)
	shows(false, "Disabled", "SetupMode")
	require.Equal(t, http.StatusNoContent, s.ask(http.MethodPost, secure+"/Actions/SecureBoot.ResetKeys", `{"ResetKeysType":"ResetAllKeysToDefault"}`).Code)
	require.Equal(t, []string{string(theirs.Certificate)}, s.DatabaseCertificates("PK"))
}

func TestARealMachineWithoutSecureBootSaysSo(t *testing.T) {
	m := lab.NewMachine(t, lab.MachineOptions{})
	s := newBench(t, "generic", func(o *Options) { o.Machine = newQEMU(t, m) })
	require.NotContains(t, s.get(s.SystemPath()), "SecureBoot")
	require.ErrorContains(t, m.SetKeys(nil, true), "made without Secure Boot")
}

package bmcsim

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASessionLivesFromItsPostToItsDelete(t *testing.T) {
	s := newBench(t, "generic")
	login := `{"UserName":"` + testUser + `","Password":"` + testPassword + `"}`
	a := s.ask(http.MethodPost, sessionsPath(), login, "Authorization", "")
	require.Equal(t, http.StatusCreated, a.Code, a.Body)
	token, location := a.Header().Get("X-Auth-Token"), a.Header().Get("Location")
	require.NotEmpty(t, token)
	require.Equal(t, location, a.body["@odata.id"])
	require.NotContains(t, a.Body.String(), token)
	require.Equal(t, 1, s.OpenSessions())

	with := []string{"Authorization", "", "X-Auth-Token", token}
	require.Equal(t, http.StatusOK, s.ask(http.MethodGet, s.SystemPath(), "", with...).Code)
	require.Equal(t, http.StatusOK, s.ask(http.MethodGet, location, "", with...).Code)
	require.Equal(t, http.StatusNoContent, s.ask(http.MethodDelete, location, "", with...).Code)
	require.Zero(t, s.OpenSessions())
	a = s.ask(http.MethodGet, s.SystemPath(), "", with...)
	require.Equal(t, http.StatusUnauthorized, a.Code)
	require.Equal(t, "NoValidSession", a.id())
	require.Equal(t, http.StatusNotFound, s.ask(http.MethodDelete, location, "").Code)

	// The alias that DSP0266 gives a collection.
	require.Equal(t, http.StatusCreated, s.ask(http.MethodPost, sessionsPath()+"/Members", login, "Authorization", "").Code)
	for _, r := range s.Log() {
		require.NotContains(t, r.Body, testPassword)
	}
}

func TestWrongCredentialsOpenNothing(t *testing.T) {
	s := newBench(t, "generic")
	for body, id := range map[string]string{
		`{"UserName":"admin","Password":"wrong"}`: "ResourceAtUriUnauthorized",
		`{"UserName":"admin"}`:                    "PropertyMissing",
		`{"UserName":7,"Password":"x"}`:           "PropertyMissing",
		`{"UserName":`:                            "MalformedJSON",
		`[]`:                                      "UnrecognizedRequestBody",
	} {
		require.Equal(t, id, s.ask(http.MethodPost, sessionsPath(), body, "Authorization", "").id(), body)
	}
	require.Equal(t, http.StatusUnauthorized, s.ask(http.MethodGet, s.SystemPath(), "", "Authorization", "Basic "+"YTpi").Code)
	require.Equal(t, http.StatusUnauthorized, s.ask(http.MethodGet, s.SystemPath(), "", "X-Auth-Token", "00").Code)
	require.Zero(t, s.OpenSessions())
	s.RefuseCredentials(true)
	require.Equal(t, http.StatusUnauthorized, s.ask(http.MethodGet, s.SystemPath(), "").Code)
	s.RefuseCredentials(false)
	s.SetPassword("other")
	require.Equal(t, http.StatusUnauthorized, s.ask(http.MethodGet, s.SystemPath(), "").Code)
}

func TestSessionsAreLimitedAndExpire(t *testing.T) {
	for profile, id := range map[string]string{"generic": "SessionLimitExceeded", "idrac9": "RAC0218"} {
		s := newBench(t, profile, func(o *Options) { o.Sessions = 2 })
		login := func() answer {
			return s.ask(http.MethodPost, sessionsPath(), `{"UserName":"`+testUser+`","Password":"`+testPassword+`"}`)
		}
		require.Equal(t, http.StatusCreated, login().Code)
		require.Equal(t, http.StatusCreated, login().Code)
		a := login()
		require.Equal(t, http.StatusServiceUnavailable, a.Code)
		require.Equal(t, id, a.id())
		require.NotEmpty(t, a.Header().Get("Retry-After"))
		s.clock.Step(sessionTimeout + time.Second)
		require.Zero(t, s.OpenSessions())
		require.Equal(t, http.StatusCreated, login().Code)
	}
}

func TestETagsFollowTheContentAndGuardIt(t *testing.T) {
	s := newBench(t, "generic")
	first := s.ask(http.MethodGet, s.SystemPath(), "")
	tag := first.Header().Get("ETag")
	require.Equal(t, tag, first.body["@odata.etag"])
	require.Equal(t, http.StatusNotModified, s.ask(http.MethodGet, s.SystemPath(), "", "If-None-Match", tag).Code)

	require.Equal(t, http.StatusOK, s.ask(http.MethodPatch, s.SystemPath(), `{"AssetTag":"one"}`, "If-Match", tag).Code)
	stale := s.ask(http.MethodPatch, s.SystemPath(), `{"AssetTag":"two"}`, "If-Match", tag)
	require.Equal(t, http.StatusPreconditionFailed, stale.Code)
	require.Equal(t, "PreconditionFailed", stale.id())
	second := s.ask(http.MethodGet, s.SystemPath(), "")
	require.Equal(t, "one", second.body["AssetTag"])
	require.NotEqual(t, tag, second.Header().Get("ETag"))
	// A weak ETag matches no strong one (RFC 9110, section 8.8.3.2).
	require.Equal(t, http.StatusPreconditionFailed, s.ask(http.MethodPatch, s.SystemPath(), `{"AssetTag":"two"}`, "If-Match", "W/"+second.Header().Get("ETag")).Code)
	require.Equal(t, http.StatusOK, s.ask(http.MethodPatch, s.SystemPath(), `{"AssetTag":"two"}`, "If-Match", `"x", `+second.Header().Get("ETag")).Code)
	require.Equal(t, http.StatusOK, s.ask(http.MethodPatch, s.SystemPath(), `{"AssetTag":"three"}`, "If-Match", "*").Code)
	require.Equal(t, http.StatusOK, s.ask(http.MethodPatch, s.SystemPath(), `{"AssetTag":"four"}`).Code)
}

func TestMethodsAreAllowedAsTheHeaderSays(t *testing.T) {
	s := newBench(t, "generic")
	for path, allow := range map[string]string{
		root + "/Systems": "GET, HEAD, OPTIONS",
		s.SystemPath():    "GET, HEAD, PATCH, OPTIONS",
		sessionsPath():    "GET, HEAD, POST, OPTIONS",
		s.SystemPath() + "/Actions/ComputerSystem.Reset": "POST, OPTIONS",
	} {
		a := s.ask(http.MethodOptions, path, "")
		require.Equal(t, http.StatusNoContent, a.Code)
		require.Equal(t, allow, a.Header().Get("Allow"), path)
		a = s.ask(http.MethodPut, path, "{}")
		require.Equal(t, http.StatusMethodNotAllowed, a.Code)
		require.Equal(t, allow, a.Header().Get("Allow"))
		require.Equal(t, "OperationNotAllowed", a.id())
	}
	head, get := s.ask(http.MethodHead, s.SystemPath(), ""), s.ask(http.MethodGet, s.SystemPath(), "")
	require.Zero(t, head.Body.Len())
	for _, name := range []string{"Content-Length", "ETag", "Allow", "Content-Type", "OData-Version", "Link"} {
		require.Equal(t, get.Header().Get(name), head.Header().Get(name), name)
		require.NotEmpty(t, head.Header().Get(name), name)
	}
	require.Contains(t, get.Header().Get("Link"), "/ComputerSystem.v1_20_1.json>; rel=describedby")
}

func TestRequestsThatAreNoRedfishAreToldWhy(t *testing.T) {
	s := newBench(t, "generic")
	for name, c := range map[string]struct {
		answer answer
		status int
		id     string
	}{
		"version": {s.ask(http.MethodGet, root, "", "OData-Version", "3.0"), 412, "HeaderInvalid"},
		"query":   {s.ask(http.MethodGet, root+"/Systems?$expand=.", ""), 501, "QueryNotSupported"},
		"type":    {s.ask(http.MethodPatch, s.SystemPath(), `{"AssetTag":"a"}`, "Content-Type", "text/plain"), 415, "HeaderInvalid"},
		"json":    {s.ask(http.MethodPatch, s.SystemPath(), `{"AssetTag":`), 400, "MalformedJSON"},
		"array":   {s.ask(http.MethodPatch, s.SystemPath(), `[1]`), 400, "UnrecognizedRequestBody"},
		"empty":   {s.ask(http.MethodPatch, s.SystemPath(), `{}`), 400, "EmptyJSON"},
		"nothing": {s.ask(http.MethodPatch, s.SystemPath(), `{"@odata.id":"/x"}`), 400, "NoOperation"},
		"large":   {s.ask(http.MethodPatch, s.SystemPath(), strings.Repeat(" ", maxBody+1)), 413, "PayloadTooLarge"},
		"slashes": {s.ask(http.MethodGet, "/redfish/v1//Systems", ""), 404, "ResourceMissingAtURI"},
		"outside": {s.ask(http.MethodGet, "/etc/passwd", ""), 404, "ResourceMissingAtURI"},
	} {
		require.Equal(t, c.status, c.answer.Code, name)
		require.Equal(t, c.id, c.answer.id(), name)
	}
	// Others are ignored.
	require.Equal(t, http.StatusOK, s.ask(http.MethodGet, root+"/Systems?x=y", "").Code)
}

func TestAPatchTakesWhatItCanAndSaysWhatItCannot(t *testing.T) {
	s := newBench(t, "generic")
	a := s.patch(s.SystemPath(), `{"AssetTag":"rack 7","UUID":"x","Colour":"red"}`)
	require.Equal(t, http.StatusOK, a.Code)
	require.Equal(t, "rack 7", a.body["AssetTag"])
	require.Contains(t, a.Body.String(), `"UUID@Message.ExtendedInfo":[{`)
	require.Contains(t, a.Body.String(), `Base.1.18.PropertyUnknown`)

	require.Equal(t, "PropertyNotWritable", s.patch(s.SystemPath(), `{"UUID":"x"}`).id())
	require.Equal(t, "PropertyUnknown", s.patch(s.SystemPath(), `{"Colour":"red"}`).id())
	a = s.patch(s.SystemPath(), `{"AssetTag":"other","Boot":{"BootSourceOverrideTarget":"Cloud"}}`)
	require.Equal(t, http.StatusBadRequest, a.Code)
	require.Equal(t, "PropertyValueNotInList", a.id())
	require.Contains(t, a.Body.String(), `"RelatedProperties":["#/Boot/BootSourceOverrideTarget"]`)
	require.Equal(t, "rack 7", s.get(s.SystemPath())["AssetTag"], "a refused request changes nothing")
	for _, body := range []string{`{"Boot":7}`, `{"Boot":{"HttpBootUri":7}}`, `{"Boot":{"BootOrder":"x"}}`, `{"AssetTag":null}`, `{"IndicatorLED":[]}`} {
		require.Equal(t, "PropertyValueTypeError", s.patch(s.SystemPath(), body).id(), body)
	}
	require.Equal(t, "PropertyValueFormatError", s.patch(s.SystemPath(), `{"Boot":{"HttpBootUri":"file:///x"}}`).id())
}

func TestCertificatesAreAddedReadAndDeleted(t *testing.T) {
	s := newBench(t, "generic")
	pemText := testCertificate(t)
	for _, path := range []string{s.SystemPath() + "/Boot/Certificates", s.SystemPath() + "/SecureBoot/SecureBootDatabases/db/Certificates"} {
		body := jsonText(t, object{"CertificateString": pemText, "CertificateType": "PEM"})
		a := s.ask(http.MethodPost, path, body)
		require.Equal(t, http.StatusCreated, a.Code, a.Body)
		one := a.Header().Get("Location")
		require.Equal(t, pemText, s.get(one)["CertificateString"])
		require.EqualValues(t, 1, s.get(path)["Members@odata.count"])
		require.Equal(t, "PropertyValueFormatError", s.ask(http.MethodPost, path, `{"CertificateString":"x","CertificateType":"PEM"}`).id())
		require.Equal(t, "PropertyMissing", s.ask(http.MethodPost, path, `{"CertificateType":"PEM"}`).id())
		for range maxCertificates - 1 {
			require.Equal(t, http.StatusCreated, s.ask(http.MethodPost, path, body).Code)
		}
		require.Equal(t, "CreateLimitReachedForResource", s.ask(http.MethodPost, path, body).id())
		require.Equal(t, http.StatusNoContent, s.ask(http.MethodDelete, one, "").Code)
		require.Equal(t, http.StatusNotFound, s.ask(http.MethodGet, one, "").Code)
	}
	require.Len(t, s.BootCertificates(), maxCertificates-1)
	require.Len(t, s.DatabaseCertificates("db"), maxCertificates-1)
	require.Empty(t, s.DatabaseCertificates("dbx"))
}

func TestSecureBootActsAtTheNextBoot(t *testing.T) {
	s := newBench(t, "generic")
	path := s.SystemPath() + "/SecureBoot"
	require.Equal(t, http.StatusOK, s.patch(path, `{"SecureBootEnable":true}`).Code)
	require.Equal(t, "Disabled", s.get(path)["SecureBootCurrentBoot"])
	require.False(t, s.SecureBoot())
	s.boots()
	require.Equal(t, "Enabled", s.get(path)["SecureBootCurrentBoot"])
	require.True(t, s.SecureBoot())
	require.Equal(t, "PropertyNotWritable", s.patch(path, `{"SecureBootMode":"SetupMode"}`).id())
	require.Equal(t, "PropertyValueTypeError", s.patch(path, `{"SecureBootEnable":"yes"}`).id())
	keys := path + "/Actions/SecureBoot.ResetKeys"
	require.Equal(t, http.StatusBadRequest, s.ask(http.MethodPost, keys, `{"ResetKeysType":"x"}`).Code)
	require.Equal(t, http.StatusNoContent, s.ask(http.MethodPost, keys, `{"ResetKeysType":"DeleteAllKeys"}`).Code)
	require.Equal(t, "SetupMode", s.get(path)["SecureBootMode"])
}

func TestVirtualMediaIsInsertedOnceAndBoots(t *testing.T) {
	s := newBench(t, "generic")
	path := s.managerPath() + "/VirtualMedia/Cd"
	insert := path + "/Actions/VirtualMedia.InsertMedia"
	body := `{"Image":"http://10.0.0.2/a.iso","Inserted":true,"WriteProtected":true}`
	require.Equal(t, http.StatusNoContent, s.ask(http.MethodPost, insert, body).Code)
	require.Equal(t, http.StatusConflict, s.ask(http.MethodPost, insert, body).Code)
	require.Equal(t, true, s.get(path)["Inserted"])
	s.arm(`{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Cd"}`)
	require.Equal(t, NextBoot{Kind: KindCD, URL: "http://10.0.0.2/a.iso"}, s.boots())
	require.Equal(t, http.StatusNoContent, s.ask(http.MethodPost, path+"/Actions/VirtualMedia.EjectMedia", "").Code)
	require.Equal(t, false, s.get(path)["Inserted"])
	require.Equal(t, "ActionParameterMissing", s.ask(http.MethodPost, insert, `{}`).id())
	require.Equal(t, "ActionParameterUnknown", s.ask(http.MethodPost, insert, `{"Image":"http://a/b","Colour":1}`).id())
}

func TestTheLogIsBounded(t *testing.T) {
	s := newBench(t, "generic")
	for range maxLog + 10 {
		s.ask(http.MethodGet, root, "")
	}
	s.patch(s.SystemPath(), `{"AssetTag":"`+strings.Repeat("a", 3*maxLogBody)+`"}`)
	log := s.Log()
	require.LessOrEqual(t, len(log), maxLog)
	last := log[len(log)-1]
	require.LessOrEqual(t, len(last.Body), maxLogBody+4)
	require.Equal(t, http.MethodPatch, last.Method)
	require.Equal(t, http.StatusBadRequest, last.Status)
	require.Equal(t, "basic", last.Auth)
	require.Equal(t, 1, s.MaxInFlight())
	s.ClearLog()
	require.Empty(t, s.Log())
}

func FuzzRequest(f *testing.F) {
	s := newBench(f, "generic")
	f.Add("PATCH", s.SystemPath(), `{"Boot":{"BootSourceOverrideEnabled":"Once","BootOrder":["Boot0001"]}}`, "*")
	f.Add("POST", sessionsPath(), `{"UserName":"a","Password":"b"}`, "")
	f.Add("POST", s.SystemPath()+"/Actions/ComputerSystem.Reset", `{"ResetType":"On"}`, `"x"`)
	f.Add("PATCH", s.biosPath()+"/Settings", `{"Attributes":{"BootTimeout":1e99}}`, "")
	f.Add("POST", s.SystemPath()+"/Boot/Certificates", `{"CertificateString":"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n","CertificateType":"PEM"}`, "")
	f.Add("GET", root+"/Systems/../../x", "null", `W/"`)
	var benches []*bench
	for _, p := range Profiles() {
		benches = append(benches, newBench(f, p.Name, func(o *Options) { o.Fetch = noFetch }))
	}
	f.Fuzz(func(t *testing.T, method, path, body, match string) {
		if path == "" || path[0] != '/' || strings.ContainsAny(path, " \x00\r\n%") || strings.ContainsAny(method, " \r\n") || method == "" {
			return
		}
		for _, s := range benches {
			r, err := http.NewRequest(method, "http://bmc"+path, strings.NewReader(body))
			if err != nil {
				return
			}
			r.SetBasicAuth(testUser, testPassword)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("If-Match", match)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			require.GreaterOrEqual(t, w.Code, 200)
			require.Less(t, w.Code, 600)
		}
	})
}

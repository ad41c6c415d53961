package redfish

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	armHTTP = "PATCH " + sysPath + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp"}}`
	armPXE  = "PATCH " + sysPath + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe"}}`
	armURL  = "PATCH " + sysPath + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","HttpBootUri":"` + bootURL + `"}}`
	armMode = "PATCH " + sysPath + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","BootSourceOverrideMode":"UEFI"}}`
)

func TestArmSendsOnlyWhatIsNeededAndReadsItBack(t *testing.T) {
	f := newFake(t)
	armed, err := f.arm(BootRequest{Tactic: TacticHTTP, URL: bootURL})
	require.NoError(t, err)
	require.Equal(t, Armed{Tactic: TacticHTTP, PinnedBy: "HttpBootUri", Confirmed: true}, armed)
	requireWrites(t, f, armURL)
	require.Equal(t, []string{`W/"0"`}, f.matched())
}

func TestArmWithoutURLLeavesItToDHCP(t *testing.T) {
	f := newFake(t)
	armed, err := f.arm(BootRequest{Tactic: TacticPXE})
	require.NoError(t, err)
	require.True(t, armed.Confirmed)
	requireWrites(t, f, armPXE)
}

// TestTheIfMatchLadder holds the row on 412 and 428: read again, drop W/, drop the
// header, once each; 428 asks for the header.
func TestTheIfMatchLadder(t *testing.T) {
	for name, c := range map[string]struct {
		refuse func(f *fakeBMC)
		want   []string
		err    error
	}{
		"stale once":      {func(f *fakeBMC) { f.refuseWith("PATCH "+sysPath, 1, 412, "PreconditionFailed", "") }, []string{`W/"0"`, `W/"0"`}, nil},
		"dislikes weak":   {func(f *fakeBMC) { f.refuseWith("PATCH "+sysPath, 2, 412, "PreconditionFailed", "") }, []string{`W/"0"`, `W/"0"`, `"0"`}, nil},
		"dislikes all":    {func(f *fakeBMC) { f.refuseWith("PATCH "+sysPath, 3, 412, "PreconditionFailed", "") }, []string{`W/"0"`, `W/"0"`, `"0"`, ""}, nil},
		"never satisfied": {func(f *fakeBMC) { f.refuseWith("PATCH "+sysPath, 99, 412, "PreconditionFailed", "") }, []string{`W/"0"`, `W/"0"`, `"0"`, ""}, ErrRefused},
		"wants a header, has no ETag": {func(f *fakeBMC) {
			f.noTags = true
			f.refuseWith("PATCH "+sysPath, 1, 428, "PreconditionRequired", "")
		}, []string{"", "*"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c.refuse(f)
			_, err := f.arm(BootRequest{Tactic: TacticHTTP})
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.want, f.matched())
		})
	}
}

// TestArmByVendor holds the vendor table: what is sent to each.
func TestArmByVendor(t *testing.T) {
	option := func(f *fakeBMC) {
		f.boot()["BootOptions"] = ref(sysPath + "/BootOptions")
		f.boot()["BootOrder"] = []string{"Boot0001", "Boot0002", "Boot0003"}
		f.docs[sysPath+"/BootOptions"] = collection(sysPath+"/BootOptions/1", sysPath+"/BootOptions/2", sysPath+"/BootOptions/3")
		f.docs[sysPath+"/BootOptions/1"] = doc{"Id": "1", "BootOptionReference": "Boot0001", "DisplayName": "Disk", "UefiDevicePath": "PciRoot(0x0)/HD(1)"}
		f.docs[sysPath+"/BootOptions/2"] = doc{"Id": "2", "BootOptionReference": "Boot0002", "DisplayName": "HTTP one", "UefiDevicePath": "PciRoot(0x0)/MAC(525400AABB01,0x1)/IPv4(0.0.0.0)/Uri()"}
		f.docs[sysPath+"/BootOptions/3"] = doc{"Id": "3", "BootOptionReference": "Boot0003", "DisplayName": "HTTP two", "UefiDevicePath": "PciRoot(0x0)/MAC(525400AABB02,0x1)/IPv4(0.0.0.0)/Uri()"}
	}
	for name, c := range map[string]struct {
		set     func(f *fakeBMC)
		request BootRequest
		want    []string
		pinned  string
		err     error
	}{
		"iDRAC 9: no HttpBootUri, Mode not repeated, the URL in BIOS attributes": {func(f *fakeBMC) {
			f.vendor("Dell", "14G Monolithic")
			delete(f.boot(), "HttpBootUri")
			f.bios(doc{"HttpDev1EnDis": "Disabled", "HttpDev1Uri": ""}, "OnReset")
		}, BootRequest{Tactic: TacticHTTP, URL: bootURL}, []string{
			armHTTP,
			"PATCH " + biosPath + `/Settings {"@Redfish.SettingsApplyTime":{"@odata.type":"#Settings.v1_3_0.PreferredApplyTime","ApplyTime":"OnReset"},"Attributes":{"HttpDev1EnDis":"Enabled","HttpDev1Uri":"` + bootURL + `"}}`,
		}, "HttpDev1Uri", nil},
		"iDRAC: Mode is sent where it differs": {func(f *fakeBMC) {
			f.vendor("Dell", "14G Monolithic")
			f.boot()["BootSourceOverrideMode"] = "Legacy"
		}, BootRequest{Tactic: TacticHTTP}, []string{armMode}, "", nil},
		"iDRAC 10: read-only on the System, so Settings": {func(f *fakeBMC) {
			f.vendor("Dell", "17G Monolithic")
			f.settings(sysPath + "/Settings")
			f.refuseWith("PATCH "+sysPath, 99, 400, "PropertyNotWritable", "The property Boot is read only", "Boot")
		}, BootRequest{Tactic: TacticHTTP}, []string{armHTTP, strings.Replace(armHTTP, sysPath, sysPath+"/Settings", 1)}, "", nil},
		"iDRAC 10: plain HTTP needs TlsMode None": {func(f *fakeBMC) {
			f.vendor("Dell", "17G Monolithic")
			f.bios(doc{"HttpDev1EnDis": "Disabled", "HttpDev1Uri": "", "HttpDev1TlsMode": "OneWay"})
		}, BootRequest{Tactic: TacticHTTP, URL: "http://10.0.0.1/x"}, []string{
			armHTTP, "PATCH " + biosPath + `/Settings {"Attributes":{"HttpDev1EnDis":"Enabled","HttpDev1Uri":"http://10.0.0.1/x","HttpDev1TlsMode":"None"}}`,
		}, "HttpDev1Uri", nil},
		"iLO: never Mode, the URL in UrlBootFile": {func(f *fakeBMC) {
			f.vendor("HPE", "iLO 6")
			f.boot()["BootSourceOverrideMode"] = "Legacy"
			f.bios(doc{"UrlBootFile": ""})
		}, BootRequest{Tactic: TacticHTTP, URL: bootURL}, []string{armHTTP, "PATCH " + biosPath + `/Settings {"Attributes":{"UrlBootFile":"` + bootURL + `"}}`}, "UrlBootFile", nil},
		"iLO 6 that rejects the override": {func(f *fakeBMC) {
			f.vendor("HPE", "iLO 6")
			f.refuseWith("PATCH "+sysPath, 99, 400, "PropertyNotWritableOrUnknown", "not writable", "BootSourceOverrideTarget")
		}, BootRequest{Tactic: TacticHTTP}, []string{armHTTP}, "", ErrUnsupported},
		"Supermicro: Mode is sent because a GET shows it": {func(f *fakeBMC) { f.vendor("Supermicro", "X12") }, BootRequest{Tactic: TacticHTTP}, []string{armMode}, "", nil},
		"Supermicro X10 shows no Mode and gets none": {func(f *fakeBMC) {
			f.vendor("Supermicro", "X10")
			delete(f.boot(), "BootSourceOverrideMode")
		}, BootRequest{Tactic: TacticHTTP}, []string{armHTTP}, "", nil},
		"XCC: the HTTP boot option of this NIC": {func(f *fakeBMC) {
			f.vendor("Lenovo", "Lenovo XClarity Controller")
			f.boot()["BootSourceOverrideTarget@Redfish.AllowableValues"] = []string{"None", "Pxe", "UefiBootNext"}
			option(f)
		}, BootRequest{Tactic: TacticHTTP, MAC: "52:54:00:aa:bb:02"}, []string{
			"PATCH " + sysPath + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiBootNext","BootNext":"Boot0003"}}`,
		}, "", nil},
		"XCC: by its device path": {func(f *fakeBMC) {
			f.vendor("Lenovo", "Lenovo XClarity Controller")
			f.boot()["BootSourceOverrideTarget@Redfish.AllowableValues"] = []string{"None", "Pxe", "UefiTarget"}
			option(f)
		}, BootRequest{Tactic: TacticHTTP}, []string{
			"PATCH " + sysPath + ` {"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiTarget","UefiTargetBootSourceOverride":"PciRoot(0x0)/MAC(525400AABB01,0x1)/IPv4(0.0.0.0)/Uri()"}}`,
		}, "", nil},
		"XCC without one: only Pxe": {func(f *fakeBMC) {
			f.vendor("Lenovo", "Lenovo XClarity Controller")
			f.boot()["BootSourceOverrideTarget@Redfish.AllowableValues"] = []string{"None", "Pxe"}
		}, BootRequest{Tactic: TacticHTTP}, nil, "", ErrUnsupported},
		"MegaRAC: {id}/SD with its own ETag": {func(f *fakeBMC) {
			f.vendor("AMI", "MegaRAC SP-X")
			f.docs[sdPath] = doc{"@odata.id": sdPath, "Boot": doc{"BootSourceOverrideEnabled": "Disabled"}}
			f.tags[sdPath] = 7
		}, BootRequest{Tactic: TacticHTTP}, []string{strings.Replace(armHTTP, sysPath, sdPath, 1)}, "", nil},
		"a MegaRAC that does not say so: found by its answer": {func(f *fakeBMC) {
			f.docs[sdPath] = doc{"@odata.id": sdPath, "Boot": doc{"BootSourceOverrideEnabled": "Disabled"}}
			f.refuseWith("PATCH "+sysPath, 99, 400, "OperationSupportedInFutureStateURI", "use the future state")
		}, BootRequest{Tactic: TacticPXE}, []string{armPXE, strings.Replace(armPXE, sysPath, sdPath, 1)}, "", nil},
		"OpenBMC without overrides":  {func(f *fakeBMC) { delete(f.docs[sysPath], "Boot") }, BootRequest{Tactic: TacticHTTP}, nil, "", ErrUnsupported},
		"sushy-tools is told no URL": {func(f *fakeBMC) { f.docs[sysPath]["Manufacturer"] = "Sushy Emulator" }, BootRequest{Tactic: TacticHTTP, URL: bootURL}, []string{armHTTP}, "", nil},
		"some omit UefiHttp and accept it": {func(f *fakeBMC) {
			f.boot()["BootSourceOverrideTarget@Redfish.AllowableValues"] = []string{"None", "Pxe"}
		}, BootRequest{Tactic: TacticHTTP}, []string{armHTTP}, "", nil},
		"without Mode": {func(f *fakeBMC) { f.boot()["BootSourceOverrideMode"] = "Legacy" }, BootRequest{Tactic: TacticHTTPWithoutMode}, []string{armHTTP}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c.set(f)
			armed, err := f.arm(c.request)
			require.ErrorIs(t, err, c.err)
			requireWrites(t, f, c.want...)
			require.Equal(t, c.pinned, armed.PinnedBy)
			require.Equal(t, c.err == nil, armed.Confirmed, armed.Warnings)
		})
	}
}

// bios gives the system a Bios resource.
func (f *fakeBMC) bios(attributes doc, applyTimes ...string) {
	f.docs[sysPath]["Bios"] = ref(biosPath)
	settings := doc{"SettingsObject": ref(biosPath + "/Settings")}
	if len(applyTimes) > 0 {
		settings["SupportedApplyTimes"] = applyTimes
	}
	f.docs[biosPath] = doc{"Attributes": attributes, "@Redfish.Settings": settings}
	f.docs[biosPath+"/Settings"] = doc{"Attributes": doc{}}
}

// settings gives the system a settings object with Boot in it.
func (f *fakeBMC) settings(path string) {
	f.docs[sysPath]["@Redfish.Settings"] = doc{"SettingsObject": ref(path)}
	f.docs[path] = doc{"@odata.id": path, "Boot": doc{"BootSourceOverrideEnabled": "Disabled"}}
}

// TestArmByAnswer holds the table of errors, for PATCH.
func TestArmByAnswer(t *testing.T) {
	mode := func(f *fakeBMC) { f.boot()["BootSourceOverrideMode"] = "Legacy" }
	for name, c := range map[string]struct {
		set  func(f *fakeBMC)
		url  string
		want []string
		err  error
		wait time.Duration
	}{
		"in POST":     {func(f *fakeBMC) { f.refuseWith("PATCH "+sysPath, 99, 400, "UnableToModifyDuringSystemPOST", "") }, "", []string{armHTTP}, ErrBusy, 30 * time.Second},
		"wrong state": {func(f *fakeBMC) { f.refuseWith("PATCH "+sysPath, 99, 400, "InvalidOperationForSystemState", "") }, "", []string{armHTTP}, ErrBusy, 30 * time.Second},
		"SYS518":      {func(f *fakeBMC) { f.refuseWith("PATCH "+sysPath, 99, 400, "SYS518", "not ready") }, "", []string{armHTTP}, ErrBusy, 30 * time.Second},
		"Mode not writable": {func(f *fakeBMC) {
			mode(f)
			f.refuseIf("PATCH "+sysPath, "Mode", 400, "PropertyNotWritable", "", "BootSourceOverrideMode")
		}, "", []string{armMode, armHTTP}, nil, 0},
		"something not writable, unnamed": {func(f *fakeBMC) {
			mode(f)
			f.refuseIf("PATCH "+sysPath, "Mode", 400, "PropertyNotWritable", "")
		}, "", []string{armMode, armHTTP}, nil, 0},
		"Mode is dropped once only": {func(f *fakeBMC) {
			mode(f)
			f.refuseWith("PATCH "+sysPath, 99, 400, "PropertyNotWritable", "", "BootSourceOverrideMode")
		}, "", []string{armMode, armHTTP}, ErrUnsupported, 0},
		"HttpBootUri rejected": {func(f *fakeBMC) {
			f.refuseIf("PATCH "+sysPath, "HttpBootUri", 400, "PropertyNotWritable", "", "HttpBootUri")
		}, bootURL, []string{armURL, armHTTP}, nil, 0},
		"value not in list": {func(f *fakeBMC) {
			f.refuseWith("PATCH "+sysPath, 99, 400, "PropertyValueNotInList", "The value UefiHttp is not in the list", "UefiHttp", "BootSourceOverrideTarget")
		}, "", []string{armHTTP}, ErrUnsupported, 0},
		"400 although it was done": {func(f *fakeBMC) {
			f.hooks["PATCH "+sysPath] = func(w http.ResponseWriter, _ string) bool {
				f.boot()["BootSourceOverrideEnabled"], f.boot()["BootSourceOverrideTarget"] = "Once", "UefiHttp"
				return fail(w, 400, "GeneralError", "failed")
			}
		}, "", []string{armHTTP}, nil, 0},
		"404: the BMC restarts": {func(f *fakeBMC) { f.refuseWith("PATCH "+sysPath, 99, 404, "ResourceMissingAtURI", "") }, "", []string{armHTTP}, ErrUnreachable, 5 * time.Second},
		"503 with Retry-After": {func(f *fakeBMC) {
			f.hooks["PATCH "+sysPath] = func(w http.ResponseWriter, _ string) bool {
				w.Header().Set("Retry-After", "77")
				return fail(w, 503, "ServiceTemporarilyUnavailable", "")
			}
		}, "", []string{armHTTP}, ErrBusy, 77 * time.Second},
		"RAC0218": {func(f *fakeBMC) {
			f.hooks["PATCH "+sysPath] = func(w http.ResponseWriter, _ string) bool {
				w.Header().Set("Retry-After", "1")
				return fail(w, 503, "RAC0218", "no sessions")
			}
		}, "", []string{armHTTP}, ErrBusy, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c.set(f)
			_, err := f.arm(BootRequest{Tactic: TacticHTTP, URL: c.url})
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.wait, RetryAfter(err))
			requireWrites(t, f, c.want...)
		})
	}
}

// What a person reads is about what was asked for, not about the way round it.
func TestTheFirstRefusalIsToldWhereAnOptionIsRefusedToo(t *testing.T) {
	f := newFake(t)
	f.boot()["BootNext"] = ""
	f.boot()["BootOptions"] = ref(sysPath + "/BootOptions")
	f.docs[sysPath+"/BootOptions"] = collection(sysPath + "/BootOptions/1")
	f.docs[sysPath+"/BootOptions/1"] = doc{"Id": "1", "BootOptionReference": "Boot0001", "Alias": "UefiHttp"}
	f.hooks["PATCH "+sysPath] = func(w http.ResponseWriter, body string) bool {
		for _, target := range []string{"UefiHttp", "UefiBootNext"} {
			if strings.Contains(body, target) {
				return fail(w, 400, "PropertyValueNotInList", "No "+target+" here.", target)
			}
		}
		return false
	}
	_, err := f.arm(BootRequest{Tactic: TacticHTTP})
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, "No UefiHttp here.")
	require.Len(t, f.writes(), 2)
}

func TestAnOverrideThatIsSilentlyIgnoredIsAWarning(t *testing.T) {
	f := newFake(t)
	f.hooks["PATCH "+sysPath] = func(w http.ResponseWriter, _ string) bool {
		w.WriteHeader(http.StatusNoContent)
		return true
	}
	armed, err := f.arm(BootRequest{Tactic: TacticHTTP, URL: bootURL})
	require.NoError(t, err)
	require.False(t, armed.Confirmed)
	require.NotEmpty(t, armed.Warnings)
	require.NotContains(t, strings.Join(armed.Warnings, " "), bootURL)
}

func TestABMCThatIgnoresOnceIsTold(t *testing.T) {
	f := newFake(t)
	f.docs[sysPath]["Manufacturer"] = "Sushy Emulator"
	f.boot()["BootSourceOverrideEnabled"] = "Continuous"
	f.hooks["PATCH "+sysPath] = func(w http.ResponseWriter, _ string) bool {
		f.boot()["BootSourceOverrideTarget"] = "UefiHttp"
		w.WriteHeader(http.StatusNoContent)
		return true
	}
	armed, err := f.arm(BootRequest{Tactic: TacticHTTP})
	require.NoError(t, err)
	require.True(t, armed.Confirmed)
	require.Contains(t, armed.Warnings[0], "Continuous")
	require.NoError(t, f.do(func(ctx context.Context, b BMC) error {
		p, err := b.BootPaths(ctx)
		require.True(t, p.IgnoresOnce)
		return err
	}))
}

func TestNoErrorRepeatsTheURLOrThePassword(t *testing.T) {
	f := newFake(t)
	f.refuseWith("PATCH "+sysPath, 99, 400, "PropertyValueNotInList", "The value "+bootURL+" is bad, "+password+" too\n"+strings.Repeat("x", 9000), bootURL, "BootSourceOverrideTarget")
	_, err := f.arm(BootRequest{Tactic: TacticHTTP, URL: bootURL})
	require.ErrorIs(t, err, ErrUnsupported)
	for _, secret := range []string{bootURL, "secret-token", password, "\n"} {
		require.NotContains(t, err.Error(), secret)
	}
	require.Less(t, len(err.Error()), 700)
	var e *Error
	require.True(t, errors.As(err, &e))
	require.Equal(t, "PATCH "+sysPath, e.Request)
	require.Equal(t, 400, e.Status)
	require.Equal(t, []string{"Base.1.8.PropertyValueNotInList"}, e.MessageIDs)
}

// TestDisarm holds how each BMC is told that the boot is over.
func TestDisarm(t *testing.T) {
	armed := func(f *fakeBMC) {
		f.boot()["BootSourceOverrideEnabled"], f.boot()["BootSourceOverrideTarget"] = "Once", "UefiHttp"
	}
	const off = "PATCH " + sysPath + ` {"Boot":{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget":"None"}}`
	const offPXE = "PATCH " + sysPath + ` {"Boot":{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget":"Pxe"}}`
	for name, c := range map[string]struct {
		set    func(f *fakeBMC)
		pinned string
		want   []string
	}{
		"gone already":            {func(*fakeBMC) {}, "HttpBootUri", nil},
		"an override":             {armed, "", []string{off}},
		"BlueField's, that stays": {func(f *fakeBMC) { armed(f); f.vendor("Nvidia", "BlueField-3") }, "", []string{off}},
		"iLO rejects None":        {func(f *fakeBMC) { armed(f); f.vendor("HPE", "iLO 5") }, "", []string{offPXE}},
		"someone else who rejects None": {func(f *fakeBMC) {
			armed(f)
			f.refuseIf("PATCH "+sysPath, "None", 400, "PropertyValueNotInList", "", "None")
		}, "", []string{off, offPXE}},
		"a URL in HttpBootUri": {func(f *fakeBMC) { f.boot()["HttpBootUri"] = bootURL }, "HttpBootUri", []string{
			"PATCH " + sysPath + ` {"Boot":{"HttpBootUri":null}}`,
		}},
		"a URL where null is refused": {func(f *fakeBMC) {
			f.boot()["HttpBootUri"] = bootURL
			f.refuseIf("PATCH "+sysPath, "null", 400, "PropertyValueTypeError", "", "HttpBootUri")
		}, "HttpBootUri", []string{"PATCH " + sysPath + ` {"Boot":{"HttpBootUri":null}}`, "PATCH " + sysPath + ` {"Boot":{"HttpBootUri":""}}`}},
		"Dell's attributes": {func(f *fakeBMC) {
			f.bios(doc{"HttpDev1EnDis": "Enabled", "HttpDev1Uri": bootURL, "HttpDev1TlsMode": "None"})
		}, "HttpDev1Uri", []string{
			"PATCH " + biosPath + `/Settings {"Attributes":{"HttpDev1EnDis":"Disabled","HttpDev1Uri":""}}`,
		}},
		"iDRAC 10's TlsMode, which a plain URL switched": {func(f *fakeBMC) {
			f.vendor("Dell", "17G Monolithic")
			f.bios(doc{"HttpDev1EnDis": "Enabled", "HttpDev1Uri": "http://10.0.0.1/x", "HttpDev1TlsMode": "None"})
		}, "HttpDev1Uri", []string{
			"PATCH " + biosPath + `/Settings {"Attributes":{"HttpDev1EnDis":"Disabled","HttpDev1Uri":"","HttpDev1TlsMode":"OneWay"}}`,
		}},
		"iDRAC 10's TlsMode, which somebody else switched": {func(f *fakeBMC) {
			f.vendor("Dell", "17G Monolithic")
			f.bios(doc{"HttpDev1EnDis": "Enabled", "HttpDev1Uri": bootURL, "HttpDev1TlsMode": "None"})
		}, "HttpDev1Uri", []string{
			"PATCH " + biosPath + `/Settings {"Attributes":{"HttpDev1EnDis":"Disabled","HttpDev1Uri":""}}`,
		}},
		"HPE's attribute":        {func(f *fakeBMC) { f.bios(doc{"UrlBootFile": bootURL}) }, "UrlBootFile", []string{"PATCH " + biosPath + `/Settings {"Attributes":{"UrlBootFile":""}}`}},
		"an attribute long gone": {func(f *fakeBMC) { f.bios(doc{"UrlBootFile": ""}) }, "UrlBootFile", nil},
		"one that is pending in SD only": {func(f *fakeBMC) {
			f.settings(sdPath)
			f.docs[sdPath]["Boot"] = doc{"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Pxe"}
			f.vendor("AMI", "MegaRAC")
		}, "", []string{strings.Replace(off, sysPath, sdPath, 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c.set(f)
			require.NoError(t, f.disarm(c.pinned))
			requireWrites(t, f, c.want...)
		})
	}
}

func TestPreferNetworkPutsTheNICFirst(t *testing.T) {
	f := newFake(t)
	f.boot()["BootOptions"] = ref(sysPath + "/BootOptions")
	f.boot()["BootOrder"] = []string{"Boot0001", "Boot0002", "Boot0003"}
	f.docs[sysPath+"/BootOptions"] = collection(sysPath+"/BootOptions/1", sysPath+"/BootOptions/2", sysPath+"/BootOptions/3")
	f.docs[sysPath+"/BootOptions/1"] = doc{"Id": "1", "BootOptionReference": "Boot0001", "DisplayName": "Disk"}
	f.docs[sysPath+"/BootOptions/2"] = doc{"Id": "2", "BootOptionReference": "Boot0002", "Alias": "Pxe", "UefiDevicePath": "MAC(525400AABB01,0x1)/IPv4(0.0.0.0)"}
	f.docs[sysPath+"/BootOptions/3"] = doc{"Id": "3", "BootOptionReference": "Boot0003", "Alias": "UefiHttp", "UefiDevicePath": "MAC(525400AABB01,0x1)/IPv4(0.0.0.0)/Uri()"}
	prefer := func(mac string, http bool) error {
		return f.do(func(ctx context.Context, b BMC) error { return b.PreferNetwork(ctx, mac, http) })
	}
	require.ErrorIs(t, prefer("52:54:00:aa:bb:99", true), ErrUnsupported)
	require.NoError(t, prefer("52:54:00:aa:bb:01", true))
	require.NoError(t, prefer("52:54:00:aa:bb:01", true), "it is so already: nothing is sent")
	requireWrites(t, f, "PATCH "+sysPath+` {"Boot":{"BootOrder":["Boot0003","Boot0002","Boot0001"]}}`)
	delete(f.boot(), "BootOrder")
	require.ErrorIs(t, prefer("", false), ErrUnsupported)
}

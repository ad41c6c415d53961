package bmcsim

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIDRAC9PinsAURLByBIOSAttributesThatPersist(t *testing.T) {
	s := newBench(t, "idrac9")
	require.NotContains(t, s.boot(), "HttpBootUri")
	require.Equal(t, "PropertyUnknown", s.patch(s.SystemPath(), `{"Boot":{"HttpBootUri":"http://10.0.0.2/b"}}`).id())
	settings := s.SystemPath() + "/Bios/Settings"
	attributes := `"Attributes":{"HttpDev1EnDis":"Enabled","HttpDev1Uri":"http://10.0.0.2/b"}`

	// Without a job they wait for ever.
	require.Equal(t, http.StatusOK, s.patch(settings, `{`+attributes+`}`).Code)
	s.arm(onceHTTP)
	require.Equal(t, NextBoot{Kind: KindHTTP}, s.boots())
	a := s.patch(settings, `{"@Redfish.SettingsApplyTime":{"ApplyTime":"OnReset"},`+attributes+`}`)
	require.Equal(t, http.StatusAccepted, a.Code)
	monitor := a.Header().Get("Location")
	require.Equal(t, http.StatusAccepted, s.ask(http.MethodGet, monitor, "").Code)
	s.arm(onceHTTP)
	want := NextBoot{Kind: KindHTTP, URL: "http://10.0.0.2/b"}
	require.Equal(t, want, s.boots())
	require.Equal(t, "Completed", s.get(monitor)["TaskState"])
	s.arm(onceHTTP)
	require.Equal(t, want, s.boots(), "it persists")
	require.Equal(t, "PropertyUnknown", s.patch(settings, `{"Attributes":{"Nothing":"x"}}`).id())
	require.Equal(t, "PropertyValueTypeError", s.patch(settings, `{"Attributes":{"HttpDev1Uri":7}}`).id())
}

func TestIDRAC9BootsTwiceWhenTheModeIsNamed(t *testing.T) {
	s := newBench(t, "idrac9")
	s.arm(onceHTTP)
	s.boots()
	booted, _ := s.machine.Boots()
	require.Equal(t, 1, booted)
	s.reset("ForceOff")
	s.arm(`{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","BootSourceOverrideMode":"UEFI"}`)
	s.boots()
	booted, next := s.machine.Boots()
	require.Equal(t, 3, booted)
	require.Equal(t, KindHTTP, next.Kind)
	require.Equal(t, "BIOSJob", s.Resets()[2].Type)
}

func TestIDRAC9RewritesTheBootOrderForContinuous(t *testing.T) {
	s := newBench(t, "idrac9")
	s.arm(`{"BootSourceOverrideEnabled":"Continuous","BootSourceOverrideTarget":"Pxe"}`)
	require.Equal(t, []any{"Boot0002", "Boot0001", "Boot0003"}, s.boot()["BootOrder"])
}

func TestIDRACSaysThatItIsNotReadyAndThatThePowerIsThere(t *testing.T) {
	s := newBench(t, "idrac9")
	s.boots()
	a := s.reset("On")
	require.Equal(t, http.StatusConflict, a.Code)
	require.Equal(t, "PSU501", a.id())
	require.Equal(t, http.StatusNoContent, s.reset("ForceOff").Code)
	require.Equal(t, "PSU501", s.reset("ForceOff").id())
	s.InPOST(time.Minute)
	a = s.patch(s.SystemPath(), `{"Boot":`+onceHTTP+`}`)
	require.Equal(t, http.StatusServiceUnavailable, a.Code)
	require.Equal(t, "SYS518", a.id())
	s.clock.Step(time.Hour)
	s.arm(onceHTTP)
	// 13G: it did what it says it did not.
	s.DenyAfterChange(1)
	require.Equal(t, http.StatusBadRequest, s.patch(s.SystemPath(), `{"Boot":`+oncePXE+`}`).Code)
	_, target := s.shown()
	require.Equal(t, "Pxe", target)
}

func TestIDRAC10WritesBootWhereItsBuildDoes(t *testing.T) {
	s := newBench(t, "idrac10")
	require.Equal(t, "PropertyNotWritable", s.patch(s.SystemPath(), `{"Boot":`+onceHTTP+`}`).id())
	s.arm(onceHTTP)
	require.Equal(t, NextBoot{Kind: KindHTTP, TLSOnly: true}, s.boots())
	other := newBench(t, "idrac10-system")
	require.Equal(t, "PropertyNotWritable", other.patch(other.SystemPath()+"/Settings", `{"Boot":`+onceHTTP+`}`).id())
	other.arm(onceHTTP)
	require.Equal(t, KindHTTP, other.boots().Kind)
}

func TestIDRAC10RefusesPlainHTTPAndIfMatchOnActions(t *testing.T) {
	s := newBench(t, "idrac10")
	action := s.SystemPath() + "/Actions/ComputerSystem.Reset"
	tag := s.ask(http.MethodGet, s.SystemPath(), "").Header().Get("ETag")
	require.Equal(t, http.StatusPreconditionFailed, s.ask(http.MethodPost, action, `{"ResetType":"On"}`, "If-Match", tag).Code)
	require.False(t, s.machine.IsOn())
	pin := func(attributes string) NextBoot {
		a := s.patch(s.SystemPath()+"/Bios/Settings", `{"@Redfish.SettingsApplyTime":{"ApplyTime":"OnReset"},"Attributes":`+attributes+`}`)
		require.Equal(t, http.StatusAccepted, a.Code, a.Body)
		s.arm(onceHTTP)
		return s.boots()
	}
	require.Equal(t, NextBoot{}, pin(`{"HttpDev1EnDis":"Enabled","HttpDev1Uri":"http://10.0.0.2/b"}`))
	require.Equal(t, "https://10.0.0.2/b", pin(`{"HttpDev1Uri":"https://10.0.0.2/b"}`).URL)
	require.Equal(t, NextBoot{Kind: KindHTTP, URL: "http://10.0.0.2/b"}, pin(`{"HttpDev1Uri":"http://10.0.0.2/b","HttpDev1TlsMode":"None"}`))
}

func TestILOTakesNothingInPOSTNorTheModeNorNone(t *testing.T) {
	for _, profile := range []string{"ilo5", "ilo6"} {
		s := newBench(t, profile)
		require.True(t, strings.HasSuffix(s.get(s.SystemPath())["@odata.id"].(string), "/"))
		s.InPOST(time.Minute)
		a := s.patch(s.SystemPath(), `{"Boot":`+onceHTTP+`}`)
		require.Equal(t, http.StatusBadRequest, a.Code)
		require.Equal(t, "UnableToModifyDuringSystemPOST", a.id())
		s.clock.Step(time.Hour)
		a = s.patch(s.SystemPath(), `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","BootSourceOverrideMode":"UEFI"}}`)
		require.Equal(t, "PropertyNotWritable", a.id())
		enabled, _ := s.shown()
		require.Equal(t, "Disabled", enabled, "nothing of it was taken")
		s.arm(onceHTTP)
		require.Equal(t, http.StatusBadRequest, s.patch(s.SystemPath(), `{"Boot":{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget":"None"}}`).Code)
		s.arm(`{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget":"Pxe"}`)
		require.Equal(t, NextBoot{}, s.boots())
		require.Equal(t, "InvalidOperationForSystemState", s.reset("On").id())
	}
}

func TestILO6ShowsHTTPBootURIAndPinsByUrlBootFile(t *testing.T) {
	s := newBench(t, "ilo6")
	require.Contains(t, s.boot(), "HttpBootUri")
	require.NotContains(t, newBench(t, "ilo5").boot(), "HttpBootUri")
	require.Equal(t, "PropertyNotWritable", s.patch(s.SystemPath(), `{"Boot":{"HttpBootUri":"http://10.0.0.2/b"}}`).id())
	require.Equal(t, http.StatusOK, s.patch(s.SystemPath()+"/bios/settings/", `{"Attributes":{"UrlBootFile":"http://10.0.0.2/b"}}`).Code)
	s.arm(onceHTTP)
	require.Equal(t, NextBoot{Kind: KindHTTP, URL: "http://10.0.0.2/b"}, s.boots())
	require.Equal(t, "http://10.0.0.2/b", s.Attribute("UrlBootFile"), "it persists")
	none := newBench(t, "ilo6-no-override")
	require.Equal(t, http.StatusBadRequest, none.patch(none.SystemPath(), `{"Boot":`+onceHTTP+`}`).Code)
}

func TestSupermicroForgetsWhatIsLeftOut(t *testing.T) {
	s := newBench(t, "supermicro")
	s.arm(onceHTTP)
	require.Equal(t, "Legacy", s.boot()["BootSourceOverrideMode"])
	require.Equal(t, NextBoot{}, s.boots(), "there is no UEFI HTTP Boot in legacy mode")
	s.arm(`{"BootSourceOverrideTarget":"UefiHttp","BootSourceOverrideMode":"UEFI"}`)
	enabled, _ := s.shown()
	require.Equal(t, "Disabled", enabled)
	s.arm(`{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","BootSourceOverrideMode":"UEFI"}`)
	require.Equal(t, KindHTTP, s.boots().Kind)
	old := newBench(t, "supermicro-x10")
	require.NotContains(t, old.boot(), "BootSourceOverrideMode")
	require.Equal(t, "PropertyUnknown", old.patch(old.SystemPath(), `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"Pxe","BootSourceOverrideMode":"UEFI"}}`).id())
	old.arm(oncePXE)
	require.Equal(t, KindPXE, old.boots().Kind)
}

func TestXCCHasNoUefiHttpAndRefusesEveryIfMatch(t *testing.T) {
	s := newBench(t, "xcc")
	require.Equal(t, "PropertyValueNotInList", s.patch(s.SystemPath(), `{"Boot":`+onceHTTP+`}`).id())
	for _, match := range []string{s.ask(http.MethodGet, s.SystemPath(), "").Header().Get("ETag"), "*"} {
		require.Equal(t, http.StatusPreconditionFailed, s.ask(http.MethodPatch, s.SystemPath(), `{"Boot":`+oncePXE+`}`, "If-Match", match).Code)
	}
	s.arm(oncePXE)
	require.Equal(t, KindPXE, s.boots().Kind)
	s.arm(`{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiBootNext","BootNext":"Boot0001"}`)
	require.Equal(t, KindHTTP, s.boots().Kind)
}

func TestMegaRACTakesTheOverrideInSDWithItsETag(t *testing.T) {
	for _, profile := range []string{"megarac", "asrock", "tsm"} {
		s := newBench(t, profile)
		a := s.patch(s.SystemPath(), `{"Boot":`+onceHTTP+`}`)
		require.Equal(t, http.StatusBadRequest, a.Code)
		require.Equal(t, "OperationSupportedInFutureStateURI", a.id())
		settings := s.get(s.SystemPath())["@Redfish.Settings"].(object)["SettingsObject"].(object)["@odata.id"].(string)
		require.Equal(t, s.SystemPath()+"/SD", settings)
		require.Equal(t, http.StatusPreconditionRequired, s.ask(http.MethodPatch, settings, `{"Boot":`+onceHTTP+`}`).Code)
		wrong := s.ask(http.MethodGet, s.SystemPath(), "").Header().Get("ETag")
		require.Equal(t, http.StatusPreconditionFailed, s.ask(http.MethodPatch, settings, `{"Boot":`+onceHTTP+`}`, "If-Match", wrong).Code)
		s.arm(onceHTTP)
		enabled, _ := s.shown()
		require.Equal(t, "Disabled", enabled, "the System does not show it")
		require.Equal(t, "Once", s.get(settings)["Boot"].(object)["BootSourceOverrideEnabled"])
		require.Equal(t, KindHTTP, s.boots().Kind)
		require.Equal(t, "Disabled", s.get(settings)["Boot"].(object)["BootSourceOverrideEnabled"])
		require.Equal(t, KindDefault, s.boots().Kind)
	}
}

func TestOpenBMCLacksUefiHttpOrAllOverrides(t *testing.T) {
	s := newBench(t, "openbmc")
	require.Equal(t, "PropertyValueNotInList", s.patch(s.SystemPath(), `{"Boot":`+onceHTTP+`}`).id())
	s.arm(oncePXE)
	require.Equal(t, KindPXE, s.boots().Kind)
	none := newBench(t, "openbmc-no-override")
	require.NotContains(t, none.boot(), "BootSourceOverrideTarget")
	require.Equal(t, "PropertyUnknown", none.patch(none.SystemPath(), `{"Boot":`+oncePXE+`}`).id())
}

func TestBlueFieldKeepsTheOverrideUntilItIsNone(t *testing.T) {
	s := newBench(t, "bluefield")
	s.arm(onceHTTP)
	require.Equal(t, KindHTTP, s.boots().Kind)
	require.Equal(t, KindHTTP, s.boots().Kind)
	enabled, target := s.shown()
	require.Equal(t, "Once", enabled)
	require.Equal(t, "UefiHttp", target)
	s.arm(`{"BootSourceOverrideEnabled":"Disabled","BootSourceOverrideTarget":"None"}`)
	require.Equal(t, KindDefault, s.boots().Kind)
}

func TestSushyToolsReportsContinuousAndDownloadsTheFile(t *testing.T) {
	s := newBench(t, "sushy-tools", func(o *Options) { o.Fetch = nil })
	fetched := make(chan string, 1)
	s.options.Fetch = func(_ context.Context, url string) error { fetched <- url; return nil }
	require.Equal(t, root+"/Systems/"+testUUID, s.SystemPath())
	s.arm(oncePXE)
	enabled, _ := s.shown()
	require.Equal(t, "Continuous", enabled)
	require.Equal(t, KindPXE, s.boots().Kind)
	require.Equal(t, KindPXE, s.boots().Kind)
	s.arm(`{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","HttpBootUri":"http://10.0.0.2/b"}`)
	require.Equal(t, "http://10.0.0.2/b", <-fetched)
	require.Equal(t, NextBoot{Kind: KindCD, URL: "http://10.0.0.2/b"}, s.boots())
}

func TestIgnoresOnceShowsTheOverrideUsedAndUsesItAgain(t *testing.T) {
	s := newBench(t, "ignores-once")
	s.arm(onceHTTP)
	for range 3 {
		require.Equal(t, KindHTTP, s.boots().Kind)
		enabled, _ := s.shown()
		require.Equal(t, "Disabled", enabled)
	}
	s.machine.Reboot()
	_, next := s.machine.Boots()
	require.Equal(t, KindHTTP, next.Kind)
	s.arm(`{"BootSourceOverrideEnabled":"Disabled"}`)
	require.Equal(t, KindDefault, s.boots().Kind)

	knob := newBench(t, "xcc")
	knob.IgnoreOnce(true)
	knob.arm(oncePXE)
	require.Equal(t, KindPXE, knob.boots().Kind)
	require.Equal(t, KindPXE, knob.boots().Kind)
}

func TestHGXHasASystemBesideTheHost(t *testing.T) {
	s := newBench(t, "hgx")
	list := s.get(root + "/Systems")["Members"].([]any)
	require.Len(t, list, 2)
	require.Equal(t, object{"@odata.id": root + "/Systems/HGX_Baseboard_0"}, list[0])
	board := s.get(root + "/Systems/HGX_Baseboard_0")
	require.NotEqual(t, s.get(s.SystemPath())["UUID"], board["UUID"])
	require.NotContains(t, board, "Boot")
	require.Equal(t, http.StatusMethodNotAllowed, s.ask(http.MethodPatch, root+"/Systems/HGX_Baseboard_0", `{"Boot":`+oncePXE+`}`).Code)
}

func TestEveryProfileSaysWhatIsOddAndIsOtherwiseAlike(t *testing.T) {
	for _, p := range Profiles() {
		require.NotEmpty(t, p.About, p.Name)
		s := newBench(t, p.Name)
		require.Less(t, s.reset("On").Code, 300)
		require.True(t, s.machine.IsOn())
		require.Equal(t, "On", s.get(s.SystemPath())["PowerState"])
		require.Equal(t, testUUID, s.get(s.SystemPath())["UUID"])
	}
}

package bmcsim

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOnceIsForOneBootAndContinuousForAll(t *testing.T) {
	s := newBench(t, "generic")
	s.arm(`{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp","BootSourceOverrideMode":"UEFI","HttpBootUri":"https://10.0.0.2/boot"}`)
	require.False(t, s.machine.IsOn(), "arming switches nothing on")
	require.Equal(t, NextBoot{Kind: KindHTTP, URL: "https://10.0.0.2/boot"}, s.boots())
	enabled, target := s.shown()
	require.Equal(t, "Disabled", enabled)
	require.Equal(t, "None", target)
	require.Equal(t, NextBoot{}, s.boots())

	s.arm(`{"BootSourceOverrideEnabled":"Continuous","BootSourceOverrideTarget":"Pxe"}`)
	require.Equal(t, NextBoot{Kind: KindPXE}, s.boots())
	require.Equal(t, NextBoot{Kind: KindPXE}, s.boots())
	s.machine.Reboot()
	_, next := s.machine.Boots()
	require.Equal(t, NextBoot{Kind: KindPXE}, next)
	s.arm(`{"BootSourceOverrideEnabled":"Disabled"}`)
	require.Equal(t, NextBoot{}, s.boots())
}

func TestARebootFromInsideUsesTheOverrideUp(t *testing.T) {
	s := newBench(t, "generic")
	s.boots()
	s.arm(oncePXE)
	s.machine.Reboot()
	_, next := s.machine.Boots()
	require.Equal(t, NextBoot{Kind: KindPXE}, next)
	enabled, _ := s.shown()
	require.Equal(t, "Disabled", enabled)
	last := s.Resets()[len(s.Resets())-1]
	require.Equal(t, "Inside", last.Type)
	require.True(t, last.Boots)
}

func TestBootNextAndUefiTargetNameABootOption(t *testing.T) {
	s := newBench(t, "generic")
	s.arm(`{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiBootNext","BootNext":"Boot0002"}`)
	require.Equal(t, NextBoot{Kind: KindPXE, MAC: "52:54:00:00:00:01"}, s.boots())
	s.arm(`{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiTarget","UefiTargetBootSourceOverride":"` + testBootOptions[0].DevicePath + `"}`)
	require.Equal(t, NextBoot{Kind: KindHTTP, MAC: "52:54:00:00:00:01"}, s.boots())
	s.arm(`{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiBootNext","BootNext":"Boot0099"}`)
	require.Equal(t, NextBoot{}, s.boots())
}

func TestTheBootOrderIsWritten(t *testing.T) {
	s := newBench(t, "generic")
	require.Equal(t, []any{"Boot0001", "Boot0002", "Boot0003"}, s.boot()["BootOrder"])
	s.arm(`{"BootOrder":["Boot0003","Boot0001"]}`)
	require.Equal(t, []any{"Boot0003", "Boot0001"}, s.boot()["BootOrder"])
	require.Equal(t, "Boot0003", s.machine.BootOrder()[0].Reference)
	for _, order := range []string{`["Boot0099"]`, `["Boot0001","Boot0001"]`, `[7]`} {
		require.Equal(t, "PropertyValueNotInList", s.patch(s.SystemPath(), `{"Boot":{"BootOrder":`+order+`}}`).id())
	}
	without := newBench(t, "generic", func(o *Options) { o.Machine = NewMemoryMachine(nil) })
	require.NotContains(t, without.boot(), "BootOrder")
	require.Equal(t, "PropertyUnknown", without.patch(without.SystemPath(), `{"Boot":{"BootOrder":[]}}`).id())
}

func TestEveryResetTypeDoesWhatItsNameSays(t *testing.T) {
	s := newBench(t, "generic")
	for _, step := range []struct {
		kind   string
		on     bool
		booted int
	}{
		{"On", true, 1}, {"On", true, 1}, {"ForceRestart", true, 2}, {"PowerCycle", true, 3}, {"GracefulRestart", true, 4},
		{"PushPowerButton", false, 4}, {"PushPowerButton", true, 5}, {"GracefulShutdown", false, 5}, {"GracefulShutdown", false, 5},
		{"ForceOn", true, 6}, {"ForceOff", false, 6}, {"ForceOff", false, 6}, {"ForceRestart", true, 7},
	} {
		s.clock.Step(time.Second)
		require.Equal(t, http.StatusNoContent, s.reset(step.kind).Code, step.kind)
		booted, _ := s.machine.Boots()
		require.Equal(t, step.on, s.machine.IsOn(), step.kind)
		require.Equal(t, step.booted, booted, step.kind)
		shown := s.get(s.SystemPath())["PowerState"]
		require.Equal(t, map[bool]any{true: "On", false: "Off"}[step.on], shown)
	}
	for body, id := range map[string]string{
		`{}`: "ActionParameterMissing", `{"ResetType":"Explode"}`: "ActionParameterValueNotInList", `{"ResetType":1}`: "ActionParameterValueTypeError",
		`{"ResetType":"On","Delay":1}`: "ActionParameterUnknown",
	} {
		require.Equal(t, id, s.ask(http.MethodPost, s.SystemPath()+"/Actions/ComputerSystem.Reset", body).id())
	}
}

func TestLastResetTimeAndBootProgressFollowTheBoot(t *testing.T) {
	s := newBench(t, "generic", func(o *Options) { o.POST = time.Minute })
	progress := func() any { return s.get(s.SystemPath())["BootProgress"].(object)["LastState"] }
	before := s.get(s.SystemPath())["LastResetTime"]
	require.Equal(t, "None", progress())
	s.clock.Step(time.Hour)
	s.boots()
	require.NotEqual(t, before, s.get(s.SystemPath())["LastResetTime"])
	require.Equal(t, "SystemHardwareInitializationComplete", progress())
	s.clock.Step(2 * time.Minute)
	require.Equal(t, "OSBootStarted", progress())
	s.Progress("OSRunning")
	require.Equal(t, "OSRunning", progress())
	s.boots()
	require.Equal(t, "SystemHardwareInitializationComplete", progress())
}

func TestHandsOnThePanelUseTheOverrideToo(t *testing.T) {
	s := newBench(t, "generic")
	s.arm(onceHTTP)
	require.Error(t, s.PressReset(), "the machine is off")
	require.NoError(t, s.PressPower())
	_, next := s.machine.Boots()
	require.Equal(t, KindHTTP, next.Kind)
	require.NoError(t, s.PressReset())
	_, next = s.machine.Boots()
	require.Equal(t, KindDefault, next.Kind)
	s.machine.IgnoreShutdown(true)
	require.NoError(t, s.PressPower())
	require.True(t, s.machine.IsOn(), "the operating system hangs")
	require.NoError(t, s.HoldPower())
	require.False(t, s.machine.IsOn())
	for _, r := range s.Resets() {
		require.True(t, r.ByHand)
	}
}

// A machine whose boot begins finds the BMC in the state after it.
func TestTheFirmwareFindsTheOverrideUsed(t *testing.T) {
	var s *bench
	seen := make(chan any, 1)
	s = newBench(t, "generic", func(o *Options) {
		o.Machine = NewMemoryMachine(func(NextBoot) {
			enabled, _ := s.shown()
			seen <- enabled
		})
	})
	s.arm(onceHTTP)
	require.Equal(t, http.StatusNoContent, s.reset("On").Code)
	require.Equal(t, "Disabled", <-seen)
}

func TestAMachineThatFailsToStartKeepsItsOverride(t *testing.T) {
	s := newBench(t, "generic", func(o *Options) { o.Machine = brokenMachine{NewMemoryMachine(nil)} })
	s.arm(onceHTTP)
	a := s.reset("On")
	require.Equal(t, http.StatusInternalServerError, a.Code)
	require.Equal(t, "InternalError", a.id())
	enabled, target := s.shown()
	require.Equal(t, "Once", enabled)
	require.Equal(t, "UefiHttp", target)
}

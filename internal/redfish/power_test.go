package redfish

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func reset(kind string) string { return "POST " + resetURL + ` {"ResetType":"` + kind + `"}` }

// TestPower holds which reset type is sent, and when none is.
func TestPower(t *testing.T) {
	allow := func(types ...string) func(*fakeBMC) {
		return func(f *fakeBMC) {
			f.docs[sysPath]["Actions"] = doc{"#ComputerSystem.Reset": doc{"target": resetURL, "ResetType@Redfish.AllowableValues": types}}
		}
	}
	on := func(f *fakeBMC) { f.docs[sysPath]["PowerState"] = "On" }
	both := func(a, b func(*fakeBMC)) func(*fakeBMC) { return func(f *fakeBMC) { a(f); b(f) } }
	info := func(f *fakeBMC) {
		f.docs[sysPath]["Actions"] = doc{"#ComputerSystem.Reset": doc{"target": resetURL, "@Redfish.ActionInfo": sysPath + "/ResetActionInfo"}}
		f.docs[sysPath+"/ResetActionInfo"] = doc{"Id": "R", "Parameters": []doc{{"Name": "ResetType", "DataType": "String", "AllowableValues": []string{"ForceOn", "PowerCycle", "PushPowerButton"}}}}
	}
	for name, c := range map[string]struct {
		set  func(f *fakeBMC)
		do   func(ctx context.Context, b BMC) error
		want []string
		err  error
	}{
		"on":                          {func(*fakeBMC) {}, func(ctx context.Context, b BMC) error { return b.On(ctx) }, []string{reset("On")}, nil},
		"on, on already":              {on, func(ctx context.Context, b BMC) error { return b.On(ctx) }, nil, nil},
		"on, by ActionInfo":           {info, func(ctx context.Context, b BMC) error { return b.On(ctx) }, []string{reset("ForceOn")}, nil},
		"off":                         {on, func(ctx context.Context, b BMC) error { return b.Off(ctx) }, []string{reset("ForceOff")}, nil},
		"off, off already":            {func(*fakeBMC) {}, func(ctx context.Context, b BMC) error { return b.Off(ctx) }, nil, nil},
		"off, only by the button":     {both(on, allow("On", "PushPowerButton")), func(ctx context.Context, b BMC) error { return b.Off(ctx) }, nil, ErrUnsupported},
		"off, where nothing is said":  {both(on, allow()), func(ctx context.Context, b BMC) error { return b.Off(ctx) }, []string{reset("ForceOff")}, nil},
		"shutdown":                    {on, func(ctx context.Context, b BMC) error { return b.Shutdown(ctx) }, []string{reset("GracefulShutdown")}, nil},
		"shutdown that cannot be":     {both(on, allow("On", "ForceOff")), func(ctx context.Context, b BMC) error { return b.Shutdown(ctx) }, nil, ErrUnsupported},
		"restart":                     {on, func(ctx context.Context, b BMC) error { return b.Restart(ctx) }, []string{reset("ForceRestart")}, nil},
		"restart, by ActionInfo":      {both(on, info), func(ctx context.Context, b BMC) error { return b.Restart(ctx) }, []string{reset("PowerCycle")}, nil},
		"restart of one that is off":  {func(*fakeBMC) {}, func(ctx context.Context, b BMC) error { return b.Restart(ctx) }, nil, ErrRefused},
		"404: the BMC restarts":       {func(f *fakeBMC) { f.refuseWith("POST "+resetURL, 9, 404, "", "") }, func(ctx context.Context, b BMC) error { return b.On(ctx) }, []string{reset("On")}, ErrUnreachable},
		"refused in POST":             {func(f *fakeBMC) { f.refuseWith("POST "+resetURL, 9, 400, "InvalidOperationForSystemState", "") }, func(ctx context.Context, b BMC) error { return b.On(ctx) }, []string{reset("On")}, ErrBusy},
		"412 is not answered by more": {func(f *fakeBMC) { f.refuseWith("POST "+resetURL, 9, 412, "PreconditionFailed", "") }, func(ctx context.Context, b BMC) error { return b.On(ctx) }, []string{reset("On")}, ErrRefused},
		"iDRAC 8: 400 although it did": {func(f *fakeBMC) {
			f.hooks["POST "+resetURL] = func(w http.ResponseWriter, _ string) bool {
				f.docs[sysPath]["PowerState"] = "On"
				return fail(w, 400, "GeneralError", "")
			}
		}, func(ctx context.Context, b BMC) error { return b.On(ctx) }, []string{reset("On")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c.set(f)
			require.ErrorIs(t, f.do(c.do), c.err)
			requireWrites(t, f, c.want...)
			for _, s := range f.log {
				require.True(t, s.Method != http.MethodPost || s.IfMatch == "", "actions carry no If-Match")
			}
		})
	}
}

// TestALostAnswerToAResetIsNotRepeated holds the row on time-outs after a Reset.
func TestALostAnswerToAResetIsNotRepeated(t *testing.T) {
	f := newFake(t)
	f.hooks["POST "+resetURL] = func(http.ResponseWriter, string) bool {
		f.docs[sysPath]["PowerState"] = "On"
		panic(http.ErrAbortHandler)
	}
	require.ErrorIs(t, f.do(func(ctx context.Context, b BMC) error { return b.On(ctx) }), ErrLost)
	requireWrites(t, f, reset("On"))
	require.NoError(t, f.do(func(ctx context.Context, b BMC) error {
		r, err := b.Power(ctx)
		require.Equal(t, PowerOn, r.State)
		return err
	}))
}

func TestThePowerReadingKeepsTheBMCsOwnWords(t *testing.T) {
	f := newFake(t)
	f.docs[sysPath]["LastResetTime"] = "1970-01-01T00:00:07+00:00"
	f.docs[sysPath]["BootProgress"] = doc{"LastState": "OSRunning"}
	require.NoError(t, f.do(func(ctx context.Context, b BMC) error {
		r, err := b.Power(ctx)
		require.Equal(t, PowerReading{State: PowerOff, LastReset: "1970-01-01T00:00:07+00:00", Progress: "OSRunning"}, r)
		f.mu.Lock()
		f.docs[sysPath]["PowerState"] = "Paused"
		f.mu.Unlock()
		r, _ = b.Power(ctx)
		require.Empty(t, r.State, "what is no power state counts as unknown, and is read anew")
		return err
	}))
}

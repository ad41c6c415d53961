package redfish

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

func nothing(context.Context, BMC) error { return nil }

func TestWrongCredentialsAreTriedOnceUntilTheyChange(t *testing.T) {
	for _, session := range []bool{false, true} {
		f := newFake(t)
		c, _ := newClients(Limits{})
		con := f.connection()
		con.Password, con.Session = "wrong", session
		for range 3 {
			err := c.Do(t.Context(), con, nothing)
			require.ErrorIs(t, err, ErrUnauthorized)
			require.NotContains(t, err.Error(), "wrong password")
		}
		used := 0
		for _, s := range f.log {
			if s.Auth == "wrong" || s.Path == sessionsPath {
				used++
			}
		}
		require.Equal(t, 1, used, "exactly one request carried them")
		con.Password = password
		require.NoError(t, c.Do(t.Context(), con, nothing), "the Secret changed")
		con.Password = "wrong"
		require.ErrorIs(t, c.Do(t.Context(), con, nothing), ErrUnauthorized)
		before := f.requests()
		c.Forget(con.Address)
		require.ErrorIs(t, c.Do(t.Context(), con, nothing), ErrUnauthorized)
		require.Greater(t, f.requests(), before, "someone asked for another try")
	}
}

func TestBasicAuthenticationOpensNoSession(t *testing.T) {
	f := newFake(t)
	require.NoError(t, f.do(nothing))
	require.Zero(t, f.opened)
	for _, s := range f.log {
		require.Equal(t, s.Path == "/redfish/v1/", s.Auth == "", "the service root is read without credentials, all else with them")
	}
}

func TestASessionIsAlwaysClosed(t *testing.T) {
	for name, run := range map[string]func(cancel func(), f *fakeBMC) func(context.Context, BMC) error{
		"done": func(func(), *fakeBMC) func(context.Context, BMC) error { return nothing },
		"failed": func(func(), *fakeBMC) func(context.Context, BMC) error {
			return func(context.Context, BMC) error { return errors.New("no") }
		},
		"cancelled": func(cancel func(), _ *fakeBMC) func(context.Context, BMC) error {
			return func(ctx context.Context, b BMC) error {
				cancel()
				_, err := b.Power(ctx)
				return errors.Join(err, b.On(ctx))
			}
		},
		"the wrong machine": func(_ func(), f *fakeBMC) func(context.Context, BMC) error {
			f.docs[sysPath]["SerialNumber"] = "S-2"
			return nothing
		},
		"panicked": func(func(), *fakeBMC) func(context.Context, BMC) error {
			return func(context.Context, BMC) error { panic("on purpose") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			con := f.connection()
			con.Session, con.Serial = true, "S-1"
			c, _ := newClients(Limits{})
			func() {
				defer func() { _ = recover() }()
				_ = c.Do(ctx, con, run(cancel, f))
			}()
			require.Equal(t, 1, f.opened)
			require.Empty(t, f.sessions, "left open")
			require.Empty(t, c.global)
		})
	}
}

func TestASessionThatTheBMCForgotIsOpenedOnceMore(t *testing.T) {
	f := newFake(t)
	con := f.connection()
	con.Session = true
	c, _ := newClients(Limits{})
	forget := func() { f.mu.Lock(); clear(f.sessions); f.mu.Unlock() }
	require.NoError(t, c.Do(t.Context(), con, func(ctx context.Context, b BMC) error {
		_, _ = b.Power(ctx)
		forget()
		_, err := b.Power(ctx)
		return err
	}))
	require.Equal(t, 2, f.opened)
	require.Empty(t, f.sessions)
	err := c.Do(t.Context(), con, func(ctx context.Context, b BMC) error {
		_, _ = b.Power(ctx)
		forget()
		_, _ = b.Power(ctx)
		forget()
		_, err := b.Power(ctx)
		return err
	})
	require.ErrorIs(t, err, ErrUnauthorized, "one new login, then stop")
	require.Equal(t, 4, f.opened)
}

func TestAnotherCertificateIsRefused(t *testing.T) {
	f := newFake(t)
	c, _ := newClients(Limits{})
	con := f.connection()
	con.CA = nil
	require.False(t, errors.Is(c.Do(t.Context(), f.connection(), nothing), ErrCertificate))
	err := c.Do(t.Context(), con, nothing)
	require.ErrorIs(t, err, ErrCertificate)
	require.True(t, f.connection().Verified())
	con.InsecureSkipVerify = true
	require.NoError(t, c.Do(t.Context(), con, nothing))
	require.False(t, con.Verified())
	require.False(t, http.DefaultTransport.(*http.Transport).TLSClientConfig != nil && http.DefaultTransport.(*http.Transport).TLSClientConfig.InsecureSkipVerify, "the process's own transport is left alone")
	con.InsecureSkipVerify = false
	require.ErrorIs(t, c.Do(t.Context(), con, nothing), ErrCertificate, "per BMC and operation")
	con.CA = []byte("no PEM")
	require.ErrorIs(t, c.Do(t.Context(), con, nothing), boot.ErrInvalid)
}

// TestWhatAnswersInsteadOfABMC holds the list of bad input: each is an error that
// says so, and nothing hangs, follows or grows.
func TestWhatAnswersInsteadOfABMC(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host was asked") }))
	t.Cleanup(elsewhere.Close)
	packed := func(n int) []byte {
		var b bytes.Buffer
		w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
		_, _ = w.Write([]byte(`{"a":"`))
		_, _ = w.Write(bytes.Repeat([]byte{'x'}, n))
		_, _ = w.Write([]byte(`"}`))
		_ = w.Close()
		return b.Bytes()
	}
	on := func(request string, answer func(w http.ResponseWriter)) func(f *fakeBMC) {
		return func(f *fakeBMC) {
			f.hooks[request] = func(w http.ResponseWriter, _ string) bool { answer(w); return true }
		}
	}
	const root = "GET /redfish/v1/"
	for name, c := range map[string]struct {
		set func(f *fakeBMC)
		err error
	}{
		"HTML": {on(root, func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>"))
		}), ErrNotBMC},
		"HTML later":      {on("GET "+sysPath, func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) }), ErrNotBMC},
		"404 with HTML":   {on(root, func(w http.ResponseWriter) { w.WriteHeader(404); _, _ = w.Write([]byte("<html>")) }), ErrNotBMC},
		"some other JSON": {on(root, func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"hello":1}`)) }), ErrNotBMC},
		"null":            {on(root, func(w http.ResponseWriter) { _, _ = w.Write([]byte(`null`)) }), ErrNotBMC},
		"a list":          {on("GET "+sysPath, func(w http.ResponseWriter) { _, _ = w.Write([]byte(`[]`)) }), ErrNotBMC},
		"nothing":         {on(root, func(http.ResponseWriter) {}), ErrNotBMC},
		"50 MB of JSON":   {on("GET "+sysPath, func(w http.ResponseWriter) { _, _ = fmt.Fprintf(w, `{"a":"%s"}`, bytes.Repeat([]byte{'x'}, 50<<20)) }), ErrTooLarge},
		"50 MB, packed": {on("GET "+sysPath, func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed(50 << 20))
		}), ErrTooLarge},
		"a redirect away": {on("GET "+sysPath, func(w http.ResponseWriter) {
			w.Header().Set("Location", elsewhere.URL+"/redfish/v1/")
			w.WriteHeader(302)
		}), ErrLeavesHost},
		"a redirect inside":          {on("GET "+sysPath, func(w http.ResponseWriter) { w.Header().Set("Location", "/index.html"); w.WriteHeader(301) }), ErrNotBMC},
		"a member elsewhere":         {func(f *fakeBMC) { f.docs["/redfish/v1/Systems"] = collection(elsewhere.URL + "/redfish/v1/Systems/1") }, ErrLeavesHost},
		"a member that ends our URL": {func(f *fakeBMC) { f.docs["/redfish/v1/Systems"] = collection(".evil.example/redfish/v1") }, ErrLeavesHost},
		"a member with user info": {func(f *fakeBMC) {
			f.docs["/redfish/v1/Systems"] = collection("@" + elsewhere.Listener.Addr().String() + "/")
		}, ErrLeavesHost},
		"no system yet": {func(f *fakeBMC) { f.docs["/redfish/v1/Systems"] = collection() }, ErrBusy},
		"503":           {on("GET "+sysPath, func(w http.ResponseWriter) { w.WriteHeader(503) }), ErrBusy},
		"cut off": {on("GET "+sysPath, func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
			panic(http.ErrAbortHandler)
		}), ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c.set(f)
			err := f.do(nothing)
			require.ErrorIs(t, err, c.err)
			require.NotContains(t, err.Error(), password)
			require.Less(t, len(err.Error()), 1000)
			require.Empty(t, f.writes())
		})
	}
}

func TestAnActionThatPointsElsewhereIsRefused(t *testing.T) {
	f := newFake(t)
	f.docs[sysPath]["Actions"] = doc{"#ComputerSystem.Reset": doc{"target": "https://evil.example/reset", "ResetType@Redfish.AllowableValues": []string{"On"}}}
	require.ErrorIs(t, f.do(func(ctx context.Context, b BMC) error { return b.On(ctx) }), ErrLeavesHost)
}

func TestABMCThatHangsIsLeft(t *testing.T) {
	f := newFake(t)
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(slow.Close)
	t.Cleanup(func() { close(release) })
	con := f.connection()
	con.Address, _ = ParseAddress(slow.URL)
	c, _ := newClients(Limits{Timeout: 50 * time.Millisecond})
	require.ErrorIs(t, c.Do(t.Context(), con, nothing), ErrUnreachable)
}

func TestTheBreakerOpensAndOneTryCloses(t *testing.T) {
	f := newFake(t)
	dead := f.connection()
	f.hooks["GET /redfish/v1/"] = func(http.ResponseWriter, string) bool { panic(http.ErrAbortHandler) }
	c, k := newClients(Limits{BreakAfter: 2})
	require.ErrorIs(t, c.Do(t.Context(), dead, nothing), ErrUnreachable)
	err := c.Do(t.Context(), dead, nothing)
	require.ErrorIs(t, err, ErrUnreachable)
	require.Equal(t, 5*time.Second, RetryAfter(err))
	before := f.requests()
	err = c.Do(t.Context(), dead, nothing)
	require.ErrorIs(t, err, ErrBroken)
	require.Equal(t, 5*time.Second, RetryAfter(err))
	require.Equal(t, before, f.requests(), "nothing was sent")
	for _, wait := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		k.advance(RetryAfter(err))
		require.ErrorIs(t, c.Do(t.Context(), dead, nothing), ErrUnreachable)
		err = c.Do(t.Context(), dead, nothing)
		require.ErrorIs(t, err, ErrBroken)
		require.Equal(t, wait*time.Second, RetryAfter(err))
	}
	f.mu.Lock()
	clear(f.hooks)
	f.mu.Unlock()
	k.advance(5 * time.Minute)
	require.NoError(t, c.Do(t.Context(), dead, nothing))
	require.NoError(t, c.Do(t.Context(), dead, nothing))
}

func TestABMCThatAsksForQuietGetsIt(t *testing.T) {
	f := newFake(t)
	f.refuseWith("GET "+sysPath, 1, 503, "RAC0218", "the maximum number of sessions is reached")
	c, k := newClients(Limits{})
	require.ErrorIs(t, c.Do(t.Context(), f.connection(), nothing), ErrBusy)
	before := f.requests()
	err := c.Do(t.Context(), f.connection(), nothing)
	require.ErrorIs(t, err, ErrBusy)
	require.Equal(t, 5*time.Minute, RetryAfter(err))
	require.Equal(t, before, f.requests())
	k.advance(5 * time.Minute)
	require.NoError(t, c.Do(t.Context(), f.connection(), nothing))
}

func TestOneOperationAtATimePerBMC(t *testing.T) {
	f := newFake(t)
	c, _ := newClients(Limits{})
	var now, most atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_ = c.Do(t.Context(), f.connection(), func(ctx context.Context, b BMC) error {
				most.Store(max(most.Load(), now.Add(1)))
				defer now.Add(-1)
				_, err := b.Power(ctx)
				return err
			})
		})
	}
	all.Wait()
	require.EqualValues(t, 1, most.Load())
	require.Empty(t, c.bmcs[f.connection().Address.Host].turn)
}

func TestTheGlobalCapHoldsAndEndsWithTheContext(t *testing.T) {
	f, g := newFake(t), newFake(t)
	c, _ := newClients(Limits{Global: 1})
	require.NoError(t, c.Do(t.Context(), f.connection(), func(context.Context, BMC) error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for {
			// A free turn may be taken first; then the slot is what is waited for.
			err := c.Do(ctx, g.connection(), nothing)
			require.ErrorIs(t, err, ErrBusy)
			if errors.Is(err, context.Canceled) {
				return nil
			}
		}
	}))
	require.Zero(t, g.requests())
	require.NoError(t, c.Do(t.Context(), g.connection(), nothing))
}

func TestTheRateIsHeld(t *testing.T) {
	f := newFake(t)
	c, k := newClients(Limits{PerSecond: 2})
	begin := k.Now()
	require.NoError(t, c.Do(t.Context(), f.connection(), func(ctx context.Context, b BMC) error {
		for range 20 {
			if _, err := b.Power(ctx); err != nil {
				return err
			}
		}
		return nil
	}))
	require.InDelta(t, float64(f.requests()-2)/2, k.Now().Sub(begin).Seconds(), 0.6)
}

func TestIdleBMCsAreForgottenAndTheRestIsBounded(t *testing.T) {
	c, k := newClients(Limits{})
	for i := range maxAccounts + 10 {
		a := c.account(fmt.Sprint(i))
		a.refused = "x"
		c.release(a)
	}
	require.LessOrEqual(t, len(c.bmcs), maxAccounts)
	for _, a := range c.bmcs {
		a.refused = ""
	}
	k.advance(forgetAfter + time.Second)
	c.release(c.account("new"))
	require.Len(t, c.bmcs, 1)
}

func TestAnotherMachineBehindTheBMCIsToldBeforeAnythingIsWritten(t *testing.T) {
	const other = "11111111-2222-3333-4444-555555555555"
	const board = "03000200-0400-0500-0006-000700080009"
	for name, c := range map[string]struct {
		uuid, serial, wantUUID, wantSerial string
		err                                error
	}{
		"the same":                     {uuidA, "S-1", uuidA, "S-1", nil},
		"in EFI_GUID order":            {"33221100-5544-7766-8899-AABBCCDDEEFF", "S-1", uuidA, "", nil},
		"anyone":                       {uuidA, "S-1", "", "", nil},
		"swapped":                      {other, "S-1", uuidA, "", ErrWrongSystem},
		"another serial":               {uuidA, "S-2", uuidA, "S-1", ErrWrongSystem},
		"a placeholder now":            {board, "S-1", uuidA, "", ErrBusy},
		"a placeholder, same serial":   {board, "S-1", uuidA, "S-1", nil},
		"placeholders identify nobody": {other, "S-1", board, "S-1", nil},
		"nothing said":                 {"", "", uuidA, "", ErrBusy},
		"no serial said":               {uuidA, "Not Specified", "", "S-1", ErrBusy},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.docs[sysPath]["UUID"], f.docs[sysPath]["SerialNumber"] = c.uuid, c.serial
			con := f.connection()
			con.UUID, con.Serial = c.wantUUID, c.wantSerial
			clients, _ := newClients(Limits{})
			err := clients.Do(t.Context(), con, func(ctx context.Context, b BMC) error { return b.On(ctx) })
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.err == nil, len(f.writes()) == 1)
		})
	}
}

func TestSeveralSystemsNeedANameInTheAddress(t *testing.T) {
	f := newFake(t)
	f.docs["/redfish/v1/Systems"] = collection(sysPath, "/redfish/v1/Systems/HGX_Baseboard_0")
	err := f.do(nothing)
	require.ErrorIs(t, err, ErrSeveralSystems)
	require.ErrorContains(t, err, sysPath+", /redfish/v1/Systems/HGX_Baseboard_0")
	c, _ := newClients(Limits{})
	con := f.connection()
	con.Address.SystemPath = sysPath
	require.NoError(t, c.Do(t.Context(), con, nothing))
	con.Address.SystemPath = "/redfish/v1/Systems/9"
	err = c.Do(t.Context(), con, nothing)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "HGX_Baseboard_0", "it says which there are")
	con.Address.SystemPath = "/redfish/v1/Systems"
	require.ErrorIs(t, c.Do(t.Context(), con, nothing), ErrRefused)
	f.docs["/redfish/v1/Systems"] = collection()
	con.Address.SystemPath = "/redfish/v1/Systems/9"
	require.ErrorIs(t, c.Do(t.Context(), con, nothing), ErrUnreachable, "a BMC that starts shows none")
}

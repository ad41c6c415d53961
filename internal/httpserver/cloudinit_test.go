package httpserver

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/render"
)

// cloud gives machine A user data instead of Ignition.
func cloud(w *world) {
	withTokens(w)
	w.plan.HasIgnition, w.plan.HasCloudInit = false, true
	clear(w.secrets.docs)
	w.secrets.clouds[w.plan.Object.UID] = boot.CloudInit{UserData: []byte("#cloud-config\nhostname: sesame\n")}
}

func TestCloudInitFetchesItsFiles(t *testing.T) {
	w := newWorld(t, cloud)
	base := w.bootServer()
	data := w.secrets.clouds[w.plan.Object.UID]
	secret := w.mint(w.plan, 1, boot.AudienceSecret, boot.Proxy, netip.Addr{})
	for _, dir := range []string{"/cloud-init/", "/cloud-init/" + string(uuidA) + "/", "/cloud-init/" + strings.ToUpper(string(uuidA.Swapped())) + "/", "/cloud-init/t/" + secret + "/", "//cloud-init//"} {
		// In the order in which cloud-init asks.
		w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now()})
		w.attempts.seen = nil
		meta := get(t, base+dir+"meta-data")
		require.Equal(t, 200, meta.StatusCode, dir)
		require.Equal(t, render.MetaData(w.plan, data), meta.body)
		require.Empty(t, w.attempts.seen, "meta-data consumes nothing")
		user := get(t, base+dir+"user-data")
		require.Equal(t, data.UserData, user.body, dir)
		require.Equal(t, "no-store", user.Header.Get("Cache-Control"))
		o := w.attempts.observed(boot.StageCloudInit)
		require.Len(t, o, 1)
		require.True(t, o[0].Complete)
		vendor := get(t, base+dir+"vendor-data")
		require.Equal(t, 200, vendor.StatusCode, "a missing one would be asked for ten times")
		require.Empty(t, vendor.body)
		network := get(t, base+dir+"network-config")
		require.Equal(t, 404, network.StatusCode)
		require.Contains(t, string(network.body), "NoNetworkConfig")
		require.Equal(t, 404, get(t, base+dir+"other").StatusCode)
		require.Equal(t, 404, get(t, base+dir).StatusCode)
	}
	data.VendorData, data.NetworkConfig = []byte("v"), []byte("n")
	w.secrets.clouds[w.plan.Object.UID] = data
	require.Equal(t, "v", string(get(t, base+"/cloud-init/vendor-data").body))
	require.Equal(t, "n", string(get(t, base+"/cloud-init/network-config").body))
	require.NotContains(t, w.log.String(), secret[:20])
	require.Contains(t, w.log.String(), cloudTokenPrefix+"-", "the control: the path was logged")
}

func TestUserDataIsForTheProvenMachineWhileItsAttemptIsOpen(t *testing.T) {
	w := newWorld(t, cloud)
	base := w.bootServer()
	unknown := ask(t, addrC, http.MethodGet, base+"/ignition")
	old := w.mint(w.plan, 1, boot.AudienceSecret, boot.Proxy, netip.Addr{})
	bootToken := w.mint(w.plan, 1, boot.AudienceBoot, boot.Proxy, netip.Addr{})
	for file := range cloudInitFiles {
		for _, dir := range []string{"/cloud-init/", "/cloud-init/" + string(uuidA) + "/", "/cloud-init/junk/", "/cloud-init/t/junk/", "/cloud-init/t/" + bootToken + "/"} {
			a := ask(t, addrC, http.MethodGet, base+dir+file, "X-Forwarded-For", "127.0.0.1, "+string(macA))
			require.Equal(t, 404, a.StatusCode, dir+file)
			require.Equal(t, unknown.body, a.body)
		}
	}
	require.Zero(t, w.secrets.calls)

	w.attempts.set(w.plan, boot.Attempt{})
	a := get(t, base+"/cloud-init/meta-data")
	require.Equal(t, 503, a.StatusCode, "no attempt yet")
	require.Equal(t, "5", a.Header.Get("Retry-After"))
	w.attempts.set(w.plan, boot.Attempt{Number: 1, OpenedAt: w.clock.now()})
	require.Equal(t, 200, get(t, base+"/cloud-init/user-data").StatusCode)
	require.Equal(t, 403, ask(t, addrC, http.MethodGet, base+"/cloud-init/t/"+old+"/meta-data").StatusCode, "contested")
	require.NotEmpty(t, w.attempts.observed(boot.StageContested))
	w.clock.step(boot.SecretGrace + time.Second)
	require.Equal(t, 403, get(t, base+"/cloud-init/meta-data").StatusCode)
	w.attempts.set(w.plan, boot.Attempt{Number: 2, OpenedAt: w.clock.now()})
	require.Equal(t, 200, get(t, base+"/cloud-init/user-data").StatusCode)
	require.Equal(t, 404, get(t, base+"/cloud-init/t/"+old+"/user-data").StatusCode, "of an earlier attempt")
	w.secrets.broken = boot.ErrUnavailable
	require.Equal(t, 503, get(t, base+"/cloud-init/user-data").StatusCode)
}

func TestEachKindOfDocumentHasItsOwnRoute(t *testing.T) {
	w := newWorld(t, cloud)
	base := w.bootServer()
	a := get(t, base+"/ignition")
	require.Equal(t, 404, a.StatusCode)
	require.Contains(t, string(a.body), "NoIgnition")
	w.plan.HasIgnition, w.plan.HasCloudInit = true, false
	a = get(t, base+"/cloud-init/user-data")
	require.Equal(t, 404, a.StatusCode)
	require.Contains(t, string(a.body), "NoUserData")
}

func TestCloudInitOnAClaim(t *testing.T) {
	w := newWorld(t, cloud)
	base := w.bootServer()
	dir := base + "/cloud-init/" + string(uuidA) + "/"
	require.Equal(t, 404, ask(t, addrC, http.MethodGet, dir+"user-data").StatusCode, "the control")
	w.plan.MinimumProof = boot.Claimed
	require.Equal(t, 200, ask(t, addrC, http.MethodGet, dir+"meta-data").StatusCode)
	require.Equal(t, 200, ask(t, addrC, http.MethodGet, dir+"user-data").StatusCode)
	require.Equal(t, 404, ask(t, addrB, http.MethodGet, dir+"user-data").StatusCode, "somebody else's already")
}

func TestCloudInitIsToldWhatTheMachinesSecretsSay(t *testing.T) {
	w := newWorld(t, cloud)
	base := w.bootServer()
	plain := string(get(t, base+"/cloud-init/meta-data").body)
	data := w.secrets.clouds[w.plan.Object.UID]
	data.MetaData = map[string]string{"name": "Node-7", "providerid": "metal3://a/b/c", "instance-id": "forged"}
	data.NetworkConfig = []byte("version: 2\n")
	w.secrets.clouds[w.plan.Object.UID] = data
	for _, dir := range []string{"/cloud-init/", "/cloud-init/" + string(uuidA) + "/"} {
		meta := string(get(t, base+dir+"meta-data").body)
		require.Contains(t, meta, "local-hostname: \"node-7\"\n")
		require.Contains(t, meta, "\"providerid\": \"metal3://a/b/c\"\n")
		require.NotContains(t, meta, "forged")
		first, _, _ := strings.Cut(plain, "\n")
		require.Equal(t, first, strings.Split(meta, "\n")[0], "the instance-id is of the provisioning")
		require.Equal(t, "version: 2\n", string(get(t, base+dir+"network-config").body))
	}
	w.clock.step(boot.SecretGrace + boot.AttemptLifetime)
	for _, file := range []string{"meta-data", "network-config"} {
		a := get(t, base+"/cloud-init/"+file)
		require.Equal(t, 403, a.StatusCode, "they are secrets too")
		require.NotContains(t, string(a.body), "metal3")
	}
}

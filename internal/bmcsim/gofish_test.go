package bmcsim

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stmcginnis/gofish"
	schema "github.com/stmcginnis/gofish/schemas"
	"github.com/stretchr/testify/require"
)

// serveTLS serves the BMC with a certificate of the test's.
func (s *bench) serveTLS() *httptest.Server {
	server := httptest.NewUnstartedServer(s.BMC)
	server.Listener = s.Listener(server.Listener)
	server.StartTLS()
	s.t.Cleanup(server.Close)
	return server
}

func connect(t *testing.T, s *bench, basic bool) *gofish.APIClient {
	server := s.serveTLS()
	client, err := gofish.ConnectContext(t.Context(), gofish.ClientConfig{
		Endpoint: server.URL, Username: testUser, Password: testPassword, BasicAuth: basic, NoModifyTransport: true,
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}},
	})
	require.NoError(t, err)
	t.Cleanup(client.Logout)
	return client
}

func TestGofishDrivesEveryProfile(t *testing.T) {
	for _, p := range Profiles() {
		t.Run(p.Name, func(t *testing.T) {
			s := newBench(t, p.Name)
			client := connect(t, s, false)
			require.Equal(t, 1, s.OpenSessions())
			systems, err := client.Service.Systems()
			require.NoError(t, err)
			require.Len(t, systems, 1+len(s.profile.siblings))
			for _, system := range systems {
				if system.UUID == testUUID {
					drive(t, s, system)
				}
			}
			managers, err := client.Service.Managers()
			require.NoError(t, err)
			require.Len(t, managers, 1)
			media, err := managers[0].VirtualMedia()
			require.NoError(t, err)
			require.Len(t, media, 2)
			chassis, err := client.Service.Chassis()
			require.NoError(t, err)
			require.Len(t, chassis, 1)
			client.Logout()
			require.Zero(t, s.OpenSessions())
		})
	}
}

// drive reads what a system is, and switches it.
func drive(t *testing.T, s *bench, system *schema.ComputerSystem) {
	require.Equal(t, schema.OffPowerState, system.PowerState)
	nics, err := system.EthernetInterfaces()
	require.NoError(t, err)
	require.Len(t, nics, 2)
	processors, err := system.Processors()
	require.NoError(t, err)
	require.EqualValues(t, 8, *processors[0].TotalThreads)
	memory, err := system.Memory()
	require.NoError(t, err)
	require.Equal(t, 2048, *memory[0].CapacityMiB)
	storage, err := system.Storage()
	require.NoError(t, err)
	disks, err := storage[0].Drives()
	require.NoError(t, err)
	require.Len(t, disks, 2)
	secure, err := system.SecureBoot()
	require.NoError(t, err)
	require.False(t, secure.SecureBootEnable)
	options, err := system.BootOptions()
	require.NoError(t, err)
	require.Len(t, options, 3)
	types, err := system.GetSupportedResetTypes()
	require.NoError(t, err)
	require.Contains(t, types, schema.ForceOffResetType)
	_, err = system.Reset(schema.OnResetType)
	require.NoError(t, err)
	require.True(t, s.machine.IsOn())
	_, err = system.Reset(schema.ForceOffResetType)
	require.NoError(t, err)
	require.False(t, s.machine.IsOn())
}

func TestGofishSetsABootThatHappensOnce(t *testing.T) {
	s := newBench(t, "generic")
	client := connect(t, s, true)
	require.Zero(t, s.OpenSessions(), "basic authentication opens none")
	system, err := schema.GetComputerSystem(client, s.SystemPath())
	require.NoError(t, err)
	require.NoError(t, system.SetBoot(&schema.Boot{
		BootSourceOverrideEnabled: schema.OnceBootSourceOverrideEnabled, BootSourceOverrideTarget: schema.UefiHTTPBootSource,
		BootSourceOverrideMode: schema.UEFIBootSourceOverrideMode, HTTPBootURI: "https://10.0.0.2/b",
	}))
	_, err = system.Reset(schema.OnResetType)
	require.NoError(t, err)
	_, next := s.machine.Boots()
	require.Equal(t, NextBoot{Kind: KindHTTP, URL: "https://10.0.0.2/b"}, next)
	bios, err := system.Bios()
	require.NoError(t, err)
	require.NoError(t, bios.UpdateBiosAttributes(schema.SettingsAttributes{"BootTimeout": 9}))
	require.Equal(t, 5, s.Attribute("BootTimeout"))
	s.boots()
	require.Equal(t, 9, s.Attribute("BootTimeout"))
}

package redfish

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// furnish gives the machine hardware.
func (f *fakeBMC) furnish() {
	f.docs[sysPath]["BiosVersion"] = "U32"
	f.docs[sysPath]["MemorySummary"] = doc{"TotalSystemMemoryGiB": 63.5}
	for kind, members := range map[string]map[string]doc{
		"Processors": {
			"CPU1": {"ProcessorType": "CPU", "InstructionSet": "x86-64", "Model": " Xeon ", "TotalCores": 8, "TotalThreads": 16, "MaxSpeedMHz": 3200},
			"CPU2": {"ProcessorType": "CPU", "Status": doc{"State": "Absent"}, "TotalThreads": 16},
			"GPU1": {"ProcessorType": "GPU", "TotalThreads": 4096},
		},
		"EthernetInterfaces": {
			"NIC.1": {"MACAddress": "52-54-00-AA-BB-01", "SpeedMbps": 10000, "LinkStatus": "LinkUp", "IPv4Addresses": []doc{{"Address": "10.0.0.7"}, {"Address": "0.0.0.0"}}, "IPv6Addresses": []doc{{"Address": "FE80::1"}, {"Address": "2001:DB8::7"}}},
			"NIC.2": {"MACAddress": "", "PermanentMACAddress": "525400AABB02"},
			"NIC.3": {"MACAddress": "00:00:00:00:00:00"},
		},
		"Storage": {"RAID.1": {"Drives": []doc{ref(sysPath + "/D1"), ref(sysPath + "/D2")}}},
	} {
		f.docs[sysPath][kind] = ref(sysPath + "/" + kind)
		var paths []string
		for id, d := range members {
			d["Id"], d["@odata.id"] = id, sysPath+"/"+kind+"/"+id
			f.docs[sysPath+"/"+kind+"/"+id] = d
			paths = append(paths, sysPath+"/"+kind+"/"+id)
		}
		f.docs[sysPath+"/"+kind] = collection(paths...)
	}
	f.docs[sysPath+"/D1"] = doc{"Id": "D1", "CapacityBytes": int64(480103981056), "MediaType": "SSD", "Protocol": "NVMe", "SerialNumber": "N1 ", "Identifiers": []doc{{"DurableNameFormat": "NAA", "DurableName": "5000c500a1b2c3d4"}}}
	f.docs[sysPath+"/D2"] = doc{"Id": "D2", "CapacityBytes": int64(2000398934016), "MediaType": "HDD", "Protocol": "SAS"}
}

func (f *fakeBMC) hardware() (hw Hardware, err error) {
	err = f.do(func(ctx context.Context, b BMC) error {
		hw, err = b.Hardware(ctx)
		return err
	})
	return hw, err
}

func TestHardware(t *testing.T) {
	f := newFake(t)
	f.furnish()
	hw, err := f.hardware()
	require.NoError(t, err)
	require.Equal(t, Hardware{
		BIOSVersion: "U32", MemoryMiB: 65024,
		CPU: CPU{Architecture: "amd64", Model: "Xeon", Count: 16, MaxMHz: 3200},
		NICs: []NIC{
			{Name: "NIC.1", MAC: "52:54:00:aa:bb:01", Addrs: []string{"10.0.0.7", "2001:db8::7"}, SpeedMbs: 10000, LinkUp: true},
			{Name: "NIC.2", MAC: "52:54:00:aa:bb:02"},
		},
		Disks: []Disk{
			{Name: "D1", Serial: "N1", Bytes: 480103981056, Type: "NVME", WWN: "5000c500a1b2c3d4"},
			{Name: "D2", Bytes: 2000398934016, Type: "HDD", Rotational: true},
		},
	}, hw)
	require.Empty(t, f.writes())
}

func TestAPartThatCannotBeReadIsToldAndTheRestIsThere(t *testing.T) {
	f := newFake(t)
	f.furnish()
	delete(f.docs[sysPath], "Processors")
	f.docs[sysPath+"/D1"]["CapacityBytes"] = "a lot"
	f.refuseWith("GET "+sysPath+"/EthernetInterfaces", 9, 404, "ResourceNotFound", "")
	hw, err := f.hardware()
	require.NoError(t, err)
	require.Len(t, hw.Disks, 1)
	require.Len(t, hw.Missing, 3)
	require.Contains(t, strings.Join(hw.Missing, "\n"), "network interfaces: ")
}

func TestNothingMoreIsAskedOfABMCThatIsBusy(t *testing.T) {
	f := newFake(t)
	f.furnish()
	f.refuseWith("GET "+sysPath+"/Processors", 9, 503, "GeneralError", "")
	hw, err := f.hardware()
	require.NoError(t, err)
	require.Len(t, hw.Missing, 3)
	for _, s := range f.log {
		require.NotContains(t, s.Path, "EthernetInterfaces")
	}
}

func TestAHostileCollectionIsBoundedAndStaysOnTheHost(t *testing.T) {
	f := newFake(t)
	f.furnish()
	var many []string
	for i := range 5000 {
		many = append(many, fmt.Sprintf("%s/EthernetInterfaces/%d", sysPath, i))
	}
	nics := collection(many...)
	nics["Members@odata.nextLink"] = sysPath + "/EthernetInterfaces"
	f.docs[sysPath+"/EthernetInterfaces"] = nics
	hw, err := f.hardware()
	require.NoError(t, err)
	require.Less(t, f.requests(), 2*maxMembers)
	require.Len(t, hw.Missing, maxMissing)
	f.docs[sysPath+"/EthernetInterfaces"] = collection("https://evil.example/x")
	_, err = f.hardware()
	require.ErrorIs(t, err, ErrLeavesHost)
}

func TestIdentity(t *testing.T) {
	f := newFake(t)
	f.vendor("Dell", "14G Monolithic")
	require.NoError(t, f.do(func(ctx context.Context, b BMC) error {
		id, err := b.Identity(ctx)
		require.Equal(t, Identity{
			SystemPath: sysPath, UUID: uuidA, Serial: "S-1", Manufacturer: "Maker", BMCModel: "14G Monolithic", BMCFirmware: "1.0",
			RedfishVersion: "1.15.0", Vendor: "Dell",
		}, id)
		return err
	}))
}

func TestSecureBoot(t *testing.T) {
	f := newFake(t)
	set := func(on bool) error {
		return f.do(func(ctx context.Context, b BMC) error { return b.SetSecureBoot(ctx, on) })
	}
	require.ErrorIs(t, set(true), ErrUnsupported)
	f.docs[sysPath]["SecureBoot"] = ref(sysPath + "/SecureBoot")
	f.docs[sysPath+"/SecureBoot"] = doc{"SecureBootEnable": false, "SecureBootCurrentBoot": "Disabled", "SecureBootMode": "UserMode"}
	require.NoError(t, set(false))
	require.NoError(t, set(true))
	requireWrites(t, f, "PATCH "+sysPath+`/SecureBoot {"SecureBootEnable":true}`)
	require.NoError(t, f.do(func(ctx context.Context, b BMC) error {
		s, err := b.SecureBoot(ctx)
		require.Equal(t, SecureBootState{Enabled: true, Current: "Disabled", Mode: "UserMode"}, s)
		return err
	}))
}

func TestABootCertificateIsAddedOnce(t *testing.T) {
	f := newFake(t)
	add := func(text []byte) error {
		return f.do(func(ctx context.Context, b BMC) error { return b.AddBootCertificate(ctx, text) })
	}
	require.ErrorIs(t, add(f.ca()), ErrUnsupported)
	require.ErrorIs(t, add([]byte("x")), boot.ErrInvalid)
	f.boot()["Certificates"] = ref(sysPath + "/Certificates")
	f.docs[sysPath+"/Certificates"] = collection(sysPath + "/Certificates/1")
	f.docs[sysPath+"/Certificates/1"] = doc{"CertificateString": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("other")}))}
	require.NoError(t, add(f.ca()))
	require.Len(t, f.writes(), 1)
	f.docs[sysPath+"/Certificates/1"]["CertificateString"] = string(bytes.TrimSpace(f.ca()))
	require.NoError(t, add(f.ca()))
	require.Len(t, f.writes(), 1)
}

func TestVirtualMedia(t *testing.T) {
	f := newFake(t)
	run := func(do func(ctx context.Context, b BMC) error) error { return f.do(do) }
	insert := func(ctx context.Context, b BMC) error { return b.InsertMedia(ctx, bootURL) }
	require.ErrorIs(t, run(insert), ErrUnsupported)
	const drive = "/redfish/v1/Managers/1/VirtualMedia/2"
	f.docs["/redfish/v1/Managers/1"]["VirtualMedia"] = ref("/redfish/v1/Managers/1/VirtualMedia")
	f.docs["/redfish/v1/Managers/1/VirtualMedia"] = collection("/redfish/v1/Managers/1/VirtualMedia/1", drive)
	f.docs["/redfish/v1/Managers/1/VirtualMedia/1"] = doc{"MediaTypes": []string{"USBStick"}}
	f.docs[drive] = doc{"MediaTypes": []string{"CD", "DVD"}, "Inserted": false, "Actions": doc{"#VirtualMedia.InsertMedia": doc{"target": drive + "/Insert"}, "#VirtualMedia.EjectMedia": doc{"target": drive + "/Eject"}}}
	require.NoError(t, run(func(ctx context.Context, b BMC) error { return b.EjectMedia(ctx) }))
	require.NoError(t, run(insert))
	f.docs[drive]["Inserted"], f.docs[drive]["Image"] = true, "https://other"
	require.NoError(t, run(insert))
	requireWrites(t, f,
		"POST "+drive+`/Insert {"Image":"`+bootURL+`","Inserted":true,"WriteProtected":true}`,
		"POST "+drive+"/Eject {}",
		"POST "+drive+`/Insert {"Image":"`+bootURL+`","Inserted":true,"WriteProtected":true}`)
}

func TestAProbeTellsWhatWouldBeSentAndWritesNothing(t *testing.T) {
	f := newFake(t)
	f.vendor("HPE", "iLO 6")
	f.bios(doc{"UrlBootFile": ""})
	c, _ := newClients(Limits{})
	con := f.connection()
	con.Session = true
	p, err := c.Probe(t.Context(), con)
	require.NoError(t, err)
	require.Equal(t, []string{sysPath}, p.Systems)
	require.Equal(t, PowerOff, p.Power.State)
	require.Contains(t, p.ResetTypes, "ForceOff")
	require.Equal(t, BootPaths{HTTP: true, PXE: true, PinsURL: "UrlBootFile"}, p.Paths)
	require.Equal(t, []PlannedRequest{
		{Method: "PATCH", Path: sysPath, IfMatch: `W/"0"`, Body: `{"Boot":{"BootSourceOverrideEnabled":"Once","BootSourceOverrideTarget":"UefiHttp"}}`},
		{Method: "PATCH", Path: biosPath + "/Settings", IfMatch: `W/"0"`, Body: `{"Attributes":{"UrlBootFile":"` + probeURL + `"}}`},
	}, p.Plans[0].Requests)
	require.Len(t, p.Plans, 3)
	require.Len(t, p.Quirks, 4)
	require.Nil(t, p.SecureBoot)
	require.Empty(t, f.writes())
	require.Empty(t, f.sessions)
	f.docs["/redfish/v1/Systems"] = collection(sysPath, "/redfish/v1/Systems/2")
	p, err = c.Probe(t.Context(), con)
	require.ErrorIs(t, err, ErrSeveralSystems)
	require.Len(t, p.Systems, 2)
}

func TestQuirksGoByWhatABMCSaysOfItself(t *testing.T) {
	names := func(set func(f *fakeBMC)) (all []string) {
		f := newFake(t)
		set(f)
		require.NoError(t, f.do(func(_ context.Context, b BMC) error {
			for _, q := range b.Quirks() {
				require.NotEmpty(t, q.Reason)
				all = append(all, q.Name)
			}
			return nil
		}))
		return all
	}
	for want, set := range map[string]func(f *fakeBMC){
		"": func(f *fakeBMC) { f.vendor("Dynamic Systems", "Amiable") },
		"mode-only-if-different never-continuous url-by-bios-attribute":                                                             func(f *fakeBMC) { f.vendor("Dell", "14G Monolithic") },
		"mode-only-if-different never-continuous url-by-bios-attribute refuses-what-it-did":                                         func(f *fakeBMC) { f.vendor("Dell", "13G Monolithic") },
		"mode-only-if-different never-continuous url-by-bios-attribute system-then-settings https-boot-only no-if-match-on-actions": func(f *fakeBMC) { f.vendor("Dell", "17G Monolithic") },
		"no-mode-write url-by-bios-attribute clear-with-pxe arm-while-off":                                                          func(f *fakeBMC) { f.docs["/redfish/v1/"]["Oem"] = doc{"Hpe": doc{}} },
		"mode-always":                 func(f *fakeBMC) { f.docs[sysPath]["Manufacturer"] = "Supermicro" },
		"no-uefihttp if-match-ladder": func(f *fakeBMC) { f.vendor("Lenovo", "Lenovo XClarity Controller") },
		"future-state":                func(f *fakeBMC) { f.docs["/redfish/v1/"]["Oem"] = doc{"Ami": doc{}} },
		"no-uefihttp": func(f *fakeBMC) {
			f.vendor("OpenBMC", "x")
			f.docs["/redfish/v1/Managers/1"]["FirmwareVersion"] = "2.9.0-dev"
		},
		"override-stays": func(f *fakeBMC) { f.vendor("Nvidia", "BlueField-3 BMC") },
		"ignores-once":   func(f *fakeBMC) { f.docs[sysPath]["Manufacturer"] = "Sushy Emulator" },
	} {
		require.Equal(t, want, strings.Join(names(set), " "))
	}
	require.Empty(t, names(func(f *fakeBMC) {
		f.vendor("OpenBMC", "x")
		f.docs["/redfish/v1/Managers/1"]["FirmwareVersion"] = "2.14.0"
	}))
}

// FuzzResponse protects that no answer makes us panic, hang, leave the host or
// grow, whatever is done with it.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		`{"Systems":{"@odata.id":"/redfish/v1/Systems"},"Members":[{"@odata.id":"/redfish/v1/Systems/1"}],"Boot":{"HttpBootUri":null,"BootOrder":["a"],"BootOptions":{"@odata.id":"/x"}},"UUID":1}`,
		`{"Systems":{"@odata.id":"https://evil/"},"Processors":{"@odata.id":"/redfish/v1/"},"Members@odata.nextLink":"/redfish/v1/"}`,
		`{"error":{"@Message.ExtendedInfo":[{"MessageId":"Base.1.0.PropertyNotWritable","MessageArgs":["BootSourceOverrideMode"]},1,null]}}`,
		`{"Attributes":{"HttpDev1Uri":1,"HttpDev1EnDis":[]},"Bios":{"@odata.id":"/b"},"MemorySummary":{"TotalSystemMemoryGiB":1e300}}`,
		`{"SecureBoot":{"@odata.id":"/s"},"SecureBootDatabases":{"@odata.id":"/d"},"Certificates":{"@odata.id":"/c"},"Signatures":{"@odata.id":"/x"},"Members":[{"@odata.id":"/d/1"}],"Members@odata.count":1e99,"CertificateString":"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n","Subject":{"CommonName":"a"},"Actions":{"#SecureBoot.ResetKeys":{"target":"//evil/"}}}`,
		`<html>`, `null`, `[]`, `{"Parameters":[{"Name":"ResetType"}]}`, ``,
	} {
		f.Add([]byte(s), 200, "", `W/"1"`)
		f.Add([]byte(s), 400, "Fri, 31 Dec 1999 23:59:59 GMT", "")
	}
	f.Add([]byte(`{"Systems":{"@odata.id":"/redfish/v1/"}}`), 412, "99999999999999999999", "\x00\r\n")
	f.Fuzz(func(t *testing.T, body []byte, code int, retry, etag string) {
		code = 200 + (code%400+400)%400
		served := 0
		serve := roundTrip(func(r *http.Request) (*http.Response, error) {
			served++
			answer := body
			if r.URL.Path == "/redfish/v1/" && served == 1 {
				answer = []byte(`{"Systems":{"@odata.id":"/redfish/v1/Systems"}}`)
				return response(r, 200, answer, http.Header{}), nil
			}
			h := http.Header{"Retry-After": {retry}, "Etag": {etag}, "Location": {string(body)}}
			status := code
			if served%3 != 0 { // most answers are successes, or nothing is reached
				status = 200
			}
			return response(r, status, answer, h), nil
		})
		exercise(t, serve)
		require.Less(t, served, 1200)
	})
}

// fuzzedCertificate is one that is valid.
var fuzzedCertificate = sync.OnceValue(func() []byte {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
})

type roundTrip func(r *http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func exercise(t *testing.T, serve http.RoundTripper) {
	c, _ := newClients(Limits{MaxBody: 1 << 20})
	a, err := ParseAddress("redfish+http://10.0.0.5/redfish/v1/Systems/1")
	require.NoError(t, err)
	con := Connection{Address: a, Username: "admin", Password: password}
	l, err := c.link(con, c.account(a.Host))
	require.NoError(t, err)
	l.http.Transport.(*transport).base = serve
	b, err := l.connect(t.Context())
	if err != nil || b.choose(t.Context()) != nil {
		return
	}
	b.manager.path = "/redfish/v1/Managers/1"
	for _, do := range []func(ctx context.Context) error{
		func(ctx context.Context) error { _, err := b.Power(ctx); return err }, b.On, b.Off, b.Shutdown, b.Restart,
		func(ctx context.Context) error { _, err := b.BootPaths(ctx); return err },
		func(ctx context.Context) error {
			_, err := b.Arm(ctx, BootRequest{Tactic: TacticHTTP, URL: bootURL})
			return err
		},
		func(ctx context.Context) error { _, err := b.Arm(ctx, BootRequest{Tactic: TacticPXE}); return err },
		func(ctx context.Context) error { return b.Disarm(ctx, "HttpBootUri") },
		func(ctx context.Context) error { return b.Disarm(ctx, "HttpDev1Uri") },
		func(ctx context.Context) error { return b.PreferNetwork(ctx, "", true) },
		func(ctx context.Context) error { _, err := b.Identity(ctx); return err },
		func(ctx context.Context) error { _, err := b.Hardware(ctx); return err },
		func(ctx context.Context) error { return b.SetSecureBoot(ctx, true) },
		func(ctx context.Context) error { _, err := b.SecureBootDatabase(ctx, "1"); return err },
		func(ctx context.Context) error {
			_, err := b.AddSecureBootCertificate(ctx, "1", fuzzedCertificate())
			return err
		},
		func(ctx context.Context) error { return b.ResetSecureBootKeys(ctx, "1", ResetToDefault) },
		func(ctx context.Context) error { return b.ResetSecureBootKeys(ctx, "", ResetDeletePK) },
		func(ctx context.Context) error { return b.InsertMedia(ctx, bootURL) }, b.EjectMedia,
		func(ctx context.Context) error { return (&Probe{}).fill(ctx, b) },
	} {
		if err := do(t.Context()); err != nil {
			var e *Error
			require.True(t, errors.As(err, &e), "%v", err)
			require.NotContains(t, err.Error(), password)
			require.NotContains(t, err.Error(), bootURL)
			require.NotContains(t, err.Error(), "\n")
			require.LessOrEqual(t, RetryAfter(err), longestWait)
		}
	}
}

func response(r *http.Request, code int, body []byte, h http.Header) *http.Response {
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(bytes.NewReader(body)), Request: r, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
}

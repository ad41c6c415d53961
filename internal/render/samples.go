package render

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// sample is what a template is tried on when it is loaded.
type sample struct {
	name string
	data *Data
}

// samples are plans with and without each of the things that a plan may lack.
var samples = sync.OnceValue(func() []sample {
	full := samplePlan()
	bare := &boot.Plan{Artifacts: full.Artifacts[:2]}
	foreign := &boot.Plan{Machine: boot.Machine{MACs: full.Machine.MACs}, HasCloudInit: true, Foreign: map[boot.Role]string{
		boot.RoleKernel: "http://example.com/vmlinuz", boot.RoleInitrd: "https://example.com/initrd",
	}}
	noSquashfs := *full
	noSquashfs.Artifacts = full.Artifacts[:2]
	links := Links{Base: "http://10.0.0.1:8082"}
	tokens := Links{Base: "https://[2001:db8::1]:8443", BootToken: strings.Repeat("b", 80), SecretToken: strings.Repeat("s", 80)}
	list := []sample{
		{"a machine with everything", mustData(full, links)},
		{"a machine that is proven by a token", mustData(full, tokens)},
		{"an image without a squashfs", mustData(&noSquashfs, links)},
		{"a config with kernelURL and initrdURL", mustData(foreign, links)},
		{"a machine without UUID, Ignition and arguments", mustData(bare, links)},
	}
	return append(list, sample{"a config that says nothing", &Data{}})
})

func samplePlan() *boot.Plan {
	digest := func(c string) boot.Digest { return boot.Digest("sha256:" + strings.Repeat(c, 64)) }
	return &boot.Plan{
		Object: boot.Ref{Kind: "IPXEBootConfig", Namespace: "default", Name: "node-1", UID: "5a0c7cd6-23f8-4d8a-9d4f-2f6b2d9e5a11"},
		Machine: boot.Machine{
			UUID: "00112233-4455-6677-8899-aabbccddeeff", MACs: []boot.MAC{"52:54:00:aa:bb:01", "52:54:00:aa:bb:02"},
			Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.5")}, Architecture: boot.AMD64,
			Labels: map[string]string{"serial": "ABC 123", "buildarch": "x86_64", "platform": "efi", "product": "Model 7"},
		},
		Artifacts: []boot.Artifact{
			{Role: boot.RoleKernel, Digest: digest("a")}, {Role: boot.RoleInitrd, Digest: digest("b")}, {Role: boot.RoleSquashfs, Digest: digest("c")},
		},
		KernelArguments: []string{"quiet", "rd.break=cmdline"},
		HasIgnition:     true,
	}
}

func mustData(p *boot.Plan, l Links) *Data {
	l, err := l.checked()
	if err != nil {
		panic(fmt.Sprintf("a sample plan: %v", err))
	}
	d, err := newData(p, l, true)
	if err != nil {
		panic(fmt.Sprintf("a sample plan: %v", err))
	}
	return d
}

package render

import (
	"fmt"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Data is what a script template can use. Every string in it is safe in an iPXE
// script, wherever the template puts it: URLs and what the machine says of
// itself are percent-encoded, kernel arguments were checked. What a plan does
// not have is empty. It has no methods, and nothing else can be reached from it.
type Data struct {
	// Base is the URL of the boot server, without a slash at the end.
	Base string
	// Namespace and Name are those of the config.
	Namespace, Name string
	// UUID is the machine's SMBIOS UUID, where the config says it.
	UUID string
	// MAC is the first of MACs, which are those that the config lists, with
	// colons.
	MAC  string
	MACs []string
	// Architecture is amd64 or arm64.
	Architecture string
	// KernelURL, InitrdURL and SquashfsURL are where to fetch what to boot. The
	// digest of each, "sha256:" and hexadecimal digits, is known only of what
	// comes from the operator's store.
	KernelURL, KernelDigest     string
	InitrdURL, InitrdDigest     string
	SquashfsURL, SquashfsDigest string
	// IgnitionURL is where Ignition finds its document.
	IgnitionURL string
	// CloudInitURL is the seed of cloud-init's NoCloud data source; it ends in a
	// slash.
	CloudInitURL string
	// Arguments are the kernelArguments of the config.
	Arguments []string
	// CommandLine is the whole command line of the default script, Arguments
	// included.
	CommandLine string
	// Labels are what the machine said of itself when it asked for its script, by
	// the names of LabelKeys: claims, that prove nothing.
	Labels map[string]string
}

// LabelKeys are the labels that templates can use. Others are left out.
var LabelKeys = []string{"asset", "buildarch", "manufacturer", "mac", "platform", "product", "serial", "uuid"}

// newData makes the data of a plan. The built-in template needs no more than
// what all leaves out.
func newData(p *boot.Plan, l Links, all bool) (*Data, error) {
	d := &Data{Base: l.Base, IgnitionURL: l.ignition(p), CloudInitURL: l.cloudInit(p), Arguments: p.KernelArguments}
	var err error
	if d.KernelURL, d.KernelDigest, err = l.artifact(p, boot.RoleKernel); err != nil {
		return nil, err
	}
	if d.InitrdURL, d.InitrdDigest, err = l.artifact(p, boot.RoleInitrd); err != nil {
		return nil, err
	}
	if d.SquashfsURL, d.SquashfsDigest, err = l.artifact(p, boot.RoleSquashfs); err != nil {
		return nil, err
	}
	if err := CheckArguments(p.KernelArguments); err != nil {
		return nil, err
	}
	if d.CommandLine, err = d.commandLine(); err != nil {
		return nil, err
	}
	if all {
		d.describe(p)
	}
	return d, nil
}

// describe fills in what is known of the machine and its config.
func (d *Data) describe(p *boot.Plan) {
	d.Namespace, d.Name = escapeWord(p.Object.Namespace), escapeWord(p.Object.Name)
	d.UUID = escapeWord(string(p.Machine.UUID))
	d.Architecture = escapeWord(string(p.Machine.Architecture))
	for _, mac := range p.Machine.MACs {
		d.MACs = append(d.MACs, escapeWord(string(mac)))
	}
	if len(d.MACs) > 0 {
		d.MAC = d.MACs[0]
	}
	d.Labels = make(map[string]string, len(p.Machine.Labels))
	for _, key := range LabelKeys {
		if value, ok := p.Machine.Labels[key]; ok {
			d.Labels[key] = escapeWord(value)
		}
	}
}

// consoles are the consoles of the default script: whichever the machine has.
const consoles = " console=ttyS0,115200 console=tty0 console=ttyAMA0 earlyprintk=ttyS0,115200 consoleblank=0"

// commandLine returns the kernel's command line. The user's arguments come last:
// where one is given twice, the kernel takes the last.
func (d *Data) commandLine() (string, error) {
	b := make([]byte, 0, 1024)
	if d.InitrdURL != "" {
		// EFI kernels look for the initrd by the name that the script gives it.
		b = append(b, "initrd=initrd "...)
	}
	if d.SquashfsURL != "" {
		b = append(append(append(b, "gl.ovl=/:tmpfs gl.url="...), d.SquashfsURL...), " gl.live=1 "...)
	}
	b = append(b, "ip=any"...)
	if d.IgnitionURL != "" {
		b = append(append(b, " ignition.firstboot=1 ignition.config.url="...), d.IgnitionURL...)
		b = append(b, " ignition.platform.id=metal"...)
	}
	if d.CloudInitURL != "" {
		// Every release of cloud-init knows this name; older ones do not take a
		// seed from a URL under the newer one, "nocloud".
		b = append(append(b, " ds=nocloud-net;s="...), d.CloudInitURL...)
	}
	b = append(b, consoles...)
	for _, arg := range d.Arguments {
		b = append(append(b, ' '), arg...)
	}
	if len(b) > MaxCommandLine {
		return "", fmt.Errorf("%w: the kernel's command line would have %d bytes, and kernels cut off what comes after %d: shorten kernelArguments or squashfsURL", boot.ErrInvalid, len(b), MaxCommandLine)
	}
	return string(b), nil
}

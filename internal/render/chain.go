package render

import (
	"bytes"
	"fmt"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// leave is the end of every script: the next boot device. UEFI goes on to its
// next boot entry only when iPXE ends with an error, and a plain exit opens its
// menu; a BIOS goes on either way.
const leave = "exit 1\n"

// nics is how many network interfaces a machine names itself by.
const nics = 8

// Leave returns the script that leaves for the machine's next boot device.
func Leave() []byte {
	return []byte("#!ipxe\necho Nothing to boot from the network; leaving for the next boot device\n" + leave)
}

// Chain returns the script that makes a machine name itself: it asks the boot
// server once, with the MAC addresses of all its network interfaces, its UUID and
// what else it knows of itself, and goes on with the script that it gets. While
// there is none it asks again for five minutes; then it leaves. A base that is
// not an http or https URL gives the script that leaves.
func Chain(base string) []byte {
	l, err := Links{Base: base}.checked()
	if err != nil {
		return Leave()
	}
	var b bytes.Buffer
	b.WriteString("#!ipxe\n" +
		"set bo-query uuid=${uuid}&buildarch=${buildarch}&platform=${platform}\n")
	for i := range nics {
		// The word || at the end makes the line succeed where there is no such
		// interface: a script ends at the first line that fails.
		fmt.Fprintf(&b, "isset ${net%d/mac} && set bo-query ${bo-query}&mac=${net%d/mac:hexhyp} ||\n", i, i)
	}
	// Older builds leave the separators of a query in a uristring as they are, so
	// what a vendor wrote comes after what names the machine.
	b.WriteString("set bo-query ${bo-query}&serial=${serial:uristring}&asset=${asset:uristring}&manufacturer=${manufacturer:uristring}&product=${product:uristring}\n")
	// With --replace the script that comes takes the place of this one: how it
	// ends is then not taken for a failed request.
	b.WriteString("set bo-tries:int32 0\n:ask\nchain --replace " + l.Base + "/ipxe?${bo-query} ||\n" + retry("bo-tries", 30, 10, "ask") + leave)
	return b.Bytes()
}

// retry returns the lines that go back to a label, with pauses in seconds, and
// after so many tries go on.
func retry(counter string, tries, pause int, label string) string {
	return fmt.Sprintf("inc %[1]s\niseq ${%[1]s} %[2]d && goto leave ||\necho Trying again in %[3]d seconds\nsleep %[3]d\ngoto %[4]s\n:leave\n"+
		"echo Nothing was booted; leaving for the next boot device\n", counter, tries, pause, label)
}

// The parts that the default script and that of a UKI share. What fails is
// fetched again from the start, and never ends in iPXE's shell.
var (
	fetchHead = "set tries:int32 0\n:fetch\nimgfree\n"
	fetchTail = "boot || goto leave\n:failed\n" + retry("tries", 6, 5, "fetch") + leave
)

const (
	orFailed = " || goto failed\n"
	// scriptSize is what most scripts fit in, in bytes.
	scriptSize = 2048
)

// defaultScript is what the template Default yields, without the time that
// templates take: machines that boot together ask for it together.
func (d *Data) defaultScript() []byte {
	b := make([]byte, 0, scriptSize)
	b = append(append(b, "#!ipxe\n"...), fetchHead...)
	b = appendDigest(b, d.KernelDigest)
	b = append(append(append(b, "kernel "...), d.KernelURL...), ' ')
	b = append(append(b, d.CommandLine...), orFailed...)
	if d.InitrdURL != "" {
		b = appendDigest(b, d.InitrdDigest)
		b = append(append(append(b, "initrd --name initrd "...), d.InitrdURL...), orFailed...)
	}
	return append(b, fetchTail...)
}

func appendDigest(b []byte, digest string) []byte {
	if digest == "" {
		return b
	}
	return append(append(append(b, "# "...), digest...), '\n')
}

// noOptions names the image by a control character. iPXE passes the name of an EFI
// image as the beginning of its load options, and systemd-stub takes those for the
// kernel's command line, in place of the one in the UKI, unless they begin with
// something unprintable.
const noOptions = "set unprintable:hexraw 01\n"

// ukiScript returns the script that starts a UKI, which is an EFI application:
// on a BIOS machine it leaves.
func ukiScript(p *boot.Plan, l Links) ([]byte, error) {
	url, err := l.uki(p)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, scriptSize)
	b = append(b, "#!ipxe\niseq ${platform} efi || goto leave\n"+fetchHead...)
	if a, ok := p.Artifact(boot.RoleUKI); ok && !p.Composes {
		if err := checkDigest(a.Digest); err != nil {
			return nil, err
		}
		b = appendDigest(b, string(a.Digest))
	}
	b = append(append(append(b, noOptions+"kernel --name ${unprintable:string} "...), url...), orFailed...)
	return append(b, fetchTail...), nil
}

package render

import (
	"fmt"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// grubPlain are the characters that mean nothing to GRUB.
const grubPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/:=,@%+"

// grubLeave is how GRUB gives up its turn. Builds that know no status ignore it.
const grubLeave = "exit 1\n"

// GRUBLeave returns the configuration that leaves for the next boot device.
func GRUBLeave() []byte {
	return []byte("echo 'Nothing to boot from the network; leaving for the next boot device'\n" + grubLeave)
}

// GRUBChain returns the configuration that goes on with the menu of the machine,
// by the MAC address of the interface that GRUB itself came over. While the
// server has none it asks again for two minutes; then it leaves. GRUB speaks no
// https: such a base gives the configuration that leaves.
func GRUBChain(base string) []byte {
	l, err := Links{Base: base}.checked()
	if err != nil {
		return GRUBLeave()
	}
	dir, err := grubPath(l.Base + "/grub/grub.cfg-01-")
	if err != nil {
		return GRUBLeave()
	}
	return []byte("for try in 1 2 3 4 5 6 7 8 9 10 11 12; do\n" +
		"  configfile " + grubQuote(dir) + "\"${net_default_mac}\"\n" +
		"  echo 'Trying again in 10 seconds'\n" +
		"  sleep 10\n" +
		"done\n" + grubLeave)
}

// GRUBMenu returns the menu of a plan, with an entry that leaves for the next
// boot device, also where the first fails. It returns ErrInvalid when something
// in the plan cannot be said in it, an https URL being one such thing, and
// ErrNotFound when the plan has nothing that GRUB could boot.
func GRUBMenu(p *boot.Plan, l Links) ([]byte, error) {
	l, err := l.checked()
	if err != nil {
		return nil, fmt.Errorf("rendering the menu of %s: %w", p.Object, err)
	}
	entry := grubUKI
	switch {
	case p.Composes:
	case has(p, boot.RoleKernel):
		entry = grubLinux
	case !has(p, boot.RoleUKI):
		return nil, fmt.Errorf("rendering the menu of %s: %w: there is neither a kernel nor a UKI", p.Object, boot.ErrNotFound)
	}
	lines, err := entry(p, l)
	if err != nil {
		return nil, fmt.Errorf("rendering the menu of %s: %w", p.Object, err)
	}
	return []byte("set default=0\nset fallback=1\nset timeout=3\n" +
		"menuentry 'Boot from the network' {\n" + lines + "}\n" +
		"menuentry 'Next boot device' {\n  " + grubLeave + "}\n"), nil
}

func grubLinux(p *boot.Plan, l Links) (string, error) {
	d, err := newData(p, l, false)
	if err != nil {
		return "", err
	}
	kernel, err := grubPath(d.KernelURL)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(grubDigest(d.KernelDigest) + "  linux " + grubQuote(kernel))
	for arg := range strings.SplitSeq(d.CommandLine, " ") {
		b.WriteString(" " + grubQuote(arg))
	}
	b.WriteString("\n")
	if d.InitrdURL == "" {
		return b.String(), nil
	}
	initrd, err := grubPath(d.InitrdURL)
	if err != nil {
		return "", err
	}
	b.WriteString(grubDigest(d.InitrdDigest) + "  initrd " + grubQuote(initrd) + "\n")
	return b.String(), nil
}

func grubUKI(p *boot.Plan, l Links) (string, error) {
	u, err := l.uki(p)
	if err != nil {
		return "", err
	}
	path, err := grubPath(u)
	if err != nil {
		return "", err
	}
	return "  chainloader " + grubQuote(path) + "\n", nil
}

func grubDigest(digest string) string {
	if digest == "" {
		return ""
	}
	return "  # " + digest + "\n"
}

// grubPath returns a URL as GRUB names a file: (http,host:port)/path. An IPv6
// address keeps its brackets.
func grubPath(s string) (string, error) {
	rest, ok := strings.CutPrefix(s, "http://")
	if !ok {
		return "", fmt.Errorf("%w: GRUB can fetch only http URLs, not %q", boot.ErrInvalid, clip(s))
	}
	host, path, _ := strings.Cut(rest, "/")
	if host == "" || strings.Trim(host, grubPlain+"[]") != "" || strings.ContainsAny(host, "/=,@%+") {
		return "", fmt.Errorf("%w: %q has no host that GRUB could ask", boot.ErrInvalid, clip(s))
	}
	return "(http," + host + ")/" + path, nil
}

// grubQuote returns one word of a GRUB script. Between single quotes everything
// stands for itself but the single quote.
func grubQuote(s string) string {
	if strings.Trim(s, grubPlain) == "" && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

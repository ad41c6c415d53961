package render

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// MetaData returns the meta-data file of cloud-init's NoCloud data source. Its
// instance-id changes with the object and with its user data, and not from boot
// to boot: cloud-init takes a new one for a new machine and makes new SSH host
// keys. The machine's own meta data is added, whatever it calls its instance.
func MetaData(p *boot.Plan, c boot.CloudInit) []byte {
	sum := sha256.Sum256(c.UserData)
	out := entry(nil, "instance-id", hostName(p.Object.UID)+"-"+hex.EncodeToString(sum[:6]))
	out = entry(out, localHostname, hostNameOf(p, c))
	for _, key := range slices.Sorted(maps.Keys(c.MetaData)) {
		switch key {
		case "instance-id", "instance_id", localHostname:
		default:
			out = entry(out, key, c.MetaData[key])
		}
	}
	return out
}

// localHostname is cloud-init's key for the machine's name.
const localHostname = "local-hostname"

// hostNameOf is the name that the meta data gives the machine, else its config's.
func hostNameOf(p *boot.Plan, c boot.CloudInit) string {
	for _, key := range []string{localHostname, "local_hostname", "name"} {
		if name := strings.TrimSpace(c.MetaData[key]); name != "" {
			return hostName(name)
		}
	}
	return hostName(p.Object.Name)
}

// entry adds a line of YAML. A value is in quotes, since YAML takes 1e5, true or
// 0123 for something else, and so is a key that is not plainly one; Go's escapes of
// ASCII are YAML's too (YAML 1.2, section 5.7).
func entry(out []byte, key, value string) []byte {
	if plainKey.MatchString(key) {
		out = append(out, key...)
	} else {
		out = strconv.AppendQuoteToASCII(out, key)
	}
	out = append(out, ": "...)
	return append(strconv.AppendQuoteToASCII(out, value), '\n')
}

var plainKey = regexp.MustCompile(`^[a-z]+([-_][a-z]+)+$`)

// hostName makes a host name of any string: letters, digits, hyphens and dots,
// in labels of at most 63 bytes (RFC 1123 section 2.1), 253 together.
func hostName(s string) string {
	var labels []string
	n := 0
	for label := range strings.SplitSeq(strings.ToLower(s), ".") {
		label = hostLabel(label)
		if label == "" {
			continue
		}
		if n += len(label) + 1; n > 254 {
			break
		}
		labels = append(labels, label)
	}
	if len(labels) == 0 {
		return "localhost"
	}
	return strings.Join(labels, ".")
}

func hostLabel(s string) string {
	b := []byte(s)
	for i, c := range b {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			b[i] = '-'
		}
	}
	label := strings.Trim(string(b), "-")
	return strings.TrimRight(label[:min(len(label), 63)], "-")
}

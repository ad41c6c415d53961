package render

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// MetaData returns the meta-data file of cloud-init's NoCloud data source. Its
// instance-id changes with the object and with its user data, and not from boot
// to boot: cloud-init takes a new one for a new machine and makes new SSH host
// keys.
func MetaData(p *boot.Plan, c boot.CloudInit) []byte {
	sum := sha256.Sum256(c.UserData)
	id := hostName(p.Object.UID) + "-" + hex.EncodeToString(sum[:6])
	// In quotes, since YAML takes 1e5, true or 0123 for something else.
	return []byte("instance-id: \"" + id + "\"\nlocal-hostname: \"" + hostName(p.Object.Name) + "\"\n")
}

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

package httpserver

import (
	"net/url"
	"slices"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Bounds of what a machine may say of itself.
const (
	maxLabels   = 32
	maxLabelKey = 64
	maxLabel    = 256
	// maxNames bounds the MAC addresses, and the UUIDs, that are looked up.
	maxNames = 32
)

// said is what a machine says of itself in a query: nothing of it is proven.
type said struct {
	names
	// labels are what else it said, by key; the first of several counts.
	labels map[string]string
}

// readSaid reads a query. What is no MAC address, no UUID or no label is left
// out: firmware that does not know a thing of itself leaves it empty.
func readSaid(query string) said {
	var out said
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		key, keyErr := url.QueryUnescape(key)
		value, err := url.QueryUnescape(value)
		if keyErr != nil || err != nil || value == "" || key == "token" {
			continue
		}
		switch key {
		case "mac":
			_ = out.addMAC(value) // a label all the same
		case "uuid":
			_ = out.addUUID(value) // as above
		}
		out.addLabel(key, value)
	}
	return out
}

func (s *said) addMAC(value string) bool {
	mac, err := boot.ParseMAC(value)
	if err != nil || len(s.macs) >= maxNames {
		return false
	}
	s.macs = append(s.macs, mac)
	return true
}

// addUUID leaves out the placeholders that identify nobody, too.
func (s *said) addUUID(value string) bool {
	uuid, err := boot.ParseUUID(value)
	if err != nil || len(s.uuids) >= maxNames {
		return false
	}
	s.uuids = append(s.uuids, uuid)
	return true
}

func (s *said) addLabel(key, value string) {
	if _, again := s.labels[key]; again || len(s.labels) >= maxLabels || !isLabelKey(key) || !isLabel(value) {
		return
	}
	if s.labels == nil {
		s.labels = make(map[string]string)
	}
	s.labels[key] = value
}

func isLabelKey(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte("._/-", c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= maxLabelKey
}

func isLabel(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) <= maxLabel
}

// says whether the machine says that it has this UUID, in either byte order.
func (s *said) says(uuid boot.UUID) bool {
	return slices.ContainsFunc(s.uuids, func(u boot.UUID) bool { return u == uuid || u.Swapped() == uuid })
}

// interfaceOf returns the first MAC address that the machine says and the plan lists;
// empty where there is none.
func (s *said) interfaceOf(p *boot.Plan) boot.MAC {
	for _, mac := range s.macs {
		if slices.Contains(p.Machine.MACs, mac) {
			return mac
		}
	}
	return ""
}

// architectures are iPXE's names of the build that asks, and those that people
// write. A 32-bit build starts 64-bit kernels.
var architectures = map[string]boot.Architecture{
	"i386": boot.AMD64, "x86_64": boot.AMD64, "amd64": boot.AMD64,
	"arm64": boot.ARM64, "aarch64": boot.ARM64,
}

// fits says whether a plan is for the architecture that the machine says it has,
// if it says one. It returns errArchitecture.
func (s *said) fits(p *boot.Plan) error {
	for _, key := range []string{"buildarch", "architecture"} {
		if value, ok := s.labels[key]; ok && p.Machine.Architecture != "" && architectures[strings.ToLower(value)] != p.Machine.Architecture {
			return errArchitecture
		}
	}
	return nil
}

package uki_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/uki"
)

func digestOf(b []byte) boot.Digest { return boot.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(b))) }

func TestADescriptionSaysAllThatIsInAUKI(t *testing.T) {
	p := parts(t, uki.AMD64)
	p.SBAT = sbatOfOS
	image := build(t, p)
	d := describe(t, image)
	require.Equal(t, uki.AMD64, d.Architecture)
	require.True(t, d.UKI)
	require.False(t, d.Signed)
	require.EqualValues(t, len(image), d.Size)
	require.Equal(t, digestOf(image), d.Digest)
	require.Equal(t, []uki.Profile{{
		CommandLine: "console=ttyS0 quiet", Uname: "6.1.0-test", PrettyName: "Test OS 1",
		OSRelease: map[string]string{"ID": "test", "PRETTY_NAME": "Test OS 1"},
	}}, d.Profiles)
	require.Equal(t, []uki.SBATEntry{
		{"sbat", "1", "SBAT Version", "sbat", "1", "https://github.com/rhboot/shim/blob/main/SBAT.md"},
		{"os", "2", "Our OS", "os", "1", "https://example.com/"},
	}, d.SBAT)
	for _, s := range d.Sections {
		require.Equal(t, digestOf(content(t, image, s.Name, 0)), s.Digest, s.Name)
	}
	last := d.Sections[len(d.Sections)-1]
	require.Equal(t, uki.SectionDescription{
		Name: ".linux", Offset: int64(len(image)) - 0x4000, Size: 0x4000,
		VirtualAddress: 0x8000, VirtualSize: 0x4000, Digest: digestOf(greeting(t, uki.AMD64)),
	}, last)

	text, err := json.Marshal(d)
	require.NoError(t, err)
	var again uki.Description
	require.NoError(t, json.Unmarshal(text, &again))
	require.Equal(t, d, again)
}

func TestAProfileIsItsOwnSectionsOverThoseOfTheBase(t *testing.T) {
	p := parts(t, uki.AMD64)
	p.Extra = []uki.Section{
		{Name: ".profile", Data: []byte("ID=regular\nTITLE=\"Regular boot\"\n")},
		{Name: ".profile", Data: []byte("ID=reset\nTITLE='Factory reset'\n\x00")},
		{Name: ".cmdline", Data: []byte("quiet systemd.unit=factory-reset.target")},
		{Name: ".profile"},
		{Name: ".osrel", Data: []byte("NAME=Other\nVERSION_ID=2\n")},
	}
	d := describe(t, build(t, p))
	release := map[string]string{"ID": "test", "PRETTY_NAME": "Test OS 1"}
	require.Equal(t, []uki.Profile{
		{Name: "@0", ID: "regular", Title: "Regular boot", CommandLine: "console=ttyS0 quiet", Uname: "6.1.0-test", OSRelease: release, PrettyName: "Test OS 1"},
		{Name: "@1", ID: "reset", Title: "Factory reset", CommandLine: "quiet systemd.unit=factory-reset.target", Uname: "6.1.0-test", OSRelease: release, PrettyName: "Test OS 1"},
		{Name: "@2", CommandLine: "console=ttyS0 quiet", Uname: "6.1.0-test", OSRelease: map[string]string{"NAME": "Other", "VERSION_ID": "2"}, PrettyName: "Other 2"},
	}, d.Profiles)
	var profiles []string
	for _, s := range d.Sections[6:] {
		profiles = append(profiles, s.Name+s.Profile)
	}
	require.Equal(t, []string{".linux", ".profile@0", ".profile@1", ".cmdline@1", ".profile@2", ".osrel@2"}, profiles)
}

func TestAnOSReleaseIsReadAsAShellWould(t *testing.T) {
	for text, want := range map[string]string{
		"NAME=plain":                   "plain",
		`NAME="in quotes"`:             "in quotes",
		`NAME='single $"quotes"'`:      `single $"quotes"`,
		`NAME="escaped \" \$ \\ \n"`:   `escaped " $ \ \n`,
		`NAME=with\ space`:             "with space",
		`NAME="two "'parts'`:           "two parts",
		`NAME="not closed`:             "not closed",
		"# NAME=comment\n\nNAME=x\r\n": "x",
		"NAME=first\nNAME=last\n":      "last",
		"NAME=":                        "",
		"1 NAME=odd\n=\nno assignment": "",
	} {
		d := describe(t, assembled(t, uki.Section{Name: ".osrel", Data: []byte(text)}))
		require.Equal(t, want, d.Profiles[0].OSRelease["NAME"], text)
	}
}

func TestAPlainApplicationIsDescribedToo(t *testing.T) {
	d := describe(t, greeting(t, uki.ARM64))
	require.False(t, d.UKI)
	require.Equal(t, uki.ARM64, d.Architecture)
	require.Len(t, d.Sections, 3)
	require.Equal(t, []uki.Profile{{OSRelease: map[string]string{}}}, d.Profiles)
}

func TestADescriptionStaysWithinBounds(t *testing.T) {
	text := strings.Repeat("A=b\n", 1<<20)
	all := []uki.Section{{Name: ".linux", Data: []byte("x")}, {Name: ".osrel", Data: []byte(text)}, {Name: ".sbat", Data: []byte(text)}}
	for range 80 {
		all = append(all, uki.Section{Name: ".profile", Data: []byte(text[:1<<16])})
	}
	image, err := uki.Assemble(roomy(t), all...)
	require.NoError(t, err)
	var d uki.Description
	allocated := allocations(func() { d = describe(t, image) })
	require.Less(t, allocated, uint64(32<<20))
	require.Len(t, d.Profiles, 80)
	require.Len(t, d.SBAT, 16<<10/4)

	for len(all) < 300 {
		all = append(all, uki.Section{Name: ".profile"})
	}
	image, err = uki.Assemble(roomy(t), all...)
	require.NoError(t, err)
	_, err = uki.Describe(bytes.NewReader(image), int64(len(image)))
	require.ErrorIs(t, err, uki.ErrMalformed)
	require.ErrorContains(t, err, "297 profiles")
}

// A file of 4 GiB with a thousand sections over all of it would take an hour to
// hash.
func TestSectionsThatOverlapAreNotHashed(t *testing.T) {
	image := build(t, parts(t, uki.AMD64))
	binary.LittleEndian.PutUint32(section(t, image, ".cmdline")[20:], 0x3000)
	_, err := uki.Describe(bytes.NewReader(image), int64(len(image)))
	require.ErrorIs(t, err, uki.ErrMalformed)
	require.ErrorContains(t, err, "overlap in the file")
}

func TestALargeUKIIsDescribedInLittleMemory(t *testing.T) {
	const size = 300 << 20
	head := build(t, parts(t, uki.AMD64))
	linux := section(t, head, ".linux")
	binary.LittleEndian.PutUint32(linux[8:], size)
	binary.LittleEndian.PutUint32(linux[16:], size)
	binary.LittleEndian.PutUint32(head[optionalAt+56:], size+0x10000)
	r := &padded{head: head}
	var err error
	allocated := allocations(func() { _, err = uki.Describe(r, int64(binary.LittleEndian.Uint32(linux[20:]))+size) })
	require.NoError(t, err)
	require.Less(t, allocated, uint64(1<<20))
	require.LessOrEqual(t, r.most, 1<<20)
}

// padded is a file that is followed by zeroes without end.
type padded struct {
	zeroes
	head []byte
}

func (p *padded) ReadAt(b []byte, offset int64) (int, error) {
	n, err := p.zeroes.ReadAt(b, offset)
	if offset < int64(len(p.head)) {
		copy(b, p.head[offset:])
	}
	return n, err
}

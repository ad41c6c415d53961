package uki

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Description is all that Describe reads from an EFI application, made to be
// printed or turned into JSON.
type Description struct {
	Architecture string      `json:"architecture"`
	UKI          bool        `json:"uki"`
	Size         int64       `json:"size"` // of the file, in bytes
	Digest       boot.Digest `json:"digest"`
	// SizeOfImage is the memory that the loaded image takes, in bytes.
	SizeOfImage uint32 `json:"sizeOfImage"`
	// Signed is true when the file has a certificate table; see Signatures.
	Signed   bool                 `json:"signed"`
	Sections []SectionDescription `json:"sections"` // in the file's order
	// Profiles are what can be booted; the first is what boots when nobody
	// chooses. A UKI without .profile sections has one.
	Profiles []Profile   `json:"profiles"`
	SBAT     []SBATEntry `json:"sbat,omitempty"`
}

// SectionDescription is one section of a PE file.
type SectionDescription struct {
	Name string `json:"name"`
	// Profile is the profile that the section belongs to, such as @0; empty
	// for what all profiles share.
	Profile        string      `json:"profile,omitempty"`
	Offset         int64       `json:"offset"` // of the content in the file, in bytes
	Size           int64       `json:"size"`   // of the content without padding, in bytes
	VirtualAddress uint32      `json:"virtualAddress"`
	VirtualSize    uint32      `json:"virtualSize"`
	Digest         boot.Digest `json:"digest"` // of the content
}

// Profile is one way to boot a UKI (UAPI.5, "Multi-Profile UKIs"): the
// sections of the base profile and, before them, the profile's own.
type Profile struct {
	// Name is @0, @1, …, which chooses the profile; empty where the UKI has
	// no profiles.
	Name string `json:"name,omitempty"`
	// ID and Title are from the .profile section.
	ID          string            `json:"id,omitempty"`
	Title       string            `json:"title,omitempty"`
	CommandLine string            `json:"commandLine,omitempty"`
	Uname       string            `json:"uname,omitempty"`
	OSRelease   map[string]string `json:"osRelease,omitempty"`
	// PrettyName is what people call the OS, from OSRelease.
	PrettyName string `json:"prettyName,omitempty"`
}

// maxText is what is read of a section that is text, in bytes, maxTexts what is
// read of all of them.
const (
	maxText  = 16 << 10
	maxTexts = 1 << 20
)

// Describe reads all of the EFI application of size bytes behind r, twice and
// piece by piece, and says what is in it. Of a section that is text 16 KiB are
// looked at. Its error is one of Inspect's; ErrMalformed is also for sections
// that overlap.
func Describe(r io.ReaderAt, size int64) (Description, error) {
	r = io.NewSectionReader(r, 0, size)
	info, err := Inspect(r, size)
	if err != nil {
		return Description{}, err
	}
	if err := checkOverlaps(info.Sections); err != nil {
		return Description{}, err
	}
	d := Description{
		Architecture: info.Architecture, UKI: info.UKI, Size: size,
		SizeOfImage: info.SizeOfImage, Signed: info.Signed,
	}
	if d.Digest, err = digest(io.NewSectionReader(r, 0, size)); err != nil {
		return Description{}, err
	}
	if d.Sections, err = describeSections(r, info.Sections); err != nil {
		return Description{}, err
	}
	return d, d.describeProfiles(r, info.Sections)
}

func digest(r *io.SectionReader) (boot.Digest, error) {
	hash := sha256.New()
	n, err := io.Copy(hash, r)
	if err == nil && n < r.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", fmt.Errorf("reading a PE file: %w", err)
	}
	return boot.Digest(fmt.Sprintf("sha256:%x", hash.Sum(nil))), nil
}

func describeSections(r io.ReaderAt, sections []SectionHeader) ([]SectionDescription, error) {
	var all []SectionDescription
	profile := -1
	for _, s := range sections {
		content, err := digest(s.Open(r))
		if err != nil {
			return nil, err
		}
		if s.Name == ".profile" {
			profile++
		}
		d := SectionDescription{
			Name: s.Name, Offset: s.Offset, Size: s.Size,
			VirtualAddress: s.VirtualAddress, VirtualSize: s.virtualSize, Digest: content,
		}
		if profile >= 0 {
			d.Profile = profileName(profile)
		}
		all = append(all, d)
	}
	return all, nil
}

// profileName is what chooses a profile at the beginning of a stub's command line.
func profileName(number int) string { return "@" + strconv.Itoa(number) }

func (d *Description) describeProfiles(r io.ReaderAt, sections []SectionHeader) error {
	all := splitProfiles(sections)
	if len(all.others) > maxProfiles {
		return all.check(malformed)
	}
	texts := &textReader{r: r, left: maxTexts, read: map[int64]string{}}
	d.SBAT = parseSBAT(texts.of(sections, ".sbat"))
	for number, own := range all.bootable() {
		p := Profile{
			CommandLine: texts.of(own, ".cmdline"),
			Uname:       texts.of(own, ".uname"),
			OSRelease:   parseEnvironment(texts.of(own, ".osrel")),
		}
		p.PrettyName = prettyName(p.OSRelease)
		if len(all.others) > 0 {
			meta := parseEnvironment(texts.of(own, ".profile"))
			p.Name, p.ID, p.Title = profileName(number), meta["ID"], meta["TITLE"]
		}
		d.Profiles = append(d.Profiles, p)
	}
	return texts.err
}

func prettyName(release map[string]string) string {
	name := strings.TrimSpace(release["NAME"] + " " + cmp.Or(release["VERSION"], release["VERSION_ID"]))
	return cmp.Or(release["PRETTY_NAME"], name, release["ID"])
}

// textReader reads sections that are text, each once.
type textReader struct {
	r    io.ReaderAt
	left int64            // bytes that may still be read
	read map[int64]string // by offset
	err  error            // the first one
}

// of returns the text of the first section of that name.
func (t *textReader) of(sections []SectionHeader, name string) string {
	s, ok := sectionNamed(sections, name)
	if !ok || s.Size == 0 {
		return ""
	}
	if text, ok := t.read[s.Offset]; ok {
		return text
	}
	b := make([]byte, min(s.Size, maxText, t.left))
	t.left -= int64(len(b))
	if _, err := io.ReadFull(s.Open(t.r), b); err != nil && t.err == nil {
		t.err = fmt.Errorf("reading the section %s: %w", name, err)
	}
	t.read[s.Offset] = strings.Trim(string(b), "\x00 \t\r\n")
	return t.read[s.Offset]
}

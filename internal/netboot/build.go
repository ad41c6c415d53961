package netboot

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"unicode/utf16"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// Ability says whether a build can do something.
type Ability string

// What is known of an ability.
const (
	// Unknown: the file does not show it; so with packed (BIOS) builds, and with
	// what is no iPXE.
	Unknown Ability = "unknown"
	Yes     Ability = "yes"
	No      Ability = "no"
)

// Build is what an iPXE build can do, as far as its file shows.
type Build struct {
	// Version as the build names it; empty when it is not found.
	Version string
	// HTTPS: URLs of that scheme can be fetched.
	HTTPS Ability
	// ImgVerify: scripts can check signatures with the command imgverify.
	ImgVerify Ability
	// Autoexec: a script autoexec.ipxe is fetched from where the program came.
	Autoexec Ability
}

// version is a text of its own (it stands between two NUL bytes) such as
// "1.21.1+ (g1a2b3)" or "1.0.0+git-20190125.36a4c85-5.1".
var version = regexp.MustCompile(`\x00(\d{1,3}\.\d{1,3}\.\d{1,3}[ -~]{0,60})\x00`)

// readBuild looks for the names that an unpacked build must hold as text: of the
// URI scheme, of the command, of the file.
func readBuild(content []byte) Build {
	if !bytes.Contains(content, []byte("#!ipxe")) {
		return Build{HTTPS: Unknown, ImgVerify: Unknown, Autoexec: Unknown}
	}
	b := Build{
		HTTPS:     ability(bytes.Contains(content, []byte("\x00https\x00"))),
		ImgVerify: ability(bytes.Contains(content, []byte("\x00imgverify\x00"))),
		Autoexec:  ability(bytes.Contains(content, []byte(autoexec)) || bytes.Contains(content, wide(autoexec))),
	}
	if m := version.FindSubmatch(content); m != nil {
		b.Version = string(m[1])
	}
	return b
}

func ability(found bool) Ability {
	if found {
		return Yes
	}
	return No
}

// wide is s as UEFI writes text: UTF-16, little-endian.
func wide(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// peMachine returns the architecture in the header of a PE file: "" for one that
// we do not serve, and false for what is no PE file (PE format, COFF file header).
func peMachine(b []byte) (boot.Architecture, bool) {
	if len(b) < 64 || string(b[:2]) != "MZ" {
		return "", false
	}
	at := uint64(binary.LittleEndian.Uint32(b[60:]))
	if at+6 > uint64(len(b)) || string(b[at:at+4]) != "PE\x00\x00" {
		return "", false
	}
	switch binary.LittleEndian.Uint16(b[at+4:]) {
	case 0x8664:
		return boot.AMD64, true
	case 0xaa64:
		return boot.ARM64, true
	}
	return "", true
}

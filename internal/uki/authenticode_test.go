package uki_test

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/foxboron/go-uefi/authenticode"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

func hash(t testing.TB, image []byte) []byte {
	t.Helper()
	h, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
	require.NoError(t, err)
	return h[:]
}

func TestTheHashIsThatOfOthers(t *testing.T) {
	tool := program(t, "hash-to-efi-sig-list", "efitools")
	for name, image := range images(t) {
		t.Run(name, func(t *testing.T) {
			want := hex.EncodeToString(hash(t, image))
			require.Contains(t, mustRun(t, tool, put(t, image), put(t, nil)), "HASH IS "+want)
			parsed, err := authenticode.Parse(bytes.NewReader(image))
			require.NoError(t, err)
			require.Equal(t, want, hex.EncodeToString(parsed.Hash(5))) // crypto.SHA256

			id := issue(t, "one", nil)
			signed := sbsign(t, osslsign(t, image, id), id)
			require.Equal(t, want, hex.EncodeToString(hash(t, signed)), "signatures are no part of it")
			out, _ := osslsigncode(t, osslsign(t, image, id), id)
			require.Regexp(t, "Calculated message digest : "+regexp.QuoteMeta(strings.ToUpper(want)), out)
		})
	}
}

// A PE32 has its fields elsewhere. This one is of a PE32+, taken apart.
func TestTheHashOfAPE32(t *testing.T) {
	image := pe32(t)
	file, err := pe.NewFile(bytes.NewReader(image))
	require.NoError(t, err)
	require.IsType(t, &pe.OptionalHeader32{}, file.OptionalHeader)
	id := issue(t, "one", nil)
	signed := sbsign(t, image, id)
	_, err = verify(signed, trusting(t, id))
	require.NoError(t, err)
	ours := sign(t, image, signer(t, id))
	out, ok := sbverify(t, ours, id)
	require.True(t, ok, out)
	out, ok = osslsigncode(t, ours, id)
	require.True(t, ok, out)
}

// pe32 makes an image for 32-bit machines: with a header of that kind in place of
// its own, which is 16 bytes longer.
func pe32(t testing.TB) []byte {
	t.Helper()
	image := greeting(t, uki.AMD64)
	const coff, optional = 64 + 4, 64 + 24
	le := binary.LittleEndian
	le.PutUint16(image[coff:], 0x14c)
	size := le.Uint16(image[coff+16:])
	le.PutUint16(image[coff+16:], size-16)
	header := image[optional : optional+int(size)]
	narrow := bytes.Clone(header[:24])
	le.PutUint16(narrow, 0x10b)
	narrow = append(narrow, make([]byte, 8)...)   // BaseOfData, ImageBase
	narrow = append(narrow, header[32:72]...)     // up to DllCharacteristics
	narrow = append(narrow, make([]byte, 16)...)  // stack and heap
	narrow = append(narrow, header[104:]...)      // LoaderFlags and so on
	sections := image[optional+int(size):][:3*40] // and the table behind it
	moved := slices.Concat(narrow, sections)
	clear(image[optional : optional+int(size)+3*40])
	copy(image[optional:], moved)
	return image
}

// gap makes room between two sections of an image.
func gap(t testing.TB, size int) []byte {
	t.Helper()
	image := greeting(t, uki.AMD64)
	const last = 64 + 24 + 240 + 2*40 // header of the last section
	at := int(binary.LittleEndian.Uint32(image[last+20:]))
	binary.LittleEndian.PutUint32(image[last+20:], uint32(at+size))
	return append(append(bytes.Clone(image[:at]), bytes.Repeat([]byte{0xaa}, size)...), image[at:]...)
}

// Whatever lies between sections is not loaded and not hashed. That is how firmware
// has it, and how sbsign signs.
func TestGapsBetweenSectionsAreHashedAsFirmwareDoes(t *testing.T) {
	id := issue(t, "one", nil)
	image := gap(t, 4096)
	for _, signed := range [][]byte{sign(t, image, signer(t, id)), sbsign(t, image, id)} {
		judge(t, signed, id, differ(true, true, false, gapsUncovered))
	}
	judge(t, osslsign(t, image, id), id, differ(false, false, true, gapsUncovered))
}

func TestAFileThatContradictsItselfHasNoHash(t *testing.T) {
	le := binary.LittleEndian
	const optional, sections = 64 + 24, 64 + 24 + 240
	for _, c := range []struct {
		name  string
		image func(b []byte) []byte
		says  string
	}{
		{"headers that end before their section table", func(b []byte) []byte { le.PutUint32(b[optional+60:], sections+3*40-1); return b }, "its section table ends at byte 448"},
		{"headers of no size", func(b []byte) []byte { le.PutUint32(b[optional+60:], 0); return b }, "said to have 0 bytes"},
		{"headers that reach into a section", func(b []byte) []byte { le.PutUint32(b[optional+60:], 0x1200); return b }, `section ".text" begins at byte 4096, within the headers`},
		{"headers of 4 GiB", func(b []byte) []byte { le.PutUint32(b[optional+60:], math.MaxUint32); return b }, "within the headers"},
		{"sections in each other", func(b []byte) []byte { le.PutUint32(b[sections+40+20:], 0x1200); return b }, `within section ".text"`},
		{"a section that reaches into the table", func(b []byte) []byte {
			b = withTable(b, uki.CertificateTable([]byte("x")))
			setTable(b, len(b)-24, 24)
			return b
		}, "reaches byte"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := c.image(greeting(t, uki.AMD64))
			_, err := uki.Hash(bytes.NewReader(image), int64(len(image)))
			require.ErrorIs(t, err, uki.ErrMalformed)
			require.ErrorContains(t, err, c.says)
			require.ErrorIs(t, uki.Sign(io.Discard, bytes.NewReader(image), int64(len(image)), signer(t, issue(t, "one", nil))), uki.ErrMalformed)
		})
	}
	_, err := uki.Hash(bytes.NewReader([]byte("{}")), 2)
	require.ErrorIs(t, err, uki.ErrNotPE)
}

func TestSectionsAreHashedInTheOrderOfTheFile(t *testing.T) {
	image := greeting(t, uki.AMD64)
	const sections = 64 + 24 + 240
	one, two := bytes.Clone(image[sections:][:40]), bytes.Clone(image[sections+40:][:40])
	copy(image[sections:], two)
	copy(image[sections+40:], one)
	id := issue(t, "one", nil)
	signed := sign(t, image, signer(t, id))
	judge(t, signed, id, accepted)
}

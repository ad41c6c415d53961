package uki

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	// maxCommandLine is what is read of a kernel command line, in bytes.
	maxCommandLine = 16 << 10
	// longestCommandLine is what any kernel takes, in bytes without the NUL.
	longestCommandLine = 4095
)

// CommandLine returns the kernel command line that the UKI brings with it, and
// nothing where it brings none; r is the file that was inspected. Those of several
// profiles (UAPI.5, "Multi-Profile UKIs") come one after the other. More than
// 16 KiB are not read. Its errors are those of r.
func (i Info) CommandLine(r io.ReaderAt) (string, error) {
	var all []string
	left := int64(maxCommandLine)
	for _, s := range i.Sections {
		if s.Name != ".cmdline" || left == 0 {
			continue
		}
		text := make([]byte, min(s.Size, left))
		if _, err := io.ReadFull(s.Open(r), text); err != nil {
			return "", fmt.Errorf("reading the section .cmdline: %w", err)
		}
		left -= int64(len(text))
		all = append(all, strings.Trim(string(text), "\x00 \t\r\n"))
	}
	return strings.Join(all, " "), nil
}

// checkCommandLine refuses a command line that does not reach the kernel as it
// is: the stub ends it at a NUL, old ones pass control characters on, and what
// is longer than limit, in bytes, the kernel cuts off. Its error wraps
// ErrNotUKI.
func checkCommandLine(text string, limit int) error {
	if !utf8.ValidString(text) {
		return notUKI("the command line %.60q is not UTF-8", text)
	}
	control := func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
	if i := strings.IndexFunc(text, control); i >= 0 {
		return notUKI("the command line has the character %q at byte %d: it is one line of text", text[i:i+1], i)
	}
	if len(text) > limit {
		return notUKI("the command line has %d bytes: the kernel takes %d at most", len(text), limit)
	}
	return nil
}

// commandLineLimit is the longest command line that a kernel takes, in bytes
// without the NUL: x86 kernels say it in their setup header (Linux's x86 boot
// protocol, cmdline_size), arm64 ones have COMMAND_LINE_SIZE. Its errors are
// those of r.
func commandLineLimit(r io.ReaderAt, size int64, architecture string) (int, error) {
	const protocolOffset, sizeOffset = 0x206, 0x238
	if architecture == ARM64 {
		return 2047, nil
	}
	head := make([]byte, sizeOffset+4)
	n, err := readSome(r, head, size)
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	if n < len(head) || !bytes.HasPrefix(head[0x202:], []byte("HdrS")) || le.Uint16(head[protocolOffset:]) < 0x206 {
		return longestCommandLine, nil
	}
	return int(min(le.Uint32(head[sizeOffset:]), longestCommandLine)), nil
}

// Reads says which readers of user data a kernel command line sets up: Ignition
// (its arguments, and those by which Flatcar and older CoreOS call it) and
// cloud-init's NoCloud.
func Reads(commandLine string) (ignition, cloudInit bool) {
	for argument := range strings.FieldsSeq(commandLine) {
		key, value, _ := strings.Cut(strings.Trim(argument, `"`), "=")
		value = strings.ToLower(strings.Trim(value, `"`))
		switch key {
		case "ignition.config.url", "ignition.platform.id", "ignition.firstboot",
			"flatcar.config.url", "flatcar.first_boot", "coreos.config.url", "coreos.first_boot":
			ignition = true
		case "ds":
			datasource, _, _ := strings.Cut(value, ";")
			cloudInit = cloudInit || datasource == "nocloud" || datasource == "nocloud-net"
		case "cloud-config-url":
			cloudInit = true
		}
	}
	return ignition, cloudInit
}

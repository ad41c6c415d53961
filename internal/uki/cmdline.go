package uki

import (
	"fmt"
	"io"
	"strings"
)

// maxCommandLine is what is read of a kernel command line, in bytes; Linux takes
// 4096 at most.
const maxCommandLine = 16 << 10

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

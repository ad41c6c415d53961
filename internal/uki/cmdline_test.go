package uki_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// commandLine is that of a UKI with these .cmdline sections.
func commandLine(t *testing.T, sections ...string) string {
	t.Helper()
	var all []uki.Section
	for _, s := range sections {
		all = append(all, uki.Section{Name: ".cmdline", Data: []byte(s)})
	}
	image, err := uki.Assemble(greeting(t, uki.AMD64), append(all, uki.Section{Name: ".linux", Data: []byte("kernel")})...)
	require.NoError(t, err)
	info, err := inspect(image)
	require.NoError(t, err)
	text, err := info.CommandLine(bytes.NewReader(image))
	require.NoError(t, err)
	return text
}

func TestTheCommandLineOfAUKIIsRead(t *testing.T) {
	require.Equal(t, "console=ttyS0 quiet", commandLine(t, "console=ttyS0 quiet\n\x00"))
	require.Equal(t, "a b", commandLine(t, "a", "b"), "of every profile")
	require.Empty(t, commandLine(t))
}

func TestACommandLineIsReadWithinBounds(t *testing.T) {
	require.Len(t, commandLine(t, strings.Repeat("x", 1<<20), "y"), 16<<10)
}

func TestAUKIThatCannotBeReadHasNoCommandLine(t *testing.T) {
	info := uki.Info{Sections: []uki.SectionHeader{{Name: ".cmdline", Offset: 10, Size: 10}}}
	_, err := info.CommandLine(bytes.NewReader([]byte("short")))
	require.Error(t, err)
	require.False(t, errors.Is(err, uki.ErrMalformed))
}

func TestACommandLineTellsWhoReadsUserData(t *testing.T) {
	for text, want := range map[string][2]bool{
		"": {}, "quiet console=ttyS0": {}, "x.ignition.config.url=http://h/": {}, "ds=configdrive": {}, "ds": {}, "ignition.firstbootx": {}, "# ds_nocloud": {},
		"ignition.config.url=http://h/ignition": {true, false}, "rw ignition.platform.id=metal": {true, false}, "ignition.firstboot": {true, false},
		"flatcar.first_boot=1": {true, false}, "coreos.config.url=http://h/": {true, false},
		"ds=nocloud": {false, true}, "quiet ds=nocloud-net;s=http://h/": {false, true}, `ds="NoCloud;s=http://h/"`: {false, true}, `"ds=nocloud;s=http://h/"`: {false, true}, "cloud-config-url=http://h/": {false, true},
		"ds=nocloud ignition.firstboot=1": {true, true},
	} {
		ignition, cloudInit := uki.Reads(text)
		require.Equal(t, want, [2]bool{ignition, cloudInit}, text)
	}
}

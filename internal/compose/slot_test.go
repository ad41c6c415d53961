package compose

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	ignition "github.com/coreos/ignition/v2/config/v3_0"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// unpack reads a newc archive as Linux does, and what follows it, which has to be
// zero.
func unpack(t testing.TB, b []byte) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	inodes := map[uint64]bool{}
	for pos := 0; ; {
		require.Zero(t, pos%4)
		require.Equal(t, "070701", string(b[pos:pos+6]))
		field := func(i int) uint64 {
			v, err := strconv.ParseUint(string(b[pos+6+8*i:pos+14+8*i]), 16, 64)
			require.NoError(t, err)
			return v
		}
		size, nameSize := int(field(6)), int(field(11))
		name := string(b[pos+110 : pos+110+nameSize-1])
		require.Zero(t, b[pos+110+nameSize-1])
		data := (pos + 110 + nameSize + 3) &^ 3
		e := entry{name, uint32(field(1)), b[data : data+size]}
		inode := field(0)
		pos = (data + size + 3) &^ 3
		if name == "TRAILER!!!" {
			require.Zero(t, len(bytes.Trim(b[pos:], "\x00")))
			return all
		}
		require.NotContains(t, all, name)
		require.False(t, inodes[inode], "one inode, one file")
		inodes[inode] = true
		dir := filepath.Dir(name)
		require.True(t, dir == "." || all[dir].mode == modeDir, "the folder of %s comes first", name)
		all[name] = e
	}
}

func TestTheSlotTellsIgnitionWhereTheDocumentIs(t *testing.T) {
	ca := append(bytes.Clone(named(t, "one", 2048).pem), named(t, "two", 2048).pem...)
	slot, err := told{ignition: "https://10.0.0.1/ignition?token=a-b_c", ca: ca}.slot()
	require.NoError(t, err)
	files := unpack(t, slot)
	require.EqualValues(t, modeSecret, files[ignitionFile].mode)
	require.EqualValues(t, modeSecret, files[ignitionURLFile].mode)
	require.EqualValues(t, modePublic, files[caFile].mode)
	require.Equal(t, "https://10.0.0.1/ignition?token=a-b_c\n", string(files[ignitionURLFile].data))
	require.Equal(t, ca, files[caFile].data)
	require.NotContains(t, files, cloudConfigFile)

	config, report, err := ignition.Parse(files[ignitionFile].data)
	require.NoError(t, err, report.String())
	require.Empty(t, report.Entries)
	require.Equal(t, "https://10.0.0.1/ignition?token=a-b_c", *config.Ignition.Config.Replace.Source)
	require.Len(t, config.Ignition.Security.TLS.CertificateAuthorities, 2, "one certificate in each source: some versions read no more")
	first, _ := pem.Decode(ca)
	require.Contains(t, config.Ignition.Security.TLS.CertificateAuthorities[0].Source, "data:;base64,")
	require.NotNil(t, first)

	bare, err := told{ignition: "http://10.0.0.1/ignition"}.userIgnition()
	require.NoError(t, err)
	require.JSONEq(t, `{"ignition":{"version":"3.0.0","config":{"replace":{"source":"http://10.0.0.1/ignition"}}}}`, string(bare))
}

func TestTheSlotTellsCloudInitWhereTheSeedIs(t *testing.T) {
	slot, err := told{cloudInit: "https://10.0.0.1/cloud-init/t/a-b_c/"}.slot()
	require.NoError(t, err)
	files := unpack(t, slot)
	require.EqualValues(t, modeSecret, files[cloudConfigFile].mode)
	require.Equal(t, "https://10.0.0.1/cloud-init/t/a-b_c/\n", string(files[cloudInitURLFile].data))
	require.NotContains(t, files, ignitionFile)
	var config map[string]any
	require.NoError(t, yaml.Unmarshal(files[cloudConfigFile].data, &config))
	require.Equal(t, map[string]any{
		"datasource_list": []any{"NoCloud"},
		"datasource":      map[string]any{"NoCloud": map[string]any{"seedfrom": "https://10.0.0.1/cloud-init/t/a-b_c/"}},
	}, config)
}

func TestASlotWithNothingToTellIsAnEmptyArchive(t *testing.T) {
	slot, err := told{}.slot()
	require.NoError(t, err)
	require.Empty(t, unpack(t, slot))
	slot, err = told{ca: certificate(t).pem}.slot()
	require.NoError(t, err)
	require.Len(t, unpack(t, slot), 3, "the CA and its folders")
}

func TestCpioUnpacksTheSlot(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		require.NotEqual(t, "true", os.Getenv("CI"), "CI must have cpio")
		t.Skip("SKIPPED: install cpio")
	}
	slot, err := told{ignition: "http://x/ignition", cloudInit: "http://x/cloud-init/", ca: certificate(t).pem}.slot()
	require.NoError(t, err)
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), cpio, "--extract", "--make-directories", "--no-absolute-filenames", "--quiet")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(slot)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	for name, e := range unpack(t, slot) {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, e.mode == modeDir, info.IsDir(), name)
		require.EqualValues(t, e.mode&0o777, info.Mode().Perm(), name)
		if !info.IsDir() {
			content, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.Equal(t, e.data, content, name)
		}
	}
}

// FuzzArchive holds archives to what unpacking them gives.
func FuzzArchive(f *testing.F) {
	f.Add("a/b/c", []byte("data"), "a/d", []byte{})
	f.Add("x", []byte("12345"), "etc/y", []byte{0, 1})
	f.Fuzz(func(t *testing.T, first string, data []byte, second string, more []byte) {
		for _, name := range []string{first, second} {
			if name == "" || filepath.Clean(name) != name || filepath.IsAbs(name) || strings.HasPrefix(name, "..") || name == "." ||
				strings.Contains(name, "\x00") || strings.Contains(name, "TRAILER!!!") || len(name) > 1000 {
				return
			}
		}
		if first == second || strings.HasPrefix(second, first+"/") || strings.HasPrefix(first, second+"/") {
			return
		}
		all := unpack(t, archive([]entry{{first, modeSecret, data}, {second, modePublic, more}}))
		require.True(t, bytes.Equal(data, all[first].data))
		require.True(t, bytes.Equal(more, all[second].data))
	})
}

// FuzzToldIgnition: whatever the URL is, it is one string of a document.
func FuzzToldIgnition(f *testing.F) {
	f.Add(`https://x/"},"a":{"`)
	f.Add("a\nb</script>&\xff")
	f.Fuzz(func(t *testing.T, url string) {
		b, err := told{ignition: url}.userIgnition()
		require.NoError(t, err)
		var v struct {
			Ignition struct {
				Config struct{ Replace struct{ Source string } }
			}
		}
		require.NoError(t, json.Unmarshal(b, &v))
		require.Equal(t, string([]rune(url)), v.Ignition.Config.Replace.Source, "what is no UTF-8 is replaced, byte by byte")
	})
}

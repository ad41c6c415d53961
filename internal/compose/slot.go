package compose

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"path"
	"strings"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// The files of the slot, as the initrd has them.
const (
	ignitionFile     = "usr/lib/ignition/user.ign"
	ignitionURLFile  = "etc/boot-operator/ignition-url"
	cloudInitURLFile = "etc/boot-operator/cloud-init-url"
	cloudConfigFile  = "etc/cloud/cloud.cfg.d/99-boot-operator.cfg"
	caFile           = "etc/boot-operator/ca.pem"
)

// ignitionVersion is the oldest version of the specification that has what the
// document needs: every Ignition since 2.0 reads it.
const ignitionVersion = "3.0.0"

// Modes of files: what has a token in it is root's alone.
const (
	modeSecret = 0o100400
	modePublic = 0o100444
	modeDir    = 0o040755
)

// entry is one file of an archive.
type entry struct {
	name string
	mode uint32
	data []byte
}

// told is what a machine is told in its slot.
type told struct {
	ignition, cloudInit string // URLs; empty where there is nothing to fetch
	ca                  []byte
}

// slot returns the archive that tells a machine.
func (t told) slot() ([]byte, error) {
	var all []entry
	if t.ignition != "" {
		document, err := t.userIgnition()
		if err != nil {
			return nil, err
		}
		all = append(all, entry{ignitionFile, modeSecret, document}, entry{ignitionURLFile, modeSecret, []byte(t.ignition + "\n")})
	}
	if t.cloudInit != "" {
		config, err := t.cloudConfig()
		if err != nil {
			return nil, err
		}
		all = append(all, entry{cloudInitURLFile, modeSecret, []byte(t.cloudInit + "\n")}, entry{cloudConfigFile, modeSecret, config})
	}
	if len(t.ca) > 0 {
		all = append(all, entry{caFile, modePublic, t.ca})
	}
	return archive(all), nil
}

// userIgnition is an Ignition document that is replaced by the machine's own.
func (t told) userIgnition() ([]byte, error) {
	type resource struct {
		Source string `json:"source"`
	}
	type tls struct {
		CertificateAuthorities []resource `json:"certificateAuthorities"`
	}
	type security struct {
		TLS tls `json:"tls"`
	}
	var document struct {
		Ignition struct {
			Version string `json:"version"`
			Config  struct {
				Replace resource `json:"replace"`
			} `json:"config"`
			Security *security `json:"security,omitempty"`
		} `json:"ignition"`
	}
	document.Ignition.Version = ignitionVersion
	document.Ignition.Config.Replace.Source = t.ignition
	if len(t.ca) > 0 {
		s := &security{}
		for rest := t.ca; ; { // Ignition of some versions reads one certificate of a source
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			source := "data:;base64," + base64.StdEncoding.EncodeToString(pem.EncodeToMemory(block))
			s.TLS.CertificateAuthorities = append(s.TLS.CertificateAuthorities, resource{source})
		}
		document.Ignition.Security = s
	}
	return marshal(document)
}

// cloudConfig sets cloud-init's NoCloud up. With one data source in the list
// nothing has to be found first.
func (t told) cloudConfig() ([]byte, error) {
	type noCloud struct {
		SeedFrom string `json:"seedfrom"`
	}
	config, err := marshal(struct { // JSON is YAML
		List   []string           `json:"datasource_list"`
		Source map[string]noCloud `json:"datasource"`
	}{[]string{"NoCloud"}, map[string]noCloud{"NoCloud": {t.cloudInit}}})
	return append([]byte("# where the user data of this boot is\n"), config...), err
}

// marshal leaves the characters of URLs as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("%w: writing what the machine is told: %w", boot.ErrInvalid, err)
	}
	return b.Bytes(), nil
}

// archive returns files and the folders that they are in as Linux unpacks them
// into the root of an initrd: cpio in the format newc
// (Documentation/driver-api/early-userspace/buffer-format.rst). It says the same
// for the same files.
func archive(all []entry) []byte {
	var b bytes.Buffer
	made := map[string]bool{".": true}
	inode := 0
	add := func(e entry) {
		inode++
		member(&b, inode, e)
	}
	for _, e := range all {
		for _, dir := range parents(e.name) {
			if !made[dir] {
				made[dir] = true
				add(entry{dir, modeDir, nil})
			}
		}
		add(e)
	}
	member(&b, 0, entry{name: "TRAILER!!!"})
	return b.Bytes()
}

// parents are the folders that a file is in, the outermost first.
func parents(name string) []string {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	return append(parents(dir), dir)
}

// member appends one file: its header, its name and its data, each padded to four
// bytes.
func member(b *bytes.Buffer, inode int, e entry) {
	links := 1
	if e.mode == modeDir {
		links = 2
	}
	b.WriteString("070701")
	// inode, mode, uid, gid, links, time, size, device (2), device that it is (2),
	// size of the name, checksum
	for _, field := range []int{inode, int(e.mode), 0, 0, links, 0, len(e.data), 0, 0, 0, 0, len(e.name) + 1, 0} {
		fmt.Fprintf(b, "%08x", field)
	}
	b.WriteString(e.name + "\x00")
	pad(b)
	b.Write(e.data)
	pad(b)
}

func pad(b *bytes.Buffer) { b.WriteString(strings.Repeat("\x00", -b.Len()&3)) }

// Package userdata reads a machine's document, Ignition or user data for
// cloud-init, from the Secret that its config names.
package userdata

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// ErrNoKey is returned for a Secret that holds no document.
var ErrNoKey = errors.New("there is no key")

// Document is a machine's document as its Secret holds it.
type Document struct {
	// Format is the Secret's own word for it, without blanks; see
	// v1alpha1.SecretKeyFormat.
	Format string
	// Data is Ignition, Butane or user data.
	Data []byte
	// VendorData and NetworkConfig are for cloud-init only; they may be empty.
	VendorData, NetworkConfig []byte
}

// ForCloudInit says whether the document is for cloud-init.
func (d Document) ForCloudInit() bool { return d.Format == v1alpha1.FormatCloudConfig }

// CloudInit returns what cloud-init is given.
func (d Document) CloudInit() boot.CloudInit {
	return boot.CloudInit{UserData: d.Data, VendorData: d.VendorData, NetworkConfig: d.NetworkConfig}
}

// Read finds the document in a Secret's data: under the key ignition or, as
// Cluster API's bootstrap providers call it, value; user data may also be under
// user-data. It returns ErrNoKey, naming the keys that would be right.
func Read(data map[string][]byte) (Document, error) {
	d := Document{Format: strings.TrimSpace(string(data[v1alpha1.SecretKeyFormat]))}
	keys := []string{v1alpha1.SecretKeyIgnition, v1alpha1.SecretKeyValue}
	if d.ForCloudInit() {
		keys = append([]string{v1alpha1.SecretKeyUserData}, keys...)
		d.VendorData, d.NetworkConfig = data[v1alpha1.SecretKeyVendorData], data[v1alpha1.SecretKeyNetworkConfig]
	}
	for _, key := range keys {
		if text, ok := data[key]; ok {
			d.Data = text
			return d, nil
		}
	}
	return Document{}, fmt.Errorf("%w %q", ErrNoKey, keys[0])
}

// headers are how user data begins, by what cloud-init makes of it (cloud-init,
// "User-data formats").
var headers = regexp.MustCompile(`(?i)^(#cloud-config|#!|#include|#cloud-boothook|#part-handler|#cloud-config-archive|#cloud-config-jsonp|## template: *jinja|content-type: *multipart/|mime-version:)`)

// CheckCloudInit checks documents for cloud-init as far as can be done without
// running them: user data must begin with a header that cloud-init knows, and
// cloud-config and network configuration must be YAML mappings. It returns
// boot.ErrInvalid, naming key and line, and never a value: whoever reads the
// error may not be allowed to read the document.
func CheckCloudInit(c boot.CloudInit) error {
	switch {
	case len(bytes.TrimSpace(c.UserData)) == 0:
		return fmt.Errorf("%w: the user data is empty", boot.ErrInvalid)
	case gzipped(c.UserData):
	case !headers.Match(c.UserData):
		return fmt.Errorf("%w: the user data's first line is none that cloud-init knows; write #cloud-config or #!/bin/sh there", boot.ErrInvalid)
	case bytes.HasPrefix(c.UserData, []byte("#cloud-config\n")), bytes.HasPrefix(c.UserData, []byte("#cloud-config\r\n")):
		if err := mapping("user data", c.UserData); err != nil {
			return err
		}
	}
	if len(c.NetworkConfig) == 0 {
		return nil
	}
	return mapping(v1alpha1.SecretKeyNetworkConfig, c.NetworkConfig)
}

// gzipped says whether data begins as a gzip stream does (RFC 1952 section 2.3.1):
// cloud-init unpacks such user data.
func gzipped(data []byte) bool { return bytes.HasPrefix(data, []byte{0x1f, 0x8b}) }

// yamlLine is the only part of a YAML error that tells no value.
var yamlLine = regexp.MustCompile(`line \d+`)

func mapping(what string, data []byte) error {
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return fmt.Errorf("%w: the %s is not YAML (%s)", boot.ErrInvalid, what, yamlLine.FindString(err.Error()))
	}
	if root.Kind == 0 {
		return nil // nothing but comments
	}
	if len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
		return fmt.Errorf("%w: the %s must be a YAML mapping, such as key: value", boot.ErrInvalid, what)
	}
	return nil
}

// Package userdata reads a machine's document, Ignition or user data for
// cloud-init, from the Secret that its config names.
package userdata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
)

// Errors of Read, beside boot.ErrInvalid.
var (
	// ErrNoKey is for a Secret that holds no document.
	ErrNoKey = errors.New("there is no key")
	// ErrFormat is for a document in a format that is not known.
	ErrFormat = errors.New("the format is none that is known")
)

// Document is a machine's document as its Secret holds it.
type Document struct {
	// Format is the Secret's own word for it, without blanks, or what the document
	// was recognised as; see v1alpha1.SecretKeyFormat.
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
// Cluster API's bootstrap providers call it, value, or as users of
// BareMetalHosts do, userData; user data may also be under user-data. A Secret
// that names no format has that which the document begins like. It returns
// ErrNoKey, naming the first of the keys that would be right, or ErrFormat.
func Read(data map[string][]byte) (Document, error) {
	format := strings.TrimSpace(string(data[v1alpha1.SecretKeyFormat]))
	keys := []string{v1alpha1.SecretKeyIgnition, v1alpha1.SecretKeyValue, v1alpha1.SecretKeyMetal3UserData}
	switch format {
	case v1alpha1.FormatCloudConfig:
		keys = append([]string{v1alpha1.SecretKeyUserData}, keys...)
	case "":
		keys = append(keys, v1alpha1.SecretKeyUserData)
	}
	for _, key := range keys {
		if text, ok := data[key]; ok {
			return read(data, format, key, text)
		}
	}
	return Document{}, fmt.Errorf("%w %q", ErrNoKey, keys[0])
}

// read is what the document under one key is.
func read(data map[string][]byte, format, key string, text []byte) (Document, error) {
	switch format {
	case "":
		format = recognise(text, key)
	case v1alpha1.FormatIgnition, v1alpha1.FormatButane, v1alpha1.FormatCloudConfig:
	default:
		if key != v1alpha1.SecretKeyIgnition { // there, any word has always meant Ignition
			return Document{}, fmt.Errorf("%w; write %s, %s or %s under the key %s", ErrFormat, v1alpha1.FormatIgnition, v1alpha1.FormatCloudConfig, v1alpha1.FormatButane, v1alpha1.SecretKeyFormat)
		}
	}
	d := Document{Format: format, Data: text}
	if d.ForCloudInit() {
		d.VendorData, d.NetworkConfig = data[v1alpha1.SecretKeyVendorData], data[v1alpha1.SecretKeyNetworkConfig]
	}
	return d, nil
}

// recognise returns cloud-config for a document whose first line cloud-init knows,
// and for one under the key that is for user data unless it is Ignition; every
// other document has no format, and is taken for Ignition.
func recognise(text []byte, key string) string {
	if headers.Match(text) || key == v1alpha1.SecretKeyUserData && !isIgnition(text) {
		return v1alpha1.FormatCloudConfig
	}
	return ""
}

func isIgnition(text []byte) bool {
	var object struct {
		Ignition json.RawMessage `json:"ignition"`
	}
	return json.Unmarshal(text, &object) == nil && object.Ignition != nil
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

package bmcsim

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// What a collection of certificates holds, at most.
const (
	maxCertificates = 16
	maxPEM          = 32 << 10 // bytes
)

// certificate is one that a client installed.
type certificate struct {
	id, pem string
	parsed  *x509.Certificate
}

// secureBoot is the state of UEFI Secure Boot (UEFI 2.10, section 32).
type secureBoot struct {
	enable, current bool
	mode            string
}

// databases are the Secure Boot databases.
var databases = []string{"PK", "KEK", "db", "dbx"}

func (b *BMC) bootCertificatesPath() string { return b.systemPath() + "/Boot/Certificates" }

// certificateCollection adds a collection that certificates can be added to.
func (b *BMC) certificateCollection(path string) {
	b.certs[path] = nil
	b.add(path, &resource{post: func(c *call) reply { return b.addCertificate(path, c) }, get: func() object {
		var ids []string
		for _, c := range b.certs[path] {
			ids = append(ids, c.id)
		}
		return members("Certificate", path, ids)
	}})
}

// addCertificate takes a PEM certificate (Certificate 1.6).
func (b *BMC) addCertificate(path string, c *call) reply {
	text, okText := c.body["CertificateString"].(string)
	kind, okKind := c.body["CertificateType"].(string)
	switch {
	case !okText:
		return b.refuse(say("PropertyMissing", "CertificateString").about("CertificateString"))
	case !okKind:
		return b.refuse(say("PropertyMissing", "CertificateType").about("CertificateType"))
	case kind != "PEM":
		return b.refuse(say("PropertyValueNotInList", bounded(kind, 100), "CertificateType").about("CertificateType"))
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || len(text) > maxPEM {
		return b.refuse(say("PropertyValueFormatError", "(not PEM)", "CertificateString").about("CertificateString"))
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return b.refuse(say("PropertyValueFormatError", "(not a certificate)", "CertificateString").about("CertificateString"))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.certs[path]
	if len(list) >= maxCertificates {
		return b.refuse(say("CreateLimitReachedForResource"))
	}
	b.number++
	added := certificate{id: strconv.Itoa(b.number), pem: text, parsed: parsed}
	b.certs[path] = append(list, added)
	h := http.Header{}
	h.Set("Location", path+"/"+added.id)
	return reply{status: http.StatusCreated, header: h, body: b.represent(b.certificateResource(path, added.id), path+"/"+added.id)}
}

// certificateResource is one certificate; nil: there is none. The lock is held.
func (b *BMC) certificateResource(path, id string) *resource {
	i := slices.IndexFunc(b.certs[path], func(c certificate) bool { return c.id == id })
	if i < 0 {
		return nil
	}
	c := b.certs[path][i]
	return &resource{
		get: func() object {
			sum := sha256.Sum256(c.parsed.Raw)
			return object{
				"@odata.type": "#Certificate.v1_6_0.Certificate", "Id": id, "Name": "Certificate " + id, "CertificateString": c.pem, "CertificateType": "PEM",
				"Subject": object{"CommonName": c.parsed.Subject.CommonName}, "Issuer": object{"CommonName": c.parsed.Issuer.CommonName},
				"ValidNotBefore": stamp(c.parsed.NotBefore), "ValidNotAfter": stamp(c.parsed.NotAfter), "SerialNumber": c.parsed.SerialNumber.Text(16),
				"Fingerprint": strings.ToUpper(hex.EncodeToString(sum[:])), "FingerprintHashAlgorithm": "TPM_ALG_SHA256",
			}
		},
		remove: func() reply {
			b.certs[path] = slices.DeleteFunc(slices.Clone(b.certs[path]), func(other certificate) bool { return other.id == id })
			return reply{status: http.StatusNoContent}
		},
	}
}

// secureBootResources adds SecureBoot 1.1 with its databases, and the certificates
// for HTTPS Boot.
func (b *BMC) secureBootResources() {
	b.certificateCollection(b.bootCertificatesPath())
	path := b.systemPath() + "/SecureBoot"
	reset := path + "/Actions/SecureBoot.ResetKeys"
	b.add(path, &resource{patch: b.patchSecureBoot, get: func() object {
		current := "Disabled"
		if b.secure.current {
			current = "Enabled"
		}
		return object{
			"@odata.type": "#SecureBoot.v1_1_1.SecureBoot", "Id": "SecureBoot", "Name": "UEFI Secure Boot", "SecureBootEnable": b.secure.enable,
			"SecureBootCurrentBoot": current, "SecureBootMode": b.secure.mode, "SecureBootDatabases": link(path + "/SecureBootDatabases"),
			"Actions": object{"#SecureBoot.ResetKeys": object{"target": reset, "ResetKeysType@Redfish.AllowableValues": resetKeys}},
		}
	}})
	b.add(reset, &resource{action: true, post: b.resetKeys})
	b.collection("SecureBootDatabase", path+"/SecureBootDatabases", databases...)
	for _, id := range databases {
		below := path + "/SecureBootDatabases/" + id
		b.certificateCollection(below + "/Certificates")
		b.fixed(below, func() object {
			return object{
				"@odata.type": "#SecureBootDatabase.v1_0_2.SecureBootDatabase", "Id": id, "Name": id, "DatabaseId": id, "Certificates": link(below + "/Certificates"),
			}
		})
	}
}

var resetKeys = []string{"ResetAllKeysToDefault", "DeleteAllKeys", "DeletePK"}

func (b *BMC) patchSecureBoot(c *call) reply {
	p := &patch{}
	p.object("", c.body, func(name, pointer string, value any) {
		on, isBool := value.(bool)
		switch {
		case name != "SecureBootEnable":
			if slices.Contains([]string{"SecureBootCurrentBoot", "SecureBootMode", "Id", "Name"}, name) {
				p.readOnly(pointer)
				return
			}
			p.unknown(pointer)
		case !isBool:
			p.refuse(say("PropertyValueTypeError", show(value), name).about(pointer))
		case b.inPOST() && b.profile.posting != nil:
			p.refuse(*b.profile.posting)
		default:
			p.change(func() { b.secure.enable = on })
		}
	})
	path := b.systemPath() + "/SecureBoot"
	return p.finish(b, func() object { return b.represent(b.static[path], path) })
}

// resetKeys is #SecureBoot.ResetKeys.
func (b *BMC) resetKeys(c *call) reply {
	kind, _ := c.body["ResetKeysType"].(string)
	if !slices.Contains(resetKeys, kind) {
		return b.refuse(say("ActionParameterValueNotInList", bounded(kind, 100), "ResetKeysType", "SecureBoot.ResetKeys"))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.secure.mode = "UserMode"
	if kind != "ResetAllKeysToDefault" {
		b.secure.mode, b.secure.enable = "SetupMode", false
	}
	for _, id := range databases {
		if kind == "DeleteAllKeys" || id == "PK" {
			b.certs[b.systemPath()+"/SecureBoot/SecureBootDatabases/"+id+"/Certificates"] = nil
		}
	}
	return reply{status: http.StatusNoContent}
}

// BootCertificates are the PEM certificates that were installed for HTTPS Boot.
func (b *BMC) BootCertificates() []string { return b.certificates(b.bootCertificatesPath()) }

// DatabaseCertificates are those that were added to a Secure Boot database: PK,
// KEK, db or dbx.
func (b *BMC) DatabaseCertificates(database string) []string {
	return b.certificates(b.systemPath() + "/SecureBoot/SecureBootDatabases/" + database + "/Certificates")
}

func (b *BMC) certificates(path string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, c := range b.certs[path] {
		list = append(list, c.pem)
	}
	return list
}

// SecureBoot says whether the present boot runs with UEFI Secure Boot.
func (b *BMC) SecureBoot() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.secure.current
}

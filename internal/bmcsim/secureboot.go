package bmcsim

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/boot-operator/boot-operator/internal/qemu"
)

// KeyChanges is what a BMC makes of changes of the Secure Boot databases.
type KeyChanges int

// What may become of them.
const (
	// KeysWritable: they are made at once. As a knob: what the profile does.
	KeysWritable KeyChanges = iota
	// KeysStaged: they are taken, and shown and in force only after the next boot.
	KeysStaged
	// KeysReadOnly: they are refused.
	KeysReadOnly
	// KeysInSetupMode: they are made in Setup Mode only.
	KeysInSetupMode
	// keysAbsent: there are no databases, only the switch.
	keysAbsent
)

// entry is one signature of a database, as it is shown.
type entry struct {
	id string
	qemu.Signature
}

// The collections of a database.
const (
	certificatesID = "Certificates"
	signaturesID   = "Signatures"
)

func (b *BMC) secureBootPath() string { return b.systemPath() + "/SecureBoot" }

func (b *BMC) databasePath(d qemu.Database) string {
	return b.secureBootPath() + "/SecureBootDatabases/" + string(d)
}

// keyChanges are the knob's, or the profile's. The lock is held.
func (b *BMC) keyChanges() KeyChanges { return or(b.knobs.keys, b.profile.keys) }

// secureBootResources adds SecureBoot 1.1 with its databases (SecureBootDatabase 1.0).
func (b *BMC) secureBootResources() {
	if b.keys == nil {
		return
	}
	path := b.secureBootPath()
	b.add(path, &resource{patch: b.patchSecureBoot, get: b.secureBoot})
	b.add(path+"/Actions/SecureBoot.ResetKeys", &resource{action: true, post: b.resetKeys})
	if b.profile.keys == keysAbsent {
		return
	}
	var ids []string
	for _, d := range qemu.Databases {
		ids = append(ids, string(d))
		b.databaseResources(d)
	}
	b.collection("SecureBootDatabase", path+"/SecureBootDatabases", ids...)
}

// secureBoot is SecureBoot 1.1.
func (b *BMC) secureBoot() object {
	s, err := b.keys.SecureBoot()
	if err != nil {
		return nil
	}
	current, mode := "Disabled", "SetupMode"
	if s.Current {
		current = "Enabled"
	}
	if len(s.Keys[qemu.PK]) > 0 {
		mode = "UserMode"
	}
	path := b.secureBootPath()
	o := object{
		"@odata.type": "#SecureBoot.v1_1_1.SecureBoot", "Id": "SecureBoot", "Name": "UEFI Secure Boot", "SecureBootEnable": s.Enable,
		"SecureBootCurrentBoot": current, "SecureBootMode": mode,
		"Actions": object{"#SecureBoot.ResetKeys": object{"target": path + "/Actions/SecureBoot.ResetKeys", "ResetKeysType@Redfish.AllowableValues": resetKeys}},
	}
	if b.profile.keys != keysAbsent {
		o["SecureBootDatabases"] = link(path + "/SecureBootDatabases")
	}
	return o
}

// databaseResources adds one database.
func (b *BMC) databaseResources(d qemu.Database) {
	path := b.databasePath(d)
	reset := path + "/Actions/SecureBootDatabase.ResetKeys"
	b.fixed(path, func() object {
		return object{
			"@odata.type": "#SecureBootDatabase.v1_0_2.SecureBootDatabase", "Id": string(d), "Name": string(d), "DatabaseId": string(d),
			certificatesID: link(path + "/" + certificatesID), signaturesID: link(path + "/" + signaturesID),
			"Actions": object{"#SecureBootDatabase.ResetKeys": object{"target": reset, "ResetKeysType@Redfish.AllowableValues": resetDatabase}},
		}
	})
	b.add(reset, &resource{action: true, post: func(c *call) reply { return b.resetDatabase(d, c) }})
	for id, kind := range map[string]string{certificatesID: "Certificate", signaturesID: "Signature"} {
		r := &resource{get: func() object {
			var ids []string
			for _, e := range b.show(d) {
				if e.IsCertificate() == (id == certificatesID) {
					ids = append(ids, e.id)
				}
			}
			return members(kind, path+"/"+id, ids)
		}}
		if id == certificatesID {
			r.post = func(c *call) reply { return b.enroll(d, c) }
		}
		b.add(path+"/"+id, r)
	}
}

// show reads a database from the machine. What was shown before keeps its ID. The
// lock is held.
func (b *BMC) show(d qemu.Database) []entry {
	if b.keys == nil {
		return nil
	}
	s, err := b.keys.SecureBoot()
	if err != nil {
		return nil
	}
	known := slices.Clone(b.entries[d])
	var now []entry
	for _, signature := range s.Keys[d] {
		i := slices.IndexFunc(known, func(e entry) bool { return e.Same(signature) })
		if i >= 0 {
			now = append(now, known[i])
			known = slices.Delete(known, i, i+1)
			continue
		}
		b.number++
		now = append(now, entry{strconv.Itoa(b.number), signature})
	}
	b.entries[d] = now
	return now
}

// signatureResource is one member of a database's collections; nil: there is none.
// The lock is held.
func (b *BMC) signatureResource(parent, id string) *resource {
	for _, d := range qemu.Databases {
		below, ok := strings.CutPrefix(parent, b.databasePath(d)+"/")
		if !ok || (below != certificatesID && below != signaturesID) {
			continue
		}
		for _, e := range b.show(d) {
			if e.id == id && e.IsCertificate() == (below == certificatesID) {
				return b.entryResource(d, e)
			}
		}
	}
	return nil
}

func (b *BMC) entryResource(d qemu.Database, e entry) *resource {
	return &resource{get: e.describe, removeWrites: true, remove: func() reply {
		answer := b.changeKeys(func(keys qemu.Keys) {
			if i := slices.IndexFunc(keys[d], e.Same); i >= 0 {
				keys[d] = slices.Delete(slices.Clone(keys[d]), i, i+1)
			}
		})
		if answer.status == http.StatusNoContent { // of two that are the same, the other keeps its ID
			b.entries[d] = slices.DeleteFunc(slices.Clone(b.entries[d]), func(other entry) bool { return other.id == e.id })
		}
		return answer
	}}
}

// describe is Certificate 1.6, or Signature 1.0.
func (e entry) describe() object {
	parsed, err := x509.ParseCertificate(e.Data)
	switch {
	case !e.IsCertificate():
		return object{
			"@odata.type": "#Signature.v1_0_2.Signature", "Id": e.id, "Name": "Signature " + e.id, "SignatureString": hex.EncodeToString(e.Data),
			"SignatureTypeRegistry": "UEFI", "SignatureType": e.Kind(), "UefiSignatureOwner": e.Owner(),
		}
	case err != nil: // firmware takes what it likes
		return object{"@odata.type": "#Certificate.v1_6_0.Certificate", "Id": e.id, "Name": "Certificate " + e.id, "CertificateType": "PEM"}
	}
	o := describe(certificate{id: e.id, pem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Data})), parsed: parsed})
	o["UefiSignatureOwner"] = e.Owner()
	return o
}

// enroll adds a certificate to a database.
func (b *BMC) enroll(d qemu.Database, c *call) reply {
	added, refused := b.readCertificate(c)
	if refused != nil {
		return *refused
	}
	b.writes.Lock()
	defer b.writes.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	limit, has := maxCertificates, 0
	if d == qemu.PK {
		limit = 1
	}
	for _, e := range b.show(d) {
		if e.IsCertificate() {
			has++
		}
	}
	signature := qemu.CertificateSignature(added.parsed.Raw)
	switch {
	case has >= limit:
		return b.refuse(say("CreateLimitReachedForResource"))
	case slices.ContainsFunc(b.staged[d], signature.Same):
		return b.refuse(say("ResourceAlreadyExists", "Certificate", "CertificateString", added.parsed.Subject.String()))
	}
	answer := b.changeKeys(func(keys qemu.Keys) { keys[d] = append(slices.Clone(keys[d]), signature) })
	if all := b.show(d); answer.status == http.StatusNoContent && len(all) > 0 {
		return b.created(b.databasePath(d) + "/" + certificatesID + "/" + all[len(all)-1].id)
	}
	return answer
}

// changeKeys changes the keys as far as this BMC lets one: now, or at the next boot.
// The locks writes and mu are held.
func (b *BMC) changeKeys(change func(qemu.Keys)) reply {
	if m := b.keysRefusal(); m != nil {
		return b.refuse(*m)
	}
	s, err := b.keys.SecureBoot()
	if err != nil {
		return b.fail(err)
	}
	keys := s.Keys
	if b.staged != nil {
		keys = b.staged
	}
	keys = maps.Clone(keys)
	change(keys)
	if b.keyChanges() == KeysStaged {
		b.staged = keys
		return b.refuse(say("SettingsWillBeAppliedOnNextReset"))
	}
	if err := b.keys.SetSecureBoot(s.Enable && len(keys[qemu.PK]) > 0, keys); err != nil {
		return b.fail(err)
	}
	return reply{status: http.StatusNoContent}
}

// keysRefusal is why no key can be changed now. The lock is held.
func (b *BMC) keysRefusal() *message {
	var m message
	s, err := b.keys.SecureBoot()
	switch changes := b.keyChanges(); {
	case b.inPOST() && b.profile.posting != nil:
		m = *b.profile.posting
	case changes == KeysReadOnly:
		m = say("OperationNotAllowed")
	case changes == KeysInSetupMode && err == nil && len(s.Keys[qemu.PK]) > 0:
		m = say("OperationFailed")
		m.text = "The keys can be changed in Setup Mode only."
	default:
		return nil
	}
	return &m
}

// applyKeys is what a boot does with what was staged. The lock is held.
func (b *BMC) applyKeys() {
	if b.keys == nil {
		return
	}
	if s, err := b.keys.SecureBoot(); err == nil && b.staged != nil {
		_ = b.keys.SetSecureBoot(s.Enable && len(b.staged[qemu.PK]) > 0, b.staged) // a machine that cannot be written keeps what it has
		b.staged = nil
	}
	if k, ok := b.keys.(*memoryKeys); ok {
		k.boots()
	}
}

func (b *BMC) patchSecureBoot(c *call) reply {
	s, err := b.keys.SecureBoot()
	if err != nil {
		return b.fail(err)
	}
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
		case on && len(s.Keys[qemu.PK]) == 0:
			p.refuse(say("PropertyValueConflict", name, "SecureBootMode").about(pointer))
		default:
			p.change(func() { err = b.keys.SetSecureBoot(on, s.Keys) })
		}
	})
	path := b.secureBootPath()
	answer := p.finish(b, func() object { return b.represent(b.static[path], path) })
	if err != nil {
		return b.fail(err)
	}
	return answer
}

// resetDatabase are the values of ResetKeysType for one database, resetKeys those for
// all.
var (
	resetDatabase = []string{"ResetAllKeysToDefault", "DeleteAllKeys"}
	resetKeys     = []string{"ResetAllKeysToDefault", "DeleteAllKeys", "DeletePK"}
)

// resetKeys is #SecureBoot.ResetKeys.
func (b *BMC) resetKeys(c *call) reply {
	return b.resetAll(c, "SecureBoot.ResetKeys", resetKeys, qemu.Databases)
}

// resetDatabase is #SecureBootDatabase.ResetKeys.
func (b *BMC) resetDatabase(d qemu.Database, c *call) reply {
	return b.resetAll(c, "SecureBootDatabase.ResetKeys", resetDatabase, []qemu.Database{d})
}

// resetAll empties databases, or makes them what they were at first.
func (b *BMC) resetAll(c *call, action string, types []string, databases []qemu.Database) reply {
	kind, _ := c.body["ResetKeysType"].(string)
	if !slices.Contains(types, kind) {
		return b.refuse(say("ActionParameterValueNotInList", bounded(kind, 100), "ResetKeysType", action))
	}
	b.writes.Lock()
	defer b.writes.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if kind == "DeletePK" {
		databases = []qemu.Database{qemu.PK}
	}
	return b.changeKeys(func(keys qemu.Keys) {
		for _, d := range databases {
			delete(keys, d)
			if kind == "ResetAllKeysToDefault" {
				keys[d] = b.keys.DefaultKeys()[d]
			}
		}
	})
}

// DatabaseCertificates are the PEM certificates in a Secure Boot database: PK, KEK, db
// or dbx.
func (b *BMC) DatabaseCertificates(database string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []string
	for _, e := range b.show(qemu.Database(database)) {
		if text, ok := e.describe()["CertificateString"].(string); ok {
			list = append(list, text)
		}
	}
	return list
}

// SecureBoot says whether the present boot runs with UEFI Secure Boot.
func (b *BMC) SecureBoot() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.keys == nil {
		return false
	}
	s, err := b.keys.SecureBoot()
	return err == nil && s.Current
}

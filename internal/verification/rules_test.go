package verification

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/sigstore"
)

// indented is a text as a YAML block scalar.
func indented(text []byte) string {
	return "|\n" + string(bytes.ReplaceAll(append([]byte("        "), bytes.TrimSpace(text)...), []byte("\n"), []byte("\n        ")))
}

// trustedRoot is one of a sigstore that exists only here.
func trustedRoot(t testing.TB) []byte {
	t.Helper()
	return newAuthority(t).root
}

func TestAFileOfPoliciesIsReadAsItIsMeant(t *testing.T) {
	one, two := newKey(t), newKey(t)
	cert := firmwareKey(t, 0, "Our UKIs", time.Now().Add(time.Hour))
	own, common := trustedRoot(t), trustedRoot(t)
	text := fmt.Sprintf(`
rules:
- images: [registry.example.com/os]
  image:
    keys: %s
    signed: Index
- images: [registry.example.com, ghcr.io/acme/images/]
  image:
    identities:
    - issuer: https://token.actions.githubusercontent.com
      subjectRegExp: https://github\.com/acme/.*
    - {issuer: https://accounts.example.com, subject: release@example.com}
  uki:
    expired: Refuse
- images: ["*"]
  image:
    keys: &key %s
    trustedRoot: %s
  uki:
    certificates: %s
    revoked: !!binary %s
- images: [docker.io/acme]
  image: {keys: *key}
`, indented(append(publicPEM(t, one), publicPEM(t, two)...)), indented(publicPEM(t, two)), indented(own), indented(cert.pem()), base64.StdEncoding.EncodeToString(cert.cert.Raw))
	rules, err := ParsePolicies([]byte(text))
	require.NoError(t, err)
	db := database(t, cert.pem(), nil)
	rules, err = rules.Complete(Defaults{TrustedRoot: common, Database: db})
	require.NoError(t, err)

	all := rules.For("registry.example.com/os/debian:12")
	require.Len(t, all, 3)
	require.Equal(t, "the operator's verification policy (line 3)", all[0].Name)
	require.Len(t, all[0].Image.Sigstore.Keys, 2)
	require.Equal(t, SignedIndex, all[0].Image.Signed)
	require.Equal(t, common, all[0].Image.Sigstore.TrustedRoot)
	require.Nil(t, all[0].UKI)
	require.Equal(t, []sigstore.Identity{
		{Issuer: "https://token.actions.githubusercontent.com", SubjectRegExp: `https://github\.com/acme/.*`},
		{Issuer: "https://accounts.example.com", Subject: "release@example.com"},
	}, all[1].Image.Sigstore.Identities)
	require.Equal(t, &UKIPolicy{Database: db, RefuseExpired: true, Required: true}, all[1].UKI)
	require.Equal(t, bytes.TrimSpace(own), bytes.TrimSpace(all[2].Image.Sigstore.TrustedRoot))
	require.NotEqual(t, db.Fingerprint(), all[2].UKI.Database.Fingerprint(), "it has a dbx of its own")
	require.True(t, one.PublicKey.Equal(all[0].Image.Sigstore.Keys[0]))

	fromHub := rules.For("acme/os")
	require.Len(t, fromHub, 2)
	require.True(t, two.PublicKey.Equal(fromHub[1].Image.Sigstore.Keys[0]))
}

func TestRulesCoverWholeSegments(t *testing.T) {
	key := indented(publicPEM(t, newKey(t)))
	for _, c := range []struct {
		rule, image string
		covers      bool
	}{
		{"registry.example.com", "registry.example.com/os:1", true},
		{"registry.example.com/", "registry.example.com/a/b@" + string(digestOf(nil)), true},
		{"registry.example.com", "registry.example.com:5000/os", false},
		{"registry.example.com:443", "registry.example.com/os", true},
		{"REGISTRY.example.com", "registry.example.com/os", true},
		{"registry.example.com/os", "registry.example.com/os", true},
		{"registry.example.com/os", "registry.example.com/os/a:1", true},
		{"registry.example.com/os", "registry.example.com/os-evil", false},
		{"registry.example.com/os", "registry.example.com/other/os", false},
		{"registry.example.com/os", "evil.example.com/registry.example.com/os", false},
		{"localhost:5000/os", "localhost:5000/os", true},
		{"docker.io", "debian", true},
		{"docker.io/library", "debian", true},
		{"docker.io/library", "index.docker.io/library/debian", true},
		{"docker.io/library", "acme/debian", false},
		{"registry.example.com/os", "https://registry.example.com/os/a.efi", true},
		{"registry.example.com/os", "https://registry.example.com/os/../other/a.efi", false},
		{"registry.example.com/os", "https://registry.example.com/x/../os/a.efi", true},
		{"registry.example.com/os", "https://registry.example.com/os-evil/a.efi", false},
		{"registry.example.com/os", "https://user@evil.example.com/registry.example.com/os", false},
		{"registry.example.com", "http://registry.example.com:80/a.efi", true},
		{"registry.example.com", "https://REGISTRY.example.com:443/a.efi", true},
		{"'*'", "registry.example.com/os", true},
		{"'*'", "https://example.com/a.efi", true},
		{"'*'", "http://a name/of nothing", true},
		{"registry.example.com", "http://a name/of nothing", false},
		{"registry.example.com", "", false},
	} {
		rules, err := ParsePolicies([]byte("rules:\n- images: [" + c.rule + "]\n  image:\n    keys: " + key))
		require.NoError(t, err, c.rule)
		require.Equal(t, c.covers, len(rules.For(c.image)) == 1, "%s covers %s", c.rule, c.image)
	}
	require.Empty(t, Rules{}.For("registry.example.com/os"))
}

func TestFilesThatAreWrongSayWhere(t *testing.T) {
	key := indented(publicPEM(t, newKey(t)))
	cert := indented(firmwareKey(t, 0, "a", time.Now().Add(time.Hour)).pem())
	rule := func(rest string) string { return "rules:\n- images: ['*']\n" + rest }
	for name, c := range map[string]struct{ text, where string }{
		"empty":                        {"", "the file is empty"},
		"a comment":                    {"# nothing", "the file is empty"},
		"no YAML":                      {"rules: [", "line 1"},
		"text":                         {"rules", "line 1: the file: it has to have the fields rules"},
		"a list":                       {"- images: ['*']", "line 1: the file"},
		"two documents":                {rule("  image:\n    keys: "+key) + "\n---\nrules: []\n", "second YAML document"},
		"no rules":                     {"rules: []", "line 1: rules: it has to be a list"},
		"rules that are not there":     {"{}", "rules: it has to be a list"},
		"another field":                {"rule: []", `line 1: the file: "rule" is no field`},
		"a field twice":                {"rules: []\nrules: []", "rules"},
		"a rule for nothing":           {"rules:\n- image:\n    keys: " + key, "rules[0].images: it has to be a list"},
		"a rule without images":        {"rules:\n- images: []\n  image:\n    keys: " + key, "line 2: rules[0].images"},
		"a rule that asks for nothing": {rule(""), "line 2: rules[0]: it asks for nothing"},
		"a rule that says nothing":     {rule("  image:\n"), "line 3: rules[0].image: it has to have the fields"},
		"an image that is a number":    {"rules:\n- images: [5000]\n  image:\n    keys: " + key, "line 2: rules[0].images[0]: it has to be text"},
		"an image without registry":    {"rules:\n- images: [acme/os]\n  image:\n    keys: " + key, "rules[0].images[0]: \"acme/os\" does not begin with a registry"},
		"an image with a tag":          {"rules:\n- images: ['example.com/os:1']\n  image:\n    keys: " + key, "tags and digests have no place"},
		"an image with a digest":       {"rules:\n- images: ['example.com/os@" + string(digestOf(nil)) + "']\n  image:\n    keys: " + key, "tags and digests have no place"},
		"an image that is a URL":       {"rules:\n- images: ['https://example.com/os']\n  image:\n    keys: " + key, "rules[0].images[0]"},
		"a pattern as image":           {"rules:\n- images: ['example.com/*']\n  image:\n    keys: " + key, "rules[0].images[0]"},
		"a key that is none":           {rule("  image:\n    keys: cosign.pub"), "line 4: rules[0].image.keys: there is no public key"},
		"nobody":                       {rule("  image:\n    signed: Index"), "line 4: rules[0].image: it names nobody"},
		"another word":                 {rule("  image:\n    signed: Both\n    keys: " + key), `line 4: rules[0].image.signed: "Both" is none of`},
		"an identity without issuer":   {rule("  image:\n    identities:\n    - subject: a"), "line 5: rules[0].image.identities[0]: the identity: it has no issuer"},
		"an identity without subject":  {rule("  image:\n    identities:\n    - issuer: a"), "either a subject or a subjectRegExp"},
		"an identity with a typo":      {rule("  image:\n    identities:\n    - issuer: a\n      subjectRegexp: b"), `line 6: rules[0].image.identities[0]: "subjectRegexp" is no field`},
		"a broken pattern":             {rule("  image:\n    identities:\n    - issuer: a\n      subjectRegExp: a)|(b"), "not valid"},
		"a root that is none":          {rule("  image:\n    trustedRoot: x\n    keys: " + key), "line 4: rules[0].image.trustedRoot: the trusted root"},
		"certificates that are none":   {rule("  uki:\n    certificates: x"), "line 4: rules[0].uki: certificates (db)"},
		"a dbx without db":             {rule("  uki:\n    revoked: " + cert), "line 4: rules[0].uki.revoked: it goes with certificates"},
		"no base64":                    {rule("  uki:\n    certificates: !!binary '!'"), "base64"},
		"expired":                      {rule("  uki:\n    expired: Maybe"), `rules[0].uki.expired: "Maybe"`},
		"a map as text":                {rule("  image:\n    keys: {a: b}"), "line 4: rules[0].image.keys: it has to be text"},
		"a list as key":                {rule("  ? [a]\n  : b"), "is no field"},
		"too large":                    {"#" + strings.Repeat("x", maxFile), "1048576 are the most"},
		"too many rules":               {"rules:\n" + strings.Repeat("- {}\n", maxRules+1), "256 are the most"},
		"itself":                       {"&a rules: *a", "line 1: rules"},
		"around itself":                {"rules: &a [*a]", "line 1"},
	} {
		_, err := ParsePolicies([]byte(c.text))
		require.ErrorIs(t, err, ErrPolicy, name)
		require.ErrorContains(t, err, c.where, name)
		require.Equal(t, 1, strings.Count(err.Error(), ErrPolicy.Error()), "%s: %v", name, err)
	}
}

func TestWhatARuleLeavesToTheOperatorHasToBeThere(t *testing.T) {
	keys := "rules:\n- images: ['*']\n  image:\n    keys: " + indented(publicPEM(t, newKey(t)))
	identities := "rules:\n- images: ['*']\n  image:\n    identities: [{issuer: a, subject: b}]"
	certificates := "rules:\n- images: ['*']\n  uki: {expired: Allow}"
	db := database(t, firmwareKey(t, 0, "a", time.Now().Add(time.Hour)).pem(), nil)
	for _, c := range []struct {
		text string
		d    Defaults
		why  string
	}{
		{keys, Defaults{}, ""},
		{identities, Defaults{TrustedRoot: trustedRoot(t)}, ""},
		{certificates, Defaults{Database: db}, ""},
		{identities, Defaults{Database: db}, "line 2: its identities need a sigstore trusted root"},
		{identities, Defaults{TrustedRoot: []byte("x")}, "line 2: the trusted root: it cannot be read"},
		{certificates, Defaults{TrustedRoot: trustedRoot(t)}, "line 2: its uki names no certificates"},
	} {
		rules, err := ParsePolicies([]byte(c.text))
		require.NoError(t, err)
		before := rules.For("example.com/os")[0].Key()
		_, err = rules.Complete(c.d)
		require.Equal(t, before, rules.For("example.com/os")[0].Key(), "the rules themselves stay as they are")
		if c.why == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorIs(t, err, ErrPolicy)
		require.ErrorContains(t, err, c.why)
	}
}

// The examples of the documentation are files that the operator takes.
func TestTheDocumentedFilesAreRead(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "verification.md"))
	require.NoError(t, err)
	examples := regexp.MustCompile("(?s)```yaml\n(rules:.*?)```").FindAllSubmatch(text, -1)
	require.NotEmpty(t, examples)
	cert := firmwareKey(t, 0, "a", time.Now().Add(time.Hour))
	for _, e := range examples {
		rules, err := ParsePolicies(e[1])
		require.NoError(t, err, string(e[1]))
		_, err = rules.Complete(Defaults{TrustedRoot: trustedRoot(t), Database: database(t, cert.pem(), nil)})
		require.NoError(t, err, string(e[1]))
	}
}

func FuzzParsePolicies(f *testing.F) {
	key := indented(publicPEM(f, newKey(f)))
	f.Add([]byte("rules:\n- images: ['*']\n  image:\n    keys: "+key+"\n    signed: Index\n  uki:\n    expired: Refuse\n"), "registry.example.com/os")
	f.Add([]byte("rules:\n- images: [example.com/os]\n  image:\n    identities:\n    - {issuer: a, subjectRegExp: .*}\n"), "https://example.com/os/a.efi")
	f.Add([]byte("rules: &a [*a]"), "x")
	f.Fuzz(func(t *testing.T, text []byte, image string) {
		r, err := ParsePolicies(text)
		if err != nil {
			require.ErrorIs(t, err, ErrPolicy)
			require.Less(t, len(err.Error()), 2000)
			return
		}
		for _, p := range r.For(image) {
			require.Equal(t, p.Key(), p.Key())
			require.True(t, p.Image != nil || p.UKI != nil)
		}
		_, _ = r.Complete(Defaults{})
	})
}

// What the documentation says of failures is what the code says.
func TestTheDocumentedFailuresAreThoseOfTheCode(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "verification.md"))
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(text), "| it says | do |")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	var code strings.Builder
	for _, dir := range []string{"artifact", "sigstore", "uki", "verification"} {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		require.NoError(t, err)
		for _, f := range files {
			if filepath.Base(f) == "rules_test.go" {
				continue
			}
			// The tests too: they hold what a library says.
			content, err := os.ReadFile(f)
			require.NoError(t, err)
			code.Write(content)
		}
	}
	all := regexp.MustCompile(`(?m)^\| (.*?) \|`).FindAllStringSubmatch(table, -1)
	require.Greater(t, len(all), 8)
	for _, row := range all {
		for _, said := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			for piece := range strings.SplitSeq(said[1], "…") {
				for part := range strings.SplitSeq(piece, "SHA2_384") {
					if part = strings.TrimSpace(part); len(part) > 8 {
						require.True(t, strings.Contains(code.String(), part), part)
					}
				}
			}
		}
	}
}

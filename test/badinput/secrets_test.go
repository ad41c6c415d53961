//go:build linux

package badinput

import (
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// tokenPattern is every token, also those that the operator mints by itself.
var tokenPattern = regexp.MustCompile(`\bAQ[A-Za-z0-9_-]{78}`)

func keyOf(m machine) client.ObjectKey { return client.ObjectKeyFromObject(m.HTTPBootConfig) }

// said is everything that the operator has told anyone but the machines.
func (s *site) said(t *testing.T) map[string]string {
	t.Helper()
	text := func(o any) string {
		b, err := json.Marshal(o)
		require.NoError(t, err)
		return string(b)
	}
	var configs v1alpha1.HTTPBootConfigList
	require.NoError(t, s.client.List(t.Context(), &configs, client.InNamespace(s.namespace)))
	var scripts v1alpha1.IPXEBootConfigList
	require.NoError(t, s.client.List(t.Context(), &scripts, client.InNamespace(s.namespace)))
	var events corev1.EventList
	require.NoError(t, s.client.List(t.Context(), &events, client.InNamespace(s.namespace)))
	require.NotEmpty(t, events.Items)
	all := map[string]string{"log": s.log.String(), "objects": text(configs) + text(scripts), "events": text(events), "metrics": s.scrape(t)}
	journal := filepath.Join(s.dir, "state", "journal")
	require.NoError(t, filepath.WalkDir(journal, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	}))
	return all
}

func (s *site) scrape(t *testing.T) string {
	t.Helper()
	a := (&site{t: s.t, network: s.network, boot: s.metrics}).get("127.0.0.1", "/metrics")
	require.NoError(t, a.err)
	require.Equal(t, 200, a.code)
	return string(a.body)
}

// requireSilence holds that neither tokens nor anything of a document or a
// password is in what the operator said.
func (s *site) requireSilence(t *testing.T, tokens []string) {
	secrets := []string{"Response Body", "Request Body"}     // what the Kubernetes client calls them
	secrets = append(secrets, strings.Split(marker, "-")...) // a dump may have broken its line anywhere
	for shift := range 3 {                                   // base64 of something around the marker
		b := base64.StdEncoding.EncodeToString(append(make([]byte, shift), marker...))
		secrets = append(secrets, b[4:20])
	}
	for _, token := range tokens {
		// The end is the seal, without which the rest is nothing.
		secrets = append(secrets, token, strings.ToLower(token), token[len(token)-24:])
	}
	for _, token := range tokens {
		require.Regexp(t, tokenPattern, "/"+token+"/", "the control: a token looks like that")
	}
	said := s.said(t)
	require.Contains(t, said["log"], `"client": "127.9.255.3"`, "the control: these requests are in the log")
	require.Contains(t, said["log"], `"reason": "Unproven"`)
	require.Contains(t, said["log"], "tokened")
	for where, text := range said {
		require.Empty(t, tokenPattern.FindString(text), where)
		for _, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s tells %s: …%s…", where, secret, text[max(0, i-300):min(len(text), i+300)])
			}
		}
	}
}

var (
	labelValue = regexp.MustCompile(`([a-zA-Z_]+)="((?:[^"\\]|\\.)*)"`)
	// personal is what names a machine or an object: addresses, UUIDs and UIDs,
	// MACs, digests, tokens.
	personal = regexp.MustCompile(`(?i)\d+\.\d+\.\d+\.\d+|[0-9a-f]{8}-[0-9a-f]{4}-|[0-9a-f]{2}[:-][0-9a-f]{2}[:-][0-9a-f]{2}|[0-9a-f]{32}|[A-Za-z0-9_-]{60}|[0-9a-f]*::[0-9a-f]`)
)

// requireAnonymousMetrics holds that no label of a metric names a machine or an
// object: there would be as many series as machines, for all to read.
func (s *site) requireAnonymousMetrics(t *testing.T) {
	text := s.scrape(t)
	for _, series := range []string{
		`boot_operator_http_requests_total{code="200",method="GET",route="/httpboot"}`, `boot_operator_http_refusals_total{reason="UnknownMachine"}`,
		`boot_operator_artifact_pulls_total{result="digest_mismatch"}`,
	} {
		require.Contains(t, text, series)
	}
	require.True(t, personal.MatchString("127.9.0.1") && personal.MatchString("fe80::1") && personal.MatchString(string(s.objects[1].GetUID())), "the control")
	named := map[string]bool{} // by the operator's own flags
	for _, host := range append(append([]string{}, s.plain...), s.secure...) {
		named[host] = true
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, m := range labelValue.FindAllStringSubmatch(line, -1) {
			label, value := m[1], m[2]
			if label == "registry" && named[value] || label == "host" && strings.HasPrefix(line, "rest_client_") {
				continue
			}
			require.False(t, personal.MatchString(value), "%s", line)
			for _, o := range s.objects {
				require.NotEqual(t, o.GetName(), value, "%s", line)
			}
		}
	}
}

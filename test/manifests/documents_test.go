package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sources are the places whose manifests must apply.
var sources = []string{"README.md", "config/samples/*.yaml", "docs/*.md", "docs/*/*.md", "charts/*/*.md"}

func TestSamplesAndDocumentationApply(t *testing.T) {
	c := newCluster(t)
	found := map[string]int{}
	for _, s := range snippets(t) {
		t.Run(s.name, func(t *testing.T) {
			objects, err := parse(s.text)
			if err != nil {
				t.Fatal(err)
			}
			for _, object := range objects {
				if strings.HasPrefix(object.GetAPIVersion(), "kustomize.config.k8s.io/") {
					continue // read by kustomize, not by an API server
				}
				found[filepath.Dir(s.file)]++
				if err := c.try(t.Context(), object); err != nil {
					t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
				}
			}
		})
	}
	for _, dir := range []string{".", "config/samples", "docs"} {
		if found[dir] == 0 {
			t.Errorf("no manifest found in %s: does the test still look in the right place?", dir)
		}
	}
}

func TestKustomizationListsEverySample(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repo(t), "config/samples/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	listed, err := os.ReadFile(filepath.Join(repo(t), "config/samples/kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := filepath.Base(file); name != "kustomization.yaml" && !strings.Contains(string(listed), "- "+name+"\n") {
			t.Errorf("%s is not listed", name)
		}
	}
	render(t, "kustomize", "build", "config/samples")
}

// What is tried above must be able to fail.
func TestBrokenManifestsAreRefused(t *testing.T) {
	c := newCluster(t)
	for name, text := range map[string]string{
		"unknown field": "apiVersion: boot.ironcore.dev/v1alpha1\nkind: HTTPBootConfig\nmetadata: {name: a}\nspec: {imagee: example.com/os:1}",
		"wrong type":    "apiVersion: boot.ironcore.dev/v1alpha1\nkind: HTTPBootConfig\nmetadata: {name: a}\nspec: {networkIdentifiers: 10.0.0.5}",
		"CEL rule":      "apiVersion: boot.ironcore.dev/v1alpha1\nkind: HTTPBootConfig\nmetadata: {name: a}\nspec: {image: example.com/os:1, ukiURL: 'https://example.com/os.efi'}",
		"unknown kind":  "apiVersion: boot.ironcore.dev/v1alpha1\nkind: HTTPBootConfiguration\nmetadata: {name: a}",
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.try(t.Context(), objects[0]); err == nil {
				t.Error("applied")
			}
		})
	}
}

func TestSnippetsAreFoundInMarkdown(t *testing.T) {
	const text = "Look:\n```yaml\napiVersion: v1\n```\n```yaml\nspec: part of something\n```\n" +
		"- in a list:\n  ```yaml\n  kind: X\n  apiVersion: v2\n  ```\n" +
		"```console\n$ kubectl apply -f - <<'EOF'\napiVersion: v3\nEOF\n$ echo done\n```\n" +
		"```go\napiVersion := 1\n```\n"
	var got []string
	for _, s := range markdown("a.md", text) {
		got = append(got, s.name+" "+strings.TrimSpace(s.text))
	}
	want := []string{"a.md:3 apiVersion: v1", "a.md:10 kind: X\napiVersion: v2", "a.md:15 apiVersion: v3"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

type snippet struct{ name, file, text string }

func snippets(t *testing.T) []snippet {
	t.Helper()
	root := repo(t)
	var all []snippet
	for _, pattern := range sources {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(root, file)
			if filepath.Ext(file) == ".md" {
				all = append(all, markdown(name, string(text))...)
			} else {
				all = append(all, snippet{name, name, string(text)})
			}
		}
	}
	return all
}

var (
	fence      = regexp.MustCompile("^( *)```+ *([a-z]*)")
	heredoc    = regexp.MustCompile(`<<-? *['"]?([A-Z]+)['"]?$`)
	apiVersion = regexp.MustCompile(`(?m)^apiVersion:`)
)

// markdown finds manifests in fenced blocks of YAML and in here-documents of
// other fenced blocks.
func markdown(file, text string) []snippet {
	var found []snippet
	var block []string
	var start int
	var indent, language, delimiter string
	inFence := false
	end := func() {
		if text := strings.Join(block, "\n") + "\n"; apiVersion.MatchString(text) {
			found = append(found, snippet{fmt.Sprintf("%s:%d", file, start), file, text})
		}
		block, delimiter = nil, ""
	}
	for i, line := range strings.Split(text, "\n") {
		if match := fence.FindStringSubmatch(line); match != nil {
			if inFence && language == "yaml" {
				end()
			}
			inFence, indent, language, start = !inFence, match[1], match[2], i+2
			continue
		}
		if !inFence {
			continue
		}
		line = strings.TrimPrefix(line, indent)
		switch {
		case language == "yaml":
			block = append(block, line)
		case delimiter != "" && line == delimiter:
			end()
		case delimiter != "":
			block = append(block, line)
		case heredoc.MatchString(line):
			delimiter, start = heredoc.FindStringSubmatch(line)[1], i+2
		}
	}
	return found
}

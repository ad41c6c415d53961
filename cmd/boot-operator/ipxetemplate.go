package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// templateKey is the key of the ConfigMap that holds the template.
	templateKey = "template.ipxe"
	// templatePeriod is how often the template is read again.
	templatePeriod = 10 * time.Second
	// maxTemplate bounds a template in bytes.
	maxTemplate = 64 << 10
)

// ipxeTemplate keeps the operator's template of iPXE scripts as a file or a
// ConfigMap tells it. One that cannot be read, or is wrong, leaves the last good
// one in force, over restarts too: a copy of it is kept on disk.
type ipxeTemplate struct {
	file      string
	configMap types.NamespacedName
	reader    client.Reader
	// lastGood is the path of the copy.
	lastGood string
	// replace puts a template in force; it refuses one that is wrong.
	replace func(template string) error
	logger  logr.Logger

	current string
	failed  string
}

func (t *ipxeTemplate) configured() bool { return t.file != "" || t.configMap.Name != "" }

// Start puts the template in force, or the last good one where it is wrong. It
// returns an error when there is neither: the built-in one is not what was asked
// for.
func (t *ipxeTemplate) Start(ctx context.Context) error {
	if !t.configured() {
		return nil
	}
	err := t.load(ctx)
	if err == nil {
		return nil
	}
	text, readErr := os.ReadFile(t.lastGood)
	if readErr == nil && t.replace(string(text)) == nil {
		t.current, t.failed = string(text), err.Error()
		t.logger.Error(err, "iPXE template not usable; the last good one stays in force")
		return nil
	}
	return err
}

// Run reads the template again and again until ctx ends.
func (t *ipxeTemplate) Run(ctx context.Context) error {
	for t.configured() && ctx.Err() == nil {
		pause(ctx, templatePeriod)
		err := t.load(ctx)
		switch {
		case ctx.Err() != nil:
		case err == nil:
			t.failed = ""
		case err.Error() != t.failed:
			t.failed = err.Error()
			t.logger.Error(err, "iPXE template not usable; the last good one stays in force")
		}
	}
	return nil
}

func (t *ipxeTemplate) load(ctx context.Context) error {
	text, err := t.read(ctx)
	if err != nil {
		return fmt.Errorf("reading the iPXE template: %w", err)
	}
	if text == t.current {
		return nil
	}
	if len(text) > maxTemplate {
		return fmt.Errorf("reading the iPXE template: %d bytes are more than the %d that are allowed", len(text), maxTemplate)
	}
	if err := t.replace(text); err != nil {
		return fmt.Errorf("reading the iPXE template: %w", err)
	}
	t.current = text
	t.logger.Info("iPXE template in force", "bytes", len(text))
	if err := t.keep(text); err != nil {
		t.logger.Error(err, "iPXE template not kept for a restart")
	}
	return nil
}

func (t *ipxeTemplate) read(ctx context.Context) (string, error) {
	if t.file != "" {
		text, err := os.ReadFile(t.file)
		return string(text), err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var m corev1.ConfigMap
	if err := t.reader.Get(ctx, t.configMap, &m); err != nil {
		return "", err
	}
	text, ok := m.Data[templateKey]
	if !ok {
		return "", fmt.Errorf("ConfigMap %s has no key %q", t.configMap, templateKey) //nolint:staticcheck // a kind's name
	}
	return text, nil
}

// keep writes the copy so that it is whole or the one before.
func (t *ipxeTemplate) keep(text string) error {
	next := t.lastGood + ".new"
	return errors.Join(
		os.MkdirAll(filepath.Dir(t.lastGood), 0o755),
		os.WriteFile(next, []byte(text), 0o600),
		os.Rename(next, t.lastGood),
	)
}

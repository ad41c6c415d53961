package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"text/template"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

const (
	sampleName    = "demo"
	machineUUID   = "00112233-4455-6677-8899-aabbccddee01"
	sampleTimeout = time.Minute
)

// operatorObjects are what an operator finds in its namespace.
const operatorObjects = `apiVersion: v1
kind: Namespace
metadata:
  name: {{.Namespace}}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{.TokenSecret}}
  namespace: {{.Namespace}}
data:
  key-1: {{.Key}}
`

// sampleObjects are a machine that asks from 127.0.0.1, and its Ignition.
const sampleObjects = `apiVersion: v1
kind: Secret
metadata:
  name: {{.Name}}-ignition
  namespace: default
stringData:
  format: fcos
  ignition: |
    variant: fcos
    version: 1.5.0
    storage:
      files:
        - path: /etc/motd
          contents:
            inline: This machine was booted by boot-operator.
---
apiVersion: boot.ironcore.dev/v1alpha1
kind: HTTPBootConfig
metadata:
  name: {{.Name}}
  namespace: default
spec:
  systemUUID: {{.UUID}}
  networkIdentifiers:
    - 127.0.0.1
  image: {{.Image}}
  ignitionSecretRef:
    name: {{.Name}}-ignition
`

func (s *site) applySample(ctx context.Context) error {
	return s.apply(ctx, "demo.yaml", sampleObjects, map[string]string{"Name": sampleName, "UUID": machineUUID, "Image": s.image})
}

// apply writes a manifest into the work directory and applies it.
func (s *site) apply(ctx context.Context, file, text string, values map[string]string) error {
	var manifest strings.Builder
	if err := template.Must(template.New(file).Option("missingkey=error").Parse(text)).Execute(&manifest, values); err != nil {
		return err
	}
	if err := os.WriteFile(s.workdir.file(file), []byte(manifest.String()), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, s.workdir.file("kubectl"), "apply", "-f", s.workdir.file(file))
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("applying %s: %w\n%s", file, err, said)
	}
	return nil
}

// waitForSample waits until the object says Ready and the boot server serves it.
func (s *site) waitForSample(ctx context.Context) error {
	err := poll(ctx, sampleTimeout, s.operator.failure, func(ctx context.Context) (bool, string) {
		config, err := s.sample(ctx)
		if err != nil {
			return false, err.Error()
		}
		if isTrue(config.Status, v1alpha1.ConditionReady) {
			return true, ""
		}
		return false, describe(config.Status, v1alpha1.ConditionReady)
	})
	if err == nil {
		err = poll(ctx, 10*time.Second, s.operator.failure, func(ctx context.Context) (bool, string) {
			code, err := get(ctx, http.MethodHead, s.bootURL()+"/httpboot")
			return err == nil && code == http.StatusOK, fmt.Sprintf("HEAD %s/httpboot: status %d, error %v", s.bootURL(), code, err)
		})
	}
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, fmt.Errorf("the last lines of the operator's log:\n%s", s.operator.logTail()))
	}
	return err
}

// sample reads the object.
func (s *site) sample(ctx context.Context) (*v1alpha1.HTTPBootConfig, error) {
	if s.client == nil {
		scheme := runtime.NewScheme()
		if err := errors.Join(v1alpha1.AddToScheme(scheme), metal3.AddToScheme(scheme)); err != nil {
			return nil, err
		}
		c, err := client.New(s.plane.Config, client.Options{Scheme: scheme})
		if err != nil {
			return nil, err
		}
		s.client = c
	}
	config := &v1alpha1.HTTPBootConfig{}
	return config, s.client.Get(ctx, client.ObjectKey{Namespace: "default", Name: sampleName}, config)
}

// describe is a condition in one line.
func describe(status v1alpha1.ConfigStatus, condition string) string {
	c := meta.FindStatusCondition(status.Conditions, condition)
	if c == nil {
		return condition + " is not known yet"
	}
	return strings.TrimSpace(fmt.Sprintf("%s=%s %s %s", condition, c.Status, c.Reason, c.Message))
}

func isTrue(status v1alpha1.ConfigStatus, condition string) bool {
	return meta.IsStatusConditionTrue(status.Conditions, condition)
}

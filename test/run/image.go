package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/registry"
)

const registryPort = 5050

// publishDemoImage starts a registry in this process and pushes an image index
// to it, as one does to any registry: a UKI that greets, for each architecture.
func (s *site) publishDemoImage(ctx context.Context) error {
	l, err := listen(registryPort)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: registry.New(registry.Options{}), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // ends with Close
	s.stopRegistry = server.Close
	s.registryHost = l.Addr().String()
	s.image = s.registryHost + "/demo/os:1"

	repository, err := remote.NewRepository(s.image)
	if err != nil {
		return err
	}
	repository.PlainHTTP = true
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, architecture := range []string{"amd64", "arm64"} {
		manifest, err := publishUKI(ctx, repository, architecture)
		if err != nil {
			return fmt.Errorf("publishing for %s: %w", architecture, err)
		}
		index.Manifests = append(index.Manifests, manifest)
	}
	content, err := json.Marshal(index)
	if err != nil {
		return err
	}
	_, err = oras.TagBytes(ctx, repository, index.MediaType, content, repository.Reference.Reference)
	return err
}

// publishUKI pushes the manifest of one architecture.
func publishUKI(ctx context.Context, repository *remote.Repository, architecture string) (ocispec.Descriptor, error) {
	uki, err := demoimage.Greeting(architecture, "\n"+greeting+"\nIt switches the machine off now.\n")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	layer, err := oras.PushBytes(ctx, repository, registry.UKI, uki)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest, err := oras.PackManifest(ctx, repository, oras.PackManifestVersion1_1, registry.UKI,
		oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}})
	manifest.Platform = &ocispec.Platform{OS: "linux", Architecture: architecture}
	return manifest, err
}

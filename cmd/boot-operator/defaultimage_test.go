package main

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/registry"
)

// What every unknown machine boots is what it was, until something better is
// complete; an image's word for its architecture is not enough.
func TestTheDefaultImageChangesOnlyForTheBetter(t *testing.T) {
	reg, err := registry.Serve("127.0.0.1:0", registry.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close()) })
	store, err := artifact.New(artifact.Options{
		Dir: t.TempDir(), AllowedRegistries: []string{reg.Host}, PlainHTTPRegistries: []string{reg.Host}, Check: checkArtifact, Logger: logr.Discard(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	d := &defaultImage{reference: reg.Host + "/os/image:1", architecture: boot.AMD64, store: store, logger: logr.Discard()}
	publish := func(code string) {
		uki, err := demoimage.Greeting(code, "hello from "+code)
		require.NoError(t, err)
		_, err = reg.Publish("os/image", "1", map[string][]byte{"amd64": uki})
		require.NoError(t, err)
	}

	publish("arm64")
	require.ErrorIs(t, d.refresh(t.Context()), artifact.ErrNoPlatform)
	_, _, ok := d.Get()
	require.False(t, ok)

	publish("amd64")
	require.NoError(t, d.refresh(t.Context()))
	first, name, ok := d.Get()
	require.True(t, ok)
	require.Equal(t, reg.Host+"/os/image", name)
	require.Contains(t, d.keep(nil), first.Digest)

	publish("arm64")
	require.ErrorContains(t, d.refresh(t.Context()), "is a program for arm64, and unknown machines are amd64")
	reg.Set(registry.Faults{Broken: 503})
	require.Error(t, d.refresh(t.Context()))
	still, _, _ := d.Get()
	require.Equal(t, first, still)
}

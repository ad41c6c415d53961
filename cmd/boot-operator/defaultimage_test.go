package main

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"github.com/boot-operator/boot-operator/internal/artifact"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/controller/bootconfig"
	"github.com/boot-operator/boot-operator/internal/uki"
	"github.com/boot-operator/boot-operator/internal/verification"
	"github.com/boot-operator/boot-operator/test/demoimage"
	"github.com/boot-operator/boot-operator/test/registry"
)

// policed is a verifier with an operator's policy and db.
func policed(store *artifact.Store, db, policy string) (verifier, error) {
	rules, err := verification.ParsePolicies([]byte(policy))
	if err != nil {
		return verifier{}, err
	}
	trusted, err := uki.ParseDatabase([]byte(db), nil)
	if err != nil {
		return verifier{}, err
	}
	rules, err = rules.Complete(verification.Defaults{Database: trusted})
	return verifier{signatureSettings{rules: rules, db: trusted}, verification.New(store, store)}, err
}

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
	d := &defaultImage{
		reference: reg.Host + "/os/image:1", architecture: boot.AMD64, store: store, logger: logr.Discard(),
		verifier: verifier{checks: verification.New(store, store)},
	}
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

	// The operator's policy counts for it too.
	_, db := newSigner(t, "ours")
	policy, err := policed(store, string(db), "rules:\n- images: ["+reg.Host+"/os]\n  uki: {}\n")
	require.NoError(t, err)
	d.verifier = policy
	require.ErrorIs(t, d.refresh(t.Context()), bootconfig.ErrUnverified)
	unchanged, _, _ := d.Get()
	require.Equal(t, first, unchanged)
	d.verifier = verifier{checks: verification.New(store, store)}

	publish("arm64")
	require.ErrorContains(t, d.refresh(t.Context()), "is a program for arm64, and unknown machines are amd64")
	reg.Set(registry.Faults{Broken: 503})
	require.Error(t, d.refresh(t.Context()))
	still, _, _ := d.Get()
	require.Equal(t, first, still)
}

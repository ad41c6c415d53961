package main

import (
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// offering are the flags of a process that offers boots and does nothing else.
var offering = []string{
	"--controllers=none", "--boot-server-address=0", "--image-proxy-server-address=0", "--netboot-interface=eth0", "--ipxe-service-url=http://10.0.0.1:8082",
}

func TestAProcessWithoutControllersIsOneOfTwoKinds(t *testing.T) {
	serving, err := parse(t, nil, "--controllers=none")
	require.NoError(t, err)
	require.True(t, serving.servesOnly())
	require.False(t, serving.offersOnly(), "it serves what machines fetch")
	require.Empty(t, serving.controllersOf(controllerHTTP, controllerIPXE))

	offers, err := parse(t, nil, offering...)
	require.NoError(t, err)
	require.True(t, offers.offersOnly())

	all, err := parse(t, nil, offering[1:]...)
	require.NoError(t, err)
	require.False(t, all.offersOnly(), "its controllers pull")
	_, err = parse(t, nil, append(offering, "--boot-server-tls-address=:8443", "--tls-cert-file=a", "--tls-key-file=b")...)
	require.NoError(t, err)
	tls, _ := parse(t, nil, append(offering, "--boot-server-tls-address=:8443", "--tls-cert-file=a", "--tls-key-file=b")...)
	require.False(t, tls.offersOnly(), "it serves over HTTPS")
}

func TestAProcessWithoutControllersIsToldWhatItCannotDo(t *testing.T) {
	for want, args := range map[string][]string{
		"none stands alone":                      {"--controllers=none,httpbootconfig"},
		"leave out --baremetalhost-mode=drive":   {"--controllers=none", "--baremetalhost-mode=drive"},
		"there is nothing left to do":            {"--controllers=none", "--boot-server-address=0", "--image-proxy-server-address=0"},
		`"nothing" is not one of httpbootconfig`: {"--controllers=nothing"},
	} {
		_, err := parse(t, nil, args...)
		require.ErrorContains(t, err, want)
	}
}

// What is no part of the process is not run, and not waited for to be ready.
func TestAProcessThatOnlyOffersBootsPullsNothing(t *testing.T) {
	c, err := connect(&rest.Config{Host: "http://127.0.0.1:1"}, logr.Discard())
	require.NoError(t, err)
	partsOf := func(args ...string) (names []string) {
		s, err := parse(t, nil, args...)
		require.NoError(t, err)
		for name := range (&parts{cluster: c, settings: s}).foundation() {
			names = append(names, name)
		}
		return names
	}
	pulling := []string{"artifacts", "prefetch", "default image", "iPXE template"}
	require.Subset(t, partsOf(), pulling, "or this test would see nothing")
	require.Subset(t, partsOf("--controllers=none"), pulling, "it serves")
	offers := partsOf(offering...)
	for _, name := range pulling {
		require.NotContains(t, offers, name)
	}
	require.Subset(t, offers, []string{"cache", "observer", "token keys", "probes", "metrics"})
}

// A process that offers boots has no right to make the keys: it says what is missing,
// and takes them as soon as they are there.
func TestAProcessThatOnlyOffersBootsWaitsForTheTokenKeys(t *testing.T) {
	api := fake.NewClientBuilder().Build()
	k := &tokenKeys{reader: api, waits: true, secret: types.NamespacedName{Namespace: "ours", Name: "keys"}, logger: logr.Discard(), keyring: &boot.Keyring{}}
	err := k.load(t.Context())
	require.True(t, apierrors.IsNotFound(err), err)
	require.ErrorContains(t, err, "makes it")

	maker := &tokenKeys{reader: api, writer: api, secret: k.secret, logger: logr.Discard(), keyring: &boot.Keyring{}}
	require.NoError(t, maker.load(t.Context()))
	require.NoError(t, k.load(t.Context()))
	_, err = k.keyring.Mint(boot.Token{Object: "00112233-4455-6677-8899-aabbccddeeff", Attempt: 1, Expires: time.Unix(1<<31, 0)})
	require.NoError(t, err)
}

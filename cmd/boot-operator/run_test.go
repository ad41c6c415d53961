package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/boot-operator/boot-operator/internal/inventory"
)

func TestPartsThatNeedTheInventoryWaitForIt(t *testing.T) {
	var synced, ran atomic.Bool
	asked := make(chan struct{}, 1)
	errPart := errors.New("part ended")
	part := afterSync(func() bool {
		select {
		case asked <- struct{}{}:
		default:
		}
		return synced.Load()
	}, func(context.Context) error { ran.Store(true); return errPart })

	ended := make(chan error, 1)
	go func() { ended <- part(t.Context()) }()
	<-asked
	<-asked
	require.False(t, ran.Load(), "before the inventory has seen everything")
	synced.Store(true)
	require.ErrorIs(t, <-ended, errPart)

	synced.Store(false)
	ran.Store(false)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, part(over))
	require.False(t, ran.Load(), "an end before that is an end")
}

// The store's sweep keeps what the inventory names, and controllers ask it who
// loses an identity: neither may begin before it knows.
func TestNothingPullsOrDecidesBeforeTheInventoryKnows(t *testing.T) {
	c, err := connect(&rest.Config{Host: "http://127.0.0.1:1"}, logr.Discard())
	require.NoError(t, err)
	p := &parts{cluster: c, inventory: inventory.New(inventory.Options{})} // the rest is nil: to run it is to panic
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range []string{"artifacts", "prefetch", "default image"} {
		require.NotPanics(t, func() { require.NoError(t, p.foundation()[name](over)) }, name)
	}
	require.Panics(t, func() { _ = p.store.Run(over) }, "or this test would see nothing")
}

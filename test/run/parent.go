package main

import (
	"context"
	"os"
	"time"
)

// endWithParent ends the context when the process that started this one ends,
// or is a make that was told to: `go run` passes no SIGTERM on, and make no
// SIGINT, which it takes for one that ctrl-C sent to all of us.
func endWithParent(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	parent := os.Getppid()
	go func() {
		for os.Getppid() == parent && !makeInterrupted(parent) {
			time.Sleep(200 * time.Millisecond)
		}
		cancel()
	}()
	return ctx
}

//go:build !linux

package netboot

import (
	"context"
	"errors"
	"runtime"
)

func supported() error {
	return errors.New("ProxyDHCP and TFTP are served on Linux only, not on " + runtime.GOOS)
}

func (s *Server) run(context.Context) error { return supported() }

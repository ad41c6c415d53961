//go:build !linux

package lab

import "errors"

const namespaces = "/run/netns"

func inNamespace(string, func() error) error { return errors.New("network namespaces need Linux") }

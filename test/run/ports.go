package main

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// ports are those of the servers, all on 127.0.0.1.
type ports struct {
	boot, bootTLS, images, metrics, probes int
}

// pickPorts takes the ports that the operator has by default where they are
// free, and any other where they are not.
func pickPorts() (ports, error) {
	var p ports
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	for _, want := range []struct {
		port   *int
		number int
	}{{&p.boot, 8082}, {&p.bootTLS, 8443}, {&p.images, 8083}, {&p.metrics, 8080}, {&p.probes, 8081}} {
		l, err := listen(want.number)
		if err != nil {
			return ports{}, err
		}
		held = append(held, l)
		*want.port = l.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

// listen listens on this port of 127.0.0.1 or, if it is taken, on another.
func listen(port int) (net.Listener, error) {
	if !answers(port) {
		if l, err := net.Listen("tcp", address(port)); err == nil {
			return l, nil
		}
	}
	l, err := net.Listen("tcp", address(0))
	if err != nil {
		return nil, errors.Join(errors.New("no port of 127.0.0.1 is free"), err)
	}
	return l, nil
}

// answers says whether someone listens there. Where another process listens on
// all addresses, macOS lets us listen on this one, and take its connections.
func answers(port int) bool {
	c, err := net.DialTimeout("tcp", address(port), 200*time.Millisecond)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

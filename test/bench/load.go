package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// target is one request, asked again and again from one address on one
// connection.
type target struct {
	from    netip.Addr
	to      string
	path    string
	headers string
	// right makes sure that a figure is of the real answer, not of an error.
	right func(resp *http.Response, body []byte) error
}

// requestsPerSecond asks every target at once for a while. It fails when any
// answer is not what is wanted of that target, byte for byte.
func requestsPerSecond(targets []target, want [][]byte, d time.Duration) (float64, error) {
	var count atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, len(targets))
	start := time.Now()
	for i, t := range targets {
		wg.Go(func() {
			n, err := t.ask(want[i], start.Add(d))
			count.Add(n)
			if err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return 0, err
	}
	return float64(count.Load()) / time.Since(start).Seconds(), nil
}

func (t target) ask(want []byte, until time.Time) (int64, error) {
	c, err := t.dial()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	request := []byte("GET " + t.path + " HTTP/1.1\r\nHost: boot\r\n" + t.headers + "\r\n")
	in := bufio.NewReader(c)
	body := make([]byte, len(want))
	var n int64
	for ; time.Now().Before(until); n++ {
		if _, err := c.Write(request); err != nil {
			return n, err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return n, err
		}
		if resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(want)) {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
			return n, fmt.Errorf("%s from %s: %s %s", t.path, t.from, resp.Status, text)
		}
		if _, err := io.ReadFull(resp.Body, body); err != nil || string(body) != string(want) {
			return n, fmt.Errorf("%s from %s: %q, want %q: %w", t.path, t.from, body, want, cmp.Or(err, errors.New("another answer")))
		}
		_ = resp.Body.Close()
	}
	return n, nil
}

// first asks once and returns the answer, which every later one must equal.
func (t target) first() ([]byte, error) {
	c, err := t.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET " + t.path + " HTTP/1.1\r\nHost: boot\r\nConnection: close\r\n" + t.headers + "\r\n")); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return body, t.right(resp, body)
}

func (t target) dial() (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: t.from.AsSlice()}}
	return d.Dial("tcp", t.to)
}

// download reads url from each of the addresses at once, throws the bytes away
// and returns how many a second there were.
func download(url string, size int64, from []netip.Addr) (float64, error) {
	var wg sync.WaitGroup
	errs := make(chan error, len(from))
	start := time.Now()
	for _, a := range from {
		wg.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: a.AsSlice()}}
			c := &http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableCompression: true, ReadBufferSize: 256 << 10}}
			defer c.CloseIdleConnections()
			resp, err := c.Get(url)
			if err != nil {
				errs <- err
				return
			}
			defer resp.Body.Close()
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 256<<10))
			if err == nil && (resp.StatusCode != http.StatusOK || n != size) {
				err = fmt.Errorf("%s: %s, %d bytes of %d", url, resp.Status, n, size)
			}
			if err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return 0, err
	}
	return float64(size) * float64(len(from)) / time.Since(start).Seconds(), nil
}

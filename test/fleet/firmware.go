package fleet

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const (
	// patience is how long firmware waits for bytes: EDK2 gives a boot up after five
	// idle seconds.
	patience = 5 * time.Second
	// slice is how much a machine reads before it looks at the clock, in bytes.
	slice = 32 << 10
)

// The ways in which a boot fails.
var (
	// ErrUnreached: nobody answered.
	ErrUnreached = errors.New("nobody answered")
	// ErrRefused: the answer was not 200.
	ErrRefused = errors.New("the boot was refused")
	// ErrCut: the bytes ended too early, or did not come for five seconds.
	ErrCut = errors.New("the bytes were cut")
	// ErrClosed: the connection was closed between HEAD and GET.
	ErrClosed = errors.New("the connection was closed between HEAD and GET")
	// ErrForeign: the machine was given what is another's.
	ErrForeign = errors.New("the machine was given what is not its own")
	// ErrAnswer: firmware would not take this answer.
	ErrAnswer = errors.New("firmware would not take this answer")
	// ErrNoIgnition: the operating system did not get its configuration.
	ErrNoIgnition = errors.New("no Ignition")
)

// caller asks over one connection from a machine's address, which the replica behind
// the balancer is told.
type caller struct {
	conn    net.Conn
	in      *bufio.Reader
	to      string
	replica string
	through func(net.Addr) string
}

// connect opens the connection. from is the address that replicas are told.
func (f *Fleet) connect(ctx context.Context, from netip.Addr) (*caller, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: inner(from).AsSlice()}, Timeout: patience, Control: likeEthernet}
	conn, err := d.DialContext(ctx, "tcp", f.balancer.Address())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreached, err)
	}
	return &caller{conn: conn, in: bufio.NewReaderSize(conn, slice), to: f.balancer.Address(), through: f.balancer.Through}, nil
}

// ask sends a request and reads the head of the answer.
func (c *caller) ask(method, path string, headers ...string) (*http.Response, error) {
	lines := append([]string{method + " " + path + " HTTP/1.1", "Host: " + strings.Split(c.to, ":")[0]}, headers...)
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.conn, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	c.replica = c.through(c.conn.LocalAddr())
	return resp, nil
}

// asFirmware is what firmware says of itself; nothing of it names the machine.
var asFirmware = []string{"User-Agent: UefiHttpBoot/1.0", "Accept: */*"}

// load asks for the image at path as OVMF does: HEAD for its size, and GET on the same
// connection. It returns the replica that answered.
func (f *Fleet) load(ctx context.Context, m *Machine, path string) (string, error) {
	c, err := f.connect(ctx, m.Addr)
	if err != nil {
		return "", err
	}
	defer c.conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	head, err := c.ask(http.MethodHead, path, asFirmware...)
	if err != nil {
		return c.replica, fmt.Errorf("%w: HEAD: %w", ErrUnreached, err)
	}
	if err := m.takes(head); err != nil {
		return c.replica, fmt.Errorf("HEAD: %w", err)
	}
	if head.Close {
		return c.replica, fmt.Errorf("%w: the answer to HEAD says so", ErrClosed)
	}
	get, err := c.ask(http.MethodGet, path, asFirmware...)
	if err != nil {
		return c.replica, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	defer get.Body.Close()
	if err := m.takes(get); err != nil {
		return c.replica, fmt.Errorf("GET: %w", err)
	}
	if get.ContentLength != head.ContentLength {
		return c.replica, fmt.Errorf("%w: HEAD says %d bytes, GET %d", ErrAnswer, head.ContentLength, get.ContentLength)
	}
	return c.replica, m.read(ctx, c.conn, get)
}

// takes says whether firmware takes this answer, and whether it is the machine's.
func (m *Machine) takes(a *http.Response) error {
	switch {
	case a.StatusCode != http.StatusOK:
		text, _ := io.ReadAll(io.LimitReader(a.Body, 300))
		return fmt.Errorf("%w: %s %s", ErrRefused, a.Status, text)
	case a.Header.Get("Content-Type") != "application/efi":
		return fmt.Errorf("%w: its type is %q", ErrAnswer, a.Header.Get("Content-Type"))
	case a.Header.Get("Etag") != `"`+m.Image.Digest+`"`:
		return fmt.Errorf("%w: the image %s, its own is %s", ErrForeign, a.Header.Get("Etag"), m.Image.Digest)
	case a.ContentLength != int64(len(m.Image.bytes)):
		return fmt.Errorf("%w: its length is %d", ErrAnswer, a.ContentLength)
	}
	return nil
}

// read reads the image, no faster than firmware writes it to memory.
func (m *Machine) read(ctx context.Context, conn net.Conn, a *http.Response) error {
	sum := sha256.New()
	buf := make([]byte, slice)
	for start, got := time.Now(), int64(0); ; {
		_ = conn.SetDeadline(time.Now().Add(patience))
		n, err := a.Body.Read(buf)
		sum.Write(buf[:n])
		got += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: after %d of %d bytes: %w", ErrCut, got, a.ContentLength, err)
		}
		pause(ctx, time.Until(start.Add(time.Duration(got)*time.Second/time.Duration(m.speed))))
	}
	if digest := "sha256:" + hex.EncodeToString(sum.Sum(nil)); digest != m.Image.Digest {
		return fmt.Errorf("%w: bytes with the digest %s, its own is %s", ErrForeign, digest, m.Image.Digest)
	}
	return nil
}

package fleet

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Trusted DHCP servers ask from these addresses, which a balancer with affinity sends to
// different replicas. Each machine has one of them.
const (
	dhcpPrefix  = "10.66.0.0/24"
	dhcpServers = 8
)

func (m *Machine) dhcpServer() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 66, 0, 1 + m.Addr.As4()[3]%dhcpServers})
}

// told is what a DHCP server was told for a machine.
type told struct {
	path string
	// by is the replica that told it, key the ID of the key that signed its token.
	by  string
	key byte
}

// tell asks as a trusted DHCP server does on behalf of a machine that sends DISCOVERs,
// which it does several times.
func (f *Fleet) tell(ctx context.Context, m *Machine) (told, error) {
	var err error
	for range 3 {
		var t told
		if t, err = f.askForURL(ctx, m); err == nil {
			return t, nil
		}
		pause(ctx, time.Second)
	}
	return told{}, err
}

func (f *Fleet) askForURL(ctx context.Context, m *Machine) (told, error) {
	c, err := f.connect(ctx, m.dhcpServer())
	if err != nil {
		return told{}, err
	}
	defer c.conn.Close()
	return c.askForURL(m)
}

// SigningKey is the ID of the key that a replica signs tokens with, as it shows in a URL
// that it tells for one of the machines.
func (f *Fleet) SigningKey(ctx context.Context, r *Replica) (byte, error) {
	i := slices.IndexFunc(f.Machines, func(m *Machine) bool { return m.ByToken })
	if i < 0 {
		return 0, errors.New("no machine boots by token")
	}
	m := f.Machines[i]
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.Boot)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := conn.Write(proxyHeader(netip.AddrPortFrom(m.dhcpServer(), 1), addrPort(conn.RemoteAddr()))); err != nil {
		return 0, err
	}
	c := &caller{conn: conn, in: bufio.NewReader(conn), to: r.Boot, through: func(net.Addr) string { return r.Name }}
	t, err := c.askForURL(m)
	return t.key, err
}

func (c *caller) askForURL(m *Machine) (told, error) {
	a, err := c.ask(http.MethodGet, "/httpboot", "Accept: application/json", "X-Forwarded-For: "+m.Addr.String()+", "+m.MAC, "Connection: close")
	if err != nil {
		return told{}, fmt.Errorf("%w: %w", ErrUnreached, err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(io.LimitReader(a.Body, 1<<16))
	if err != nil || a.StatusCode != http.StatusOK {
		return told{}, fmt.Errorf("%w: a DHCP server was told %s %.200s", ErrRefused, a.Status, body)
	}
	var answer struct{ UKIURL, SystemUUID string }
	if err := json.Unmarshal(body, &answer); err != nil {
		return told{}, fmt.Errorf("%w: a DHCP server was told %.200s", ErrAnswer, body)
	}
	if answer.SystemUUID != m.UUID {
		return told{}, fmt.Errorf("%w: the UUID %s", ErrForeign, answer.SystemUUID)
	}
	return readURL(answer.UKIURL, c.replica)
}

// readURL takes a URL with a token apart; the token's second byte is the ID of its key.
func readURL(text, by string) (told, error) {
	u, err := url.Parse(text)
	if err != nil {
		return told{}, fmt.Errorf("%w: a URL that is none", ErrAnswer)
	}
	parts := strings.Split(u.Path, "/")
	if len(parts) != 5 || parts[2] != "t" {
		return told{}, fmt.Errorf("%w: a URL without a token", ErrRefused)
	}
	token, err := base64.RawURLEncoding.DecodeString(parts[3])
	if err != nil || len(token) < 2 {
		return told{}, fmt.Errorf("%w: a token that is none", ErrAnswer)
	}
	return told{path: u.Path, by: by, key: token[1]}, nil
}

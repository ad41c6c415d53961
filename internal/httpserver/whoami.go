package httpserver

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strconv"

	"github.com/pires/go-proxyproto"
)

// whoami tells whoever asks the address that this server takes for theirs, how it
// came by it, and whether that address can prove a machine at all: what a machine on
// the same network would be known by. It opens nothing and names no machine.
func (s *Server) whoami(x *exchange) error {
	b := make([]byte, 0, 128)
	b = append(b, `{"address":"`...)
	if x.peer.addr.IsValid() {
		b = x.peer.addr.AppendTo(b)
	}
	b = append(b, `","via":"`...)
	b = append(b, x.via()...)
	b = append(b, `","node":`...)
	b = strconv.AppendBool(b, s.onNode(x.peer))
	b = append(b, `,"provesNothing":`...)
	b = strconv.AppendBool(b, s.provesNothing(x.peer))
	b = append(b, "}\n"...)
	x.Header()["Cache-Control"] = noStore
	x.reply(http.StatusOK, contentJSON, b)
	return nil
}

// via says how the client's address came here.
func (x *exchange) via() string {
	if x.peer.forwarded {
		return "X-Forwarded-For"
	}
	if c, ok := x.r.Context().Value(connKey{}).(*proxyproto.Conn); ok && c.ProxyHeader() != nil {
		return "PROXY"
	}
	return "connection"
}

// connKey is where the context of a request has its connection, on listeners that
// take the PROXY protocol.
type connKey struct{}

// keepConn is the server's ConnContext. It must not look at the header, which may
// not have come yet: the next connection would have to wait for it.
func keepConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

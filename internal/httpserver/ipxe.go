package httpserver

import (
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/render"
)

// ipxeLanguage is the language of iPXE's scripts.
var ipxeLanguage = language{
	leave: render.Leave,
	write: func(s *render.Scripts, p *boot.Plan, l render.Links) ([]byte, error) {
		return s.Script(p, l) //nolint:wrapcheck // it says what it did
	},
	own: true,
}

// ipxeChain serves the script that makes a machine name itself.
func (s *Server) ipxeChain(x *exchange) error {
	x.Header()["Cache-Control"] = noStore
	x.reply(200, contentText, render.Chain(s.base(x.r)))
	return nil
}

// ipxeQuery serves the script of the machine that its token, or the query,
// names; whoever names nothing is made to name itself.
func (s *Server) ipxeQuery(x *exchange) error {
	if x.r.URL.RawQuery == "" && !x.hasToken {
		return s.ipxeChain(x)
	}
	return s.serveScript(x, &ipxeLanguage, readSaid(x.r.URL.RawQuery))
}

// ipxeOf serves /ipxe/{mac or uuid}.
func (s *Server) ipxeOf(x *exchange) error {
	var in said
	if x.r.URL.RawQuery != "" {
		in = readSaid(x.r.URL.RawQuery)
	}
	if !in.addMAC(x.arg) && !in.addUUID(x.arg) {
		return s.leave(x, &ipxeLanguage, errUnknown)
	}
	return s.serveScript(x, &ipxeLanguage, in)
}

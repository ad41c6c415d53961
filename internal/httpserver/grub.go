package httpserver

import (
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/render"
)

// grubLanguage is the language of GRUB's menus.
var grubLanguage = language{
	leave: render.GRUBLeave,
	write: func(_ *render.Scripts, p *boot.Plan, l render.Links) ([]byte, error) {
		return render.GRUBMenu(p, l) //nolint:wrapcheck // it says what it did
	},
}

// grubChain serves the menu that goes on with that of the machine.
func (s *Server) grubChain(x *exchange) error {
	x.Header()["Cache-Control"] = noStore
	x.reply(200, contentText, render.GRUBChain(s.base(x.r)))
	return nil
}

// grubOf serves /grub/grub.cfg-01-{mac}.
func (s *Server) grubOf(x *exchange) error {
	var in said
	if !in.addMAC(x.arg) {
		return s.leave(x, &grubLanguage, errUnknown)
	}
	return s.serveScript(x, &grubLanguage, in)
}

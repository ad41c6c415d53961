package httpserver

import (
	"context"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// ignitionDocument is the machine's Ignition.
var ignitionDocument = document{
	name:        "Ignition",
	has:         func(p *boot.Plan) bool { return p.HasIgnition },
	missing:     errNoIgnition,
	stage:       boot.StageIgnition,
	contentType: contentIgnition,
	read: func(ctx context.Context, s boot.Secrets, p *boot.Plan) ([]byte, error) {
		return s.Ignition(ctx, p) //nolint:wrapcheck // who serves it wraps it
	},
}

// ignition serves the document of the machine that asks. Real Ignition takes its
// URL literally and expands nothing.
func (s *Server) ignition(x *exchange) error { return s.secret(x, &ignitionDocument) }

// ignitionOf serves /ignition/{uuid}.
func (s *Server) ignitionOf(x *exchange) error { return s.secretOf(x, &ignitionDocument) }

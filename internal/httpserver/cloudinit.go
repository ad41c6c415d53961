package httpserver

import (
	"context"

	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/render"
)

// cloudInitFiles are the files of cloud-init's NoCloud data source. It fetches
// meta-data first, then user-data, and fails without either of them; vendor-data
// that is not there it would ask for ten times more, so an empty one is served,
// and network-config it does without.
var cloudInitFiles = map[string]*document{
	"meta-data": cloudInitFile("meta-data", "", func(p *boot.Plan, c boot.CloudInit) ([]byte, error) {
		return render.MetaData(p, c), nil
	}),
	"user-data": cloudInitFile("user-data", boot.StageCloudInit, func(_ *boot.Plan, c boot.CloudInit) ([]byte, error) {
		return c.UserData, nil
	}),
	"vendor-data": cloudInitFile("vendor-data", "", func(_ *boot.Plan, c boot.CloudInit) ([]byte, error) {
		return c.VendorData, nil
	}),
	"network-config": cloudInitFile("network-config", "", func(_ *boot.Plan, c boot.CloudInit) ([]byte, error) {
		if len(c.NetworkConfig) == 0 {
			return nil, errNoNetwork
		}
		return c.NetworkConfig, nil
	}),
}

func cloudInitFile(name string, stage boot.Stage, pick func(*boot.Plan, boot.CloudInit) ([]byte, error)) *document {
	return &document{
		name:        name,
		has:         func(p *boot.Plan) bool { return p.HasCloudInit },
		missing:     errNoUserData,
		stage:       stage,
		contentType: contentText,
		read: func(ctx context.Context, s boot.Secrets, p *boot.Plan) ([]byte, error) {
			c, err := s.CloudInit(ctx, p)
			if err != nil {
				return nil, err //nolint:wrapcheck // who serves it wraps it
			}
			return pick(p, c)
		},
	}
}

// cloudInit serves a file of the machine that asks, also under a token.
func (s *Server) cloudInit(x *exchange) error {
	doc, ok := cloudInitFiles[x.file]
	if !ok {
		return errNoRoute
	}
	return s.secret(x, doc)
}

// cloudInitOf serves /cloud-init/{uuid}/{file}.
func (s *Server) cloudInitOf(x *exchange) error {
	doc, ok := cloudInitFiles[x.file]
	if !ok {
		return errNoRoute
	}
	return s.secretOf(x, doc)
}

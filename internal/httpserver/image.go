package httpserver

import (
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// image serves /images/{digest}/{name} and the compatibility form
// /httpboot/{image}/sha256-{hex}.efi. Names count for nothing, and nothing is
// ever fetched because a client asked for it.
func (s *Server) image(x *exchange) error {
	d, err := digestOf(x.arg)
	if err != nil {
		return err
	}
	return s.serveDigest(x, d)
}

// imageQuery serves /image?imageName=&layerDigest=&version=.
func (s *Server) imageQuery(x *exchange) error {
	q, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return errNoRoute
	}
	d, err := digestOf(q.Get("layerDigest"))
	if err != nil {
		return err
	}
	return s.serveDigest(x, d)
}

// serveDigest serves a public blob. A machine whose address proves it and that
// asks for its own UKI boots: its delivery counts as it does at /httpboot.
func (s *Server) serveDigest(x *exchange, d boot.Digest) error {
	id, err := s.byAddr(x)
	if err == nil {
		for _, p := range id.plans {
			if err := s.endedFor(x, p, d); err != nil {
				return err
			}
			if a, ok := p.Artifact(boot.RoleUKI); ok && a.Digest == d && !p.Composes {
				return s.deliverPlan(x, id, p)
			}
		}
		if p, err := ukiPlan(id.plans); err == nil {
			// A composed UKI is never served by its digest, not even to its machine.
			if t, err := s.targetOf(p); err == nil && t.artifact.Digest == d && t.composed == nil {
				return s.deliver(x, id, p, t)
			}
		}
	} else if errors.Is(err, boot.ErrUnavailable) {
		return err
	}
	a, err := s.publicArtifact(d)
	if err != nil {
		return err
	}
	return s.serveBlob(x, a, immutable, nil)
}

// endedFor refuses what a machine boots while its attempt is aborted.
func (s *Server) endedFor(x *exchange, p *boot.Plan, d boot.Digest) error {
	if !slices.ContainsFunc(p.Artifacts, func(a boot.Artifact) bool { return a.Digest == d }) {
		return nil
	}
	x.plan = p
	return s.ended(p)
}

func (s *Server) deliverPlan(x *exchange, id identity, p *boot.Plan) error {
	t, err := s.targetOf(p)
	if err != nil {
		return err
	}
	return s.deliver(x, id, p, t)
}

// publicArtifact finds a digest that a ready plan names, or the default image.
func (s *Server) publicArtifact(d boot.Digest) (boot.Artifact, error) {
	if t, ok := s.defaultTarget(); ok && t.artifact.Digest == d {
		return t.artifact, nil
	}
	a, err := s.source.PublicArtifact(d)
	if err != nil {
		return boot.Artifact{}, fmt.Errorf("finding a public artifact: %w", err)
	}
	return a, nil
}

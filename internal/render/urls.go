package render

import (
	"fmt"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// IgnitionURL returns where the machine of a plan fetches its Ignition document;
// nothing where it has none. It returns boot.ErrInvalid when the base is not an
// http or https URL.
func (l Links) IgnitionURL(p *boot.Plan) (string, error) {
	return l.of(p, Links.ignition, "Ignition")
}

// CloudInitURL returns the seed of cloud-init's NoCloud data source, which ends in
// a slash; nothing where the plan has no user data. Its errors are those of
// IgnitionURL.
func (l Links) CloudInitURL(p *boot.Plan) (string, error) {
	return l.of(p, Links.cloudInit, "cloud-init")
}

func (l Links) of(p *boot.Plan, url func(Links, *boot.Plan) string, reader string) (string, error) {
	checked, err := l.checked()
	if err != nil {
		return "", fmt.Errorf("the URL for %s of %s: %w", reader, p.Object, err)
	}
	return url(checked, p), nil
}

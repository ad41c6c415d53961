package sigstore

import (
	"fmt"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"google.golang.org/protobuf/encoding/protojson"
)

// typeBundle is how the media types of bundles begin, of every version.
const typeBundle = "application/vnd.dev.sigstore.bundle"

func isBundle(mediaType string) bool { return strings.HasPrefix(mediaType, typeBundle) }

// readBundle reads a sigstore bundle (protobuf-specs, bundle v0.1 to v0.3).
func readBundle(content []byte) (*entity, error) {
	var p protobundle.Bundle
	if err := protojson.Unmarshal(content, &p); err != nil {
		return nil, fmt.Errorf("the bundle cannot be read: %s", clip(err.Error()))
	}
	m := p.GetVerificationMaterial()
	if n := len(m.GetTlogEntries()); n > maxEntries {
		return nil, fmt.Errorf("it has %d log entries; %d are the most", n, maxEntries)
	}
	for _, t := range m.GetTlogEntries() {
		if err := checkEntry(t); err != nil {
			return nil, err
		}
	}
	b, err := bundle.NewBundle(&p)
	if err != nil {
		return nil, fmt.Errorf("the bundle is not valid: %s", clip(err.Error()))
	}
	e := &entity{}
	if err := e.fill(b); err != nil {
		return nil, fmt.Errorf("the bundle is not valid: %s", clip(err.Error()))
	}
	if err := checkStamps(e.stamps); err != nil {
		return nil, err
	}
	if e.certificate != nil {
		return e, checkKey(e.certificate.PublicKey)
	}
	return e, nil
}

func (e *entity) fill(b *bundle.Bundle) (err error) {
	if e.version, err = b.Version(); err != nil {
		return err
	}
	if e.signature, err = b.SignatureContent(); err != nil {
		return err
	}
	if e.entries, err = b.TlogEntries(); err != nil {
		return err
	}
	if e.stamps, err = b.Timestamps(); err != nil {
		return err
	}
	c, err := b.VerificationContent()
	if err != nil {
		return err
	}
	e.certificate = c.Certificate()
	if k := c.PublicKey(); k != nil {
		e.claims = claimed(k.Hint())
	}
	return nil
}

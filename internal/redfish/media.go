package redfish

import (
	"context"
	"net/http"
	"slices"
)

// InsertMedia inserts the image at a URL into the first drive for CDs.
func (b *bmc) InsertMedia(ctx context.Context, url string) error {
	b.conn.link.url = url
	c := b.conn.with(ctx)
	drive, err := b.cdDrive(c)
	if err != nil {
		return err
	}
	if inserted(drive) {
		if drive.text("Image") == url {
			return nil
		}
		if err := b.eject(c, drive); err != nil {
			return err
		}
	}
	target := drive.at("Actions").at("#VirtualMedia.InsertMedia").text("target")
	if target == "" {
		return unsupported(c.patch(drive, map[string]any{"Image": url, "Inserted": true}))
	}
	_, err = c.send(http.MethodPost, target, map[string]any{"Image": url, "Inserted": true, "WriteProtected": true}, nil)
	if e, no := refused(err); no && (e.says(readOnlyIDs) || e.says(valueIDs)) {
		_, err = c.send(http.MethodPost, target, map[string]any{"Image": url}, nil)
	}
	return unsupported(err)
}

// EjectMedia empties that drive.
func (b *bmc) EjectMedia(ctx context.Context) error {
	c := b.conn.with(ctx)
	drive, err := b.cdDrive(c)
	if err != nil || !inserted(drive) {
		return err
	}
	return b.eject(c, drive)
}

func inserted(drive resource) bool {
	return string(drive.object["Inserted"]) == "true" || drive.text("Image") != ""
}

func (b *bmc) eject(c *conn, drive resource) error {
	target := drive.at("Actions").at("#VirtualMedia.EjectMedia").text("target")
	if target == "" {
		return unsupported(c.patch(drive, map[string]any{"Image": nil, "Inserted": false}))
	}
	_, err := c.send(http.MethodPost, target, map[string]any{}, nil)
	return unsupported(err)
}

// cdDrive is the first virtual drive for CDs, of the system or of its Manager.
func (b *bmc) cdDrive(c *conn) (resource, error) {
	path := b.sys.link("VirtualMedia")
	if path == "" && b.manager.path != "" {
		m, err := c.get(b.manager.path)
		if err != nil {
			return resource{}, err
		}
		path = m.link("VirtualMedia")
	}
	if path == "" {
		return resource{}, b.cannot("it has no virtual media")
	}
	all, err := c.members(path)
	if err != nil {
		return resource{}, unsupported(err)
	}
	for _, p := range all {
		r, err := c.get(p)
		if err != nil {
			return r, err
		}
		if types := r.texts("MediaTypes"); slices.Contains(types, "CD") || slices.Contains(types, "DVD") {
			return r, nil
		}
	}
	return resource{}, b.cannot("none of its virtual drives takes a CD")
}

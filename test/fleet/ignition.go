package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// document is the Ignition of the machine of this name.
func document(name string) string {
	return fmt.Sprintf(`{"ignition":{"version":"3.4.0"},"storage":{"files":[{"path":"/etc/machine","contents":{"source":"data:,%s"}}]}}`, name)
}

// ignite fetches the machine's Ignition as Ignition does: again where nobody answers
// and at 5xx, with a pause that doubles; every other answer is final (Ignition's
// HTTP client). It returns the replica that answered last, and how
// often it asked again.
func (f *Fleet) ignite(ctx context.Context, m *Machine) (by string, again int, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.o.IgnitionPatience)
	defer cancel()
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		var final bool
		if by, final, err = f.askIgnition(ctx, m); err == nil || final {
			return by, again, err
		}
		pause(ctx, wait)
		if ctx.Err() != nil {
			return by, again, fmt.Errorf("%w: %w", ErrNoIgnition, err)
		}
		again++
	}
}

// askIgnition asks once; final says that to ask again is of no use.
func (f *Fleet) askIgnition(ctx context.Context, m *Machine) (by string, final bool, err error) {
	c, err := f.connect(ctx, m.Addr)
	if err != nil {
		return "", false, err
	}
	defer c.conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	a, err := c.ask(http.MethodGet, "/ignition", "User-Agent: Ignition/2.18.0", "Accept: application/vnd.coreos.ignition+json;version=3.4.0, */*;q=0.1", "Connection: close")
	if err != nil {
		return c.replica, false, err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	switch {
	case err != nil:
		return c.replica, false, err
	case a.StatusCode >= http.StatusInternalServerError:
		return c.replica, false, fmt.Errorf("%s %.200s", a.Status, body)
	case a.StatusCode != http.StatusOK:
		return c.replica, true, fmt.Errorf("%w: %s by %s: %.200s", ErrNoIgnition, a.Status, c.replica, body)
	}
	return c.replica, true, m.owns(body)
}

// owns says whether this Ignition is the machine's.
func (m *Machine) owns(body []byte) error {
	var doc struct {
		Storage struct {
			Files []struct{ Contents struct{ Source string } }
		}
	}
	if err := json.Unmarshal(body, &doc); err != nil || len(doc.Storage.Files) != 1 {
		return fmt.Errorf("%w: an Ignition of %d bytes that is nobody's", ErrForeign, len(body))
	}
	if name := strings.TrimPrefix(doc.Storage.Files[0].Contents.Source, "data:,"); name != m.Name {
		return fmt.Errorf("%w: the Ignition of %s", ErrForeign, name)
	}
	return nil
}

package artifact

import (
	"fmt"
	"net/http"
	"time"
)

// uploadAnswerTimeout is how long a registry may think about a blob that it was
// sent: some copy it to its place, or hash it, before they answer.
const uploadAnswerTimeout = 10 * time.Minute

// HTTPClient returns the client by which a store with these options speaks to
// registries, for those who write to them: the same trust, and the same limits on
// where a registry may send us. It returns ErrInvalidReference for settings that
// cannot be read.
func HTTPClient(o Options) (*http.Client, error) {
	allow, err := newAllowlist(o)
	if err != nil {
		return nil, fmt.Errorf("making a client for registries: %w", err)
	}
	c, err := newHTTPClient(o, allow)
	if err != nil {
		return nil, fmt.Errorf("making a client for registries: %w", err)
	}
	g := c.Transport.(*guard)
	g.trusted.ResponseHeaderTimeout, g.strict.ResponseHeaderTimeout = uploadAnswerTimeout, uploadAnswerTimeout
	return c, nil
}

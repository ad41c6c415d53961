package tracing

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// checkHeaders returns an error for headers of requests to the collector that cannot be
// read. OpenTelemetry leaves them out without a word, and the collector then refuses
// every span. The error does not hold what the variable does: a credential as a rule.
func checkHeaders() error {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		for i, pair := range strings.Split(os.Getenv(name), ",") {
			if strings.TrimSpace(pair) == "" {
				continue
			}
			key, escaped, found := strings.Cut(pair, "=")
			content, err := url.PathUnescape(escaped)
			if !found || err != nil || !httpguts.ValidHeaderFieldName(strings.TrimSpace(key)) || !httpguts.ValidHeaderFieldValue(strings.TrimSpace(content)) {
				return fmt.Errorf("%w: header %d in %s is not name=value with the value URL-encoded", boot.ErrInvalid, i+1, name)
			}
		}
	}
	return nil
}

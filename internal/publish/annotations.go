package publish

import (
	"fmt"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ArtifactType is that of manifests and indexes of images that machines boot.
const ArtifactType = "application/vnd.ironcore.image.v1"

// The annotations of manifests, of their descriptors in an index and, where all
// manifests agree, of the index.
const (
	// AnnotationVersion is the version of the image.
	AnnotationVersion = ocispec.AnnotationVersion
	// AnnotationCreated is when it was made (RFC 3339).
	AnnotationCreated = ocispec.AnnotationCreated

	// AnnotationOS, AnnotationOSVersion and AnnotationOSName are ID, VERSION_ID and
	// PRETTY_NAME of its os-release file.
	AnnotationOS        = "dev.ironcore.boot.os"
	AnnotationOSVersion = "dev.ironcore.boot.os.version"
	AnnotationOSName    = "dev.ironcore.boot.os.name"
	// AnnotationKernelVersion is what uname -r will say.
	AnnotationKernelVersion = "dev.ironcore.boot.kernel.version"
	// AnnotationCommandLine is the kernel command line of the UKI or, where there is
	// none, the one that was named.
	AnnotationCommandLine = "dev.ironcore.boot.cmdline"
	// AnnotationUKIDigest is the digest of the UKI's file.
	AnnotationUKIDigest = "dev.ironcore.boot.uki.digest"
)

// maxAnnotation bounds a key and a value of an annotation, in bytes.
const maxAnnotation = 8 << 10

// ParseAnnotations reads KEY=VALUE, as often as it is given.
func ParseAnnotations(all []string) (map[string]string, error) {
	m := map[string]string{}
	for _, one := range all {
		key, value, ok := strings.Cut(one, "=")
		switch {
		case !ok || key == "" || strings.ContainsAny(key, " \t\r\n"):
			return nil, fmt.Errorf("%q is no annotation such as org.opencontainers.image.vendor=Example", one)
		case len(one) > maxAnnotation:
			return nil, fmt.Errorf("the annotation %s has %d bytes; %d are the most", key, len(one), maxAnnotation)
		}
		if _, twice := m[key]; twice {
			return nil, fmt.Errorf("the annotation %s is given twice", key)
		}
		m[key] = value
	}
	return m, nil
}

// agreed are the annotations that all manifests of an index have alike, and when the
// youngest of them was made.
func agreed(manifests []ocispec.Descriptor) map[string]string {
	var common map[string]string
	var youngest time.Time
	for _, m := range manifests {
		if common == nil {
			common = clone(m.Annotations)
		}
		for key, value := range common {
			if m.Annotations[key] != value {
				delete(common, key)
			}
		}
		if t, err := time.Parse(time.RFC3339, m.Annotations[AnnotationCreated]); err == nil && t.After(youngest) {
			youngest = t
		}
	}
	if !youngest.IsZero() && common != nil {
		common[AnnotationCreated] = youngest.UTC().Format(time.RFC3339)
	}
	return common
}

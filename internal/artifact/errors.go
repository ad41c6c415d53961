package artifact

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// The sentinel errors of this package. They are wrapped with what was wrong,
// where, and what would be right. Any other error is transient: a registry
// that is down, slow, or speaks nonsense for now.
var (
	// ErrInvalidReference: the text is no image reference, URL or artifact.
	ErrInvalidReference = fmt.Errorf("%w reference", boot.ErrInvalid)
	// ErrNotAllowed: the operator's settings forbid this registry, host or
	// redirect.
	ErrNotAllowed = errors.New("not allowed")
	// ErrNotFound: the registry has no such image or blob.
	ErrNotFound = fmt.Errorf("image or blob %w", boot.ErrNotFound)
	// ErrNoPlatform: the image is not made for the machine's architecture.
	ErrNoPlatform = errors.New("no image for this architecture")
	// ErrNoArtifact: the image holds nothing of the kind that is asked for.
	ErrNoArtifact = errors.New("nothing to boot in the image")
	// ErrUnauthorized: the registry wants credentials, or other ones.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrDigestMismatch: the bytes, or how many there are, are not what the
	// manifest says.
	ErrDigestMismatch = errors.New("content differs from its digest or size")
	// ErrTooLarge: the manifest or blob is larger than this store ever takes.
	ErrTooLarge = errors.New("too large")
	// ErrFull: there is no room, on the disk or in the budget, for now.
	ErrFull = errors.New("the artifact store is full")
	// ErrNoSignature: what the registry keeps as a signature cannot be read.
	ErrNoSignature = errors.New("not a signature")
	// ErrNotAUKI: the blob is not what its role asks for.
	ErrNotAUKI = errors.New("not a unified kernel image")
)

// ErrPullSecret: a pull secret cannot be read. It is ErrInvalid too.
var ErrPullSecret = fmt.Errorf("%w pull secret", boot.ErrInvalid)

// Terminal says that the same call with the same input will fail again until
// someone changes the image or the settings. ErrNotFound and ErrUnauthorized
// are not terminal: an image may be published, and a right granted, later.
func Terminal(err error) bool {
	for _, t := range []error{
		ErrInvalidReference, ErrNotAllowed, ErrNoPlatform, ErrNoArtifact,
		ErrDigestMismatch, ErrTooLarge, ErrNotAUKI, ErrNoSignature, ErrPullSecret,
	} {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// result is the bounded set of words that metrics know an error by.
func result(err error) string {
	if err == nil {
		return "ok"
	}
	for _, r := range []struct {
		err  error
		name string
	}{
		{ErrDigestMismatch, "digest_mismatch"}, {ErrNotAUKI, "not_a_uki"}, {ErrFull, "full"}, {ErrTooLarge, "too_large"},
		{ErrUnauthorized, "unauthorized"}, {ErrNotFound, "not_found"}, {ErrNotAllowed, "not_allowed"},
		{ErrInvalidReference, "invalid_reference"}, {ErrNoPlatform, "no_platform"}, {ErrNoArtifact, "no_artifact"},
		{ErrNoSignature, "no_signature"},
		{errStalled, "stalled"}, {context.Canceled, "cancelled"},
	} {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	return "unavailable"
}

// diskError names a full disk as such.
func diskError(doing string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("%s: %w: %w", doing, ErrFull, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// clip bounds what an error repeats of text that others wrote.
func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}

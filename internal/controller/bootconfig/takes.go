package bootconfig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/phase"
)

// Formats are what an image reads user data in, as its command line tells. One
// that says neither, or both, may read anything.
type Formats struct {
	Ignition, CloudInit bool
}

// maxOpinions bounds how many images' formats are remembered.
const maxOpinions = 1024

// opinions remembers what images take: a digest never means anything else.
type opinions struct {
	mu    sync.Mutex
	known map[boot.Digest]Formats
}

func (o *opinions) of(ctx context.Context, d boot.Digest, ask func(context.Context, boot.Digest) (Formats, error)) (Formats, error) {
	o.mu.Lock()
	f, ok := o.known[d]
	o.mu.Unlock()
	if ok {
		return f, nil
	}
	f, err := ask(ctx, d)
	if err != nil {
		return f, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known == nil || len(o.known) >= maxOpinions {
		o.known = map[boot.Digest]Formats{}
	}
	o.known[d] = f
	return f, nil
}

// taken refuses a document that the machine's UKI does not read. The command line
// of a kernel and initrd follows the document, so nothing has to fit there. While
// the UKI cannot be read, what was found of it last stays.
func (r *reconciler) taken(ctx context.Context, cfg v1alpha1.Config, document *found) error {
	artifacts := cfg.ConfigStatus().Artifacts
	i := slices.IndexFunc(artifacts, func(a v1alpha1.Artifact) bool { return a.Role == v1alpha1.ArtifactRole(boot.RoleUKI) })
	if r.Takes == nil || i < 0 {
		return nil
	}
	takes, err := r.opinions.of(ctx, boot.Digest(artifacts[i].Digest), r.Takes)
	if err != nil {
		return lastRefusal(cfg)
	}
	var mismatch [4]string // what it is, what is asked for, what to write, what else to boot
	switch {
	case takes.Ignition == takes.CloudInit:
		return nil
	case document.cloudInit && takes.Ignition:
		mismatch = [...]string{"user data for cloud-init", "Ignition (ignition.…)", "Ignition or Butane", "cloud-init (ds=nocloud)"}
	case document.ignition && takes.CloudInit:
		mismatch = [...]string{"Ignition", "cloud-init (ds=nocloud)", "user data for cloud-init", "Ignition (ignition.config.url, ignition.platform.id)"}
	default:
		return nil
	}
	return phase.Terminal(v1alpha1.ReasonUserDataFormatUnsupported, fmt.Errorf( //nolint:staticcheck // a kind's name
		"Secret %s holds %s, and the command line of UKI %s has the arguments of %s: write %s, or boot an image that reads %s",
		secretName(cfg.Common().IgnitionSecretRef), mismatch[0], artifacts[i].Digest, mismatch[1], mismatch[2], mismatch[3]))
}

// lastRefusal is what the status of this spec says of the format, if it was
// refused.
func lastRefusal(cfg v1alpha1.Config) error {
	c := meta.FindStatusCondition(cfg.ConfigStatus().Conditions, v1alpha1.ConditionIgnitionValid)
	if c == nil || c.Reason != v1alpha1.ReasonUserDataFormatUnsupported || c.ObservedGeneration != cfg.GetGeneration() {
		return nil
	}
	return phase.Terminal(c.Reason, errors.New(c.Message))
}

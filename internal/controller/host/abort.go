package host

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

// abortedAttempt is the boot attempt of the record, where somebody aborted it; else 0.
// Before the machine is armed the record names none: then it is the one that was asked
// for by this request.
func (n *netboot) abortedAttempt() int64 {
	asked := n.record.Request + "."
	for _, c := range n.children {
		b := c.ConfigStatus().Boot
		if b == nil || b.Aborted == 0 || b.Aborted != b.Attempt {
			continue
		}
		ours := c == n.booted() && b.Attempt == n.record.Attempt
		if ours || strings.HasPrefix(b.Request, asked) {
			return b.Attempt
		}
	}
	return 0
}

// abort ends the boot whose attempt was aborted: what is left in the BMC is taken back
// by the next visit, and nothing is armed before something asks for it.
func (n *netboot) abort(ctx context.Context, number int64) error {
	why := fmt.Sprintf("boot attempt %d was aborted (annotation %s)", number, v1alpha1.AbortBootAnnotation)
	n.record.Message = why
	if err := n.leave(ctx, v1alpha1.NetworkBootFailed, resultAborted, errors.New(why)); err != nil {
		return err
	}
	n.event(corev1.EventTypeWarning, ReasonBootAborted, "The network boot ended: %s.", why)
	return nil
}

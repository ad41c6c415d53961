package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
)

const (
	// lookEvery is how often a host is looked at while something is awaited.
	lookEvery = 500 * time.Millisecond
	// askTimeout bounds one request to the API server.
	askTimeout = 30 * time.Second
	// maxNames bounds how many hosts an error lists.
	maxNames = 10
	// conditionDriven is the condition by which the operator says that it owns a
	// host's life.
	conditionDriven = "Driven"
)

// newHostCommand makes the verb host, whose own verbs are about one BareMetalHost.
func newHostCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host",
		Short: "Inspect, boot or switch a BareMetalHost, or say what its firmware trusts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return usageError{errors.New("a verb of host is missing")}
		},
	}
	cmd.AddCommand(newHostInspectCommand(env), newHostBootCommand(env), newHostPowerCommand(env), newHostEnrollCommand(env))
	return cmd
}

// hostFlags are those that the verbs of host share.
type hostFlags struct {
	cluster   clusterFlags
	namespace string
	wait      bool
	timeout   time.Duration
}

func (o *hostFlags) add(cmd *cobra.Command, timeout time.Duration) {
	f := cmd.Flags()
	f.StringVar(&o.cluster.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: as kubectl finds its own)")
	f.StringVar(&o.cluster.context, "context", "", "context in it (default: its current one)")
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace of the host (default: that of the context)")
	f.BoolVar(&o.wait, "wait", true, "wait until it is done, and say how far it is")
	f.DurationVar(&o.timeout, "timeout", timeout, "how long to wait")
}

// hosts is one BareMetalHost, and where it is.
type hosts struct {
	client.Client
	env *environment
	key client.ObjectKey
}

// connect connects to the cluster of a host; nothing is asked of it yet.
func (o *hostFlags) connect(env *environment, name string) (*hosts, error) {
	if o.timeout <= 0 {
		return nil, usageError{fmt.Errorf("--timeout is %s; it must be positive", o.timeout)}
	}
	config, namespace, err := o.cluster.load()
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	config.Timeout, config.WarningHandler = askTimeout, rest.NoWarnings{}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme), metal3.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	api, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	if o.namespace != "" {
		namespace = o.namespace
	}
	return &hosts{Client: api, env: env, key: client.ObjectKey{Namespace: namespace, Name: name}}, nil
}

// get reads the host; its errors say what would be right.
func (c *hosts) get(ctx context.Context) (*metal3.BareMetalHost, error) {
	var h metal3.BareMetalHost
	err := c.Get(ctx, c.key, &h)
	var discovery *apiutil.ErrResourceDiscoveryFailed
	switch {
	case err == nil:
		return &h, nil
	case meta.IsNoMatchError(err), errors.As(err, &discovery):
		return nil, errors.New("this cluster has no BareMetalHosts (metal3.io/v1alpha1); the operator's chart installs their CRD with metal3.crds.install=true")
	case apierrors.IsNotFound(err):
		return nil, c.notFound(ctx)
	}
	return nil, fmt.Errorf("reading BareMetalHost %s: %w", c.key, err)
}

// notFound says which hosts there are, the most similar first.
func (c *hosts) notFound(ctx context.Context) error {
	text := fmt.Sprintf("namespace %s has no BareMetalHost %s", c.key.Namespace, c.key.Name)
	var here, all metal3.BareMetalHostList
	if err := c.List(ctx, &here, client.InNamespace(c.key.Namespace), client.Limit(1000)); err != nil {
		return errors.New(text)
	}
	// Who may not list them all is not told of other namespaces.
	if err := c.List(ctx, &all, client.Limit(1000)); err == nil {
		for _, h := range all.Items {
			if h.Name == c.key.Name {
				return fmt.Errorf("%s; namespace %s has: use -n %s", text, h.Namespace, h.Namespace)
			}
		}
	}
	var names []string
	for _, h := range here.Items {
		names = append(names, h.Name)
	}
	if len(names) == 0 {
		return fmt.Errorf("%s, nor any other", text)
	}
	slices.SortStableFunc(names, func(a, b string) int { return distance(a, c.key.Name) - distance(b, c.key.Name) })
	more := ""
	if len(names) > maxNames {
		more = fmt.Sprintf(" and %d more", len(names)-maxNames)
		names = names[:maxNames]
	}
	return fmt.Errorf("%s; it has %s%s", text, strings.Join(names, ", "), more)
}

// distance is how many letters have to change to make one name of another
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// drivable says why nothing would be done to a host, where that is so.
func (c *hosts) drivable(h *metal3.BareMetalHost) error {
	driven := meta.FindStatusCondition(h.Status.Conditions, conditionDriven)
	_, paused := h.Annotations[metal3.PausedAnnotation]
	_, detached := h.Annotations[metal3.DetachedAnnotation]
	switch {
	case h.DeletionTimestamp != nil:
		return fmt.Errorf("host %s is being deleted", c.key)
	case paused:
		return fmt.Errorf("host %s is paused: nothing is done to it until the annotation %s is removed", c.key, metal3.PausedAnnotation)
	case detached:
		return fmt.Errorf("host %s is detached: nothing is done to it until the annotation %s is removed", c.key, metal3.DetachedAnnotation)
	case driven == nil:
		fmt.Fprintf(c.env.Err, "No operator has said yet that it drives host %s. One does with --baremetalhost-mode=drive, if the namespace is one of its own (--baremetalhost-namespaces).\n", c.key)
	case driven.Status == metav1.ConditionFalse:
		return fmt.Errorf("this operator does not drive host %s (%s): %s", c.key, driven.Reason, driven.Message)
	}
	if !h.HasBMCDetails() {
		return fmt.Errorf("host %s names no BMC: set spec.bmc.address and spec.bmc.credentialsName", c.key)
	}
	return nil
}

// change writes what a verb asks for: of the host as it is now, and no more than
// that.
func (c *hosts) change(ctx context.Context, h *metal3.BareMetalHost, set func(h *metal3.BareMetalHost)) error {
	before := h.DeepCopy()
	if h.Annotations == nil {
		h.Annotations = map[string]string{}
	}
	set(h)
	if err := c.Patch(ctx, h, client.MergeFrom(before), client.FieldOwner("bootctl")); err != nil {
		return fmt.Errorf("writing BareMetalHost %s: %w", c.key, err)
	}
	return nil
}

// follow looks at the host until done says so, and tells what it waits for
// whenever that changes.
func (c *hosts) follow(ctx context.Context, timeout time.Duration, done func(ctx context.Context, h *metal3.BareMetalHost) (bool, error)) (*metal3.BareMetalHost, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	said := ""
	for {
		h, err := c.get(ctx)
		if err == nil {
			if now := describeHost(h); now != said {
				c.tell("%s", now)
				said = now
			}
			var finished bool
			if finished, err = done(ctx, h); finished {
				return h, err
			}
		}
		if err != nil && !isOver(ctx) {
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, c.gaveUp(ctx, timeout, said)
		}
	}
}

var errTimeout = errors.New("it took too long")

// isOver says whether a context has ended, or is about to: what waits for its turn in
// it fails at its deadline, and that may be a moment before the context says so.
func isOver(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || (ok && !time.Now().Before(deadline))
}

// gaveUp is the error of a wait that ended before what was awaited.
func (c *hosts) gaveUp(ctx context.Context, timeout time.Duration, said string) error {
	why := "it was interrupted"
	if errors.Is(context.Cause(ctx), errTimeout) {
		why = fmt.Sprintf("it is not done after %s (--timeout)", timeout)
	}
	return fmt.Errorf("%s, and what was asked for stays asked for. The host is last seen %s", why, dash(said))
}

// tell prints a line of progress.
func (c *hosts) tell(format string, args ...any) {
	fmt.Fprintf(c.env.Err, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// describeHost says in a line how a host is, and what it waits for.
func describeHost(h *metal3.BareMetalHost) string {
	state := string(h.Status.Provisioning.State)
	if state == "" {
		state = "without a state"
	}
	if h.Status.ErrorMessage != "" {
		return fmt.Sprintf("%s, with %s: %s", state, h.Status.ErrorType, oneLine(h.Status.ErrorMessage))
	}
	for _, name := range []string{metal3.ProgressingCondition, metal3.ReadyCondition} {
		if c := meta.FindStatusCondition(h.Status.Conditions, name); c != nil && c.Message != "" {
			return state + ": " + oneLine(c.Message)
		}
	}
	return state
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// confirm asks a person; without one, --yes has to say it.
func confirm(env *environment, yes bool, question string) error {
	if yes {
		return nil
	}
	terminal, is := env.In.(*os.File)
	if !is || !term.IsTerminal(int(terminal.Fd())) { //nolint:gosec // a file descriptor fits
		return usageError{fmt.Errorf("%s There is no terminal to ask on: say it with --yes", question)}
	}
	fmt.Fprintf(env.Err, "%s Type yes to go on: ", question)
	answer := make([]byte, 16)
	n, err := env.In.Read(answer)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(string(answer[:n])) != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

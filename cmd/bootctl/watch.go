package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/timeline"
)

// watchFlags are those of the verb watch.
type watchFlags struct {
	machineFlags
	selection
	output  string
	until   string
	timeout time.Duration
}

const watchLong = `Watch shows what status does, and keeps it up to date: it watches the API server, and
asks it for nothing twice. On a terminal the table is drawn anew in its place; elsewhere
each change is a line, with the time, the machine, its stage, how much was sent, and what
it waits for.

With --until booted it ends when every machine that is watched has booted, and with an
error as soon as one of them is Failed, Incomplete or Aborted; with --until failed, as soon
as one of them is. What is so at the beginning counts.

Exit codes: 0 it came about (or, without --until, was interrupted); 1 it cannot come about
any more; 2 misuse; 3 --timeout ended first.`

const watchExample = `  bootctl watch -n machines
  bootctl watch machine-8 --until booted --timeout 20m`

// newWatchCommand makes the verb watch.
func newWatchCommand(env *environment) *cobra.Command {
	var o watchFlags
	cmd := &cobra.Command{
		Use:     "watch [NAME…] [flags]",
		Short:   "Show how far each machine's boot is, as it changes",
		Long:    watchLong,
		Example: watchExample,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), env, args)
		},
	}
	o.machineFlags.add(cmd)
	o.addAll(cmd)
	o.selection.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "how to print: table (drawn in place), lines, or json (an object a line); default: table on a terminal, else lines")
	f.StringVar(&o.until, "until", "", "end when every machine is booted, or when one is failed: booted or failed")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to watch; 0 is for ever")
	return cmd
}

// check tells what is wrong with how it was called.
func (o *watchFlags) check() error {
	switch {
	case !slices.Contains([]string{"", "table", "lines", "json"}, o.output):
		return usageError{fmt.Errorf("--output is %q; it must be table, lines or json", o.output)}
	case !slices.Contains([]string{"", "booted", "failed"}, o.until):
		return usageError{fmt.Errorf("--until is %q; it must be booted or failed", o.until)}
	case o.timeout < 0:
		return usageError{fmt.Errorf("--timeout is %s; it must not be negative", o.timeout)}
	}
	return nil
}

func (o *watchFlags) run(ctx context.Context, env *environment, names []string) error {
	if err := o.check(); err != nil {
		return err
	}
	selector, err := o.parse()
	if err != nil {
		return err
	}
	f, err := o.connect(env)
	if err != nil {
		return err
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, errTimeout)
		defer cancel()
	}
	w := &watcher{fleet: f, flags: o, names: names, selector: selector, shown: map[string]seen{}}
	w.show = w.shower(env.Out)
	// The first look says what is wrong with names and rights; a watch would be silent.
	all, err := f.list(ctx)
	if err != nil {
		return o.ended(ctx, err)
	}
	if _, err := choose(all, names, selector, f.where()); err != nil {
		return err
	}
	return o.ended(ctx, w.follow(ctx))
}

// ended says what it means that watching ended.
func (o *watchFlags) ended(ctx context.Context, err error) error {
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case o.until == "":
		return nil
	case errors.Is(context.Cause(ctx), errTimeout):
		return codedError{fmt.Errorf("not every machine is %s after %s (--timeout)", o.until, o.timeout), exitTimeout}
	}
	return errors.New("it was interrupted")
}

// watcher shows machines as they change.
type watcher struct {
	*fleet
	flags    *watchFlags
	names    []string
	selector labels.Selector
	show     func(rows []row, now time.Time) error
	// shown is what was told of each machine last.
	shown map[string]seen
}

// seen is what a line tells of a machine, but for the time.
type seen struct {
	stage     timeline.Stage
	done, why string
	machine   timeline.Machine
}

// follow shows the machines until what was asked for has come about.
func (w *watcher) follow(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	reader, stop, err := w.informers(ctx, changed)
	if err != nil {
		return err
	}
	defer stop()
	// Some stages change by time alone: a machine that should have asked by now.
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		over, err := w.look(ctx, reader)
		if over || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look shows the machines as they are now, and says whether that is the end.
func (w *watcher) look(ctx context.Context, reader client.Reader) (bool, error) {
	all, err := w.listFrom(ctx, reader)
	if err != nil {
		return false, err
	}
	var mine []timeline.Machine
	for _, m := range all {
		if (len(w.names) == 0 || slices.ContainsFunc(w.names, m.Is)) && (w.selector.Empty() || hasLabels(m, w.selector)) {
			mine = append(mine, m)
		}
	}
	now := w.now()
	if err := w.show(rowsOf(mine, now, w.flags.stuck), now); err != nil {
		return false, err
	}
	return w.flags.reached(rowsOf(mine, now, false))
}

// reached says whether what was waited for has come about, or cannot any more.
func (o *watchFlags) reached(rows []row) (bool, error) {
	if o.until == "" || len(rows) == 0 {
		return false, nil
	}
	booted := 0
	for _, r := range rows {
		switch {
		case r.Stage == timeline.StageBooted:
			booted++
		case r.Stage.Ended() && o.until == "failed":
			return true, nil
		case r.Stage.Ended():
			return true, fmt.Errorf("%s/%s is %s: %s", r.Namespace, r.Name, r.Stage, plain(r.Why))
		}
	}
	return o.until == "booted" && booted == len(rows), nil
}

// informers watch the API server, and return what reads their caches. Something is sent
// to changed after each change, where nothing is in it yet.
func (w *watcher) informers(ctx context.Context, changed chan<- struct{}) (client.Reader, func(), error) {
	crlog.SetLogger(logr.Discard()) // a cache would complain that it has none
	config := rest.CopyConfig(w.config)
	config.Timeout = 0 // a watch is one request
	options := cache.Options{Scheme: w.Scheme(), DefaultWatchErrorHandler: w.complain()}
	if w.namespace != "" {
		options.DefaultNamespaces = map[string]cache.Config{w.namespace: {}}
	}
	c, err := cache.New(config, options)
	if err != nil {
		return nil, nil, fmt.Errorf("watching: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Start(ctx) }() // it ends with ctx alone
	stop := func() { cancel(); <-done }
	kinds := []client.Object{&v1alpha1.HTTPBootConfig{}, &v1alpha1.IPXEBootConfig{}}
	if w.noHosts == nil {
		kinds = append(kinds, &metal3.BareMetalHost{})
	}
	for _, kind := range kinds {
		if err := notify(ctx, c, kind, changed); err != nil {
			stop()
			return nil, nil, w.kindly(err, "watch", "boot configs and hosts")
		}
	}
	return c, stop, nil
}

// complain says once what is wrong with watching. That a watch ended, or that it has to
// begin anew, is its way of life.
func (w *watcher) complain() toolscache.WatchErrorHandlerWithContext {
	var mu sync.Mutex
	said := ""
	return func(ctx context.Context, _ *toolscache.Reflector, err error) {
		if errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || ctx.Err() != nil {
			return
		}
		text := "watching goes on when the API server answers, and what is shown may be old: " + plain(err.Error())
		if apierrors.IsForbidden(err) {
			text = w.kindly(err, "watch", "boot configs and hosts").Error()
		}
		mu.Lock()
		defer mu.Unlock()
		if text != said {
			said = text
			fmt.Fprintln(w.env.Err, text)
		}
	}
}

// notify makes each change of a kind send to changed.
func notify(ctx context.Context, c cache.Cache, kind client.Object, changed chan<- struct{}) error {
	informer, err := c.GetInformer(ctx, kind)
	if err != nil {
		return err //nolint:wrapcheck // the caller says what it was
	}
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { poke() }, UpdateFunc: func(any, any) { poke() }, DeleteFunc: func(any) { poke() },
	})
	return err //nolint:wrapcheck // as above
}

// shower is what shows machines on out.
func (w *watcher) shower(out io.Writer) func([]row, time.Time) error {
	file, is := out.(*os.File)
	terminal := is && term.IsTerminal(int(file.Fd())) //nolint:gosec // a file descriptor fits
	switch {
	case w.flags.output == "json":
		return func(rows []row, now time.Time) error { return w.changes(rows, now, w.writeJSON) }
	case w.flags.output == "table", w.flags.output == "" && terminal:
		height := 0
		if terminal {
			_, height, _ = term.GetSize(int(file.Fd())) //nolint:gosec // as above
		}
		return w.drawer(out, height)
	}
	return func(rows []row, now time.Time) error { return w.changes(rows, now, w.writeLine) }
}

// What a terminal understands (ECMA-48): to the first column of the first line; clear
// from there.
const (
	toHome  = "\x1b[H"
	clearIt = "\x1b[J"
)

// drawer draws the table in place, where it differs from what is there. Only as many
// lines are drawn as there are on the terminal; 0: all.
func (w *watcher) drawer(out io.Writer, height int) func([]row, time.Time) error {
	last := ""
	return func(rows []row, now time.Time) error {
		text := statusTable(rows, w.namespace == "", now)
		if text == "" {
			text = "No machine to show in " + w.where() + ".\n"
		}
		lines := strings.SplitAfter(text, "\n")
		if height > 1 && len(lines) > height {
			more := fmt.Sprintf("(%d lines more; -l, --stuck or names show fewer machines)", len(lines)-height)
			text = strings.Join(lines[:height-2], "") + more + "\n"
		}
		if text == last {
			return nil
		}
		last = text
		_, err := io.WriteString(out, toHome+clearIt+text)
		return err
	}
}

// changes tells of each machine whose line would differ from what was told last.
func (w *watcher) changes(rows []row, now time.Time, tell func(r row, gone bool, now time.Time) error) error {
	there := map[string]bool{}
	for _, r := range rows {
		key := r.Namespace + "/" + strings.Join(append(kindsOf(r.Machine), r.Name), "/")
		there[key] = true
		is := seen{stage: r.Stage, done: done(r.Progress), why: joined(" > ", r.Why, r.Help), machine: r.Machine}
		if was, known := w.shown[key]; known && was.stage == is.stage && was.done == is.done && was.why == is.why {
			continue
		}
		w.shown[key] = is
		if err := tell(r, false, now); err != nil {
			return err
		}
	}
	for key, was := range w.shown {
		if there[key] {
			continue
		}
		delete(w.shown, key)
		if w.flags.stuck { // it is there still, and goes on
			continue
		}
		if err := tell(row{Machine: was.machine}, true, now); err != nil {
			return err
		}
	}
	return nil
}

// writeLine writes a change for people and for grep.
func (w *watcher) writeLine(r row, gone bool, now time.Time) error {
	_, err := io.WriteString(w.env.Out, changeLine(r, gone, w.namespace == "", now))
	return err
}

// changeLine is a change in one line: time, machine, stage, how much was sent, why.
func changeLine(r row, gone, namespaces bool, now time.Time) string {
	name := r.Name
	if namespaces {
		name = r.Namespace + "/" + name
	}
	stage := string(r.Stage)
	if gone {
		stage = "Gone"
	}
	text := fmt.Sprintf("%s  %s  %s%s%s", now.UTC().Format(time.RFC3339), pad(name, 16), pad(stage, stageWidth), pad(done(r.Progress), doneWidth), plain(joined(" > ", r.Why, r.Help)))
	return strings.TrimRight(text, " ") + "\n"
}

func (w *watcher) writeJSON(r row, gone bool, now time.Time) error {
	e := json.NewEncoder(w.env.Out)
	e.SetEscapeHTML(false)
	return e.Encode(changeReport{reportHead: newHead("Change", now), Machine: newMachineState(r.Machine, r.State), Gone: gone})
}

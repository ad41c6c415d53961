// Command boot-operator takes bare-metal machines from power-off to a running
// operating system over the network.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// version is set when a release is built.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.LookupEnv, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "boot-operator:", err)
		os.Exit(1)
	}
}

// command is main without the process around it.
func command(ctx context.Context, args []string, lookup func(string) (string, bool), out io.Writer) error {
	var o options
	f := o.flags()
	f.SetOutput(out)
	f.Usage = func() { usage(out, f) }
	if err := f.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%w; see boot-operator --help", err)
	}
	if o.version {
		_, err := fmt.Fprintln(out, "boot-operator", version)
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; every setting is a flag, see boot-operator --help", f.Arg(0))
	}
	if err := fromEnvironment(f, lookup); err != nil {
		return err
	}
	s, err := o.settings()
	if err != nil {
		return err
	}
	s.namespace = ownNamespace(s.namespace)
	ctrl.SetLogger(discreet(zap.New(zap.UseFlagOptions(&o.zap))))
	logger := ctrl.Log.WithName("boot-operator")
	logger.Info("starting", "version", version)
	return run(ctx, s, logger)
}

func usage(out io.Writer, f *pflag.FlagSet) {
	fmt.Fprint(out, "boot-operator takes bare-metal machines from power-off to a running operating\nsystem over the network.\n\nUsage: boot-operator [flags]\n\nFlags; each can also be set by the environment variable BOOT_OPERATOR_<NAME>:\n\n", f.FlagUsagesWrapped(100))
}

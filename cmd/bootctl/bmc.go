package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/bmcsim"
	"github.com/boot-operator/boot-operator/internal/qemu"
)

// newBMCCommand makes the verb bmc, whose own verbs are about BMCs.
func newBMCCommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bmc",
		Short: "Ask a BMC what it can do, or simulate one",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return usageError{errors.New("a verb of bmc is missing")}
		},
	}
	cmd.AddCommand(newBMCProbeCommand(env), newBMCSimulateCommand(env))
	return cmd
}

// simulateFlags are those of the verb bmc simulate.
type simulateFlags struct {
	profile            string
	listen             string
	plain              bool
	stateDir           string
	username, password string
	uuid, serial       string
	macs               []string
	arch               string
	memory             int
	faults             []string
	post               time.Duration
	quiet              bool
	list               bool

	machine   string
	bootURL   string
	httpsCA   string
	disk      string
	diskFirst bool
	console   bool
	life      time.Duration

	secureBoot  bool
	platformKey string
}

const simulateLong = `Simulate is the BMC of a machine that has none: a Redfish service that
speaks as the specification says (--profile generic) or misbehaves as one vendor's
BMCs do, until it is interrupted. --list shows the profiles and the faults.

Its address, credentials and certificate go to the standard output, each request and
each reset to the standard error. It serves TLS with a certificate that it makes:
with --state-dir that is kept in bmc.crt and bmc.key, so that clients may trust it.

With --machine none there is only a power state. With --machine qemu it powers a QEMU
machine with UEFI firmware, on QEMU's user networking, which needs no privileges: what
it boots over HTTP is --boot-url, or what a client writes into HttpBootUri; from the
machine, this host is 10.0.2.2.`

const simulateExample = `  bootctl bmc simulate --username admin --password secret
  bootctl bmc simulate --profile idrac9 --listen 127.0.0.1:8443 --fault slow-power-off=20s
  bootctl bmc simulate --machine qemu --console --boot-url http://10.0.2.2:8082/httpboot`

func newBMCSimulateCommand(env *environment) *cobra.Command {
	var o simulateFlags
	cmd := &cobra.Command{
		Use:     "simulate [flags]",
		Short:   "Be the Redfish BMC of a machine that only has a power state, or of a QEMU machine",
		Long:    simulateLong,
		Example: simulateExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), env)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.profile, "profile", "generic", "how the BMC behaves; see --list")
	f.StringSliceVar(&o.faults, "fault", nil, "what goes wrong beside that, such as slow-power-off=20s; may be repeated; see --list")
	f.BoolVar(&o.list, "list", false, "list the profiles and faults, and end")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8443", "address to serve on; port 0 chooses one")
	f.BoolVar(&o.plain, "http", false, "serve plain HTTP")
	f.StringVar(&o.stateDir, "state-dir", "", "directory for the certificate and for the QEMU machine's files (default: none are kept)")
	f.StringVar(&o.username, "username", "admin", "user name of the only account")
	f.StringVar(&o.password, "password", "", "its password (default: a random one)")
	f.StringVar(&o.uuid, "uuid", "", "UUID of the machine (default: a random one)")
	f.StringVar(&o.serial, "serial", "", "its serial number (default: made from the UUID)")
	f.StringSliceVar(&o.macs, "mac", nil, "MAC address of a NIC, may be repeated (default: one, made from the UUID)")
	f.StringVar(&o.arch, "arch", "amd64", "architecture of the machine: amd64 or arm64")
	f.IntVar(&o.memory, "memory", 1024, "memory of the machine in MiB")
	f.DurationVar(&o.post, "post", 0, "how long the machine is in POST after each boot, as far as the BMC says")
	f.BoolVar(&o.quiet, "quiet", false, "do not print requests and resets")
	f.StringVar(&o.machine, "machine", "none", "what the BMC powers: none (only a power state) or qemu")
	f.StringVar(&o.bootURL, "boot-url", "", "with qemu: the http:// URL that DHCP offers to the firmware")
	f.StringVar(&o.httpsCA, "https-ca", "", "with qemu: PEM file with the authorities that the firmware trusts for HTTPS boot")
	f.BoolVar(&o.secureBoot, "secure-boot", false, "with qemu: firmware with UEFI Secure Boot, in Setup Mode unless there is a --platform-key")
	f.StringVar(&o.platformKey, "platform-key", "", "with qemu and --secure-boot: PEM file with the certificate that is PK, KEK and db at first; Secure Boot is on")
	f.StringVar(&o.disk, "disk-image", "", "with qemu: EFI application on a disk, which boots when the network does not")
	f.BoolVar(&o.diskFirst, "disk-first", false, "with qemu: boot the disk before the network, as an installed machine does")
	f.BoolVar(&o.console, "console", false, "with qemu: print the machine's console to the standard output")
	f.DurationVar(&o.life, "life", 12*time.Hour, "with qemu: how long the machine may stay on before it is switched off")
	return cmd
}

// run serves until ctx ends.
func (o *simulateFlags) run(ctx context.Context, env *environment) error {
	if o.list {
		return printSimulations(env)
	}
	apply, err := o.check()
	if err != nil {
		return usageError{err}
	}
	dir, remove, err := o.directory()
	if err != nil {
		return err
	}
	defer remove()
	machine, err := o.newMachine(ctx, env, dir)
	if err != nil {
		return fmt.Errorf("making the machine: %w", err)
	}
	defer machine.Off() //nolint:errcheck // the process ends
	bmc, err := bmcsim.New(o.options(env, machine))
	if err != nil {
		return usageError{err}
	}
	defer bmc.Close()
	for _, fault := range apply {
		fault(bmc)
	}
	return o.serve(ctx, env, bmc)
}

// check fills in what was left out, and tells all that is wrong at once.
func (o *simulateFlags) check() (faults []func(*bmcsim.BMC), err error) {
	var errs []error
	for _, text := range o.faults {
		fault, err := bmcsim.ParseFault(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--fault: %w", err))
		}
		faults = append(faults, fault)
	}
	if o.machine != "none" && o.machine != "qemu" {
		errs = append(errs, fmt.Errorf("--machine is %q; it must be none or qemu", o.machine))
	}
	if o.arch != "amd64" && o.arch != "arm64" {
		errs = append(errs, fmt.Errorf("--arch is %q; it must be amd64 or arm64", o.arch))
	}
	if o.memory < 1 {
		errs = append(errs, fmt.Errorf("--memory is %d; it is in MiB, and 1024 is usual", o.memory))
	}
	if o.machine == "none" && (o.bootURL != "" || o.httpsCA != "" || o.disk != "" || o.diskFirst || o.console || o.secureBoot) {
		errs = append(errs, errors.New("--boot-url, --https-ca, --disk-image, --disk-first, --console and --secure-boot belong to --machine qemu"))
	}
	if o.platformKey != "" && !o.secureBoot {
		errs = append(errs, errors.New("--platform-key belongs to --secure-boot"))
	}
	if !slices.ContainsFunc(bmcsim.Profiles(), func(p bmcsim.ProfileInfo) bool { return p.Name == o.profile }) {
		errs = append(errs, fmt.Errorf("--profile is %q; --list shows the profiles", o.profile))
	}
	for _, mac := range o.macs {
		if address, err := net.ParseMAC(mac); err != nil || len(address) != 6 {
			errs = append(errs, fmt.Errorf("--mac is %q; it must be one such as 52:54:00:12:34:56", mac))
		}
	}
	o.complete()
	return faults, errors.Join(errs...)
}

// complete makes what was left out at random.
func (o *simulateFlags) complete() {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // it never fails
	if o.password == "" {
		o.password = hex.EncodeToString(raw[:8])
	}
	if o.uuid == "" {
		_, _ = rand.Read(raw[:])
		raw[6], raw[8] = raw[6]&0x0f|0x40, raw[8]&0x3f|0x80 // RFC 9562: version 4
		o.uuid = fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
	}
	if tail := strings.ReplaceAll(o.uuid, "-", ""); len(o.macs) == 0 && len(tail) == 32 {
		o.macs = []string{fmt.Sprintf("52:54:00:%s:%s:%s", tail[26:28], tail[28:30], tail[30:])}
	}
}

// directory is where files are kept; remove deletes one that is not to be kept.
func (o *simulateFlags) directory() (dir string, remove func(), err error) {
	if o.stateDir != "" {
		return o.stateDir, func() {}, os.MkdirAll(o.stateDir, 0o700)
	}
	dir, err = os.MkdirTemp("", "bootctl-bmc-")
	return dir, func() { os.RemoveAll(dir) }, err
}

// newMachine makes what the BMC powers; it is off.
func (o *simulateFlags) newMachine(ctx context.Context, env *environment, dir string) (bmcsim.Machine, error) {
	if o.machine == "none" {
		return bmcsim.NewMemoryMachine(nil, bootOptions(o.macs)...), nil
	}
	options := qemu.MachineOptions{
		Name: "machine", Arch: o.arch, UUID: o.uuid, MAC: o.macs[0], MoreMACs: o.macs[1:], MemoryMiB: o.memory,
		BootURL: o.bootURL, DiskFirst: o.diskFirst, Life: o.life,
	}
	if o.console {
		options.Output = env.Out
	}
	var err error
	if options.NextBoot, err = readOptional(o.disk); err != nil {
		return nil, err
	}
	if options.HTTPSCA, err = readOptional(o.httpsCA); err != nil {
		return nil, err
	}
	if o.secureBoot {
		key, err := readOptional(o.platformKey)
		if err != nil {
			return nil, err
		}
		options.SecureBoot = &qemu.SecureBoot{PK: key, KEK: key, DB: key}
	}
	vm, err := qemu.NewVM(dir, options)
	if err != nil {
		return nil, err
	}
	return bmcsim.NewQEMU(ctx, vm)
}

func readOptional(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	return os.ReadFile(path)
}

// bootOptions are those of a machine that only has a power state.
func bootOptions(macs []string) []bmcsim.BootOption {
	var options []bmcsim.BootOption
	for i, mac := range macs {
		options = append(options,
			bmcsim.BootOption{Reference: fmt.Sprintf("Boot%04X", 2*i+1), Name: "UEFI HTTPv4 " + mac, Kind: bmcsim.KindHTTP, MAC: mac},
			bmcsim.BootOption{Reference: fmt.Sprintf("Boot%04X", 2*i+2), Name: "UEFI PXEv4 " + mac, Kind: bmcsim.KindPXE, MAC: mac})
	}
	return append(options, bmcsim.BootOption{Reference: "Boot0000", Name: "UEFI disk", Kind: bmcsim.KindDisk})
}

// options are those of the BMC.
func (o *simulateFlags) options(env *environment, machine bmcsim.Machine) bmcsim.Options {
	hardware := bmcsim.Hardware{Arch: o.arch, MemoryMiB: o.memory}
	for _, mac := range o.macs {
		hardware.NICs = append(hardware.NICs, bmcsim.NIC{MAC: mac})
	}
	options := bmcsim.Options{
		Profile: o.profile, Machine: machine, Username: o.username, Password: o.password, UUID: o.uuid, Serial: o.serial, Hardware: hardware, POST: o.post,
	}
	if !o.quiet {
		var mu sync.Mutex
		options.Logged = func(r bmcsim.Request) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(env.Err, "%s %s %s %d %s\n", r.Time.Format(time.TimeOnly), r.Method, r.Path, r.Status, r.Body)
		}
	}
	return options
}

// serve answers requests until ctx ends.
func (o *simulateFlags) serve(ctx context.Context, env *environment, bmc *bmcsim.BMC) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	defer listener.Close()
	server := &http.Server{
		Handler: bmc, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
	}
	context.AfterFunc(ctx, func() { _ = server.Close() }) // what is in flight ends with the process
	scheme := "http"
	inner := bmc.Listener(listener)
	fingerprint := ""
	if !o.plain {
		scheme = "https"
		if inner, fingerprint, err = o.secure(env, inner); err != nil {
			return err
		}
	}
	o.print(env, scheme+"://"+listener.Addr().String(), fingerprint, bmc)
	if err := server.Serve(inner); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// print says how to reach the BMC.
func (o *simulateFlags) print(env *environment, url, fingerprint string, bmc *bmcsim.BMC) {
	w := tabwriter.NewWriter(env.Out, 0, 0, 2, ' ', 0)
	defer w.Flush() //nolint:errcheck // the standard output is for people
	scheme := "redfish"
	if o.plain {
		scheme = "redfish+http"
	}
	fmt.Fprintf(w, "profile\t%s\n", o.profile)
	fmt.Fprintf(w, "URL\t%s\n", url)
	fmt.Fprintf(w, "BareMetalHost address\t%s://%s%s\n", scheme, url[strings.Index(url, "://")+3:], bmc.SystemPath())
	fmt.Fprintf(w, "username\t%s\n", o.username)
	fmt.Fprintf(w, "password\t%s\n", o.password)
	fmt.Fprintf(w, "UUID\t%s\n", o.uuid)
	fmt.Fprintf(w, "MAC\t%s\n", strings.Join(o.macs, ", "))
	if fingerprint != "" {
		fmt.Fprintf(w, "certificate, SHA-256\t%s\n", fingerprint)
	}
}

// printSimulations lists the profiles and the faults.
func printSimulations(env *environment) error {
	w := tabwriter.NewWriter(env.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROFILE\tWHAT IS ODD")
	for _, p := range bmcsim.Profiles() {
		fmt.Fprintf(w, "%s\t%s\n", p.Name, p.About)
	}
	fmt.Fprintln(w, "\t")
	fmt.Fprintln(w, "FAULT\tTHE BMC")
	for _, f := range bmcsim.Faults() {
		name := f.Name
		switch {
		case f.Default != "":
			name += "[=" + f.Default + "]"
		case f.Value != "":
			name += "=" + strings.ToUpper(f.Value[strings.LastIndexByte(f.Value, ' ')+1:])
		}
		fmt.Fprintf(w, "%s\t%s\n", name, f.About)
	}
	return w.Flush()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/claim"
	"github.com/boot-operator/boot-operator/internal/dhcprecipe"
)

// dhcpFlags are those of the verb dhcp.
type dhcpFlags struct {
	format        string
	family        int
	servers       []string
	scheme        string
	tftp          []string
	iface         string
	subnets       []string
	ranges        []string
	routers       []string
	dns           []string
	leaseTime     time.Duration
	files         dhcprecipe.BootFiles
	machines      bool
	cluster       clusterFlags
	namespaces    []string
	allNamespaces bool
}

const dhcpLong = `Dhcp prints a configuration for a DHCP server that you already run, with which
machines boot from the boot-operator at --server: UEFI HTTP Boot gets its URL, UEFI and
BIOS PXE get iPXE by TFTP, iPXE gets its script, and nobody else is offered anything.
What you have to adapt, and what a server cannot do, is said in its comments.

Only the configuration goes to the standard output. With --machines it has reservations
for the HTTPBootConfigs and IPXEBootConfigs of a cluster that list a MAC address and the
IP address that belongs to it; what an object leaves open becomes a comment.

--server, --tftp, --subnet, --range, --router and --dns are of IPv4 or IPv6 by what they
say; repeat them for both. dnsmasq and mikrotik have both in one configuration, the others
need --family to choose one.`

const dhcpExample = `  bootctl dhcp --format dnsmasq --server 10.0.0.2 --interface eth1 --range 10.0.0.50-10.0.0.99
  bootctl dhcp --format kea --server 10.0.0.2 --machines --namespace machines > kea-dhcp4.conf
  bootctl dhcp --format kea --server https://[fd00::2]:8443 --subnet fd00::/64 > kea-dhcp6.conf
  bootctl dhcp --format dnsmasq --server 10.0.0.2,fd00::2 --router 10.0.0.1 --dns 10.0.0.1`

// newDHCPCommand makes the verb dhcp.
func newDHCPCommand(env *environment) *cobra.Command {
	var o dhcpFlags
	cmd := &cobra.Command{
		Use:     "dhcp --format FORMAT --server ADDRESS [flags]",
		Short:   "Print a configuration for a DHCP server that you already run",
		Long:    dhcpLong,
		Example: dhcpExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), env)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "what to print: "+formats()+"; required")
	f.StringSliceVar(&o.servers, "server", nil, "address or URL of the boot server as machines reach it, such as 10.0.0.2, 10.0.0.2:8082 or https://10.0.0.2:8443; a literal address; required")
	f.StringVar(&o.scheme, "scheme", "", "http or https, for a --server without one (default http)")
	f.IntVar(&o.family, "family", 0, "4 or 6: the family to print (default: those of --server)")
	f.StringSliceVar(&o.tftp, "tftp", nil, "address of the operator's TFTP server (default: that of --server)")
	f.StringVar(&o.iface, "interface", "eth0", "interface of the DHCP server to the machines")
	f.StringSliceVar(&o.subnets, "subnet", nil, "subnet of the machines, such as 10.0.0.0/24 (default: the /24 or /64 around --server)")
	f.StringSliceVar(&o.ranges, "range", nil, "addresses to lease, such as 10.0.0.100-10.0.0.199 (default: some of --subnet)")
	f.StringSliceVar(&o.routers, "router", nil, "IPv4 default gateway that machines are told (default: none)")
	f.StringSliceVar(&o.dns, "dns", nil, "DNS servers that machines are told (default: none)")
	f.DurationVar(&o.leaseTime, "lease-time", time.Hour, "how long a lease lasts")
	f.StringVar(&o.files.BIOS, "bios-file", "undionly.kpxe", "what BIOS machines get by TFTP")
	f.StringVar(&o.files.AMD64, "amd64-file", "snponly.efi", "what x86-64 UEFI machines get by TFTP; ipxe.efi has drivers of its own")
	f.StringVar(&o.files.ARM64, "arm64-file", "snponly-arm64.efi", "what arm64 UEFI machines get by TFTP")
	f.BoolVar(&o.machines, "machines", false, "reserve addresses for the machines of a cluster")
	f.StringVar(&o.cluster.kubeconfig, "kubeconfig", "", "kubeconfig of that cluster (default: as kubectl finds its own)")
	f.StringVar(&o.cluster.context, "context", "", "context in it (default: its current one)")
	f.StringSliceVarP(&o.namespaces, "namespace", "n", nil, "namespace of the machines, may be repeated (default: that of the context)")
	f.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "take the machines of all namespaces")
	return cmd
}

// formats lists the formats for people.
func formats() string {
	var names []string
	for _, f := range dhcprecipe.Formats() {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}

// run prints the configuration. What is wrong with the flags is told before the
// cluster is asked for anything.
func (o *dhcpFlags) run(ctx context.Context, env *environment) error {
	options, err := o.options()
	if err != nil {
		return usageError{err}
	}
	if err := printRecipe(io.Discard, options); err != nil {
		return err
	}
	if o.machines {
		if options.Machines, err = o.load(ctx, env.Err); err != nil {
			return fmt.Errorf("reading the machines: %w", err)
		}
	}
	return printRecipe(env.Out, options)
}

// printRecipe tells options that make no configuration from a failure to write one.
func printRecipe(w io.Writer, options dhcprecipe.Options) error {
	err := dhcprecipe.Print(w, options)
	if errors.Is(err, boot.ErrInvalid) {
		return usageError{err}
	}
	return err
}

// options are what the flags say; what is wrong is told all at once.
func (o *dhcpFlags) options() (dhcprecipe.Options, error) {
	r := dhcprecipe.Options{Format: dhcprecipe.Format(o.format), Interface: o.iface, LeaseTime: o.leaseTime, Files: o.files, Reserve: o.machines}
	errs := o.check()
	networks := map[bool]*dhcprecipe.Network{} // by: is it IPv6
	for _, text := range o.servers {
		server, err := dhcprecipe.ParseServer(text, o.scheme)
		v6 := server.Host.Is6()
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("--server: %w", err))
		case networks[v6] != nil:
			errs = append(errs, fmt.Errorf("--server names two of one family: %s and %s", networks[v6].Server, server))
		default:
			networks[v6] = &dhcprecipe.Network{Server: server}
		}
	}
	if len(errs) == 0 {
		errs = o.fill(networks)
	}
	if o.family != 6 {
		r.V4 = networks[false]
	}
	if o.family != 4 {
		r.V6 = networks[true]
	}
	if r.V4 != nil && r.V6 != nil && !r.Format.BothFamilies() && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s has a file for each family: add --family 4 or --family 6", o.format))
	}
	return r, errors.Join(errs...)
}

// check finds what is wrong with single flags.
func (o *dhcpFlags) check() []error {
	var errs []error
	if !slices.Contains(dhcprecipe.Formats(), dhcprecipe.Format(o.format)) {
		errs = append(errs, fmt.Errorf("--format is %q; it must be one of %s", o.format, formats()))
	}
	if len(o.servers) == 0 {
		errs = append(errs, errors.New("--server is missing: it is the boot server's address as machines reach it, such as 10.0.0.2"))
	}
	if o.scheme != "" && o.scheme != "http" && o.scheme != "https" {
		errs = append(errs, fmt.Errorf("--scheme is %q; it must be http or https", o.scheme))
	}
	if o.family != 0 && o.family != 4 && o.family != 6 {
		errs = append(errs, fmt.Errorf("--family is %d; it must be 4 or 6", o.family))
	}
	if o.leaseTime == 0 {
		errs = append(errs, errors.New("--lease-time is 0; an hour is usual"))
	}
	if o.allNamespaces && len(o.namespaces) > 0 {
		errs = append(errs, errors.New("--namespace and --all-namespaces exclude each other"))
	}
	if !o.machines && (o.allNamespaces || len(o.namespaces) > 0 || o.cluster != clusterFlags{}) {
		errs = append(errs, errors.New("--kubeconfig, --context, --namespace and --all-namespaces belong to --machines, which is missing"))
	}
	if slices.Contains(o.namespaces, "") {
		errs = append(errs, errors.New("--namespace is empty; use --all-namespaces for all"))
	}
	return errs
}

// fill gives every address to the network of its family.
func (o *dhcpFlags) fill(networks map[bool]*dhcprecipe.Network) []error {
	if o.family != 0 && networks[o.family == 6] == nil {
		return []error{fmt.Errorf("--family is %d and no --server is an IPv%d address: over IPv%[1]d machines need one that they reach over it", o.family, o.family)}
	}
	var errs []error
	add := func(flag string, values []string, set func(string) (netip.Addr, func(*dhcprecipe.Network) bool, error)) {
		for _, value := range values {
			addr, give, err := set(value)
			network := networks[addr.Is6()]
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("--%s: %w", flag, err))
			case network == nil:
				errs = append(errs, fmt.Errorf("--%s: %s is of another family than --server", flag, value))
			case !give(network):
				errs = append(errs, fmt.Errorf("--%s is given twice for one family", flag))
			}
		}
	}
	add("tftp", o.tftp, address("a TFTP server's address such as 10.0.0.2", func(n *dhcprecipe.Network) *netip.Addr { return &n.TFTP }))
	add("router", o.routers, address("a router's address such as 10.0.0.1", func(n *dhcprecipe.Network) *netip.Addr { return &n.Router }))
	add("dns", o.dns, func(s string) (netip.Addr, func(*dhcprecipe.Network) bool, error) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			err = fmt.Errorf("%q is not a DNS server's address such as 10.0.0.1", s)
		}
		return a, func(n *dhcprecipe.Network) bool { n.DNS = append(n.DNS, a); return true }, err
	})
	add("subnet", o.subnets, func(s string) (netip.Addr, func(*dhcprecipe.Network) bool, error) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			err = fmt.Errorf("%q is not a subnet such as 10.0.0.0/24", s)
		}
		return p.Addr(), func(n *dhcprecipe.Network) bool { return once(&n.Subnet, p) }, err
	})
	add("range", o.ranges, func(s string) (netip.Addr, func(*dhcprecipe.Network) bool, error) {
		r, err := dhcprecipe.ParseRange(s)
		return r.First, func(n *dhcprecipe.Network) bool { return once(&n.Range, r) }, err
	})
	return errs
}

// address is for flags with one address for each family.
func address(what string, field func(*dhcprecipe.Network) *netip.Addr) func(string) (netip.Addr, func(*dhcprecipe.Network) bool, error) {
	return func(s string) (netip.Addr, func(*dhcprecipe.Network) bool, error) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			err = fmt.Errorf("%q is not %s", s, what)
		}
		return a, func(n *dhcprecipe.Network) bool { return once(field(n), a) }, err
	}
}

// once sets what was not set before, or returns false.
func once[T comparable](to *T, value T) bool {
	var zero T
	if *to != zero {
		return false
	}
	*to = value
	return true
}

// load reads the machines of the cluster, sorted by name. What is wrong with an
// object is told to warnings; it is no reason to leave the others out.
func (o *dhcpFlags) load(ctx context.Context, warnings io.Writer) ([]dhcprecipe.Machine, error) {
	c, namespace, err := o.cluster.connect()
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster: %w", err)
	}
	namespaces := o.namespaces
	switch {
	case o.allNamespaces:
		namespaces = []string{""}
	case len(namespaces) == 0:
		namespaces = []string{namespace}
	}
	var machines []dhcprecipe.Machine
	for _, namespace := range namespaces {
		configs, err := configsOf(ctx, c, namespace)
		if err != nil {
			return nil, err
		}
		for _, config := range configs {
			machine, err := claim.Machine(config, "")
			name := fmt.Sprintf("%s %s/%s", config.Kind(), config.GetNamespace(), config.GetName())
			if err != nil {
				fmt.Fprintf(warnings, "warning: %s: %v\n", name, err)
			}
			machines = append(machines, dhcprecipe.Machine{Name: name, MACs: machine.MACs, Addrs: machine.Addrs})
		}
	}
	if len(machines) == 0 {
		fmt.Fprintln(warnings, "warning: there are no HTTPBootConfigs or IPXEBootConfigs to reserve addresses for")
	}
	slices.SortStableFunc(machines, func(a, b dhcprecipe.Machine) int { return strings.Compare(a.Name, b.Name) })
	return machines, nil
}

// configsOf lists the configs of both kinds; those that are being deleted have no
// machine any more.
func configsOf(ctx context.Context, c client.Reader, namespace string) ([]v1alpha1.Config, error) {
	var https v1alpha1.HTTPBootConfigList
	var ipxes v1alpha1.IPXEBootConfigList
	for _, list := range []client.ObjectList{&https, &ipxes} {
		if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, fmt.Errorf("listing boot configs: %w", err)
		}
	}
	var configs []v1alpha1.Config
	for i := range https.Items {
		configs = append(configs, &https.Items[i])
	}
	for i := range ipxes.Items {
		configs = append(configs, &ipxes.Items[i])
	}
	return slices.DeleteFunc(configs, func(c v1alpha1.Config) bool { return c.GetDeletionTimestamp() != nil }), nil
}

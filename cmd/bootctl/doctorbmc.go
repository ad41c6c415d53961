package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/boot-operator/boot-operator/internal/redfish"
)

const (
	// bmcsAtOnce is how many BMCs are spoken to at once.
	bmcsAtOnce = 16
	// bmcPatience is how long one may take.
	bmcPatience = 20 * time.Second
)

// bmcAdvice says what helps with what a BMC answered.
var bmcAdvice = []struct {
	is error
	do string
}{
	{redfish.ErrUnauthorized, "correct the Secret of spec.bmc.credentialsName; the credentials were sent once"},
	{redfish.ErrCertificate, "give the authority of its certificate by --bmc-ca-file here and to the operator, or set spec.bmc.disableCertificateVerification"},
	{redfish.ErrUnreachable, "check spec.bmc.address, the route and the firewall; the operator's Pods have to reach it too"},
	{redfish.ErrNotBMC, "check spec.bmc.address: what answers there does not speak Redfish"},
	{redfish.ErrWrongSystem, "the BMC is of another machine than the host was: remove the host's annotation boot.ironcore.dev/system-uuid to accept it"},
	{redfish.ErrBusy, "try again later"},
}

// checkBMCs asks each host's BMC whether its machine is on.
func checkBMCs(ctx context.Context, d *doctor) []finding {
	switch {
	case d.noCluster != nil:
		return []finding{skip("the BMCs of hosts: %v", d.noCluster)}
	case d.fleet.noHosts != nil:
		return []finding{skip("the BMCs of hosts: %v", d.fleet.noHosts)}
	}
	ca, err := readOptional(d.flags.bmcCAFile)
	if err != nil {
		return []finding{fail("check --bmc-ca-file", "reading --bmc-ca-file: %v", err)}
	}
	var hosts []*metal3.BareMetalHost
	for _, m := range d.machines {
		if m.Host != nil && m.Host.HasBMCDetails() {
			hosts = append(hosts, m.Host)
		}
	}
	if len(hosts) == 0 {
		return []finding{skip("there is no BareMetalHost with a BMC in %s", d.fleet.where())}
	}
	clients := redfish.New(redfish.Options{Limits: redfish.Limits{Global: bmcsAtOnce, Operation: bmcPatience, Timeout: bmcPatience}})
	all := make([]finding, len(hosts))
	turns := make(chan struct{}, bmcsAtOnce)
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			all[i] = d.checkBMC(ctx, clients, h, ca)
		})
	}
	wg.Wait()
	return fold(all, "%d BMCs answer.")
}

// checkBMC asks one BMC. Credentials are in none of what it says.
func (d *doctor) checkBMC(ctx context.Context, clients *redfish.Clients, h *metal3.BareMetalHost, ca []byte) finding {
	name := h.Namespace + "/" + h.Name
	c := &hosts{Client: d.fleet, env: d.env, key: client.ObjectKeyFromObject(h)}
	con, err := c.bmc(ctx, h)
	if err != nil {
		if apierrors.IsForbidden(err) {
			return skip("the BMC of host %s: you may not read the Secret of its credentials", name)
		}
		return fail("see spec.bmc of the host", "Host %s: %v.", name, err)
	}
	con.CA = ca
	ctx, cancel := context.WithTimeout(ctx, bmcPatience)
	defer cancel()
	var reading redfish.PowerReading
	err = clients.Do(ctx, con, func(ctx context.Context, bmc redfish.BMC) (err error) {
		reading, err = bmc.Power(ctx)
		return err
	})
	if err != nil {
		return fail(adviceFor(err), "Host %s: %v.", name, err)
	}
	text := fmt.Sprintf("Host %s: the BMC answers, the machine is %s", name, dash(string(reading.State)))
	if !con.Verified() {
		return warn("use redfish:// (HTTPS), and let its certificate be verified: what is set over such a connection proves no machine", "%s; but nothing proves that this is its BMC.", text)
	}
	return ok("%s.", text)
}

func adviceFor(err error) string {
	for _, a := range bmcAdvice {
		if errors.Is(err, a.is) {
			return a.do
		}
	}
	return "bootctl bmc probe shows what the BMC says"
}

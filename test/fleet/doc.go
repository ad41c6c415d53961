// Package fleet runs many simulated machines against several replicas of the
// operator: processes of its own binary, beside one real API server, with a store
// each, behind a TCP balancer that speaks PROXY protocol. Machines boot again and
// again, as their firmware would, while replicas are drained, killed, restarted and
// cut off from the API server; every boot is checked to be of the machine's own bytes,
// and every status to tell of it.
//
// It needs Linux, whose loopback device has all addresses of 127.0.0.0/8: a machine
// connects from 127.64.x.y, and the balancer says that it is 10.64.x.y.
package fleet

// Package inventory finds the plan of a machine from the informer cache: it
// implements boot.Source over HTTPBootConfigs, IPXEBootConfigs and Nodes.
//
// The index is kept up to date event by event, each at the cost of what it
// affects, so that a lookup is one map access whatever the number of configs.
//
// Two configs of one kind that claim one UUID (in either byte order), MAC or
// IP contend: the older holds, the younger has no plan. A config that does not
// hold contends with nobody. Configs of different kinds share a machine.
package inventory

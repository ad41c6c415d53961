// Package networkdata converts OpenStack network data, as Nova's
// network_data.json and the networkData of a BareMetalHost hold it, to the
// networking config version 2 of cloud-init.
package networkdata

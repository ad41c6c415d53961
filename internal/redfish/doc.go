// Package redfish speaks to one machine's BMC over Redfish (DSP0266, DSP0268): its
// power, one boot from the network, what hardware it says there is. It hides
// gofish, the differences between vendors, and how a BMC is kept from being asked
// too much.
//
// What a BMC says is advice: it may be late, wrong or hostile. Nothing here
// decides what a machine boots; what the boot server sent does.
//
// Clients.Do lends a BMC for one operation: account.go keeps BMCs from being asked
// too much, transport.go holds what goes over the wire to its bounds and to the
// host, fault.go tells what an answer means, quirks.go is what is known of vendors.
package redfish

// Package dhcp loads what bootctl dhcp prints into the DHCP servers it is for,
// as Debian ships them, and asks each of them what every kind of client asks.
package dhcp

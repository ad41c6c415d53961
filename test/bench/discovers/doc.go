// Package discovers measures how many DHCPDISCOVERs the ProxyDHCP server answers:
// it sends them from one network namespace to a server in another, and counts the
// offers. It needs Linux and root.
package discovers

package networkdata

import "gopkg.in/yaml.v3"

// file is networking config version 2 (cloud-init, "Networking config Version
// 2"), as far as it is written here.
type file struct {
	Version   int                `yaml:"version"`
	Ethernets map[string]*device `yaml:"ethernets,omitempty"`
	Bonds     map[string]*device `yaml:"bonds,omitempty"`
	VLANs     map[string]*device `yaml:"vlans,omitempty"`
}

// device is an Ethernet, a bond or a VLAN.
type device struct {
	Match       *match          `yaml:"match,omitempty"`
	SetName     quoted          `yaml:"set-name,omitempty"`
	Interfaces  []quoted        `yaml:"interfaces,omitempty"`
	Parameters  map[string]any  `yaml:"parameters,omitempty"`
	ID          int             `yaml:"id,omitempty"`
	Link        quoted          `yaml:"link,omitempty"`
	MACAddress  quoted          `yaml:"macaddress,omitempty"`
	MTU         int             `yaml:"mtu,omitempty"`
	DHCP4       bool            `yaml:"dhcp4,omitempty"`
	DHCP6       bool            `yaml:"dhcp6,omitempty"`
	AcceptRA    *bool           `yaml:"accept-ra,omitempty"`
	Addresses   []quoted        `yaml:"addresses,omitempty"`
	Gateway6    quoted          `yaml:"gateway6,omitempty"`
	Routes      []route         `yaml:"routes,omitempty"`
	Nameservers *nameserverList `yaml:"nameservers,omitempty"`
}

type match struct {
	MACAddress quoted `yaml:"macaddress"`
}

type route struct {
	To     quoted `yaml:"to"`
	Via    quoted `yaml:"via"`
	Metric int    `yaml:"metric,omitempty"`
}

type nameserverList struct {
	Addresses []quoted `yaml:"addresses,omitempty"`
	Search    []quoted `yaml:"search,omitempty"`
}

// quoted is a string that is always written in quotes: YAML 1.1, which
// cloud-init reads, takes some MAC addresses for numbers.
type quoted string

// MarshalYAML returns the string in double quotes.
func (q quoted) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Style: yaml.DoubleQuotedStyle, Value: string(q)}, nil
}

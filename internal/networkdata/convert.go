package networkdata

import (
	"bytes"
	"fmt"

	"gopkg.in/yaml.v3"

	"github.com/boot-operator/boot-operator/internal/boot"
)

// The bounds of a document.
const (
	// MaxBytes is what it may be long.
	MaxBytes = 64 << 10

	maxLinks       = 64
	maxNetworks    = 256
	maxRoutes      = 256 // of one network
	maxNameservers = 16  // of one list
	maxMTU         = 65535
	minMTU         = 68 // RFC 791
)

// Config is what network data was converted to.
type Config struct {
	// YAML is networking config version 2; the same for the same input.
	YAML []byte
	// Links and Networks count what was converted.
	Links, Networks int
}

// Convert reads OpenStack network data (Nova, network_data.json: links, networks
// and services), as JSON or YAML of at most MaxBytes, and returns networking
// config version 2 for cloud-init. Whatever cannot be expressed is an error, so
// that no machine comes up with half of its network. It returns boot.ErrInvalid,
// naming the path of what is wrong, such as links[1].ethernet_mac_address, and
// never a value.
func Convert(data []byte) (Config, error) {
	root, err := parse(data)
	if err != nil {
		return Config{}, err
	}
	c := &conversion{byID: map[string]*link{}, taken: map[string]string{}, macs: map[boot.MAC]string{}}
	if err := c.links(root.field("links")); err != nil {
		return Config{}, err
	}
	n, err := c.networks(root.field("networks"))
	if err != nil {
		return Config{}, err
	}
	if err := c.services(root.field("services")); err != nil {
		return Config{}, err
	}
	out, err := c.encode()
	return Config{YAML: out, Links: len(c.order), Networks: n}, err
}

// conversion is what is known while a document is converted.
type conversion struct {
	byID  map[string]*link
	order []*link
	// taken are the names in the output, and macs the addresses of NICs, with the
	// path of the link that has them.
	taken map[string]string
	macs  map[boot.MAC]string
}

func (c *conversion) encode() ([]byte, error) {
	f := file{Version: 2}
	for _, l := range c.order {
		into := l.kind.section(&f)
		if *into == nil {
			*into = map[string]*device{}
		}
		(*into)[l.name] = &l.device
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(f); err != nil {
		return nil, fmt.Errorf("writing the network configuration: %w", err)
	}
	return out.Bytes(), nil
}

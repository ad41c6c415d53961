package prefetch

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/ignition"
	"github.com/boot-operator/boot-operator/internal/networkdata"
	"github.com/boot-operator/boot-operator/internal/userdata"
)

// beside is what a machine is told beside its document; nil is nothing.
type beside struct {
	metaData map[string]string
	// network is networking config version 2.
	network []byte
}

// beside reads the Secrets that go with the machine's document.
func (k documentKey) beside(found map[string]*corev1.Secret) (b beside, err error) {
	if k.metaData != "" {
		if b.metaData, err = userdata.MetaData(found[k.metaData].Data); err != nil {
			return b, k.blame(k.metaData, err)
		}
	}
	if k.networkData == "" {
		return b, nil
	}
	text, ok := found[k.networkData].Data[v1alpha1.SecretKeyNetworkData]
	if !ok {
		return b, k.blame(k.networkData, fmt.Errorf("%w %q", userdata.ErrNoKey, v1alpha1.SecretKeyNetworkData))
	}
	c, err := networkdata.Convert(text)
	b.network = c.YAML
	return b, k.blame(k.networkData, err)
}

// cloudInit adds it to user data; a network configuration that the user data
// brings with it counts more.
func (b beside) cloudInit(own userdata.Document) boot.CloudInit {
	c := own.CloudInit()
	c.MetaData = b.metaData
	if len(c.NetworkConfig) == 0 {
		c.NetworkConfig = b.network
	}
	return c
}

// ignition adds it to an Ignition document, as files.
func (b beside) ignition(document []byte) ([]byte, error) {
	var files []ignition.File
	if b.metaData != nil {
		text, err := json.MarshalIndent(b.metaData, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("writing the meta data: %w", err)
		}
		files = append(files, ignition.File{Path: ignition.MetaDataPath, Data: append(text, '\n')})
	}
	if b.network != nil {
		files = append(files, ignition.File{Path: ignition.NetworkConfigPath, Data: b.network})
	}
	if files == nil {
		return document, nil
	}
	return ignition.AddFiles(document, files...)
}

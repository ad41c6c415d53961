package prefetch

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/boot-operator/boot-operator/api/v1alpha1"
	"github.com/boot-operator/boot-operator/internal/boot"
	"github.com/boot-operator/boot-operator/internal/userdata"
)

// slot is where a document is kept in memory.
type slot struct {
	object  string
	purpose purpose
}

func (k documentKey) slot() slot { return slot{k.object, k.purpose} }

// size is what a document takes of the bound, in bytes.
func (d *document) size() int {
	n := len(d.data)
	if c := d.cloudInit; c != nil {
		n += len(c.UserData) + len(c.VendorData) + len(c.NetworkConfig)
		for key, value := range c.MetaData {
			n += len(key) + len(value)
		}
	}
	return n
}

// Ignition returns the machine's Ignition document as JSON: from memory if it
// was read a short while ago, else by one coalesced read of at most 2 s, and
// from memory again where the API server does not answer. It returns
// boot.ErrNotFound when the plan names none, or user data for cloud-init, and
// boot.ErrUnavailable when the API server is out of reach and nothing is in
// memory, the Secret is gone, or its content is invalid. The result is shared
// and must not be changed.
func (p *Prefetch) Ignition(ctx context.Context, plan *boot.Plan) ([]byte, error) {
	if !plan.HasIgnition {
		return nil, fmt.Errorf("%w: %s names no Ignition document", boot.ErrNotFound, plan.Object)
	}
	d, err := p.document(ctx, plan, forMachine)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the Ignition document of %s: %w", plan.Object, err)
	case d.cloudInit != nil:
		return nil, fmt.Errorf("%w: %s has user data for cloud-init, and no Ignition document", boot.ErrNotFound, plan.Object)
	}
	return d.data, nil
}

// CloudInit returns the machine's user data, with the errors of Ignition.
func (p *Prefetch) CloudInit(ctx context.Context, plan *boot.Plan) (boot.CloudInit, error) {
	if !plan.HasCloudInit {
		return boot.CloudInit{}, fmt.Errorf("%w: %s names no user data for cloud-init", boot.ErrNotFound, plan.Object)
	}
	d, err := p.document(ctx, plan, forMachine)
	switch {
	case err != nil:
		return boot.CloudInit{}, fmt.Errorf("reading the user data of %s: %w", plan.Object, err)
	case d.cloudInit == nil:
		return boot.CloudInit{}, fmt.Errorf("%w: %s has an Ignition document, and no user data for cloud-init", boot.ErrNotFound, plan.Object)
	}
	return *d.cloudInit, nil
}

// Script returns the machine's own iPXE script, with the errors of Ignition.
func (p *Prefetch) Script(ctx context.Context, plan *boot.Plan) ([]byte, error) {
	if !plan.HasScript {
		return nil, fmt.Errorf("%w: %s names no iPXE script", boot.ErrNotFound, plan.Object)
	}
	d, err := p.document(ctx, plan, forScript)
	if err != nil {
		return nil, fmt.Errorf("reading the iPXE script of %s: %w", plan.Object, err)
	}
	return d.data, nil
}

func (p *Prefetch) document(ctx context.Context, plan *boot.Plan, what purpose) (document, error) {
	k, ok := p.configs.document(plan.Object.UID, what)
	if !ok || k.namespace != plan.Object.Namespace {
		return document{}, errStale
	}
	return p.secrets.get(ctx, k)
}

// Warm reads a machine's documents in the background because it began to boot:
// they are there when the machine asks, even if the API server is not.
func (p *Prefetch) Warm(plan *boot.Plan) {
	for what := range purposes {
		if k, ok := p.configs.document(plan.Object.UID, what); ok {
			p.secrets.warm(k)
		}
	}
}

// read takes the document out of its Secrets. What a user wrote must not bring
// the operator down, whatever the converters make of it.
func (d *document) read(s *secrets, found map[string]*corev1.Secret) {
	defer func() {
		if r := recover(); r != nil {
			s.logger.Error(fmt.Errorf("%v", r), "converter panicked", "namespace", d.key.namespace, "secret", d.key.secret)
			d.data, d.cloudInit = nil, nil
			d.err = fmt.Errorf("%w: Secret %s/%s cannot be converted", boot.ErrUnavailable, d.key.namespace, d.key.secret)
		}
	}()
	var err error
	if d.key.purpose == forScript {
		err = d.readScript(found)
	} else {
		err = d.readMachine(s, found)
	}
	if err != nil {
		d.data, d.cloudInit = nil, nil
		d.err = fmt.Errorf("%w: %w", boot.ErrUnavailable, err)
	}
}

// blame names the Secret that an error is about; nil stays nil.
func (k documentKey) blame(secret string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("Secret %s/%s: %w", k.namespace, secret, err) //nolint:staticcheck // a kind's name
}

func (d *document) readMachine(s *secrets, found map[string]*corev1.Secret) error {
	own, err := userdata.Read(found[d.key.secret].Data)
	if err != nil {
		return d.key.blame(d.key.secret, err)
	}
	beside, err := d.key.beside(found)
	switch {
	case err != nil:
		return err
	case own.ForCloudInit():
		c := beside.cloudInit(own)
		d.cloudInit = &c
		return d.key.blame(d.key.secret, userdata.CheckCloudInit(c))
	}
	if d.data, err = s.convert(own.Data, own.Format); err == nil {
		d.data, err = beside.ignition(d.data)
	}
	return d.key.blame(d.key.secret, err)
}

func (d *document) readScript(found map[string]*corev1.Secret) error {
	text, ok := found[d.key.secret].Data[v1alpha1.SecretKeyIPXEScript]
	if !ok {
		return d.key.blame(d.key.secret, fmt.Errorf("%w %q", userdata.ErrNoKey, v1alpha1.SecretKeyIPXEScript))
	}
	d.data = text
	return nil
}

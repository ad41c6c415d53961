package boot

import (
	"context"
	"net/netip"
)

// Source finds plans. Its methods do no I/O and may be called by any number of
// goroutines at once. They return ErrNotFound when nothing matches,
// ErrAmbiguous when more than one machine does, and ErrUnavailable until the
// source has seen everything once. A machine has at most one plan of each
// kind of object; the slices and plans are shared and must not be changed.
type Source interface {
	// ByAddr returns the plans of the machine that lists this address. The
	// address is canonical (CanonicalAddr).
	ByAddr(addr netip.Addr) ([]*Plan, error)
	// ByUUID finds a machine by its SMBIOS UUID, in either byte order.
	ByUUID(uuid UUID) ([]*Plan, error)
	// ByMAC finds a machine by any of its MAC addresses.
	ByMAC(mac MAC) ([]*Plan, error)
	// ByBootAddr finds the plan whose present attempt was booted at this address,
	// the latest where several were; see Attempt.BootAddr. Whether the attempt is
	// still open, and whether that is proof enough, is for the caller to see.
	ByBootAddr(addr netip.Addr) (*Plan, error)
	// ByObject finds a plan by the UID of its API object.
	ByObject(uid string) (*Plan, error)
	// PublicArtifact finds a digest that a ready plan names.
	PublicArtifact(d Digest) (Artifact, error)
	// ProvesNothing says that this address belongs to the cluster that we run
	// in: a request from there may come from any workload.
	ProvesNothing(addr netip.Addr) bool
}

// Blobs opens verified artifacts.
type Blobs interface {
	// Open returns a blob that is in the store or arriving. It returns
	// ErrNotReady when it is neither, and never starts a pull.
	Open(ctx context.Context, d Digest) (Blob, error)
}

// Composer makes the bytes of composed UKIs.
type Composer interface {
	// OpenComposed returns the UKI of p.Composed, put together without a copy of what
	// it is made of. Its bytes are checked against Composed.Digest before the first of
	// them can be read. It returns ErrNotReady when a part is not in the store, when a
	// token key is gone, or when what is made here is not what was signed: the plan
	// changed since, and the controller composes anew.
	OpenComposed(ctx context.Context, p *Plan) (Blob, error)
}

// Secrets hands out the documents of machines.
type Secrets interface {
	// Ignition returns the machine's Ignition document as JSON: from the
	// replica's memory, or by one coalesced read of at most 2 s. It returns
	// ErrNotFound when the plan names none, and ErrUnavailable when the API
	// server is out of reach, the Secret is gone or its content is invalid.
	Ignition(ctx context.Context, p *Plan) ([]byte, error)
	// CloudInit returns the machine's user data. Its errors are those of
	// Ignition.
	CloudInit(ctx context.Context, p *Plan) (CloudInit, error)
	// Script returns the machine's own iPXE script. Its errors are those of
	// Ignition.
	Script(ctx context.Context, p *Plan) ([]byte, error)
}

// CloudInit is what the NoCloud data source of cloud-init asks for. All but the
// user data may be empty.
type CloudInit struct {
	UserData, VendorData, NetworkConfig []byte
	// MetaData is what the machine is told of itself beside its instance-id.
	MetaData map[string]string
}

// Attempts knows and records how machines boot. Nothing but Commit and Refresh
// waits for the API server.
type Attempts interface {
	// Current returns the newest attempt known here: what the object told, and
	// what this replica has seen and not written yet.
	Current(p *Plan) Attempt
	// Coming returns the attempt that a boot which begins now will belong to: the
	// present one while it waits for its boot bytes, else the next, of which
	// nothing but the number is known. It opens nothing. Its errors are those of
	// Begin.
	Coming(p *Plan) (Attempt, error)
	// Begin is called when boot bytes start to flow to a proven machine. For a
	// plan that says Always it opens a new attempt, unless the present one is
	// still waiting for its boot bytes or is the one that the client's token is
	// for. It returns the attempt that this delivery belongs to, ErrSpent, or
	// ErrNotReady where a plan that says Once has no attempt yet.
	Begin(p *Plan, c Client) (Attempt, error)
	// Commit consumes the one delivery of a plan that says Once, by
	// compare-and-swap on the API object. delivery identifies this delivery, so
	// that a commit whose answer was lost is known again. It returns ErrSpent
	// when another delivery was first, and ErrUnavailable when the API server
	// did not answer in time.
	Commit(ctx context.Context, p *Plan, a Attempt, d Digest, addr netip.Addr, delivery string) error
	// Refresh reads the attempt from the API object itself; calls for one
	// object are coalesced. It returns ErrUnavailable when the API server is
	// out of reach.
	Refresh(ctx context.Context, p *Plan) (Attempt, error)
	// Observe records what happened. It never blocks on the network and loses
	// nothing: pending reports are kept on disk, at most one for each object
	// and stage.
	Observe(o Observation)
}

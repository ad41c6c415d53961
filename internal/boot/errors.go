package boot

import "errors"

// The sentinel errors of the vocabulary. Whoever implements an interface of
// this package wraps one of them; whoever calls it decides by errors.Is.
var (
	// ErrNotFound: there is no such machine, plan, artifact or document.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the input can never be right; trying again does not help.
	ErrInvalid = errors.New("invalid")
	// ErrAmbiguous: more than one machine answers to this identity.
	ErrAmbiguous = errors.New("ambiguous identity")
	// ErrNotReady: it exists, but cannot be served yet; trying again helps.
	ErrNotReady = errors.New("not ready")
	// ErrUnavailable: what is needed to answer (the API server, the store, a
	// cache that has not synced) is out of reach; trying again helps.
	ErrUnavailable = errors.New("unavailable")
	// ErrSpent: the plan says Once, and its one delivery has been committed.
	ErrSpent = errors.New("the one delivery of this boot attempt is spent")
	// ErrClosed: the machine is proven, but its attempt is closed.
	ErrClosed = errors.New("the boot attempt is closed")
	// ErrUnproven: the proof is weaker than what the plan asks for.
	ErrUnproven = errors.New("the machine is not proven enough")
	// ErrArmed: a URL that was set through the machine's BMC is in force.
	ErrArmed = errors.New("a boot that was set through the BMC is in force")
	// ErrContested: another address has fetched this attempt's secret.
	ErrContested = errors.New("another address fetched the secret of this boot attempt")
)

// Package bmcsim is the BMC of a machine that has none: a Redfish service
// (DSP0266 1.15, schemas of DSP0268) that powers a Machine, such as a virtual one.
// It speaks as the specification says, or misbehaves as one vendor's BMCs do (a
// Profile), or breaks in a way that is switched on while it runs (a Knob).
//
// It is made to be tried and tested against. It takes one account, keeps nothing
// when it ends, and has no place in front of a machine that matters.
package bmcsim

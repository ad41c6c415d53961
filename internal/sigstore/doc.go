// Package sigstore checks sigstore signatures of images offline: bundles, and the
// older ones that cosign keeps under .sig tags.
//
// Everything that it reads but the [Policy] comes from whoever may write to a
// registry. It hides sigstore-go, which does the cryptography of bundles, and
// fetches nothing.
package sigstore

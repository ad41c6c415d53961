// Package artifact turns references to images into verified files.
//
// A [Store] resolves an OCI reference to the digests of what a machine of one
// architecture boots, pulls them once however many ask, verifies them while
// they arrive, and opens them for serving, even before the last byte is here.
// Everything that comes from a registry is bounded and distrusted: only its
// digest makes a blob real.
//
// It hides oras-go, which does the talking to registries.
package artifact

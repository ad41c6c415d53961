// Package publish puts images of operating systems into OCI registries, reads what
// is there, and copies it.
//
// What it writes is what internal/artifact reads: an OCI index with a manifest for
// each architecture, whose layers are what a machine boots. The same inputs make
// the same bytes, and so the same digests. docs/publishing.md describes the layout.
//
// It hides oras-go for writing; blobs are read through an artifact store, so that
// what is pulled here is what the operator would pull.
package publish

// Package httpserver serves machines: the UKI at /httpboot, blobs by digest,
// and Ignition to whoever is proven to be the machine. It answers from a
// boot.Source, boot.Blobs, boot.Secrets and boot.Attempts and knows nothing of
// Kubernetes or registries.
package httpserver

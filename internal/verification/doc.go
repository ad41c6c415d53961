// Package verification decides whether what a machine would boot is signed by those
// who have to have signed it: the image in its registry, by sigstore, and the UKI or
// kernel, by Authenticode.
//
// Policies come from a config and from the operator's own file, and every one that
// applies has to be met. Nothing is fetched but from the image's own registry.
package verification

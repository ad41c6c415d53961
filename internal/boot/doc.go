// Package boot is the vocabulary that the rest of the operator speaks:
// machines and how they are named, plans and what they deliver, attempts and
// proofs, and the interfaces between those who know and those who serve.
//
// It knows nothing of Kubernetes, HTTP or registries.
package boot

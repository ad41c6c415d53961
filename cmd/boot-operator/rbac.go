package main

// What the process needs besides what its controllers do; `make manifests`
// writes both to config/rbac/role.yaml. The Lease of the election is a matter of
// one namespace: config/rbac/leader_election.yaml. --secret-watch needs a role of
// its own: config/components/secret-watch.

// What a machine fetched is told in events, by every replica.
//
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch

// For --metrics-secure: who asks, and whether it may.
//
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

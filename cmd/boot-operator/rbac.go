package main

// The rights of the process are those of its packages, in the markers
// +kubebuilder:rbac of whoever asks for them, in roles that an installation has or
// has not (`make manifests` writes them):
//
//   - boot-operator: inventory, observe, controller/bootconfig
//   - boot-operator-secrets: prefetch
//   - boot-operator-ironcore: controller/ironcore
//   - boot-operator-baremetalhost: controller/host
//   - boot-operator-netboot: inventory, observe; for a process that only offers boots
//
// What is written by hand is a matter of one namespace (the Lease of the election, the
// Secret with the keys of boot tokens, a template), or asked by libraries
// (config/rbac/metrics_auth.yaml). That nothing is missing in all of it, and nothing is
// too much, is what test/rights finds out.

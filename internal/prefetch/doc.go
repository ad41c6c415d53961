// Package prefetch brings near, on every replica, what machines will ask for:
// it pulls the artifacts that statuses name into the store, and keeps the
// Ignition documents of machines that began to boot in memory.
//
// It reads configs from the shared informer cache and Secrets by name from the
// API server; it writes nothing and needs no leadership.
package prefetch

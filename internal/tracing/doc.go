// Package tracing tells the story of each boot to an OpenTelemetry collector: one
// trace for each boot, over all replicas. It hides OpenTelemetry from the rest.
//
// No replica asks another what the trace of a boot is called. Its ID is the boot's ID,
// and the ID of its root span follows from that (boot.ID.Root), so the spans of all
// replicas fit together, in whatever order they arrive.
//
// A collector that is slow or away costs spans and nothing else: what cannot be sent
// waits in a queue of fixed size, and what does not fit there is dropped and counted.
package tracing

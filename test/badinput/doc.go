// Package badinput runs the operator's own binary against a real API server and
// registries that misbehave, and holds what users see of each mistake: the
// condition, the event and the HTTP answer, while a healthy neighbour is served.
package badinput

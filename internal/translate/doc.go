// Package translate says what a ServerBootConfiguration and a Server of
// metal-operator mean in terms of HTTPBootConfig and IPXEBootConfig, and back:
// what the statuses of those mean for the ServerBootConfiguration. Nothing here
// does any I/O.
package translate

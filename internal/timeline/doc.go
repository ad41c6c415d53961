// Package timeline tells from a machine's objects how far its boot is, what it waits
// for, and what happened when in its last boot. It is pure: who calls it reads the
// objects, and says what time it is.
package timeline

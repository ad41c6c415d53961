//go:build !linux

package main

// makeInterrupted is not to be seen here from outside.
func makeInterrupted(int) bool { return false }

// Package render turns plans into what machines read: iPXE scripts, GRUB menus
// and the files of cloud-init's NoCloud data source. It is pure text: it asks
// nobody, and the same plan gives the same bytes.
//
// Every string of a plan is checked or escaped before it reaches a script, so
// that nothing a user or a machine says can become a command: see escapeURL,
// CheckArgument and Data.
package render

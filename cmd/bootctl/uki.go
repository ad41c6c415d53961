package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/boot-operator/boot-operator/internal/uki"
)

// maxSmallFile bounds files that are held in memory, such as stubs, keys and
// certificates, in bytes.
const maxSmallFile = 64 << 20

// newUKICommand makes the verb uki, whose own verbs are about one file.
func newUKICommand(env *environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uki",
		Short: "Build, sign, inspect or verify a unified kernel image",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return usageError{errors.New("a verb of uki is missing")}
		},
	}
	cmd.AddCommand(newUKIBuildCommand(env), newUKISignCommand(env), newUKIInspectCommand(env), newUKIVerifyCommand(env))
	return cmd
}

// printFormat checks the value of -o.
func printFormat(output string) error {
	if output != "text" && output != "json" {
		return usageError{fmt.Errorf("-o is %q; it must be text or json", output)}
	}
	return nil
}

// printJSON prints a value for programs.
func printJSON(out io.Writer, value any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

// named is the value of a flag.
type named struct{ flag, value string }

// required says which flags are missing.
func required(flags ...named) error {
	var missing []string
	for _, f := range flags {
		if f.value == "" {
			missing = append(missing, "--"+f.flag)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	verb := "is"
	if len(missing) > 1 {
		verb = "are"
	}
	return usageError{fmt.Errorf("%s %s missing", list(missing), verb)}
}

// readSmall reads a file that a flag names, and nothing where it names none.
func readSmall(flag, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading --%s: %w", flag, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSmallFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading --%s: %w", flag, err)
	case len(data) > maxSmallFile:
		return nil, fmt.Errorf("reading --%s: %s has more than %d bytes", flag, path, maxSmallFile)
	case len(data) == 0:
		return nil, fmt.Errorf("reading --%s: %s is empty", flag, path)
	}
	return data, nil
}

// textOrFile is the text itself or, after an @, that of a file, without the line end
// at its end. The name of a file without the @ is refused: it is never what was meant.
func textOrFile(flag, value string) (string, error) {
	path, isFile := strings.CutPrefix(value, "@")
	if !isFile {
		if info, err := os.Stat(value); err == nil && info.Mode().IsRegular() {
			return "", usageError{fmt.Errorf("--%s is %q, which is the name of a file; for what is in it, say @%s", flag, value, value)}
		}
		return value, nil
	}
	text, err := readSmall(flag, path)
	return strings.TrimRight(string(text), " \t\r\n"), err
}

// writeFile makes a file of what write writes. Nobody ever sees half of it, and it may
// be one that write reads.
func writeFile(path string, write func(w io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("writing --output: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err = errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	if err = errors.Join(os.Chmod(f.Name(), 0o644), os.Rename(f.Name(), path)); err != nil {
		return fmt.Errorf("writing --output: %w", err)
	}
	return nil
}

// openInput opens a file that is read piece by piece.
func openInput(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// tellFile says what was written, to people.
func tellFile(env *environment, path string) error {
	f, size, err := openInput(path)
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := uki.Describe(f, size)
	if err != nil {
		return fmt.Errorf("reading what was written: %w", err)
	}
	fmt.Fprintf(env.Err, "%s: %s for %s, %s, %s\n", path, kindOf(d), d.Architecture, amount(d.Size), d.Digest)
	return nil
}

// kindOf names what a file is.
func kindOf(d uki.Description) string {
	kind := "EFI application"
	if d.UKI {
		kind = "UKI"
	}
	if d.Signed {
		return "signed " + kind
	}
	return "unsigned " + kind
}

// amount is a number of bytes for people, in powers of 1000.
func amount(bytes int64) string {
	const step = 1000
	if bytes < step {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes), ""
	for _, u := range []string{"kB", "MB", "GB", "TB"} {
		if value < step-0.05 {
			break
		}
		value, unit = value/step, u
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}

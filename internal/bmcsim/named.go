package bmcsim

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// namedFault is one thing to go wrong, for a command line.
type namedFault struct {
	name string
	// value is what comes after the name and "=": "a duration", "a number", "a URL";
	// empty: nothing.
	value, about string
	// standard is the value where none is given; empty: it is required.
	standard string
	apply    func(b *BMC, d time.Duration, n int64, text string)
}

// namedFaults is the table.
var namedFaults = []namedFault{
	{"refuse-credentials", "", "refuses all credentials", "", func(b *BMC, _ time.Duration, _ int64, _ string) { b.RefuseCredentials(true) }},
	{"ignore-once", "", "boots again what was asked for once", "", func(b *BMC, _ time.Duration, _ int64, _ string) { b.IgnoreOnce(true) }},
	{"freeze-power-state", "", "always shows the power state of the start", "", func(b *BMC, _ time.Duration, _ int64, _ string) { b.FreezePowerState(true) }},
	{"slow-power-off", "a duration", "is PoweringOff for that long", "30s", func(b *BMC, d time.Duration, _ int64, _ string) { b.SlowPowerOff(d) }},
	{"in-post", "a duration", "refuses changes for that long from the start, as in POST", "2m", func(b *BMC, d time.Duration, _ int64, _ string) { b.InPOST(d) }},
	{"shared-port", "a duration", "is off the network for that long after each power-off (NC-SI)", "1m", func(b *BMC, d time.Duration, _ int64, _ string) { b.SharePort(d) }},
	{"busy", "a duration", "answers 503 with Retry-After for that long from the start", "1m", func(b *BMC, d time.Duration, _ int64, _ string) { b.Inject(Busy(d, 5*time.Second)) }},
	{"lose-reset", "a number", "executes the nth reset and loses its reply", "1", func(b *BMC, _ time.Duration, n int64, _ string) { b.Inject(LostReset(int(n))) }},
	{"deny-after-change", "a number", "answers the next n changes with 400, although it made them", "1", func(b *BMC, _ time.Duration, n int64, _ string) { b.DenyAfterChange(int(n)) }},
	{"keys-staged", "", "takes changes of the Secure Boot databases, and shows them after the next boot", "", func(b *BMC, _ time.Duration, _ int64, _ string) { b.Keys(KeysStaged) }},
	{"keys-read-only", "", "refuses changes of the Secure Boot databases", "", func(b *BMC, _ time.Duration, _ int64, _ string) { b.Keys(KeysReadOnly) }},
	{"keys-in-setup-mode", "", "takes changes of the Secure Boot databases in Setup Mode only", "", func(b *BMC, _ time.Duration, _ int64, _ string) { b.Keys(KeysInSetupMode) }},
	{"hang", "", "never answers", "", func(b *BMC, _ time.Duration, _ int64, _ string) { b.Inject(Fault{Hang: true}) }},
	{"html", "", "answers with a page for people", "", func(b *BMC, _ time.Duration, _ int64, _ string) { b.Inject(HTML()) }},
	{"huge", "a number", "answers with JSON of so many bytes", "52428800", func(b *BMC, _ time.Duration, n int64, _ string) { b.Inject(Huge(n)) }},
	{"redirect", "a URL", "sends clients to another URL", "", func(b *BMC, _ time.Duration, _ int64, text string) { b.Inject(Redirect(text)) }},
	{"hostile-id", "a URL", "lists a system that is elsewhere", "", func(b *BMC, _ time.Duration, _ int64, text string) { b.Inject(HostileID(text)) }},
	{"other-uuid", "a UUID", "says that another machine is behind it", "", func(b *BMC, _ time.Duration, _ int64, text string) { b.SetUUID(text) }},
}

// FaultInfo is what a person wants to know of a named fault.
type FaultInfo struct {
	// Name is as ParseFault takes it; Value says what comes after it and "=".
	Name, Value, Default, About string
}

// Faults lists the named faults.
func Faults() []FaultInfo {
	list := make([]FaultInfo, 0, len(namedFaults))
	for _, f := range namedFaults {
		list = append(list, FaultInfo{Name: f.name, Value: f.value, Default: f.standard, About: f.about})
	}
	return list
}

// ParseFault reads a fault such as slow-power-off=30s; apply switches it on.
func ParseFault(text string) (apply func(*BMC), err error) {
	name, value, given := strings.Cut(text, "=")
	for _, f := range namedFaults {
		if f.name != name {
			continue
		}
		if f.value == "" && given {
			return nil, fmt.Errorf("the fault %s takes no value, and has %q", name, value)
		}
		value = or(value, f.standard)
		d, n, err := f.parse(value)
		if err != nil {
			return nil, fmt.Errorf("the fault %s has the value %q; it must be %s", name, value, f.value)
		}
		return func(b *BMC) { f.apply(b, d, n, value) }, nil
	}
	names := make([]string, 0, len(namedFaults))
	for _, f := range namedFaults {
		names = append(names, f.name)
	}
	return nil, fmt.Errorf("there is no fault %q; there are %s", name, strings.Join(names, ", "))
}

// parse reads a value of the form that the fault wants.
func (f namedFault) parse(value string) (d time.Duration, n int64, err error) {
	switch f.value {
	case "a duration":
		d, err = time.ParseDuration(value)
		if err == nil && d <= 0 {
			err = strconv.ErrRange
		}
	case "a number":
		n, err = strconv.ParseInt(value, 10, 64)
		if err == nil && n <= 0 {
			err = strconv.ErrRange
		}
	case "a UUID":
		err = checkUUID(value)
	case "a URL":
		if value == "" {
			err = strconv.ErrSyntax
		}
	}
	return d, n, err
}

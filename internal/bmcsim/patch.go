package bmcsim

import (
	"net/http"
	"slices"
	"strings"
)

// patch collects what a PATCH would change and what is wrong with it, so that
// nothing is changed by halves. A property that is unknown or read-only does not
// keep the others from being taken, as long as there is one (DSP0266, section
// 7.7); a value that is wrong does.
type patch struct {
	problems []message
	changes  []func()
}

func (p *patch) refuse(m message)     { p.problems = append(p.problems, m) }
func (p *patch) change(change func()) { p.changes = append(p.changes, change) }

// unknown refuses a property that the resource does not have.
func (p *patch) unknown(pointer string) {
	p.refuse(say("PropertyUnknown", last(pointer)).about(pointer))
}

// readOnly refuses a property that cannot be written.
func (p *patch) readOnly(pointer string) {
	p.refuse(say("PropertyNotWritable", last(pointer)).about(pointer))
}

func last(pointer string) string { return pointer[strings.LastIndexByte(pointer, '/')+1:] }

// text takes a string of at most n bytes.
func (p *patch) text(pointer string, value any, n int, set func(string)) {
	s, ok := value.(string)
	switch {
	case !ok:
		p.refuse(say("PropertyValueTypeError", show(value), last(pointer)).about(pointer))
	case len(s) > n:
		p.refuse(say("PropertyValueFormatError", bounded(s, 100), last(pointer)).about(pointer))
	default:
		p.change(func() { set(s) })
	}
}

// choice takes one of a list.
func (p *patch) choice(pointer string, value any, list []string, set func(string)) {
	s, ok := value.(string)
	switch {
	case !ok:
		p.refuse(say("PropertyValueTypeError", show(value), last(pointer)).about(pointer))
	case !slices.Contains(list, s):
		p.refuse(say("PropertyValueNotInList", s, last(pointer)).about(pointer))
	default:
		p.change(func() { set(s) })
	}
}

// object goes through a JSON object's properties, in order.
func (p *patch) object(pointer string, value any, each func(name, pointer string, value any)) {
	o, ok := value.(object)
	if !ok {
		p.refuse(say("PropertyValueTypeError", show(value), last(pointer)).about(pointer))
		return
	}
	for _, name := range sorted(o) {
		below := name
		if pointer != "" {
			below = pointer + "/" + name
		}
		if strings.HasPrefix(name, "@odata.") {
			continue // DSP0266, section 7.7: the service ignores them
		}
		each(name, below, o[name])
	}
}

// finish applies a patch, or refuses it; show makes the representation after it.
// The locks writes and mu are held.
func (p *patch) finish(b *BMC, after func() object) reply {
	soft := !slices.ContainsFunc(p.problems, func(m message) bool { return !m.partial })
	if len(p.problems) > 0 && (!soft || len(p.changes) == 0) {
		return b.refuse(p.problems...)
	}
	if len(p.changes) == 0 {
		return b.refuse(say("NoOperation"))
	}
	for _, change := range p.changes {
		change()
	}
	if b.knobs.denials > 0 {
		b.knobs.denials--
		return b.refuse(say("GeneralError"))
	}
	if len(p.problems) == 0 && b.profile.patched == http.StatusNoContent {
		return reply{status: http.StatusNoContent}
	}
	body := after()
	for _, m := range p.problems {
		annotate(body, strings.TrimPrefix(m.property, "#/"), b.entry(m))
	}
	return reply{status: http.StatusOK, body: body}
}

// annotate puts a message beside the property that it is about.
func annotate(body object, pointer string, entry object) {
	parts := strings.Split(pointer, "/")
	for _, part := range parts[:len(parts)-1] {
		inner, ok := body[part].(object)
		if !ok {
			break
		}
		body = inner
	}
	body[parts[len(parts)-1]+"@Message.ExtendedInfo"] = []object{entry}
}

// show is a value for a message.
func show(value any) string {
	switch v := value.(type) {
	case string:
		return bounded(v, 100)
	case nil:
		return "null"
	case bool:
		if v {
			return "true"
		}
		return "false"
	case float64:
		return "a number"
	case object:
		return "an object"
	default:
		return "an array"
	}
}

func sorted(o object) []string {
	names := make([]string, 0, len(o))
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

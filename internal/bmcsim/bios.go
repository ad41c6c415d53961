package bmcsim

import (
	"maps"
	"net/http"
	"reflect"
)

// maxAttribute bounds the value of a BIOS attribute in bytes.
const maxAttribute = 1024

// biosResources adds Bios 1.2 and its settings object, where the profile has
// attributes.
func (b *BMC) biosResources() {
	if b.profile.attributes == nil {
		return
	}
	path := b.biosPath()
	settings := path + "/" + b.biosSettings()
	b.fixed(path, func() object {
		return object{
			"@odata.type": "#Bios.v1_2_1.Bios", "Id": "Bios", "Name": "BIOS Configuration", "Description": "The settings of the firmware",
			"Attributes": maps.Clone(b.bios), "@Redfish.Settings": object{
				"@odata.type": "#Settings.v1_3_5.Settings", "SettingsObject": link(settings), "SupportedApplyTimes": []string{"OnReset"},
			},
			"Actions": object{"#Bios.ResetBios": object{"target": path + "/Actions/Bios.ResetBios"}},
		}
	})
	b.add(settings, &resource{patch: b.patchBios, get: func() object {
		return object{
			"@odata.type": "#Bios.v1_2_1.Bios", "Id": b.biosSettings(), "Name": "BIOS Configuration Pending Settings",
			"Attributes": pendingAttributes(b.biosNext),
			"@Redfish.SettingsApplyTime": object{
				"@odata.type": "#Settings.v1_3_5.PreferredApplyTime", "ApplyTime": "OnReset", "ApplyTime@Redfish.AllowableValues": []string{"OnReset"},
			},
		}
	}})
	b.add(path+"/Actions/Bios.ResetBios", &resource{action: true, post: func(*call) reply {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.biosNext = maps.Clone(b.profile.attributes)
		b.biosJob = true
		return reply{status: http.StatusNoContent}
	}})
}

func (b *BMC) biosSettings() string {
	if b.profile.bios == "bios" {
		return "settings"
	}
	return "Settings"
}

// pendingAttributes copies what is pending; nothing is an empty object.
func pendingAttributes(m map[string]any) object {
	if m == nil {
		return object{}
	}
	return maps.Clone(m)
}

// patchBios writes attributes into the settings object; the next boot applies
// them, on some BMCs only if the request says so (@Redfish.SettingsApplyTime).
func (b *BMC) patchBios(c *call) reply {
	p := &patch{}
	job := !b.profile.applyTime
	p.object("", c.body, func(name, pointer string, value any) {
		switch name {
		case "@Redfish.SettingsApplyTime":
			when, _ := value.(object)
			p.choice(pointer, when["ApplyTime"], []string{"OnReset", "Immediate"}, func(string) { job = true })
		case "Attributes":
			p.object(pointer, value, func(name, pointer string, value any) { b.patchAttribute(p, name, pointer, value) })
		default:
			p.unknown(pointer)
		}
	})
	if b.inPOST() && b.profile.posting != nil {
		p.refuse(*b.profile.posting)
	}
	p.change(func() { b.biosJob = b.biosJob || job })
	path := b.biosPath() + "/" + b.biosSettings()
	answer := p.finish(b, func() object { return b.represent(b.static[path], path) })
	if b.profile.applyTime && job && answer.status < 300 {
		h := http.Header{}
		h.Set("Location", monitorsPath+"/"+b.newTask("Configure: BIOS.Setup.1-1").id)
		return reply{status: http.StatusAccepted, header: h}
	}
	return answer
}

// patchAttribute takes one attribute: it exists, and the value is of its type.
func (b *BMC) patchAttribute(p *patch, name, pointer string, value any) {
	current, ok := b.bios[name]
	number, isNumber := value.(float64)
	text, _ := value.(string)
	switch {
	case !ok:
		p.refuse(hard(say("PropertyUnknown", bounded(name, 100)).about(pointer)))
		return
	case isNumber && number == float64(int(number)):
		value = int(number)
	}
	if reflect.TypeOf(value) != reflect.TypeOf(current) || len(text) > maxAttribute {
		p.refuse(say("PropertyValueTypeError", show(value), name).about(pointer))
		return
	}
	p.change(func() {
		if b.biosNext == nil {
			b.biosNext = map[string]any{}
		}
		b.biosNext[name] = value
	})
}

// applySettings is what a boot does with what was written before it: BIOS
// attributes, Secure Boot, and the tasks that waited. The lock is held.
func (b *BMC) applySettings() {
	b.applyKeys()
	if b.biosJob {
		for name, value := range b.biosNext {
			b.bios[name] = value
		}
		b.biosNext, b.biosJob = nil, false
	}
	for _, t := range b.tasks {
		if !t.done {
			t.done, t.end = true, stamp(b.options.Now())
		}
	}
}

// Attribute is the value of a BIOS attribute now; nil: there is none.
func (b *BMC) Attribute(name string) any {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bios[name]
}

package bmcsim

import (
	"net/http"
	"net/url"
	"slices"
	"time"
)

// media is one virtual drive.
type media struct {
	image    string
	writable bool
}

// drives are the virtual drives: IDs and what they take.
var drives = []struct {
	id, name string
	types    []string
}{
	{"Cd", "Virtual CD", []string{"CD", "DVD"}},
	{"Usb", "Virtual USB stick", []string{"USBStick"}},
}

// managers adds Manager 1.18: the BMC itself.
func (b *BMC) managers() {
	path := b.managerPath()
	reset := path + "/Actions/Manager.Reset"
	b.collection("Manager", root+"/Managers", b.id(b.profile.manager))
	b.fixed(path, func() object {
		return object{
			"@odata.type": "#Manager.v1_18_0.Manager", "Id": b.id(b.profile.manager), "Name": "Manager", "Description": "The BMC", "ManagerType": "BMC",
			"Manufacturer": b.profile.manufacturer, "Model": or(b.profile.managerModel, "BMC"), "FirmwareVersion": or(b.profile.firmware, "1.0.0"),
			"UUID": b.serviceUUID(), "ServiceEntryPointUUID": b.serviceUUID(), "PowerState": "On", "Status": healthy(),
			"DateTime": stamp(b.options.Now()), "DateTimeLocalOffset": "+00:00",
			"EthernetInterfaces": link(path + "/EthernetInterfaces"), "VirtualMedia": link(path + "/VirtualMedia"),
			"Links":   object{"ManagerForServers": links(root+"/Systems", append(slices.Clone(b.profile.siblings), b.systemID())), "ManagerForChassis": []object{link(b.chassisPath())}},
			"Actions": object{"#Manager.Reset": object{"target": reset, "ResetType@Redfish.AllowableValues": []string{"GracefulRestart", "ForceRestart"}}},
		}
	})
	b.add(reset, &resource{action: true, post: b.resetManager})
	b.collection("EthernetInterface", path+"/EthernetInterfaces", "1")
	b.fixed(path+"/EthernetInterfaces/1", func() object { return ethernet("1", NIC{MAC: "02:00:00:00:00:01"}) })
	b.virtualMedia()
}

// resetManager is #Manager.Reset: the BMC goes away, its sessions with it. The
// machine goes on.
func (b *BMC) resetManager(c *call) reply {
	kind, _ := c.body["ResetType"].(string)
	if kind != "" && kind != "GracefulRestart" && kind != "ForceRestart" {
		return b.refuse(say("ActionParameterValueNotInList", bounded(kind, 100), "ResetType", "Manager.Reset"))
	}
	// After the answer: a BMC says that it will go.
	time.AfterFunc(50*time.Millisecond, func() { b.GoAway(b.options.Reboot) })
	return reply{status: http.StatusNoContent}
}

// chassis adds Chassis 1.23.
func (b *BMC) chassis() {
	path := b.chassisPath()
	b.collection("Chassis", root+"/Chassis", b.id(b.profile.chassis))
	b.fixed(path, func() object {
		state := "Off"
		if b.machine.IsOn() {
			state = "On"
		}
		return object{
			"@odata.type": "#Chassis.v1_23_1.Chassis", "Id": b.id(b.profile.chassis), "Name": "Chassis", "Description": "The machine's case", "ChassisType": "RackMount",
			"Manufacturer": b.profile.manufacturer, "Model": b.profile.model, "SerialNumber": b.options.Serial, "IndicatorLED": b.led, "PowerState": state, "Status": healthy(),
			"Links": object{"ComputerSystems": []object{link(b.systemPath())}, "ManagedBy": []object{link(b.managerPath())}},
		}
	})
}

// virtualMedia adds VirtualMedia 1.6.
func (b *BMC) virtualMedia() {
	path := b.managerPath() + "/VirtualMedia"
	var ids []string
	for i, d := range drives {
		ids = append(ids, d.id)
		below := path + "/" + d.id
		b.fixed(below, func() object {
			m := b.media[i]
			var image, name any
			via := "NotConnected"
			if m.image != "" {
				image, name, via = m.image, m.image, "URI"
			}
			return object{
				"@odata.type": "#VirtualMedia.v1_6_3.VirtualMedia", "Id": d.id, "Name": d.name, "MediaTypes": d.types, "Image": image, "ImageName": name,
				"Inserted": m.image != "", "WriteProtected": !m.writable, "ConnectedVia": via, "TransferProtocolType": nil, "Status": healthy(),
				"Actions": object{
					"#VirtualMedia.InsertMedia": object{"target": below + "/Actions/VirtualMedia.InsertMedia"},
					"#VirtualMedia.EjectMedia":  object{"target": below + "/Actions/VirtualMedia.EjectMedia"},
				},
			}
		})
		b.add(below+"/Actions/VirtualMedia.InsertMedia", &resource{action: true, post: func(c *call) reply { return b.insert(i, c) }})
		b.add(below+"/Actions/VirtualMedia.EjectMedia", &resource{action: true, post: func(*call) reply {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.media[i] = media{}
			return reply{status: http.StatusNoContent}
		}})
	}
	b.collection("VirtualMedia", path, ids...)
}

// insert is #VirtualMedia.InsertMedia.
func (b *BMC) insert(i int, c *call) reply {
	const action = "VirtualMedia.InsertMedia"
	image, ok := c.body["Image"].(string)
	if !ok {
		return b.refuse(say("ActionParameterMissing", action, "Image"))
	}
	u, err := url.Parse(image)
	if err != nil || u.Host == "" || len(image) > 1024 {
		return b.refuse(say("ActionParameterValueTypeError", "(a URL)", "Image", action))
	}
	for name, value := range c.body {
		_, isBool := value.(bool)
		switch name {
		case "Inserted", "WriteProtected":
			if !isBool {
				return b.refuse(say("ActionParameterValueTypeError", show(value), name, action))
			}
		case "Image", "TransferMethod", "TransferProtocolType", "UserName", "Password", "MediaType":
		default:
			return b.refuse(say("ActionParameterUnknown", action, bounded(name, 100)))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.media[i].image != "" {
		return b.refuse(say("ResourceAlreadyExists", "VirtualMedia", "Inserted", "true"))
	}
	protected, given := c.body["WriteProtected"].(bool)
	b.media[i] = media{image: image, writable: given && !protected}
	return reply{status: http.StatusNoContent}
}

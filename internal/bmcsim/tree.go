package bmcsim

import (
	"net/http"
	"strconv"
	"strings"
)

// add puts a resource at a path. The tree is built before the BMC is used.
func (b *BMC) add(path string, r *resource) { b.static[path] = r }

// find returns what is at a path; nil: nothing. The lock is held.
func (b *BMC) find(path string) *resource {
	if r, ok := b.static[path]; ok {
		return r
	}
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return nil
	}
	parent, id := path[:i], path[i+1:]
	switch parent {
	case sessionsPath():
		b.expire()
		for _, s := range b.sessions {
			if s.id == id {
				return b.sessionResource(s)
			}
		}
	case tasksPath, monitorsPath:
		for _, t := range b.tasks {
			if t.id == id {
				return b.taskResource(t, parent == monitorsPath)
			}
		}
	}
	if r := b.signatureResource(parent, id); r != nil {
		return r
	}
	return b.certificateResource(parent, id)
}

func link(path string) object { return object{"@odata.id": path} }

func links(parent string, ids []string) []object {
	list := make([]object, 0, len(ids))
	for _, id := range ids {
		list = append(list, link(parent+"/"+id))
	}
	return list
}

func healthy() object { return object{"State": "Enabled", "Health": "OK"} }

// members is a collection.
func members(kind, path string, ids []string) object {
	list := links(path, ids)
	return object{
		"@odata.type": "#" + kind + "Collection." + kind + "Collection",
		"Name":        kind + " Collection", "Description": "The members of " + path,
		"Members": list, "Members@odata.count": len(list),
	}
}

// collection adds a collection whose members do not change.
func (b *BMC) collection(kind, path string, ids ...string) {
	b.add(path, &resource{get: func() object { return members(kind, path, ids) }})
}

// fixed adds a resource that can only be read.
func (b *BMC) fixed(path string, get func() object) { b.add(path, &resource{get: get}) }

// build makes the tree.
func (b *BMC) build() {
	b.static = map[string]*resource{}
	b.serviceRoot()
	b.sessionService()
	b.taskService()
	b.system()
	b.bootOptions()
	b.biosResources()
	b.certificateCollection(b.bootCertificatesPath())
	b.secureBootResources()
	b.inventory()
	b.managers()
	b.chassis()
}

// serviceRoot is ServiceRoot 1.16 and what else is readable by anyone (DSP0266,
// section 13.3.1).
func (b *BMC) serviceRoot() {
	p := b.profile
	b.add("/redfish", &resource{public: true, get: func() object { return object{"v1": root + "/"} }})
	b.add(root, &resource{public: true, get: func() object {
		o := object{
			"@odata.id": root + "/", "@odata.type": "#ServiceRoot.v1_16_0.ServiceRoot", "Id": "RootService", "Name": "Root Service",
			"RedfishVersion": or(p.redfish, "1.18.0"), "UUID": b.serviceUUID(),
			"Systems": link(root + "/Systems"), "Managers": link(root + "/Managers"), "Chassis": link(root + "/Chassis"),
			"SessionService": link(root + "/SessionService"), "Tasks": link(root + "/TaskService"),
			"Links": object{"Sessions": link(sessionsPath())},
			"ProtocolFeaturesSupported": object{
				"ExpandQuery":          object{"ExpandAll": false, "Levels": false, "Links": false, "NoLinks": false},
				"FilterQuery":          false,
				"SelectQuery":          false,
				"OnlyMemberQuery":      false,
				"ExcerptQuery":         false,
				"TopSkipQuery":         false,
				"DeepOperations":       object{"DeepPATCH": false, "DeepPOST": false},
				"MultipleHTTPRequests": false,
			},
		}
		set(o, "Vendor", p.vendor)
		set(o, "Product", p.product)
		return o
	}})
	b.add(root+"/odata", &resource{public: true, get: b.serviceDocument})
	b.add(root+"/$metadata", &resource{public: true, text: metadata(), contentType: "application/xml;charset=utf-8"})
}

// set writes a property that is left out when it is empty.
func set(o object, name, value string) {
	if value != "" {
		o[name] = value
	}
}

// serviceUUID is the BMC's own, which is not the machine's.
func (b *BMC) serviceUUID() string { return swapLast(b.options.UUID) }

// swapLast makes another UUID of one.
func swapLast(uuid string) string {
	last := uuid[len(uuid)-1]
	if last == '0' {
		return strings.ToLower(uuid[:len(uuid)-1]) + "1"
	}
	return strings.ToLower(uuid[:len(uuid)-1]) + "0"
}

// serviceDocument is the OData service document (DSP0266, section 8.5).
func (b *BMC) serviceDocument() object {
	var list []object
	for _, name := range []string{"Service", "Systems", "Managers", "Chassis", "TaskService", "SessionService"} {
		path := root + "/"
		if name != "Service" {
			path += name
		}
		list = append(list, object{"name": name, "kind": "Singleton", "url": path})
	}
	return object{"@odata.context": root + "/$metadata", "value": list}
}

// schemas are the namespaces of what is served.
var schemas = []string{
	"ServiceRoot", "SessionService", "Session", "SessionCollection", "TaskService", "Task", "TaskCollection", "ComputerSystem", "ComputerSystemCollection",
	"Manager", "ManagerCollection", "Chassis", "ChassisCollection", "EthernetInterface", "EthernetInterfaceCollection", "Processor", "ProcessorCollection",
	"Memory", "MemoryCollection", "Storage", "StorageCollection", "StorageController", "StorageControllerCollection", "Drive", "Bios", "BootOption", "BootOptionCollection", "SecureBoot",
	"SecureBootDatabase", "SecureBootDatabaseCollection", "Certificate", "CertificateCollection", "Signature", "SignatureCollection", "VirtualMedia", "VirtualMediaCollection", "ActionInfo", "Message", "Settings",
}

// metadata is the OData metadata document (DSP0266, section 8.4): where the
// schemas are.
func metadata() string {
	var s strings.Builder
	s.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">` + "\n")
	for _, name := range schemas {
		s.WriteString(`<edmx:Reference Uri="http://redfish.dmtf.org/schemas/v1/` + name + `_v1.xml"><edmx:Include Namespace="` + name + `"/></edmx:Reference>` + "\n")
	}
	s.WriteString(`<edmx:DataServices><Schema xmlns="http://docs.oasis-open.org/odata/ns/edm" Namespace="Service"><EntityContainer Name="Service" Extends="ServiceRoot.v1_16_0.ServiceContainer"/></Schema></edmx:DataServices>` + "\n</edmx:Edmx>\n")
	return s.String()
}

// The paths of the task service.
const (
	tasksPath    = root + "/TaskService/Tasks"
	monitorsPath = root + "/TaskService/TaskMonitors"
	maxTasks     = 32
)

// task is one job that ends at the next boot.
type task struct {
	id, name string
	done     bool
	start    string
	end      string
}

// taskService is TaskService 1.2 and its collection.
func (b *BMC) taskService() {
	b.add(root+"/TaskService", &resource{get: func() object {
		return object{
			"@odata.type": "#TaskService.v1_2_1.TaskService", "Id": "TaskService", "Name": "Task Service", "ServiceEnabled": true, "Status": healthy(),
			"DateTime": stamp(b.options.Now()), "CompletedTaskOverWritePolicy": "Oldest", "LifeCycleEventOnTaskStateChange": false, "Tasks": link(tasksPath),
		}
	}})
	b.add(tasksPath, &resource{get: func() object {
		var ids []string
		for _, t := range b.tasks {
			ids = append(ids, t.id)
		}
		return members("Task", tasksPath, ids)
	}})
}

// newTask makes a task that ends at the next boot. The lock is held.
func (b *BMC) newTask(name string) *task {
	b.number++
	t := &task{id: "JID_" + strconv.Itoa(100000+b.number), name: name, start: stamp(b.options.Now())}
	if len(b.tasks) >= maxTasks {
		b.tasks = b.tasks[1:]
	}
	b.tasks = append(b.tasks, t)
	return t
}

// taskResource is a task (Task 1.7), or its monitor: 202 until it is done.
func (b *BMC) taskResource(t *task, monitor bool) *resource {
	return &resource{get: func() object {
		o := object{
			"@odata.id": tasksPath + "/" + t.id, "@odata.type": "#Task.v1_7_3.Task", "Id": t.id, "Name": t.name, "TaskState": "Starting", "TaskStatus": "OK",
			"StartTime": t.start, "TaskMonitor": monitorsPath + "/" + t.id, "PercentComplete": 0, "Messages": []object{},
		}
		if t.done {
			o["TaskState"], o["PercentComplete"], o["EndTime"] = "Completed", 100, t.end
		} else if monitor {
			o["\x00status"] = http.StatusAccepted
		}
		return o
	}}
}

package bmcsim

import (
	"fmt"
	"strconv"
	"strings"
)

// inventory adds what the machine is made of.
func (b *BMC) inventory() {
	b.processors()
	b.memory()
	b.interfaces()
	b.storage()
}

// processors adds Processor 1.18: one socket.
func (b *BMC) processors() {
	path, h := b.systemPath()+"/Processors", b.options.Hardware
	architecture, set := "x86", "x86-64"
	if h.Arch == "arm64" {
		architecture, set = "ARM", "ARM-A64"
	}
	b.collection("Processor", path, "CPU1")
	b.fixed(path+"/CPU1", func() object {
		return object{
			"@odata.type": "#Processor.v1_18_0.Processor", "Id": "CPU1", "Name": "Processor", "Socket": "CPU 1", "ProcessorType": "CPU", "Manufacturer": "Simulated",
			"ProcessorArchitecture": architecture, "InstructionSet": set, "Model": h.CPU, "MaxSpeedMHz": 3200, "OperatingSpeedMHz": 2400,
			"TotalCores": h.Cores, "TotalThreads": h.Threads, "Status": healthy(),
		}
	})
}

// memory adds Memory 1.17: one module.
func (b *BMC) memory() {
	path := b.systemPath() + "/Memory"
	b.collection("Memory", path, "DIMM1")
	b.fixed(path+"/DIMM1", func() object {
		return object{
			"@odata.type": "#Memory.v1_17_1.Memory", "Id": "DIMM1", "Name": "DIMM 1", "CapacityMiB": b.options.Hardware.MemoryMiB, "MemoryDeviceType": "DDR5",
			"MemoryType": "DRAM", "DeviceLocator": "DIMM1", "Manufacturer": "Simulated", "Status": healthy(),
		}
	})
}

// interfaces adds EthernetInterface 1.9, one for each NIC.
func (b *BMC) interfaces() {
	path := b.systemPath() + "/EthernetInterfaces"
	var ids []string
	for i, nic := range b.options.Hardware.NICs {
		id := "NIC" + strconv.Itoa(i+1)
		ids = append(ids, id)
		b.fixed(path+"/"+id, func() object { return ethernet(id, nic) })
	}
	b.collection("EthernetInterface", path, ids...)
}

func ethernet(id string, nic NIC) object {
	state, speed := "LinkUp", 10000
	if nic.Down {
		state, speed = "LinkDown", 0
	}
	addrs := []object{}
	for _, addr := range nic.Addrs {
		addrs = append(addrs, object{"Address": addr, "SubnetMask": "255.255.255.0", "AddressOrigin": "DHCP", "Gateway": nil})
	}
	return object{
		"@odata.type": "#EthernetInterface.v1_9_0.EthernetInterface", "Id": id, "Name": "Ethernet Interface " + id, "Description": "A port of the machine",
		"MACAddress": nic.MAC, "PermanentMACAddress": nic.MAC, "SpeedMbps": speed, "FullDuplex": true, "LinkStatus": state, "InterfaceEnabled": true, "MTUSize": 1500,
		"IPv4Addresses": addrs, "IPv6Addresses": []object{}, "NameServers": []string{}, "Status": healthy(),
		"UefiDevicePath": fmt.Sprintf("PciRoot(0x0)/Pci(0x3,0x0)/MAC(%s,0x1)", strings.ToUpper(strings.ReplaceAll(nic.MAC, ":", ""))),
	}
}

// storage adds Storage 1.15 with its controller and drives.
func (b *BMC) storage() {
	path := b.systemPath() + "/Storage"
	b.collection("Storage", path, "1")
	path += "/1"
	var ids []string
	for i, disk := range b.options.Hardware.Disks {
		id := "Disk" + strconv.Itoa(i+1)
		ids = append(ids, id)
		b.fixed(path+"/Drives/"+id, func() object { return b.drive(id, disk) })
	}
	b.fixed(path, func() object {
		drives := links(path+"/Drives", ids)
		return object{
			"@odata.type": "#Storage.v1_15_1.Storage", "Id": "1", "Name": "Storage", "Status": healthy(), "Drives": drives, "Drives@odata.count": len(drives),
			"Controllers": link(path + "/Controllers"),
			"StorageControllers": []object{{
				"@odata.id": path + "#/StorageControllers/0", "MemberId": "0", "Name": "Storage Controller", "Status": healthy(), "SpeedGbps": 12,
				"SupportedControllerProtocols": []string{"PCIe"}, "SupportedDeviceProtocols": []string{"SATA", "NVMe"},
			}},
		}
	})
	b.collection("StorageController", path+"/Controllers", "1")
	b.fixed(path+"/Controllers/1", func() object {
		return object{
			"@odata.type": "#StorageController.v1_8_0.StorageController", "Id": "1", "Name": "Storage Controller", "Status": healthy(),
			"SupportedControllerProtocols": []string{"PCIe"}, "SupportedDeviceProtocols": []string{"SATA", "NVMe"},
		}
	})
}

func (b *BMC) drive(id string, d Disk) object {
	o := object{
		"@odata.type": "#Drive.v1_17_1.Drive", "Id": id, "Name": or(d.Name, id), "Model": or(d.Model, "Simulated disk"), "Manufacturer": "Simulated",
		"SerialNumber": or(d.Serial, id), "CapacityBytes": d.Bytes, "BlockSizeBytes": 512, "MediaType": or(d.Type, "SSD"), "Protocol": or(d.Protocol, "SATA"),
		"Status": healthy(), "Links": object{"Chassis": link(b.chassisPath())},
	}
	if o["MediaType"] == "HDD" {
		o["RotationSpeedRPM"] = 7200
	}
	return o
}

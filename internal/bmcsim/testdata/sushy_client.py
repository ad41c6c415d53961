# Drives a BMC with sushy and prints, as JSON, what it found there.
# Usage: sushy_client.py URL USER PASSWORD CA-FILE basic|session TARGET SYSTEM
import json
import sys

import sushy
from sushy import auth

url, user, password, ca, how, target, path = sys.argv[1:]
kind = {"basic": auth.BasicAuth, "session": auth.SessionAuth}[how]
login = kind(username=user, password=password)
root = sushy.Sushy(url, auth=login, verify=ca)
system = root.get_system(path)
found = {
    "version": root.redfish_version,
    "systems": len(root.get_system_collection().members_identities),
    "uuid": system.uuid,
    "power": system.power_state.value,
    "macs": sorted(system.ethernet_interfaces.summary),
    "threads": system.processors.summary.count,
    "memory": system.memory_summary.size_gib,
    "drives": sorted(d.capacity_bytes for s in system.storage.get_members() for d in s.drives),
    "volumes_max": max(system.storage.drives_sizes_bytes),
    "controllers": [c.name for s in system.storage.get_members() for c in s.controllers.get_members()],
    "managers": [m.identity for m in system.managers],
    "all_managers": len(root.get_manager_collection().get_members()),
    "chassis": [c.identity for c in system.chassis],
    "virtual_media": sorted(v.identity for m in system.managers for v in m.virtual_media.get_members()),
    "tasks": len(root.get_task_service().tasks.get_members()),
    "secure_boot": system.secure_boot.enabled,
    "databases": sorted(d.database_id.value for d in system.secure_boot.databases.get_members()),
    "resets": sorted(v.value for v in system.get_allowed_reset_system_values()),
}
try:
    found["bios"] = len(system.bios.attributes)
except sushy.exceptions.MissingAttributeError:
    found["bios"] = 0

system.set_system_boot_options(
    target=sushy.BootSource(target), enabled=sushy.BootSourceOverrideEnabled.ONCE)
system.reset_system(sushy.ResetType.ON)
system.refresh(force=True)
found["power_after_on"] = system.power_state.value
found["enabled_after_on"] = system.boot.enabled.value
system.reset_system(sushy.ResetType.FORCE_OFF)
system.refresh(force=True)
found["power_after_off"] = system.power_state.value
try:  # both are sent without If-Match
    system.secure_boot.set_enabled(True)
    system.set_indicator_led(sushy.IndicatorLED.LIT)
except sushy.exceptions.HTTPError as e:
    found["refused"] = e.status_code
system.secure_boot.refresh(force=True)
found["secure_boot_after"] = system.secure_boot.enabled

databases = {d.database_id.value: d for d in system.secure_boot.databases.get_members()}
found["database_resets"] = sorted(v.value for v in databases["db"].get_allowed_reset_keys_values())
databases["db"].reset_keys(sushy.SECURE_BOOT_RESET_KEYS_DELETE_ALL)
found["mode"] = system.secure_boot.mode.value
system.secure_boot.reset_keys(sushy.SECURE_BOOT_RESET_KEYS_DELETE_PK)
system.secure_boot.refresh(force=True)
found["mode_after"] = system.secure_boot.mode.value

drive = [v for m in system.managers for v in m.virtual_media.get_members() if v.identity == "Cd"][0]
drive.insert_media("http://192.0.2.1/a.iso")
drive.refresh(force=True)
found["inserted"] = drive.inserted
drive.eject_media()
drive.refresh(force=True)
found["inserted_after"] = drive.inserted
login.close()
json.dump(found, sys.stdout)

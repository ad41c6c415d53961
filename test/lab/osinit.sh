#!/bin/busybox sh
# The whole of the lab's operating system. It says what it does in marked lines
# on the console and switches the machine off; with lab.shell in the command line
# it opens a shell instead.
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /etc /sbin /sysroot/etc/selinux/none/contexts/files
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
dmesg -n 1

# Debian's Ignition always relabels what it wrote: a policy that labels nothing.
printf 'SELINUX=disabled\nSELINUXTYPE=none\n' >/sysroot/etc/selinux/config
touch /sysroot/etc/selinux/none/contexts/files/file_contexts
printf '#!/bin/busybox sh\ncat >/dev/null\n' >/bin/setfiles
chmod +x /bin/setfiles

# param NAME [DEFAULT]: the last NAME=value of the command line
param() {
	value=$2
	for word in $(cat /proc/cmdline); do
		case $word in "$1="*) value=${word#*=} ;; esac
	done
	echo "$value"
}

echo "UKI-BOOTED uuid=$(cat /sys/class/dmi/id/product_uuid) cmdline=$(cat /proc/cmdline)"
for module in $(cat /lib/modules.load); do insmod "/lib/modules/$module" || echo "INSMOD-FAILED $module"; done

cat >/tmp/dhcp <<'SCRIPT'
#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/${mask:-24}" dev "$interface"
[ -n "$router" ] && ip route add default via "$router"
for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
echo "$ip" >/tmp/address
SCRIPT
chmod +x /tmp/dhcp
nic=$(param lab.nic eth0)
clientid=
[ "$(param lab.clientid)" = none ] && clientid=-C # as the firmware, which sends none
ip link set lo up
ip link set "$nic" up
if udhcpc -i "$nic" -q -n -t 20 -T 1 $clientid -s /tmp/dhcp >/tmp/dhcp.log 2>&1; then
	echo "DHCP-OK $(cat /tmp/address)"
else
	echo "DHCP-FAILED $(cat /tmp/dhcp.log)"
fi

# stage NAME: one stage of the real Ignition
stage() {
	ignition --stage="$1" --root=/sysroot --platform="$(param ignition.platform.id metal)" \
		--fetch-timeout="$(param lab.fetch-timeout 60s)" --log-to-stdout >>/tmp/ignition.log 2>&1
}

# result: what the last answer to Ignition was, as a number where it has one
result() {
	answer=$(sed -n 's/.*GET result: //p' /tmp/ignition.log | tail -n 1)
	case $answer in
	OK) echo 200 ;;
	Forbidden) echo 403 ;;
	"Not Found") echo 404 ;;
	"Internal Server Error") echo 500 ;;
	"Service Unavailable") echo 503 ;;
	"") echo "no answer" ;;
	*) echo "$answer" ;;
	esac
}

url=$(param ignition.config.url)
if [ -z "$url" ]; then
	echo "IGNITION-NONE"
elif stage fetch && stage files; then
	echo "IGNITION-FILES $(cd /sysroot && find . -type f ! -path './etc/selinux/*' | sed 's/^\.//' | sort | tr '\n' ' ')"
	echo "IGNITION-APPLIED $(tr '\n' ' ' <"/sysroot$(param lab.file /etc/boot-operator-lab)")"
else
	grep -v '^$' /tmp/ignition.log | tail -n 15
	echo "IGNITION-FAILED $(result)"
fi

if grep -qw lab.shell /proc/cmdline; then
	echo "SHELL-READY"
	exec setsid cttyhack sh
fi
echo "LAB-DONE"
poweroff -f

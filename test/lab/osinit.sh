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

# The last console= is /dev/console, and that may be a screen that this machine
# does not have: so talk on its serial port.
serial=/dev/ttyS0
[ -c /dev/ttyAMA0 ] && serial=/dev/ttyAMA0
exec <$serial >$serial 2>&1

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

# seed: where cloud-init's NoCloud finds its files, ds=nocloud[-net];…;s=URL
seed() {
	case $(param ds) in
	nocloud\;* | nocloud-net\;*) param ds | tr ';' '\n' | sed -n 's/^\(s\|seedfrom\)=//p' ;;
	esac
}

echo "UKI-BOOTED uuid=$(cat /sys/class/dmi/id/product_uuid) cmdline=$(cat /proc/cmdline)"
for module in $(cat /lib/modules.load); do
	[ "$module" = efivarfs.ko ] && [ ! -d /sys/firmware/efi ] && continue # a BIOS
	insmod "/lib/modules/$module" || echo "INSMOD-FAILED $module"
done

# What the firmware says: 4 bytes of attributes, then 1 where it checks signatures.
variables=/sys/firmware/efi/efivars
[ -d $variables ] && mount -t efivarfs efivarfs $variables
case $(tail -c 1 $variables/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c 2>/dev/null | od -An -tu1) in
*1) echo "SECURE-BOOT enabled" ;;
*) echo "SECURE-BOOT disabled" ;;
esac

url=$(param ignition.config.url)
squashfs=$(param gl.url)
seed=$(seed)
ipv4=yes ipv6=no tries=20
case "$url $squashfs $seed" in *://\[*) ipv6=yes tries=3 ;; esac # IPv4 is only by the way
case $(param ip any) in dhcp6 | auto6) ipv4=no ipv6=yes ;; esac

cat >/tmp/dhcp <<'SCRIPT'
#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/${mask:-24}" dev "$interface"
[ -n "$router" ] && ip route add default via "$router"
for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
echo "$ip" >/tmp/address
SCRIPT
chmod +x /tmp/dhcp

# link: the first NIC with a cable, waiting for it up to 5 s
link() {
	for i in $(seq 50); do
		for path in /sys/class/net/eth*; do
			if [ "$(cat "$path/carrier" 2>/dev/null)" = 1 ]; then
				echo "${path##*/}"
				return
			fi
		done
		sleep 0.1
	done
	echo eth0
}

# address6: the NIC's first usable address that is not link-local, waiting for
# it up to 15 s
address6() {
	for i in $(seq 150); do
		found=$(ip -6 addr show dev "$nic" scope global | grep -v tentative | sed -n 's/.*inet6 \([^/]*\).*/\1/p' | head -n 1)
		if [ -n "$found" ]; then
			echo "$found"
			return
		fi
		sleep 0.1
	done
	return 1
}

ip link set lo up
for path in /sys/class/net/eth*; do ip link set "${path##*/}" up; done
nic=$(param lab.nic)
[ -n "$nic" ] || nic=$(link)
clientid=
[ "$(param lab.clientid)" = none ] && clientid=-C # as the firmware, which sends none
if [ $ipv4 = no ]; then
	:
elif udhcpc -i "$nic" -q -n -t $tries -T 1 $clientid -s /tmp/dhcp >/tmp/dhcp.log 2>&1; then
	echo "DHCP-OK $(cat /tmp/address)"
else
	echo "DHCP-FAILED $(cat /tmp/dhcp.log)"
fi
if [ $ipv6 = yes ]; then
	if found=$(address6); then echo "IPV6-OK $found"; else echo "IPV6-FAILED"; fi
fi

# fetch URL FILE: by HTTP; sets code to the answer's status. As cloud-init does,
# it tries again while the server has no answer or a 5xx. (Debian's busybox crashes
# at wget -T.)
fetch() {
	for i in $(seq 11); do
		if timeout 10 wget -U "Cloud-Init/22.4.2" -O "$2" "$1" >/tmp/wget.log 2>&1; then
			code=200
			return
		fi
		code=$(sed -n 's|.*HTTP/1.[01] \([0-9]*\).*|\1|p' /tmp/wget.log | tail -n 1)
		case $code in 4*) return 1 ;; esac
		sleep 1
	done
	code=${code:-no answer}
	return 1
}

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

if [ -n "$squashfs" ]; then
	if fetch "$squashfs" /tmp/squashfs; then
		echo "SQUASHFS-FETCHED sha256:$(sha256sum </tmp/squashfs | cut -d ' ' -f 1)"
	else
		echo "SQUASHFS-FAILED $code"
	fi
fi

if [ -z "$url" ] && [ ! -f /usr/lib/ignition/user.ign ]; then
	echo "IGNITION-NONE"
elif stage fetch && stage files; then
	echo "IGNITION-FILES $(cd /sysroot && find . -type f ! -path './etc/selinux/*' | sed 's/^\.//' | sort | tr '\n' ' ')"
	echo "IGNITION-APPLIED $(tr '\n' ' ' <"/sysroot$(param lab.file /etc/boot-operator-lab)")"
else
	grep -v '^$' /tmp/ignition.log | tail -n 15
	echo "IGNITION-FAILED $(result)"
fi

# nocloud: what cloud-init's NoCloud fetches, in its order; two of the files may
# be missing
nocloud() {
	for file in meta-data network-config user-data vendor-data; do
		if fetch "$seed$file" "/tmp/$file"; then
			continue
		fi
		case $file-$code in
		network-config-404 | vendor-data-404) : >"/tmp/$file" ;;
		*)
			echo "CLOUD-INIT-FAILED $code $file $(tail -n 1 /tmp/wget.log)"
			return
			;;
		esac
	done
	echo "CLOUD-INIT-META $(sed 's/: */=/' /tmp/meta-data | tr '\n' ' ')"
	echo "CLOUD-INIT-NETWORK-CONFIG $(tr '\n' ' ' </tmp/network-config)"
	echo "CLOUD-INIT-USER-DATA $(grep -v '^#cloud-config' /tmp/user-data | head -n 1)"
	echo "CLOUD-INIT-VENDOR-DATA $(grep -v '^#cloud-config' /tmp/vendor-data | head -n 1)"
}
if [ -n "$seed" ]; then nocloud; fi

# power_button: the machine is switched off when it is pressed
power_button() {
	for path in /sys/class/input/event*; do
		if grep -q 'Power Button' "$path/device/name"; then
			exec 3<"/dev/input/${path##*/}" # before anybody is told that we listen
			(head -c 24 <&3 >/dev/null && echo "POWER-BUTTON" && poweroff -f) &
			exec 3<&-
		fi
	done
}

if grep -qw lab.shell /proc/cmdline; then
	power_button
	echo "SHELL-READY"
	exec setsid sh -c "exec sh <$serial >$serial 2>&1" # a leader's first terminal is its own
fi
echo "LAB-DONE"
poweroff -f

#!/bin/sh
# Installs what the tests need that is no Go module: Debian packages, and the
# kernel of the cgroup v2 machine, unpacked below $1 and not installed.
# Does nothing where all of it is there.
set -eu
cache=${1:?usage: deps.sh CACHE-DIRECTORY}
missing=
for pair in busybox:busybox-static qemu-system-x86_64:qemu-system-x86 ip:iproute2 nft:nftables curl:curl ps:procps depmod:kmod debootstrap:debootstrap runc:runc podman:podman skopeo:skopeo conmon:conmon criu:criu mkfs.btrfs:btrfs-progs mkfs.erofs:erofs-utils mmdebstrap:mmdebstrap; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
busybox --help 2>&1 | head -1 | grep -q BusyBox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || missing="$missing busybox-static"
if [ -n "$missing" ]; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "deps: please install:$missing" >&2
		exit 1
	fi
	apt-get update -qq
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
if ! ls "$cache"/kernel/lib/modules/*/modules.dep >/dev/null 2>&1 && [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ]; then
	rm -rf "$cache/kernel"
	mkdir -p "$cache/kernel"
	apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || apt-get update -qq
	package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/{print $2; exit}')
	(cd "$cache" && apt-get download -qq "$package" 2>/dev/null && dpkg-deb -x "$package"_*.deb kernel && rm -f "$package"_*.deb)
	depmod -b "$cache/kernel" "$(ls "$cache/kernel/lib/modules")"
fi
# Debian's docker.io, to compare with: unpacked, never installed, so that no
# service starts and no program of the machine is replaced.
if [ ! -x "$cache/docker.io/bin/iptables" ]; then
	rm -rf "$cache/docker.io"
	mkdir -p "$cache/docker.io/bin"
	(
		cd "$cache/docker.io"
		apt-cache show docker.io >/dev/null 2>&1 || apt-get update -qq
		apt-get download -qq docker.io containerd tini iptables libip4tc2 libip6tc2 libxtables12 libnetfilter-conntrack3 libnfnetlink0 libnftnl11 libmnl0 2>/dev/null
		for deb in *.deb; do dpkg-deb -x "$deb" .; done
		rm -f ./*.deb
		# The libraries are beside the programs, not in the machine's search path.
		for name in ip6tables ip6tables-save ip6tables-restore iptables-save iptables-restore iptables; do
			printf '#!/bin/sh\nLD_LIBRARY_PATH=%s/usr/lib/x86_64-linux-gnu XTABLES_LIBDIR=%s/usr/lib/x86_64-linux-gnu/xtables exec %s/usr/sbin/xtables-nft-multi %s "$@"\n' \
				"$cache/docker.io" "$cache/docker.io" "$cache/docker.io" "$name" >"bin/$name.new"
			chmod +x "bin/$name.new"
			mv "bin/$name.new" "bin/$name"
		done
	)
fi
# Debian's registry is run as a plain process: it is unpacked, not installed.
if [ ! -x "$cache/docker-registry/usr/bin/docker-registry" ] && command -v apt-get >/dev/null; then
	mkdir -p "$cache/docker-registry"
	apt-cache show docker-registry >/dev/null 2>&1 || apt-get update -qq
	(cd "$cache" && apt-get download -qq docker-registry 2>/dev/null && dpkg-deb -x docker-registry_*.deb docker-registry && rm -f docker-registry_*.deb)
fi

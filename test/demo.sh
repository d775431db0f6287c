#!/bin/bash
# `make demo`: a daemon on throw-away directories, containers from a real image,
# and everything taken down again. Needs root; without a network it shows the
# image that the daemon carries.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
	echo "demo: containers need root here: sudo make demo" >&2
	exit 1
fi
dir=$(mktemp -d /tmp/gantry-demo.XXXXXX)
export GANTRY_HOST=unix://$dir/gantry.sock
unset DOCKER_HOST DOCKER_CONTEXT GANTRY_CONTEXT || true
PATH=$PWD/bin:$PATH

bin/gantryd --data-root "$dir/lib" --exec-root "$dir/run" --pidfile "$dir/pid" --config-file "" \
	-H "$GANTRY_HOST" >"$dir/log" 2>&1 &
daemon=$!
finish() {
	status=$?
	trap - EXIT
	[ $status = 0 ] || { echo "--- the daemon's log:"; tail -n 30 "$dir/log"; }
	ids=$(gantry ps -aq 2>/dev/null) && [ -n "$ids" ] && gantry rm -fv $ids >/dev/null 2>&1
	kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null
	rm -rf "$dir"
	exit $status
}
trap finish EXIT
for _ in $(seq 100); do
	gantry version >/dev/null 2>&1 && break
	kill -0 "$daemon" || exit 1
	sleep 0.05
done

step() { printf '\n\033[1m# %s\033[0m\n' "$1"; }
show() { printf '$ %s\n' "$*"; "$@"; }
[ -t 1 ] || step() { printf '\n# %s\n' "$1"; }

step "An image that needs no network"
show gantry run --rm hello

if ! busybox --help >/dev/null 2>&1; then
	apt-get install -y -qq --no-install-recommends busybox-static >/dev/null 2>&1 ||
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends busybox-static >/dev/null; } 2>/dev/null ||
		{ step "No busybox here and none to be had: that was the demonstration"; exit 0; }
fi

step "A real image: Debian's busybox"
mkdir -p "$dir/rootfs"/{bin,etc,tmp,root,www}
cp "$(command -v busybox)" "$dir/rootfs/bin/busybox"
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "$dir/rootfs/bin/$applet"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$dir/rootfs/etc/passwd"
echo '<h1>Served from a container</h1>' >"$dir/rootfs/www/index.html"
tar -C "$dir/rootfs" -cf "$dir/busybox.tar" .
show gantry import --change 'CMD ["sh"]' "$dir/busybox.tar" busybox:latest
show gantry images

step "In the foreground: its own processes, host name and network"
show gantry run --rm --hostname crane busybox sh -c 'hostname; ps; ip -o -4 addr show eth0'
show gantry run --rm busybox sh -c 'exit 7' || echo "exit code: $?"

step "Detached, with logs"
show gantry run -d --name counter busybox sh -c 'i=0; while :; do echo "line $i"; i=$((i+1)); sleep 0.2; done'
sleep 1
show gantry logs --tail 3 counter

step "A further process in it"
show gantry exec counter sh -c 'echo "pid 1 is: $(tr "\0" " " </proc/1/cmdline | cut -c1-40)…"'

step "A published port"
show gantry run -d --name web -p 127.0.0.1::80 busybox httpd -f -h /www
port=$(gantry port web 80 | cut -d: -f2)
if command -v curl >/dev/null; then show curl -s "http://127.0.0.1:$port/"; else show busybox wget -qO- "http://127.0.0.1:$port/"; fi

step "The daemon is killed; what runs goes on, and not a line is lost"
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
sleep 1
bin/gantryd --data-root "$dir/lib" --exec-root "$dir/run" --pidfile "$dir/pid" --config-file "" \
	-H "$GANTRY_HOST" >>"$dir/log" 2>&1 &
daemon=$!
for _ in $(seq 100); do gantry version >/dev/null 2>&1 && break; sleep 0.05; done
show gantry ps
gantry logs counter | awk '{ if ($2 != n++) { print "a line is missing before: " $0; exit 1 } } END { print n " lines, none missing" }'

step "Speed"
time gantry run --rm busybox true

step "Nothing stays behind"
show gantry rm -f counter web
show gantry doctor

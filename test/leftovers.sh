#!/bin/sh
# Looks for anything of Gantry's that tests have left on this machine: links,
# packet filter tables, mounts, control groups, processes, directories. Prints
# what it finds and fails. Run it when no daemon of your own is running.
found=
look() { # kind, what was found
	[ -n "$2" ] || return 0
	echo "left over: $1:"
	echo "$2" | sed 's/^/  /'
	found=yes
}
sleep 1 # links of dead namespaces go in the background
look links "$(ip -o link 2>/dev/null | awk -F': ' '{print $2}' | grep -E '^(gantry|gt[0-9a-f]{12})')"
look tables "$(nft list tables 2>/dev/null | grep gantry)"
look mounts "$(awk '{print $5}' /proc/self/mountinfo | grep -E 'gantry|/tmp/Test')"
look 'control groups' "$(find /sys/fs/cgroup -type d -name '*gantry*' 2>/dev/null)"
# A dead process that the machine's first process has yet to reap is its affair.
look processes "$(ps -eo pid=,stat=,comm= | awk '$3 ~ /^gantry(d|-shim|-init)$/ && $2 !~ /^Z/')"
look directories "$(find /tmp -maxdepth 1 -name 'gantry-*' 2>/dev/null)"
[ -z "$found" ]

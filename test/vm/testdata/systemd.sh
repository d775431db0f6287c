# The engine where systemd makes the control groups. Run in the machine that
# systemd_test.go boots, which has cgroup v2 only.
fail=0
check() { # name, wanted, got
	if [ "$2" = "$3" ]; then echo "ok   $1"; else echo "FAIL $1: want '$2', got '$3'"; fail=1; fi
}
export GANTRY_HOST=unix:///run/gantry.sock
mkdir -p /data
mount -t tmpfs none /data
start() {
	gantryd --data-root /data/lib --exec-root /run/gantry --pidfile /run/gantryd.pid --config-file "" -H $GANTRY_HOST --exec-opt native.cgroupdriver=systemd --instance vm >>/data/log 2>&1 &
	daemon=$!
	i=0
	until gantry version >/dev/null 2>&1; do
		i=$((i + 1))
		[ $i -lt 200 ] || { cat /data/log; exit 1; }
		sleep 0.1
	done
}
memory() { cat "/sys/fs/cgroup/$1/memory.max"; }
start
gantry load -q -i /test/busybox.tar
check "driver" "systemd 2" "$(gantry info --format '{{.CgroupDriver}} {{.CgroupVersion}}')"
check "hello" hi "$(gantry run --rm --network none busybox echo hi)"
id=$(gantry run -d --name box --network none -m 64m --memory-swap 64m --pids-limit 50 busybox sleep 1000)
scope=gantry-vm-$id.scope
check "scope" active "$(systemctl is-active "$scope")"
check "slice" system.slice "$(systemctl show -P Slice "$scope")"
check "delegated" yes "$(systemctl show -P Delegate "$scope")"
check "systemd knows the limits" "67108864 50" "$(systemctl show -P MemoryMax "$scope") $(systemctl show -P TasksMax "$scope")"
check "limits" "67108864" "$(memory "system.slice/$scope")"
gantry update -m 96m --memory-swap 96m box >/dev/null
check "update" "100663296 100663296" "$(memory "system.slice/$scope") $(systemctl show -P MemoryMax "$scope")"
systemctl daemon-reload
check "a reload of systemd changes nothing" 100663296 "$(memory "system.slice/$scope")"
check "exec is in the scope" 2 "$(gantry exec box sh -c 'exec sleep 5' & sleep 2; wc -l <"/sys/fs/cgroup/system.slice/$scope/cgroup.procs"; wait $!)"
check "stats" 96MiB "$(gantry stats --no-stream --format '{{.MemUsage}}' box | sed 's/.* //')"
other=$(gantry run -d --network none --cgroup-parent team-a.slice busybox sleep 1000)
check "parent" active "$(systemctl is-active "gantry-vm-$other.scope")"
check "parent's place" 0 "$(test -d "/sys/fs/cgroup/team.slice/team-a.slice/gantry-vm-$other.scope"; echo $?)"
check "a parent that is no slice" 125 "$(gantry run --rm --cgroup-parent /x busybox true >/dev/null 2>&1; echo $?)"
# A parent below another slice, with the daemon's own default, and every limit.
deep=$(gantry run -d --network none --cgroup-parent team-b-c.slice --cpus 0.5 --cpu-shares 512 --memory-reservation 16m -m 64m busybox sleep 1000)
place=/sys/fs/cgroup/team.slice/team-b.slice/team-b-c.slice/gantry-vm-$deep.scope
check "limits below a slice" "50000 100000 59 16777216 67108864" "$(cd $place; echo $(cat cpu.max cpu.weight memory.low memory.max))"
check "systemd knows them too" "500ms 59 16777216" "$(systemctl show -P CPUQuotaPerSecUSec "gantry-vm-$deep.scope") $(systemctl show -P CPUWeight "gantry-vm-$deep.scope") $(systemctl show -P MemoryLow "gantry-vm-$deep.scope")"
gantry update --pids-limit 33 --cpus 0.25 $deep >/dev/null
check "update below a slice" "33 25000 100000" "$(cd $place; echo $(cat pids.max cpu.max))"
# The host's journal.
systemctl start systemd-journald
gantry run --name jour --network none --log-driver journald --log-opt tag=mytag --label l=v --log-opt labels=l busybox sh -c 'echo to the journal; echo oops >&2' 2>/dev/null
i=0
until [ "$(journalctl CONTAINER_NAME=jour -o cat 2>/dev/null | wc -l)" = 2 ] || [ $i = 100 ]; do i=$((i + 1)); sleep 0.1; done
check "journal" "oops to the journal" "$(echo $(journalctl CONTAINER_NAME=jour -o cat | sort))"
check "journal's fields" "mytag v 3" "$(journalctl CONTAINER_TAG=mytag -o export | awk -F= '/^(CONTAINER_TAG|L)=/ {f[$1]=$2} /^PRIORITY=3/ {p=3} END {print f["CONTAINER_TAG"], f["L"], p}')"
check "logs with journald" "to the journal" "$(gantry logs jour 2>/dev/null)"
kill -9 $daemon
start
check "adopted" alive "$(gantry exec box echo alive)"
gantry kill box >/dev/null
check "exit code" 137 "$(gantry inspect -f '{{.State.ExitCode}}' box)"
check "the scope has ended" inactive "$(systemctl is-active "$scope")"
if command -v runc >/dev/null; then
	id=$(gantry run -d --name foreign --runtime runc --network none -m 64m busybox sleep 1000)
	check "another runtime's scope" active "$(systemctl is-active "gantry-vm-$id.scope")"
	check "another runtime's limit" 67108864 "$(memory "system.slice/gantry-vm-$id.scope")"
	check "another runtime's exec" yes "$(gantry exec foreign echo yes)"
fi
# A daemon without systemd's driver knows where this one has put them.
kill $daemon
wait $daemon
gantryd --data-root /data/lib --exec-root /run/gantry --pidfile /run/gantryd.pid --config-file "" -H $GANTRY_HOST --instance vm >>/data/log 2>&1 &
daemon=$!
until gantry version >/dev/null 2>&1; do sleep 0.1; done
check "stop with another driver" 0 "$(gantry rm -f $(gantry ps -aq) >/dev/null; echo $?)"
check "nothing is left" "" "$(systemctl list-units --all --plain --no-legend 'gantry-vm-*')"
gantry doctor || fail=1
kill $daemon
wait $daemon
[ $fail = 0 ] && echo "all passed" || tail -n 40 /data/log
exit $fail

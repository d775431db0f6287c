# What a container sees on a host that has cgroup v2 only. Run by busybox sh in
# the machine that vm_test.go boots.
fail=0
check() { # name, wanted, got
	if [ "$2" = "$3" ]; then echo "ok   $1"; else echo "FAIL $1: want '$2', got '$3'"; fail=1; fi
}
export GANTRY_HOST=unix:///tmp/gantry.sock
gantryd --data-root /tmp/lib --exec-root /run/gantry --pidfile /run/gantryd.pid --config-file "" -H $GANTRY_HOST >/tmp/log 2>&1 &
daemon=$!
i=0
until gantry version >/dev/null 2>&1; do
	i=$((i + 1))
	[ $i -lt 200 ] || { cat /tmp/log; exit 1; }
	sleep 0.1
done
gantry load -q -i /test/busybox.tar
check "version" 2 "$(gantry info --format '{{.CgroupVersion}}')"
check "hello" hi "$(gantry run --rm busybox echo hi)"
check "limits" "67108864 50 50000" "$(gantry run --rm -m 64m --memory-swap 64m --pids-limit 50 --cpus 0.5 busybox sh -c 'echo $(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max) $(cut -d" " -f1 /sys/fs/cgroup/cpu.max)')"
check "cgroup namespace" "0::/" "$(gantry run --rm busybox cat /proc/self/cgroup)"
check "read-only cgroups" 1 "$(gantry run --rm busybox sh -c 'echo 1 >/sys/fs/cgroup/cgroup.freeze' 2>/dev/null; echo $?)"
gantry run -d --name box -m 32m --memory-swap 32m -p 8080:80 busybox sh -c 'mkdir /www; echo page >/www/index.html; exec httpd -f -h /www' >/dev/null
check "exec is in the group" 2 "$(gantry exec box sh -c 'cat /sys/fs/cgroup/cgroup.procs | wc -l' | awk '{print ($1 >= 2) ? 2 : $1}')"
gantry pause box
check "paused" "running true" "$(gantry inspect -f '{{if .State.Paused}}running true{{end}}' box)"
gantry unpause box
check "published port" page "$(wget -qO- http://127.0.0.1:8080/)"
check "stats" "32MiB" "$(gantry stats --no-stream --format '{{.MemUsage}}' box | sed 's/.* //')"
gantry update -m 48m --memory-swap 48m box >/dev/null
check "update" 50331648 "$(gantry exec box cat /sys/fs/cgroup/memory.max)"
group=/sys/fs/cgroup/gantry*/$(gantry inspect -f '{{.Id}}' box)
io=$(cat /sys/block/loop0/dev)
while IFS='|' read -r flags file want; do
	gantry update $flags box >/dev/null </dev/null
	check "update $flags" "$want" "$(cat $group/$file)"
done <<END
-m 64m --memory-swap 80m|memory.max|67108864
--memory-swap 96m|memory.swap.max|33554432
--memory-swap -1|memory.swap.max|max
--memory-reservation 16m|memory.low|16777216
--cpu-quota 20000 --cpu-period 50000|cpu.max|20000 50000
--cpu-shares 512|cpu.weight|59
--cpuset-cpus 0|cpuset.cpus|0
--cpuset-mems 0|cpuset.mems|0
--pids-limit -1|pids.max|max
--pids-limit 77|pids.max|77
END
body='{"BlkioDeviceReadBps":[{"Path":"/dev/loop0","Rate":1048576}],"BlkioDeviceWriteIOps":[{"Path":"/dev/loop0","Rate":50}]}'
printf 'POST /containers/box/update HTTP/1.1\r\nHost: gantry\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' ${#body} "$body" | gantry system dial-stdio | tail -n 1
echo
check "update of io" "$io rbps=1048576 wbps=max riops=max wiops=50" "$(cat $group/io.max)"
gantry restart -t 0 box
check "limits of the next start" "20000 50000 0 59 $io rbps=1048576 wbps=max riops=max wiops=50" "$(cd $group; echo $(cat cpu.max cpuset.cpus cpu.weight io.max))"
check "io at create" "$io rbps=2097152 wbps=max riops=70 wiops=max" "$(gantry run --rm --device-read-bps /dev/loop0:2m --device-read-iops /dev/loop0:70 busybox cat /sys/fs/cgroup/io.max)"
gantry run --name oom -m 16m --memory-swap 16m busybox sh -c 'head -c 64m /dev/zero | tail' >/dev/null 2>&1
check "out of memory" true "$(gantry inspect -f '{{.State.OOMKilled}}' oom)"
check "device refused" 1 "$(gantry run --rm --cap-add ALL busybox sh -c 'mknod /tmp/d c 1 1 && dd if=/tmp/d of=/dev/null bs=1 count=1' >/dev/null 2>&1; echo $?)"
check "device allowed" "0" "$(gantry run --rm --device /dev/kmsg --cap-add SYSLOG busybox sh -c 'test -c /dev/kmsg && exec 3</dev/kmsg'; echo $?)"
check "device write-only" "w" "$(gantry run --rm --cap-add SYSLOG --device /dev/kmsg:/dev/k:w busybox sh -c '(exec 3</dev/k) 2>/dev/null && echo r; (exec 3>/dev/k) && echo w')"
check "device read-only" "r" "$(gantry run --rm --cap-add SYSLOG --device /dev/kmsg:/dev/k:r busybox sh -c '(exec 3</dev/k) && echo r; (exec 3>/dev/k) 2>/dev/null && echo w')"
check "device rule" "0" "$(gantry run --rm --cap-add MKNOD --device-cgroup-rule 'c 1:11 rw' busybox sh -c 'mknod /tmp/k c 1 11 && exec 3>/tmp/k; echo $?')"
gantry plugin create sample /test/plugin >/dev/null
gantry plugin enable sample >/dev/null
gantry volume create -d sample managed >/dev/null
check "managed plugin" kept "$(gantry run --rm -v managed:/d busybox sh -c 'echo kept >/d/f; cat /d/f')"
kill -9 $daemon
gantryd --experimental --data-root /tmp/lib --exec-root /run/gantry --pidfile /run/gantryd.pid --config-file "" -H $GANTRY_HOST >>/tmp/log 2>&1 &
daemon=$!
until gantry version >/dev/null 2>&1; do sleep 0.1; done
check "adopted" alive "$(gantry exec box echo alive)"
check "managed plugin of the next daemon" kept "$(gantry run --rm -v managed:/d busybox cat /d/f)"
gantry volume rm managed >/dev/null
gantry plugin rm -f sample >/dev/null
gantry update -v live:/live --mount-add type=tmpfs,dst=/mem box >/dev/null
check "mounts added" 2 "$(gantry exec box sh -c 'echo x >/live/f; grep -c -e " /live " -e " /mem " /proc/mounts')"
gantry update --mount-rm /live --mount-rm /mem --publish-rm 80 box >/dev/null
check "mounts removed" 0 "$(gantry exec box sh -c 'grep -c -e " /live " -e " /mem " /proc/mounts')"
# A counter goes on from a checkpoint, confined and attached as it was.
confined='grep -e Seccomp -e Cap -e NoNewPrivs /proc/1/status; cut -d" " -f2-4 /proc/mounts | grep -v "^/ overlay" | sort; cat /etc/hostname; ls /data; ip -4 -o addr'
for net in none bridge; do
	gantry run -d --name froz --network $net -m 64m --memory-swap 64m -v data:/data --tmpfs /scratch -v /etc/passwd:/p:ro busybox sh -c 'touch /data/f; i=0; while :; do echo $i; i=$((i+1)); sleep 0.2; done' >/dev/null
	gantry exec froz sh -c "$confined" >/tmp/before
	gantry checkpoint create --leave-running froz first >/dev/null
	check "left running, $net" running "$(gantry inspect -f '{{.State.Status}}' froz)"
	gantry checkpoint create froz second >/dev/null || tail -n 20 /tmp/lib/containers/*/checkpoints/.second/dump.log
	check "down, $net" exited "$(gantry inspect -f '{{.State.Status}}' froz)"
	gantry start --checkpoint second froz >/dev/null || tail -n 20 /tmp/lib/containers/*/checkpoints/second/restore.log
	gantry exec froz sh -c "$confined" >/tmp/after
	check "as before, $net" "" "$(diff /tmp/before /tmp/after)"
	lines=$(gantry logs froz | wc -l)
	sleep 1
	check "counts on, $net" true "$(gantry logs froz | awk -v n=$lines '$1 != NR-1 {bad=1} END {print (!bad && NR > n) ? "true" : "false"}')"
	check "limit, $net" 67108864 "$(cat /sys/fs/cgroup/gantry*/$(gantry inspect -f '{{.Id}}' froz)/memory.max)"
	check "second checkpoint, $net" third "$(gantry checkpoint create froz third)"
	gantry rm -fv froz >/dev/null
done
gantry rm -f box oom >/dev/null
gantry doctor || fail=1
kill $daemon
wait $daemon
# Ids that are mapped, and limits of the disk, on an ext4 that has project quotas.
mkdir /q && mount -o loop,prjquota /test/prjquota.img /q || fail=1
printf 'dockremap:100000:65536\n' | tee /etc/subuid >/etc/subgid
gantryd --data-root /q/lib --exec-root /run/gantry --pidfile /run/gantryd.pid --config-file "" -H $GANTRY_HOST --userns-remap default >>/tmp/log 2>&1 &
daemon=$!
until gantry version >/dev/null 2>&1; do sleep 0.1; done
gantry load -q -i /test/busybox.tar
check "mapped" "0 100000 65536" "$(gantry run --rm busybox sh -c 'echo $(cat /proc/self/uid_map)')"
check "not mapped" "0 0 4294967295" "$(gantry run --rm --userns host --privileged busybox sh -c 'echo $(cat /proc/self/uid_map)')"
for ns in "" host; do
	check "root limited, userns=$ns" "1 1024" "$(gantry run --rm --userns "$ns" --cap-add SYS_RESOURCE --storage-opt size=1m busybox sh -c 'dd if=/dev/zero of=/f bs=64k count=32 2>/dev/null; echo $? $(df -k / | tail -1 | awk "{print \$2}")')"
	check "root not limited, userns=$ns" 0 "$(gantry run --rm --userns "$ns" busybox sh -c 'dd if=/dev/zero of=/f bs=64k count=32 2>/dev/null; echo $?')"
done
gantry volume create -o size=1m small >/dev/null
check "volume limited" "1" "$(gantry run --rm -v small:/v busybox sh -c 'dd if=/dev/zero of=/v/f bs=64k count=32 2>/dev/null; echo $?')"
gantry create --name kept --storage-opt size=1m busybox sh -c 'dd if=/dev/zero of=/f bs=64k count=32 2>/dev/null; echo $?' >/dev/null
gantry start -a kept >/dev/null
check "limited at the second start" 1 "$(gantry start -a kept)"
gantry rm kept >/dev/null
gantry volume rm small >/dev/null
gantry doctor || fail=1
kill $daemon
wait $daemon
find /sys/fs/cgroup -mindepth 1 -type d | grep -v '^/sys/fs/cgroup/gantry$' && fail=1
[ $fail = 0 ] && echo "all passed" || tail -n 30 /tmp/log
exit $fail

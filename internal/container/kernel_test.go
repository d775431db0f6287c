package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/internal/cgroup"
	"gantry/internal/errs"
	"gantry/internal/event"
	"gantry/internal/launch"
	"gantry/internal/logs"
	"gantry/internal/network"
	"gantry/internal/plan"
	"gantry/internal/shim"
	"gantry/internal/store"
	"gantry/internal/testkit"
	"gantry/internal/volume"
	"gantry/internal/wire"
)

// Environment of this program when it executes itself: in namespaces that play
// the host, and as a daemon that dies at a point of a launch.
const (
	envHost  = "GANTRY_TEST_HOST"  // directory shared by the runs
	envCrash = "GANTRY_TEST_CRASH" // the point
)

// TestKernel runs real containers. It executes itself in network and mount
// namespaces of its own, so that the machine's stay as they are.
func TestKernel(t *testing.T) {
	if dir := os.Getenv(envHost); dir != "" {
		if point := os.Getenv(envCrash); point != "" {
			crash(t, dir, point)
			return
		}
		kernelTests(t, dir)
		return
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("kernel tests need root")
		}
		t.Skip("kernel tests need root")
	}
	dir := t.TempDir()
	if err := testkit.Shim(filepath.Join(dir, "gantry-shim")); err != nil {
		t.Fatal(err)
	}
	rootfs, err := testkit.BusyboxRootfs()
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "image")
	if err := os.Mkdir(image, 0o755); err != nil {
		t.Fatal(err)
	}
	untar := exec.Command("tar", "x", "-C", image)
	untar.Stdin = bytes.NewReader(rootfs)
	if out, err := untar.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	host, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Group(cgroupParent(dir)).Remove(); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.Command(os.Args[0], "-test.run=^TestKernel$", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), envHost+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(string(out))
}

// cgroupParent is where the containers of one run of the test are counted, so
// that two runs at once leave each other alone.
func cgroupParent(dir string) string { return "/gantry-kt-" + filepath.Base(filepath.Dir(dir)) }

// real is a daemon's parts on a machine.
type real struct {
	dir      string
	db       *store.DB
	bus      *event.Bus
	networks *network.Networks
	shims    *shim.Launcher
	launcher *launch.Launcher
	engine   *Engine
}

type launchNetworks struct{ *network.Networks }

func (n launchNetworks) Sandbox(id string) (*network.Sandbox, bool) {
	s, err := n.Networks.Sandbox(context.Background(), id)
	return s, err == nil
}

func (n launchNetworks) Files(s *network.Sandbox, f network.HostFiles) (hosts, resolv []byte, err error) {
	return n.Networks.HostFiles(context.Background(), s, f)
}

// treeImages has one image: a directory.
type treeImages struct {
	fakeImages
	dir string
}

func (f *treeImages) Resolve(ctx context.Context, ref, platform string) (*plan.Image, Image, error) {
	p, i, err := f.fakeImages.Resolve(ctx, ref, platform)
	i.Lower = []string{f.dir}
	return p, i, err
}

func openReal(ctx context.Context, t *testing.T, dir string, fail func(string) error) *real {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	r := &real{dir: dir, bus: event.New()}
	root, run := filepath.Join(dir, "lib"), filepath.Join(dir, "run")
	program, err := os.ReadFile(filepath.Join(dir, "gantry-shim"))
	must(err)
	r.db, err = store.Open(filepath.Join(root, "state.db"))
	must(err)
	r.networks, err = network.Open(ctx, network.Options{Store: r.db, RunDir: run, Events: r.bus, Instance: "kt"})
	must(err)
	vols, err := volume.Open(volume.Options{Store: r.db, Dir: filepath.Join(root, "volumes"), Events: r.bus})
	must(err)
	r.shims, err = shim.NewLauncher(program)
	must(err)
	host, err := cgroup.Detect()
	must(err)
	r.launcher = launch.New(launch.Options{
		Root: root, RunDir: run, Networks: launchNetworks{r.networks}, Volumes: vols, Shims: r.shims, Cgroups: host,
		CgroupParent: cgroupParent(dir), Fail: fail,
	})
	version := plan.CgroupV1
	if host.Mode == cgroup.V2 {
		version = plan.CgroupV2
	}
	r.engine, err = Open(ctx, Options{
		Store: r.db, Images: &treeImages{fakeImages{pinned: map[string]bool{}}, filepath.Join(dir, "image")}, Volumes: vols, Launcher: r.launcher, Events: r.bus,
		Defaults: func() plan.Defaults { return plan.Defaults{Runtime: "gantry", Kernel: plan.CompleteKernel(2, version)} },
		Root:     root, RunDir: run,
	})
	must(err)
	return r
}

// close drops the daemon; containers go on.
func (r *real) close(t *testing.T) {
	t.Helper()
	if err := errors.Join(r.engine.Close(), r.shims.Close(), r.networks.Close(context.Background(), network.CloseOptions{}), r.db.Close()); err != nil {
		t.Error(err)
	}
	r.bus.Close()
}

func kernelTests(t *testing.T, dir string) {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	r := openReal(t.Context(), t, dir, nil)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *real)
	}{
		{"run", kernelRun}, {"exit codes", kernelCodes}, {"exec", kernelExec}, {"pause", kernelPause}, {"inside", kernelInside},
		{"volumes", kernelVolumes}, {"logs", kernelLogs}, {"policy", kernelPolicy}, {"oom", kernelOOM},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, r) })
	}
	ctx := t.Context() // of this test, not of the part below
	t.Run("adopt", func(t *testing.T) { r = kernelAdopt(ctx, t, r) })
	for _, a := range r.engine.core.table.all() {
		if err := r.engine.Remove(t.Context(), a.id, RemoveOptions{Force: true, Volumes: true}); err != nil {
			t.Error(err)
		}
	}
	r.nothingLeft(t)
	r.close(t)
	t.Run("crash", func(t *testing.T) { kernelCrash(t, dir) })
}

// nothingLeft fails if anything of any container exists.
func (r *real) nothingLeft(t *testing.T) {
	t.Helper()
	if ids, err := r.launcher.Existing(); err != nil || len(ids) > 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
	r.networks.Settle()
	found, err := r.networks.Existing(t.Context())
	if err != nil {
		t.Error(err)
	}
	for _, f := range found {
		if f.Kind == network.KindNamespace || f.Kind == network.KindPort || f.Kind == network.KindLease {
			t.Errorf("left of the network: %+v", f)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := shimProcesses(r.dir)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("shims left: %v", left)
			return
		}
	}
}

// shimProcesses lists the shims whose working descriptors point below dir.
func shimProcesses(dir string) []string {
	var out []string
	names, _ := filepath.Glob("/proc/[0-9]*/comm")
	for _, n := range names {
		comm, _ := os.ReadFile(n)
		if strings.TrimSpace(string(comm)) != "gantry-shim" {
			continue
		}
		fds, _ := filepath.Glob(filepath.Join(filepath.Dir(n), "fd/*"))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.HasPrefix(to, dir) {
				out = append(out, n)
				break
			}
		}
	}
	return out
}

func sh(script string, change ...func(*wire.CreateRequest)) []func(*wire.CreateRequest) {
	return append([]func(*wire.CreateRequest){func(r *wire.CreateRequest) { r.Config.Cmd = []string{"sh", "-c", script} }}, change...)
}

func net(mode string) func(*wire.CreateRequest) {
	return func(r *wire.CreateRequest) { r.HostConfig.NetworkMode = wire.NetworkMode(mode) }
}

// run runs a script with attached output and returns what it printed.
func run(t *testing.T, e *Engine, script string, change ...func(*wire.CreateRequest)) (string, int) {
	t.Helper()
	id := create(t, e, "", append(sh(script), change...)...)
	at, err := e.Attach(t.Context(), id, AttachOptions{Stream: true, Streams: shim.Streams{Stdout: true, Stderr: true}})
	if err != nil {
		t.Fatal(err)
	}
	next, err := e.Wait(t.Context(), id, "next-exit")
	if err != nil {
		t.Fatal(err)
	}
	start(t, e, id)
	out := readFrames(at, 1<<20)
	code := receive(t, next).StatusCode
	if err := e.Remove(t.Context(), id, RemoveOptions{Volumes: true}); err != nil {
		t.Fatal(err)
	}
	return out, int(code)
}

// readFrames returns the first limit bytes of payload of a framed stream, and
// reads it to its end.
func readFrames(r io.Reader, limit int) string {
	var out strings.Builder
	head := make([]byte, 8)
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			return out.String()[:min(limit, out.Len())]
		}
		if _, err := io.CopyN(&out, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return out.String()[:min(limit, out.Len())]
		}
	}
}

func kernelRun(t *testing.T, r *real) {
	for _, mode := range []string{"none", "bridge", "host"} {
		if out, code := run(t, r.engine, "echo hello; echo err >&2; exit 7", net(mode)); len(out) != 10 || !strings.Contains(out, "hello\n") || !strings.Contains(out, "err\n") || code != 7 {
			t.Errorf("network %s: %q, code %d", mode, out, code)
		}
	}
}

func kernelCodes(t *testing.T, r *real) {
	e := r.engine
	for _, c := range []struct {
		cmd  string
		code int
		kind errs.Kind
		text string
	}{
		{"nosuch", 127, errs.Invalid, `exec: "nosuch": executable file not found in $PATH`},
		{"/nosuch", 127, errs.Invalid, `exec: "/nosuch": stat /nosuch: no such file or directory`},
		{"/etc", 126, errs.Invalid, `exec: "/etc": is a directory: permission denied`},
		{"/etc/passwd", 126, errs.Invalid, `exec: "/etc/passwd": permission denied: the file is not executable (mode 0644, see chmod +x)`},
	} {
		id := create(t, e, "", net("none"), func(r *wire.CreateRequest) { r.Config.Cmd = []string{c.cmd} })
		err := e.Start(t.Context(), id)
		wants(t, err, c.kind, "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: "+c.text)
		if s := status(t, e, id); s.Status != "created" || s.ExitCode != c.code || s.Error != err.Error() {
			t.Errorf("%s: %+v", c.cmd, s)
		}
		if err := e.Remove(t.Context(), id, RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
	id := create(t, e, "", net("none"), func(r *wire.CreateRequest) { r.Config.User = "nouser" })
	wants(t, e.Start(t.Context(), id), errs.Unknown, "unable to find user nouser: no matching entries in passwd file")
	if s := status(t, e, id); s.ExitCode != 128 {
		t.Errorf("unknown user: %+v", s)
	}
	if _, code := run(t, e, "trap '' TERM; kill -SEGV $$; kill -KILL -1; exit 5", net("none")); code != 5 {
		t.Errorf("code %d", code)
	}
}

func kernelExec(t *testing.T, r *real) {
	e := r.engine
	id := create(t, e, "", sh("sleep 1000", net("none"))...)
	start(t, e, id)
	began := time.Now()
	x, err := e.ExecCreate(t.Context(), id, wire.ExecCreate{Cmd: []string{"sh", "-c", "id -u; pwd; echo $A; exit 4"}, User: "www-data", WorkingDir: "/tmp", Env: []string{"A=1"}, AttachStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	at, err := e.ExecStart(t.Context(), x, ExecStartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if out := readFrames(at, 1000); out != "33\n/tmp\n1\n" {
		t.Errorf("%q", out)
	}
	t.Logf("exec took %v", time.Since(began))
	for {
		w, err := e.ExecInspect(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		if w.ExitCode != nil {
			if *w.ExitCode != 4 {
				t.Errorf("exit code %d", *w.ExitCode)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	x, err = e.ExecCreate(t.Context(), id, wire.ExecCreate{Cmd: []string{"nosuchbin"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.ExecStart(t.Context(), x, ExecStartOptions{Detach: true})
	wants(t, err, errs.Invalid, `OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuchbin": executable file not found in $PATH`)
	if top, err := e.Top(t.Context(), id, "-o pid,args"); err != nil || len(top.Processes) != 1 || top.Processes[0][1] != "sleep 1000" {
		t.Errorf("top %+v, %v", top, err)
	}
	seq, err := e.Stats(t.Context(), id, StatsOptions{OneShot: true})
	if err != nil {
		t.Fatal(err)
	}
	for s, err := range seq {
		if err != nil || s.PidsStats.Current < 1 || s.MemoryStats.Usage == 0 || s.CPUStats.SystemUsage == 0 {
			t.Errorf("stats %+v, %v", s, err)
		}
	}
	if err := e.Kill(t.Context(), id, ""); err != nil {
		t.Error(err)
	}
	if s := status(t, e, id); s.ExitCode != 137 {
		t.Errorf("state %+v", s)
	}
}

func kernelPause(t *testing.T, r *real) {
	e := r.engine
	id := create(t, e, "", sh("trap 'exit 8' TERM; while :; do sleep 0.01; done", net("none"))...)
	start(t, e, id)
	if err := e.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	wants(t, e.Pause(t.Context(), id), errs.Conflict, "container "+id+" is already paused")
	wants(t, e.Start(t.Context(), id), errs.Conflict, "cannot start a paused container, try unpause instead")
	if s := status(t, e, id); !s.Paused || !s.Running || s.Status != "paused" {
		t.Errorf("state %+v", s)
	}
	if err := e.Unpause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := e.Pause(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	one := 1
	began := time.Now()
	if err := e.Stop(t.Context(), id, StopOptions{Timeout: &one}); err != nil {
		t.Fatal(err)
	}
	// TERM and KILL have both been sent when it thaws; KILL comes first.
	if s, took := status(t, e, id), time.Since(began); s.ExitCode != 137 || took < time.Second || took > 15*time.Second {
		t.Errorf("after %v: %+v", took, s)
	}
}

func kernelInside(t *testing.T, r *real) {
	out, _ := run(t, r.engine, "hostname; cat /etc/hostname; grep -c $(hostname) /etc/hosts; id -u; stat -c %a /; touch /x && ls /x; cat /proc/self/status | grep CapEff; ls /sys/class/net | tr '\\n' ' '",
		net("bridge"), func(r *wire.CreateRequest) { r.Config.Hostname = "box" })
	for _, want := range []string{"box\nbox\n1\n0\n755\n/x\n", "00000000a80425fb", "eth0 lo"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q lacks %q", out, want)
		}
	}
	id := create(t, r.engine, "", sh("sleep 1000", net("bridge"), func(r *wire.CreateRequest) {
		r.HostConfig.PortBindings = wire.PortMap{}
		p, err := wire.ParsePort("80/tcp")
		if err != nil {
			t.Fatal(err)
		}
		r.HostConfig.PortBindings[p] = []wire.PortBinding{{HostPort: "18080"}}
	})...)
	start(t, r.engine, id)
	w, err := r.engine.Inspect(t.Context(), id, InspectOptions{Size: true})
	if err != nil {
		t.Fatal(err)
	}
	ep := w.NetworkSettings.Networks["bridge"]
	if ep == nil || !ep.IPAddress.IsValid() || ep.NetworkID == "" || len(w.NetworkSettings.Ports) != 1 || w.SizeRootFs == nil || *w.SizeRootFs < 1<<20 {
		t.Errorf("network %+v %+v, size %v", ep, w.NetworkSettings, w.SizeRootFs)
	}
	out, code := run(t, r.engine, "ip -o -4 addr show eth0 | grep -c "+ep.IPAddress.String()+"; ps | grep -c 'sleep 1000'", net("container:"+id),
		func(r *wire.CreateRequest) { r.HostConfig.PidMode = "container:" + wire.PidMode(id) })
	if !strings.HasPrefix(out, "1\n") || strings.HasSuffix(out, "\n0\n") {
		t.Errorf("joined: %q, %d", out, code)
	}
	second := create(t, r.engine, "", sh("sleep 1000", net("bridge"), func(r *wire.CreateRequest) {
		p, _ := wire.ParsePort("80/tcp")
		r.HostConfig.PortBindings = wire.PortMap{p: []wire.PortBinding{{HostPort: "18080"}}}
	})...)
	if err := r.engine.Start(t.Context(), second); err == nil || !strings.Contains(err.Error(), "Bind for 0.0.0.0:18080 failed: port is already allocated") {
		t.Errorf("port taken: %v", err)
	}
	if err := r.engine.Stop(t.Context(), id, StopOptions{Signal: "KILL"}); err != nil {
		t.Error(err)
	}
	gone := create(t, r.engine, "", sh("true", net("container:"+id))...)
	wants(t, r.engine.Start(t.Context(), gone), errs.Conflict, "cannot join network namespace of a non running container: container "+w.Name[1:]+" is exited")
}

func kernelVolumes(t *testing.T, r *real) {
	host := t.TempDir()
	vol := func(req *wire.CreateRequest) {
		req.HostConfig.Binds = []string{"named:/etc", filepath.Join(host, "made") + ":/made"}
		req.Config.Volumes = map[string]struct{}{"/anon": {}}
		req.HostConfig.NetworkMode = "none"
	}
	if out, code := run(t, r.engine, "stat -c '%a %u' /etc/shadow; readlink /etc/nosuch; echo x > /etc/mine; echo y > /made/f; echo z > /anon/f; cat /anon/f", vol); code != 0 || out != "600 0\nz\n" {
		t.Errorf("%q, %d", out, code)
	}
	if data, err := os.ReadFile(filepath.Join(host, "made", "f")); err != nil || string(data) != "y\n" {
		t.Errorf("bind: %q %v", data, err)
	}
	if out, code := run(t, r.engine, "cat /etc/mine; ls /anon | wc -l", vol); code != 0 || out != "x\n0\n" {
		t.Errorf("second container: %q, %d", out, code)
	}
	if err := r.engine.core.o.Volumes.Remove(t.Context(), "named", volume.RemoveOptions{}); err != nil {
		t.Error(err)
	}
}

func kernelLogs(t *testing.T, r *real) {
	e := r.engine
	id := create(t, e, "", sh("for i in 1 2 3; do echo l$i; sleep 0.05; done; printf end", net("none"))...)
	read := func(o LogOptions) string {
		l, err := e.Logs(t.Context(), id, o)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for entry, err := range l.Entries(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if entry.Stream == logs.Stdout {
				b.Write(entry.Line)
			}
		}
		return b.String()
	}
	if got := read(LogOptions{Stdout: true, Follow: true, Tail: -1}); got != "" {
		t.Errorf("before the start: %q", got)
	}
	start(t, e, id)
	if got := read(LogOptions{Stdout: true, Follow: true, Tail: -1}); got != "l1\nl2\nl3\nend" {
		t.Errorf("followed: %q", got)
	}
	if got := read(LogOptions{Stdout: true, Tail: 2}); got != "l3\nend" {
		t.Errorf("tail: %q", got)
	}
	at, err := e.Attach(t.Context(), id, AttachOptions{Logs: true, Streams: shim.Streams{Stdout: true}})
	if err != nil {
		t.Fatal(err)
	}
	if got := readFrames(at, 1000); got != "l1\nl2\nl3\nend" {
		t.Errorf("replayed: %q", got)
	}
	_, err = e.Logs(t.Context(), id, LogOptions{})
	wants(t, err, errs.Invalid, "must specify at least one of 'stdout' or 'stderr'")
}

func kernelPolicy(t *testing.T, r *real) {
	e := r.engine
	id := create(t, e, "", sh("echo run; exit 9", net("bridge"), func(r *wire.CreateRequest) {
		r.HostConfig.RestartPolicy = wire.RestartPolicy{Name: "on-failure", MaximumRetryCount: 1}
	})...)
	start(t, e, id)
	for deadline := time.Now().Add(10 * time.Second); status(t, e, id).Status != "exited"; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to rest")
		}
	}
	if w, err := e.Inspect(t.Context(), id, InspectOptions{}); err != nil || w.RestartCount != 1 || w.State.ExitCode != 9 {
		t.Errorf("%+v, %v", w.State, err)
	}
	if err := e.Restart(t.Context(), id, StopOptions{}); err != nil {
		t.Error(err)
	}
	if err := e.Remove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
}

func kernelOOM(t *testing.T, r *real) {
	e := r.engine
	id := create(t, e, "o1", sh("x=a; while :; do x=$x$x$x; done", net("none"), func(r *wire.CreateRequest) {
		r.HostConfig.Memory, r.HostConfig.MemorySwap = 8<<20, 8<<20
	})...)
	next, err := e.Wait(t.Context(), id, "next-exit")
	if err != nil {
		t.Fatal(err)
	}
	start(t, e, id)
	if code := receive(t, next).StatusCode; code != 137 {
		t.Errorf("code %d", code)
	}
	if s := status(t, e, id); !s.OOMKilled {
		t.Errorf("state %+v", s)
	}
}

// kernelAdopt drops the daemon while a container prints, and opens the next:
// no line is missing or doubled, and the container obeys.
func kernelAdopt(ctx context.Context, t *testing.T, r *real) *real {
	id := create(t, r.engine, "counter", sh("i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done", net("bridge"))...)
	ended := create(t, r.engine, "ended", sh("sleep 0.3; exit 3", net("none"))...)
	killed := create(t, r.engine, "killed", sh("sleep 1000", net("none"))...)
	paused := create(t, r.engine, "paused", sh("sleep 1000", net("none"))...)
	for _, id := range []string{id, ended, killed, paused} {
		start(t, r.engine, id)
	}
	if err := r.engine.Pause(t.Context(), paused); err != nil {
		t.Fatal(err)
	}
	victim := r.engine.core.table.byID[killed].running.Client.Pid()
	r.close(t)
	shimPid := parent(t, victim)
	if err := errors.Join(syscall.Kill(shimPid, syscall.SIGKILL), syscall.Kill(victim, syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	r = openReal(ctx, t, r.dir, nil)
	e := r.engine
	if s := status(t, e, "counter"); !s.Running || s.Pid == 0 {
		t.Fatalf("counter: %+v", s)
	}
	if s := status(t, e, "ended"); s.Status != "exited" || s.ExitCode != 3 {
		t.Errorf("ended: %+v", s)
	}
	if s := status(t, e, "killed"); s.Status != "exited" || s.ExitCode != 137 {
		t.Errorf("killed: %+v", s)
	}
	if s := status(t, e, "paused"); !s.Paused {
		t.Errorf("paused: %+v", s)
	}
	if err := e.Unpause(t.Context(), "paused"); err != nil {
		t.Error(err)
	}
	if err := e.Stop(t.Context(), "counter", StopOptions{Signal: "KILL"}); err != nil {
		t.Fatal(err)
	}
	l, err := e.Logs(t.Context(), "counter", LogOptions{Stdout: true, Tail: -1})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for entry, err := range l.Entries(t.Context()) {
		n++
		if err != nil || strings.TrimSpace(string(entry.Line)) != strconv.Itoa(n) {
			t.Fatalf("line %d is %q, %v", n, entry.Line, err)
		}
	}
	if n < 15 { // half a second on a busy machine
		t.Errorf("only %d lines", n)
	}
	return r
}

// parent returns the parent of a process (proc(5)).
func parent(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "\nPPid:")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// points are all places where a daemon can die on the way of a container.
var points = []string{
	"shim", "rootfs", "volumes", "network", "links", "files", "bundle", "process", "start", "teardown", "undo process", "undo network", "undo volumes", "destroy",
}

// kernelCrash kills a daemon at each point of a container's way, and opens the
// next: the container can be removed, and nothing is left.
func kernelCrash(t *testing.T, dir string) {
	for _, point := range points {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKernel$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), envCrash+"="+point)
		out, err := cmd.CombinedOutput()
		var ended *exec.ExitError
		if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s: the daemon did not die there: %v\n%s", point, err, out)
		}
		r := openReal(t.Context(), t, dir, nil)
		if w, err := r.engine.Inspect(t.Context(), "victim", InspectOptions{}); err != nil {
			t.Errorf("%s: %v", point, err)
		} else if w.State.Running {
			t.Errorf("%s: %+v", point, w.State)
		}
		if err := r.engine.Start(t.Context(), "victim"); err != nil {
			t.Errorf("%s: it can't be started again: %v", point, err)
		}
		if err := r.engine.Remove(t.Context(), "victim", RemoveOptions{Force: true, Volumes: true}); err != nil {
			t.Errorf("%s: %v", point, err)
		}
		r.nothingLeft(t)
		r.close(t)
	}
}

// crash is the daemon that dies.
func crash(t *testing.T, dir, point string) {
	armed := false
	r := openReal(t.Context(), t, dir, func(p string) error {
		if armed && p == point {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	})
	create(t, r.engine, "victim", sh("exit 0", net("bridge"), func(r *wire.CreateRequest) { r.Config.Volumes = map[string]struct{}{"/v": {}} })...)
	armed = true
	next, err := r.engine.Wait(t.Context(), "victim", "next-exit")
	if err != nil {
		t.Fatal(err)
	}
	start(t, r.engine, "victim")
	receive(t, next)
	if err := r.engine.Remove(t.Context(), "victim", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Fatal("it lives")
}

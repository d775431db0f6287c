package clients_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestVendorDevices runs containers with devices that a vendor has described:
// nodes, mounts, environment, groups and a hook.
func TestVendorDevices(t *testing.T) {
	keepSubordinate(t)
	dir := t.TempDir()
	did := filepath.Join(dir, "hook-ran")
	script := filepath.Join(dir, "hook")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(script, "#!/bin/sh\ncat > "+did+"\n")
	write(filepath.Join(dir, "data"), "of the vendor\n")
	write(filepath.Join(dir, "vendor.yaml"), `cdiVersion: 0.7.0
kind: vendor.com/thing
containerEdits:
  env: [THINGS=some]
devices:
- name: one
  containerEdits:
    env: [THING=one]
    deviceNodes: [{path: /dev/thing0, hostPath: /dev/null}]
    mounts: [{hostPath: `+dir+`/data, containerPath: /opt/vendor/data, options: [ro]}]
    hooks: [{hookName: createRuntime, path: `+script+`}]
    additionalGids: [4242]
- name: two
  containerEdits: {env: [THING=two]}
`)
	d, s, docker := remapped(t, "--cdi-spec-dir", dir, "--userns-remap", "default")
	const look = "echo $THINGS $THING; echo x > /dev/thing0; stat -c %t:%T /dev/thing0; cat /opt/vendor/data; id -G; echo 2> /dev/null > /opt/vendor/data || echo read-only"
	for _, ns := range []string{"host", ""} {
		for _, cli := range []story{s, docker} {
			os.Remove(did)
			if got, want := cli.ok("run", "--rm", "--userns="+ns, "--device", "vendor.com/thing=one", "busybox", "sh", "-c", look), "some one\n1:3\nof the vendor\n0 4242\nread-only\n"; got != want {
				t.Errorf("userns=%q: %q, want %q", ns, got, want)
			}
			if state, err := os.ReadFile(did); err != nil || !strings.Contains(string(state), `"status":"creating"`) {
				t.Errorf("the hook: %q, %v", state, err)
			}
		}
	}
	if got := s.ok("run", "--rm", "--device", "vendor.com/thing=one", "--device", "vendor.com/thing=two", "--device", "/dev/zero:/dev/z", "busybox", "sh", "-c", "echo $THING; ls /dev/z"); got != "two\n/dev/z\n" {
		t.Errorf("several devices: %q", got)
	}
	s.fails(125, "CDI device injection failed: unresolvable CDI devices vendor.com/thing=three, other.com/x=y", "run", "--rm", "--device", "vendor.com/thing=three", "--device", "other.com/x=y", "busybox", "true")
	s.fails(125, "failed to discover GPU vendor from CDI: no known GPU vendor found", "run", "--rm", "--gpus", "all", "busybox", "true")
	s.fails(125, `could not select device driver "nosuch" with capabilities: [[gpu]]`, "run", "--rm", "--gpus", "driver=nosuch,count=1", "busybox", "true")
	if got := s.ok("info", "--format", "{{.CDISpecDirs}} {{range .DiscoveredDevices}}{{.Source}} {{.ID}};{{end}}"); got != "["+dir+"] cdi vendor.com/thing=one;cdi vendor.com/thing=two;\n" {
		t.Errorf("info: %q", got)
	}
	// What a vendor writes later is there at once, GPUs among it.
	write(filepath.Join(dir, "gpu.json"), `{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[{"name":"0","containerEdits":{"env":["GPU=0"]}},{"name":"1","containerEdits":{"env":["GPU=1"]}},{"name":"all","containerEdits":{"env":["GPU=all"]}}]}`)
	for flag, want := range map[string]string{"all": "all\n", "1": "0\n", "device=1": "1\n", "driver=nvidia,count=2": "1\n"} {
		if got := docker.ok("run", "--rm", "--gpus", flag, "busybox", "sh", "-c", "echo $GPU"); got != want {
			t.Errorf("--gpus %s: %q, want %q", flag, got, want)
		}
	}
	if err := os.Remove(filepath.Join(dir, "vendor.yaml")); err != nil {
		t.Fatal(err)
	}
	s.fails(125, "unresolvable CDI devices", "run", "--rm", "--device", "vendor.com/thing=one", "busybox", "true")
	_ = d
}

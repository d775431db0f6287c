package ocispec_test

import (
	"bufio"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"gantry/internal/ocispec"
	"gantry/internal/ocispec/hostdev"
	"gantry/internal/plan"
	"gantry/internal/seccomp/profile"
	"gantry/internal/wire"
)

// notOurs are parts of errors at start that come from the network, the
// runtime or the user's program.
var notOurs = []string{
	"executable file not found", "error setting rlimits", "failed to set up container networking", "joining network namespace",
	"failed to discover GPU vendor", "could not select device driver", // package cdi
}

// TestRecordedStarts takes what Docker accepted at create and says what its
// start answered: either nothing, or the recorded text must come out here.
func TestRecordedStarts(t *testing.T) {
	f, err := os.Open("../plan/testdata/create.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		var r struct {
			Name       string
			Request    wire.CreateRequest
			Status     int
			StartError string
		}
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil || r.Status != 201 {
			continue
		}
		if slices.ContainsFunc(notOurs, func(s string) bool { return strings.Contains(r.StartError, s) }) {
			continue
		}
		n++
		t.Run(r.Name, func(t *testing.T) {
			err := prepare(t, r.Request)
			switch {
			case r.StartError == "" && err != nil:
				t.Errorf("got %v, want nothing", err)
			case r.StartError != "" && (err == nil || err.Error() != r.StartError):
				t.Errorf("got %v, want %s", err, r.StartError)
			}
		})
	}
	if n < 34 {
		t.Errorf("%d recordings", n)
	}
}

// prepare does what launch does before it touches the kernel.
func prepare(t *testing.T, req wire.CreateRequest) error {
	t.Helper()
	d := plan.Defaults{Kernel: plan.CompleteKernel(2, plan.CgroupV1)}
	d.Kernel.BlkioWeight = false
	img := &plan.Image{}
	img.Config.Cmd = []string{"sh"}
	p, _, err := plan.New(req, img, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Log.Limits(); err != nil {
		return err
	}
	in := ocispec.Inputs{Hostname: p.Hostname(strings.Repeat("a", 64)), Sources: map[string]string{}}
	for _, m := range p.Mounts {
		in.Sources[m.Target] = "/volumes/x"
	}
	passwd, group := strings.NewReader("root:x:0:0:root:/root:/bin/sh\n"), strings.NewReader("root:x:0:\n")
	if in.User, err = ocispec.LookupUser(p.Process.User, passwd, group, p.Process.GroupAdd); err != nil {
		return err
	}
	if in.Devices, err = hostdev.Find(p); err != nil {
		return err
	}
	policy, err := profile.Resolve(profile.Options{Source: p.Security.Seccomp, Caps: p.Security.Capabilities(0)})
	if err != nil {
		return err
	}
	in.Seccomp = policy.Spec
	_, err = ocispec.Render(p, in)
	return err
}

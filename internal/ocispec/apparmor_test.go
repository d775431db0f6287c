package ocispec

import (
	"testing"

	"gantry/internal/plan"
	"gantry/internal/wire"
)

// TestAppArmorProfile: what a container asks for is never forgotten on a host
// that has AppArmor, and the runtime fails if it can't be set.
func TestAppArmorProfile(t *testing.T) {
	for _, c := range []struct{ host, request, want, exec string }{
		{"", `{}`, "", ""},
		{"", `{"SecurityOpt":["apparmor=mine"]}`, "", ""},
		{"docker-default", `{}`, "docker-default", "unconfined"},
		{"docker-default", `{"SecurityOpt":["apparmor=mine"]}`, "mine", "unconfined"},
		{"docker-default", `{"SecurityOpt":["apparmor=unconfined"]}`, "unconfined", "unconfined"},
		{"docker-default", `{"Privileged":true}`, "unconfined", "unconfined"},
		{"docker-default", `{"Privileged":true,"SecurityOpt":["apparmor=mine"]}`, "mine", "unconfined"},
		{"unconfined", `{}`, "unconfined", "unconfined"},
		{"unconfined", `{"SecurityOpt":["apparmor=mine"]}`, "mine", "unconfined"},
	} {
		p := planOf(t, `{"HostConfig":`+c.request+`}`, host(plan.CgroupV1))
		in := inputs(p)
		in.AppArmor = c.host
		s, err := Render(p, in)
		if err != nil || s.Process.ApparmorProfile != c.want {
			t.Errorf("%q, %s: got %q, %v; want %q", c.host, c.request, s.Process.ApparmorProfile, err, c.want)
		}
		for privileged, want := range map[bool]string{false: c.want, true: c.exec} {
			e, err := plan.Exec(wire.ExecCreate{Cmd: []string{"x"}, Privileged: privileged}, p, "h")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := Process(p, e, in); err != nil || got.ApparmorProfile != want {
				t.Errorf("exec, privileged %v, %q, %s: got %q, %v; want %q", privileged, c.host, c.request, got.ApparmorProfile, err, want)
			}
		}
	}
}

package hostinfo

import (
	"testing"

	"gantry/internal/cgroup"
)

func TestParse(t *testing.T) {
	p, v := osRelease("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID='12'\n")
	if p != "Debian GNU/Linux 12 (bookworm)" || v != "12" {
		t.Errorf("%q %q", p, v)
	}
	if n := memTotal("MemTotal:        8034088 kB\nMemFree: 1 kB\n"); n != 8034088<<10 {
		t.Error(n)
	}
	if memTotal("") != 0 {
		t.Error("no memory")
	}
}

func TestThisHost(t *testing.T) {
	h := Read()
	if h.Kernel == "" || h.Architecture == "" || h.CPUs < 1 || h.Memory < 1<<20 || h.OS == "" {
		t.Errorf("%+v", h)
	}
	if OpenFiles() < 3 {
		t.Error("open files")
	}
}

func TestKernel(t *testing.T) {
	cg, err := cgroup.Detect()
	if err != nil {
		t.Skip(err)
	}
	k := Kernel(cg)
	if k.NCPU < 1 || k.LastCap < 30 || k.CgroupV2 != (cg.Mode == cgroup.V2) {
		t.Errorf("%+v", k)
	}
	none := Kernel(&cgroup.Host{V1: map[string]string{}})
	if none.MemoryLimit || none.CPUCfs || none.PidsLimit {
		t.Errorf("limits without control groups: %+v", none)
	}
}

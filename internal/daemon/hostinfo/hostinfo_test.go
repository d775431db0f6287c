package hostinfo

import "testing"

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

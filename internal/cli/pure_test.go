package cli

import (
	"archive/tar"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
)

func TestTimes(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for in, want := range map[string]string{
		"10m": "1767322445.000000006", "0": "0", "100": "100", "1.5": "1.5", "2026-01-02T03:04:05Z": "1767323045.000000000",
		"2026-01-02T03:04:05.123456789+01:00": "1767319445.123456789", "2026-01-02": "1767312000.000000000", "2026-01-02T03:04": "1767323040.000000000",
	} {
		if got, err := apiTime(in, now); got != want || err != nil {
			t.Errorf("%s: got %s, %v", in, got, err)
		}
	}
	if _, err := apiTime("yesterday", now); err == nil {
		t.Error("yesterday is no time")
	}
}

func TestBuildContext(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"Dockerfile", "keep.go", "a.log", "sub/b.log", "sub/c.go", "node/x/y", "node/keep/z", "other/Dockerfile"} {
		p := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	send := func(ignore string, o buildOptions) (string, string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte(ignore), 0o644); err != nil {
			t.Fatal(err)
		}
		q := url.Values{}
		r, err := openContext(&App{}, dir, &o, q)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		var names []string
		tr := tar.NewReader(r)
		for {
			h, err := tr.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeReg {
				names = append(names, h.Name)
			}
		}
		sort.Strings(names)
		return strings.Join(names, " "), q.Get("dockerfile")
	}
	for _, c := range []struct {
		ignore, file, want, dockerfile string
	}{
		{"", "", ".dockerignore Dockerfile a.log keep.go node/keep/z node/x/y other/Dockerfile sub/b.log sub/c.go", "Dockerfile"},
		{"# c\n*.log\nnode\n", "", ".dockerignore Dockerfile keep.go other/Dockerfile sub/b.log sub/c.go", "Dockerfile"},
		{"**/*.log\n/node/x\nother\n", "", ".dockerignore Dockerfile keep.go node/keep/z sub/c.go", "Dockerfile"},
		{"node\n!node/keep\n*.log\n", "", ".dockerignore Dockerfile keep.go node/keep/z other/Dockerfile sub/b.log sub/c.go", "Dockerfile"},
		{"*\n!keep.go", "other/Dockerfile", ".dockerignore keep.go other/Dockerfile", "other/Dockerfile"},
	} {
		o := buildOptions{}
		if c.file != "" {
			o.file = filepath.Join(dir, c.file)
		}
		if got, df := send(c.ignore, o); got != c.want || df != c.dockerfile {
			t.Errorf("%q: sent %s with %s", c.ignore, got, df)
		}
	}
	if _, err := openContext(&App{}, dir, &buildOptions{file: "/etc/hostname"}, url.Values{}); err == nil || !strings.Contains(err.Error(), "must be within the build context") {
		t.Errorf("got %v", err)
	}
}

func TestIsArchive(t *testing.T) {
	var b strings.Builder
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if !isArchive([]byte(b.String())) || !isArchive([]byte("\x1f\x8b\x08")) || isArchive([]byte("FROM busybox\n")) || isArchive(nil) {
		t.Error("tars and compressed data are archives, a Dockerfile is none")
	}
}

func TestSplitCp(t *testing.T) {
	for in, want := range map[string][2]string{"c:/p": {"c", "/p"}, "/a:b": {"", "/a:b"}, "./a:b": {"", "./a:b"}, "file": {"", "file"}, "c:": {"c", ""}, "-": {"", "-"}} {
		if c, p := splitCp(in); c != want[0] || p != want[1] {
			t.Errorf("%s: %q %q", in, c, p)
		}
	}
}

func TestNetworkPools(t *testing.T) {
	o := networkOptions{subnets: []string{"10.5.0.0/24", "fd00::/64"}, gateways: []string{"fd00::1", "10.5.0.1"}, ranges: []string{"10.5.0.128/25"}}
	o.aux.Values = map[string]string{"host": "10.5.0.9"}
	p, err := o.pools()
	if err != nil || p[0].Gateway != "10.5.0.1" || p[1].Gateway != "fd00::1" || p[0].IPRange != "10.5.0.128/25" || p[0].AuxAddress["host"] != "10.5.0.9" {
		t.Errorf("got %+v, %v", p, err)
	}
	for want, o := range map[string]networkOptions{
		"every ip-range or gateway must have a corresponding subnet":                     {gateways: []string{"10.0.0.1"}},
		"no matching subnet for gateway 10.0.0.1":                                        {subnets: []string{"10.5.0.0/24"}, gateways: []string{"10.0.0.1"}},
		"multiple overlapping subnet configuration is not supported":                     {subnets: []string{"10.5.0.0/24", "10.5.0.0/16"}},
		"cannot configure multiple gateways (10.5.0.2) on the same subnet (10.5.0.0/24)": {subnets: []string{"10.5.0.0/24", "10.6.0.0/24"}, gateways: []string{"10.5.0.1", "10.5.0.2"}},
	} {
		if _, err := o.pools(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"ps", "ps", 0}, {"strat", "start", 1}, {"imagse", "images", 1}, {"", "abc", 3}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%s to %s: %d", c.a, c.b, got)
		}
	}
	if got := similar("zzzzzz", topNames()); got != nil {
		t.Errorf("nothing is like zzzzzz: %v", got)
	}
}

package ref

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for in, want := range map[string][3]string{ // repository, familiar with tail, tagged
		"busybox":                     {"docker.io/library/busybox", "busybox", "busybox:latest"},
		"busybox:1.36":                {"docker.io/library/busybox", "busybox:1.36", "busybox:1.36"},
		"a/b":                         {"docker.io/a/b", "a/b", "a/b:latest"},
		"library/x":                   {"docker.io/library/x", "x", "x:latest"},
		"docker.io/x":                 {"docker.io/library/x", "x", "x:latest"},
		"index.docker.io/a/x":         {"docker.io/a/x", "a/x", "a/x:latest"},
		"localhost/x":                 {"localhost/x", "localhost/x", "localhost/x:latest"},
		"host:5000/x/y:t":             {"host:5000/x/y", "host:5000/x/y:t", "host:5000/x/y:t"},
		"reg.io/a__b.c-d/e@" + digest: {"reg.io/a__b.c-d/e", "reg.io/a__b.c-d/e@" + digest, "reg.io/a__b.c-d/e@" + digest},
		"x:t@" + digest:               {"docker.io/library/x", "x:t@" + digest, "x:t@" + digest},
		"[::1]:5000/x":                {"[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x:latest"},
		"library/a/b":                 {"docker.io/library/a/b", "library/a/b", "library/a/b:latest"},
	} {
		n, err := Parse(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := [3]string{n.Repository(), n.String(), n.Tagged().String()}; got != want {
			t.Errorf("%s: got %q", in, got)
		}
	}
}

func TestRefused(t *testing.T) {
	const format = "invalid reference format"
	for in, want := range map[string]string{
		"BAD":                           "invalid reference format: repository name (library/BAD) must be lowercase",
		"BAD:NAME":                      "invalid reference format: repository name (library/BAD) must be lowercase",
		"":                              format,
		"a//b":                          format,
		"a:":                            format,
		"a:b:c":                         format,
		"-a":                            format,
		"a_":                            format,
		"a___b":                         format,
		"a..b":                          format,
		"a@sha256:12":                   format,
		"a@md5:12":                      format,
		"x:" + strings.Repeat("t", 129): format,
		"-h.io/x":                       format,
		"h:port/x":                      format,
		strings.Repeat("a", 64):         "invalid repository name (" + strings.Repeat("a", 64) + "), cannot specify 64-byte hexadecimal strings",
		strings.Repeat("g", 260):        "repository name must not be more than 255 characters",
	} {
		n, err := Parse(in)
		if err == nil || err.Error() != want {
			t.Errorf("%q: got %v, %v", in, n, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"busybox", "a/b:c@sha256:" + strings.Repeat("0", 64), "[::1]:5/x", "A:b", "/", "@", ":"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(n.Repository() + strings.TrimPrefix(n.String(), n.Familiar()))
		if err != nil || again != n {
			t.Errorf("%q is %+v, and written in full %+v, %v", s, n, again, err)
		}
	})
}

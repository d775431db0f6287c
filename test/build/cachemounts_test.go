package build_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"gantry/internal/testkit"
	"gantry/internal/testkit/registry"
)

// TestCacheMountsTravel takes the cache mounts of one daemon to another by way of
// a registry.
func TestCacheMountsTravel(t *testing.T) {
	d, other := testkit.StartBusybox(t), testkit.StartBusybox(t, "--bridge", "none")
	reg := registry.New(t, registry.Options{Auth: registry.Basic, User: "user", Password: "secret"})
	image := reg.Host + "/team/mounts:1"
	dockerfile := "FROM busybox\nARG N=1\nRUN --network=none --mount=type=cache,target=/c --mount=type=cache,id=named,target=/n --mount=type=cache,target=/u,uid=7 " +
		"cat /c/f /n/d/f 2>/dev/null; ls -ln /c/f; readlink /c/link; echo kept-$N >/c/f; chown 5:6 /c/f; chmod 640 /c/f; ln -sf /etc/passwd /c/link; mkdir -p /n/d; echo other-$N >/n/d/f\n"
	c, there := newCLI(t, d, map[string]string{"Dockerfile": dockerfile}), newCLI(t, other, map[string]string{"Dockerfile": dockerfile})
	if _, errs, code := c.run("", "builder", "cache", "export", image); code == 0 || !strings.Contains(errs, "no cache mounts here") {
		t.Errorf("%d: %s", code, errs)
	}
	c.ok("build", ".")
	list, _ := c.ok("builder", "cache", "ls", "--format", "{{.ID}}")
	if list != "/c\n/u\nnamed\n" {
		t.Errorf("there are %q", list)
	}
	for _, x := range []*cliCase{c, there} {
		if _, errs, code := x.run("secret", "login", "-u", "user", "--password-stdin", reg.Host); code != 0 {
			t.Fatal(errs)
		}
	}
	// A mount that begins with other files stays, and that is said.
	out, errs := c.ok("builder", "cache", "export", "--push", image)
	c.has(out, "/c: exported", "named: exported")
	c.has(errs, "/u: not exported: it begins with other files")
	if _, errs, code := c.run("", "builder", "cache", "export", "--id", "/u", image); code != 1 || !strings.Contains(errs, `cache mount "/u" can't be exported: it begins with other files`) {
		t.Errorf("%d: %s", code, errs)
	}
	if _, _, ok := reg.Manifest("team/mounts", "1"); !ok {
		t.Error("nothing was pushed")
	}
	out, _ = there.ok("buildx", "cache", "import", image)
	there.has(out, "/c: imported", "named: imported")
	_, said := there.ok("build", "--progress=plain", "--build-arg", "N=2", ".")
	there.has(said, " kept-1\n", " other-1\n", " /etc/passwd\n", "-rw-r-----    1 5        6 ")
	// An import replaces, and only what is named.
	there.ok("builder", "cache", "import", "--pull", "--id", "named", image)
	_, said = there.ok("build", "--progress=plain", "--build-arg", "N=3", ".")
	there.has(said, " kept-2\n", " other-1\n")
	for want, args := range map[string][]string{
		`no cache mount "nosuch" in `:  {"import", "--id", "nosuch", image},
		"no cache mounts in ":          {"import", "busybox"},
		`no cache mount "nosuch" here`: {"export", "--id", "nosuch", "x"},
		"invalid reference format":     {"export", "X X"},
		"requires 1 argument":          {"export"},
	} {
		if _, errs, code := there.run("", append([]string{"builder", "cache"}, args...)...); code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%v: %d %s", args, code, errs)
		}
	}
	// The image keeps what it consists of, and a prune takes the mounts.
	c.ok("builder", "prune", "-f", "-a")
	if list, _ := c.ok("builder", "cache", "ls", "--format", "{{.ID}}"); list != "" {
		t.Errorf("after a prune there are %q", list)
	}
	c.ok("builder", "cache", "import", image)
	_, said = c.ok("build", "--progress=plain", "--build-arg", "N=4", ".")
	c.has(said, " kept-1\n", " other-1\n")
	c.ok("rmi", image)
}

// TestCacheGoesAndComes has every type of cache export tell a daemon that built
// nothing what another one did, or be refused.
func TestCacheGoesAndComes(t *testing.T) {
	d, other := testkit.StartBusybox(t), testkit.StartBusybox(t, "--bridge", "none")
	reg := registry.New(t, registry.Options{})
	files := map[string]string{"f": "1", "Dockerfile": "FROM busybox AS first\nRUN --network=none echo in the first stage; echo 1 >/1\nFROM busybox\nCOPY f /\nRUN --network=none echo in the last stage; echo 2 >/2\nCOPY --from=first /1 /\n"}
	c, there := newCLI(t, d, files), newCLI(t, other, files)
	there.dir = c.dir
	c.ok("build", "--push", "-t", reg.Host+"/c/inline:1", "--cache-to", "type=inline", ".")
	c.ok("build", "--cache-to", "type=registry,mode=max,ref="+reg.Host+"/c/registry", ".")
	c.ok("build", "--cache-to", "type=local,mode=max,dest=local", ".")
	c.ok("build", "--push", "-t", reg.Host+"/c/arg:1", "--build-arg", "BUILDKIT_INLINE_CACHE=1", ".")
	for _, from := range []string{"type=registry,ref=" + reg.Host + "/c/registry", reg.Host + "/c/registry", "type=local,src=local", reg.Host + "/c/inline:1", reg.Host + "/c/arg:1"} {
		there.ok("builder", "prune", "-f", "-a")
		_, said := there.ok("build", "--progress=plain", "-t", "there", "--cache-from", from, ".")
		if regexp.MustCompile(`(?m)^#\d+ [0-9.]+ in the (first|last) stage$`).MatchString(said) {
			t.Errorf("from %s:\n%s", from, said)
		}
		// Layers that no step needed have come too.
		if got := other.OK(t, "run", "--rm", "--network", "none", "there", "cat", "/1", "/2", "/f"); got != "1\n2\n1" {
			t.Errorf("from %s: the image says %q", from, got)
		}
		there.ok("rmi", "-f", "there")
	}
	for _, kind := range []string{"s3,bucket=b,region=r", "gha", "azblob,name=n", "nosuch"} {
		for _, flag := range []string{"--cache-to", "--cache-from"} {
			name, _, _ := strings.Cut(kind, ",")
			if _, errs, code := c.run("", "build", flag, "type="+kind, "."); code != 1 || !strings.Contains(errs, "type "+name+" is not supported by this builder") {
				t.Errorf("%s type=%s: %d %s", flag, kind, code, errs)
			}
		}
	}
	if _, errs, code := c.run("", "build", "--cache-from", "type=inline", "."); code != 1 || !strings.Contains(errs, "type=registry") {
		t.Errorf("%d %s", code, errs)
	}
	if _, errs, code := c.run("", "build", "--cache-to", "type=local", "."); code != 1 || !strings.Contains(errs, "dest") {
		t.Errorf("%d %s", code, errs)
	}
	// Nothing there yet: the build goes on.
	c.ok("build", "--cache-from", "type=registry,ref="+reg.Host+"/c/nosuch", ".")
}

// TestCacheMountsAreKeptWhileTheyAreMeasured builds while others ask how large the
// cache is: a mount whose files are counted right then is the same mount.
func TestCacheMountsAreKeptWhileTheyAreMeasured(t *testing.T) {
	d := testkit.StartBusybox(t, "--bridge", "none")
	c := newCLI(t, d, map[string]string{"Dockerfile": "FROM busybox\nARG N\nRUN --network=none --mount=type=cache,target=/c cd /c && if [ $N = 0 ]; then seq 3000 | xargs touch; fi && touch n$N && echo there are $(ls | wc -l)\n"})
	c.ok("build", "--build-arg", "N=0", ".")
	for n := 1; n <= 2; n++ {
		ctx, stop := context.WithCancel(t.Context())
		asked := make(chan error, 1)
		go func() {
			for ctx.Err() == nil {
				if _, err := d.Gantry("builder", "du"); err != nil {
					asked <- err
					return
				}
			}
			asked <- nil
		}()
		_, said := c.ok("build", "--progress=plain", "--build-arg", fmt.Sprint("N=", n), ".")
		stop()
		must(t, <-asked)
		c.has(said, fmt.Sprint("there are ", 3001+n))
	}
}

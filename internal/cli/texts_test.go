package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the docker CLI answered before it asked a daemon, word for word.
func TestRecordedRefusals(t *testing.T) {
	const runUsage = "\n\nUsage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'docker run --help' for more information\n"
	const runHelp = "\n\nRun 'docker run --help' for more information\n"
	for _, c := range []struct {
		args, err string
		code      int
	}{
		{"run --rm -p 99999:80 busybox true", "docker: invalid hostPort: 99999" + runHelp, 125},
		{"run --rm -p abc busybox true", "docker: invalid containerPort: abc" + runHelp, 125},
		{"run --rm -m abc busybox true", `invalid argument "abc" for "-m, --memory" flag: invalid size: 'abc'` + runUsage, 125},
		{"run --rm --cpus x busybox true", `invalid argument "x" for "--cpus" flag: failed to parse x as a rational number` + runUsage, 125},
		{"run --rm --restart always busybox true", "docker: conflicting options: cannot specify both --restart and --rm" + runHelp, 125},
		{"run --rm -e = busybox true", `invalid argument "=" for "-e, --env" flag: invalid environment variable: =` + runUsage, 125},
		{"run --rm --mount typ=bind busybox true", `invalid argument "typ=bind" for "--mount" flag: unexpected key 'typ' in 'typ=bind'` + runUsage, 125},
		{"run --rm --security-opt bogus busybox true", `docker: Invalid --security-opt: "bogus"` + runHelp, 125},
		{"run --rm --security-opt seccomp=/nonexistent busybox true", "docker: opening seccomp profile (/nonexistent) failed: open /nonexistent: no such file or directory" + runHelp, 125},
		{"run --rm --ulimit bogus=1 busybox true", `invalid argument "bogus=1" for "--ulimit" flag: invalid ulimit type: bogus` + runUsage, 125},
		{"run --rm --sysctl bogus=1 busybox true", `invalid argument "bogus=1" for "--sysctl" flag: sysctl 'bogus=1' is not allowed` + runUsage, 125},
		{"run -d -a stdout busybox true", "conflicting options: cannot specify both --attach and --detach\n", 1},
		{"run --rm -it busybox true", "the input device is not a TTY\n", 1},
		{"run --bogus busybox true", "unknown flag: --bogus" + runUsage, 125},
		{"run", "docker: 'docker run' requires at least 1 argument\n\nUsage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nSee 'docker run --help' for more information\n", 1},
		{"run --rm --env-file nofile busybox env", "docker: open nofile: no such file or directory" + runHelp, 125},
		{"tag img:1 BAD:NAME", "Error parsing reference: \"BAD:NAME\" is not a valid repository/tag: invalid reference format: repository name (library/BAD) must be lowercase\n", 1},
		{"pull BAD", "invalid reference format: repository name (library/BAD) must be lowercase\n", 1},
		{"load -i nofile", "open nofile: no such file or directory\n", 1},
		{"import nofile", "open nofile: no such file or directory\n", 1},
		{"cp cc:/d nosuch:/d", "copying between containers is not supported\n", 1},
		{"cp f f2", "must specify at least one container source\n", 1},
		{"network create --subnet 10.5.0.0/24 --gateway 10.5.0.1 -l a=b n2", "unknown shorthand flag: 'l' in -l\n\nUsage:  docker network create [OPTIONS] NETWORK\n\nRun 'docker network create --help' for more information\n", 125},
		{"volume create -l x=y v3", "unknown shorthand flag: 'l' in -l\n\nUsage:  docker volume create [OPTIONS] [VOLUME]\n\nRun 'docker volume create --help' for more information\n", 125},
		{"bogus", "docker: unknown command: docker bogus\n\nRun 'docker --help' for more information\n", 1},
		{"container bogus", "docker: unknown command: docker container bogus\n\nUsage:  docker container\n\nRun 'docker container --help' for more information\n", 1},
		{"ps --bogus", "unknown flag: --bogus\n\nUsage:  docker ps [OPTIONS]\n\nRun 'docker ps --help' for more information\n", 125},
		{"rm", "docker: 'docker rm' requires at least 1 argument\n\nUsage:  docker rm [OPTIONS] CONTAINER [CONTAINER...]\n\nSee 'docker rm --help' for more information\n", 1},
		{"-H unix:///nonexistent.sock ps", "Cannot connect to the Docker daemon at unix:///nonexistent.sock. Is the docker daemon running?\n", 1},
		{"-H tcp://127.0.0.1:1 ps", "Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker daemon running?\n", 1},
		{"-H bogus://x ps", "Failed to initialize: unable to resolve docker endpoint: invalid bind address format: bogus://x\n", 1},
		{"build nodir", "unable to prepare context: path \"nodir\" not found\n", 1},
		// Beyond the recordings: what was probably meant.
		{"imagse", "docker: unknown command: docker imagse\n\nDid you mean one of these?\n  image\n  images\n\nRun 'docker --help' for more information\n", 1},
		{"container strat x", "docker: unknown command: docker container strat\n\nDid you mean this?\n  start\n\nUsage:  docker container\n\nRun 'docker container --help' for more information\n", 1},
		{"ps x", "docker: 'docker ps' accepts no arguments\n\nUsage:  docker ps [OPTIONS]\n\nRun 'docker ps --help' for more information\n", 1},
		{"network connect a", "docker: 'docker network connect' requires 2 arguments\n\nUsage:  docker network connect [OPTIONS] NETWORK CONTAINER\n\nRun 'docker network connect --help' for more information\n", 1},
	} {
		f := newFake(t)
		r := run(t, f.host, "", strings.Fields(c.args)...)
		if r.err != c.err || r.code != c.code || r.out != "" {
			t.Errorf("%s: got %+v\nwant %q, %d", c.args, r, c.err, c.code)
		}
		if s := f.seen(); s != "" {
			t.Errorf("%s: asked the daemon %s", c.args, s)
		}
	}
}

func TestTheProgramHasTheNameItIsCalledBy(t *testing.T) {
	for argv0, want := range map[string]string{"/usr/bin/docker": "docker", "gantry": "gantry", "/x/docker-28": "docker", "./g": "gantry"} {
		if got := programName(argv0); got != want {
			t.Errorf("%s is %s", argv0, got)
		}
	}
}

func TestHelp(t *testing.T) {
	r := run(t, "unix:///x", "", "ps", "--help")
	if !strings.HasPrefix(r.out, "Usage:  docker ps [OPTIONS]\n\nList containers\n\nAliases:\n  docker container ls, docker container list, docker container ps, docker ps\n\nOptions:\n  -a, --all             Show all containers (default shows just running)\n") || r.code != 0 {
		t.Errorf("got %+v", r)
	}
	for _, args := range []string{"", "help", "--help"} {
		r := run(t, "unix:///x", "", strings.Fields(args)...)
		if args == "" {
			r.out, r.err = r.err, r.out
		}
		if !strings.HasPrefix(r.out, "Usage:  docker [OPTIONS] COMMAND\n\nA self-sufficient runtime for containers\n\nCommon Commands:\n  run         Create and run a new container from an image\n") || r.code != 0 {
			t.Errorf("%q: got %+v", args, r)
		}
	}
	if a, b := run(t, "unix:///x", "", "help", "run"), run(t, "unix:///x", "", "run", "--help"); a != b || !strings.Contains(a.out, "-h, --hostname string") {
		t.Error("help run and run --help differ")
	}
	if r := run(t, "unix:///x", "", "container"); r.out != "" || !strings.HasPrefix(r.err, "Usage:  docker container COMMAND\n\nManage containers\n\nCommands:\n  attach      Attach local") {
		t.Errorf("got %+v", r)
	}
}

func TestEveryCommandHasHelpAndItsOwnName(t *testing.T) {
	for _, e := range entries() {
		paths := [][]string{}
		if e.group != "" {
			paths = append(paths, []string{e.group, e.name})
			for _, alias := range e.aliases {
				paths = append(paths, []string{e.group, alias})
			}
		}
		if e.top != "" {
			paths = append(paths, []string{e.top})
		}
		for _, p := range paths {
			r := run(t, "unix:///nonexistent", "", append(p, "--help")...)
			if r.code != 0 || !strings.HasPrefix(r.out, "Usage:  docker "+p[0]) {
				t.Errorf("%v: got %+v", p, r)
			}
		}
	}
}

func TestContexts(t *testing.T) {
	home := t.TempDir()
	t.Setenv("TEST_HOME", home)
	t.Setenv("HOME", home)
	t.Setenv("DOCKER_CONFIG", filepath.Join(home, ".docker"))
	const warn = "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.\n"
	id := "d0f631ca1ddba8db3bcfcb9e057cdc98d0379f1bee00e75a545147a27dadd982" // SHA-256 of c1
	for _, c := range []struct {
		args string
		want result
	}{
		{"context ls", result{"NAME        DESCRIPTION                               DOCKER ENDPOINT    ERROR\ndefault *   Current DOCKER_HOST based configuration   unix:///d.sock     \n", warn, 0}},
		{"context create c1 --docker host=unix:///x.sock", result{"c1\n", "Successfully created context \"c1\"\n", 0}},
		{"context create c1 --docker host=unix:///x.sock", result{"", "context \"c1\" already exists\n", 1}},
		{"context inspect c1", result{`[
    {
        "Name": "c1",
        "Metadata": {},
        "Endpoints": {
            "docker": {
                "Host": "unix:///x.sock",
                "SkipTLSVerify": false
            }
        },
        "TLSMaterial": {},
        "Storage": {
            "MetadataPath": "` + home + `/.docker/contexts/meta/` + id + `",
            "TLSPath": "` + home + `/.docker/contexts/tls/` + id + `"
        }
    }
]
`, "", 0}},
		{"context use nosuch", result{"", "context \"nosuch\": context not found: open " + home + "/.docker/contexts/meta/", 1}},
		{"--context c1 ps", result{"", "Cannot connect to the Docker daemon at unix:///x.sock. Is the docker daemon running?\n", 1}},
		{"--context nosuch ps", result{"", "Failed to initialize: unable to resolve docker endpoint: context \"nosuch\": context not found", 1}},
		{"--context c1 -H unix:///x ps", result{"", "Failed to initialize: conflicting options: cannot specify both --host and --context\n", 1}},
		{"context show", result{"default\n", "", 0}},
		{"--context c1 context show", result{"c1\n", "", 0}},
		{"context update c1 --description d", result{"c1\n", "Successfully updated context \"c1\"\n", 0}},
		{"context ls --format {{.Name}}|{{.Description}}|{{.Current}}", result{"c1|d|false\ndefault|Current DOCKER_HOST based configuration|true\n", warn, 0}},
		{"context export c1 " + home + "/c1.tar", result{"", "Written file \"" + home + "/c1.tar\"\n", 0}},
		{"context import c2 " + home + "/c1.tar", result{"c2\n", "Successfully imported context \"c2\"\n", 0}},
		{"context inspect -f {{.Endpoints.docker.Host}} c2", result{"unix:///x.sock\n", "", 0}},
		{"context rm c1", result{"c1\n", "", 0}},
		{"context rm c1", result{"", "context \"c1\": context not found", 1}},
		{"context rm default", result{"", "context \"default\" cannot be removed\n", 1}},
		{"context create default --docker host=unix:///x", result{"", "\"default\" is a reserved context name\n", 1}},
		{"context create ../x --docker host=unix:///x", result{"", "context name \"../x\" is invalid", 1}},
		{"context create c3 --docker bogus=1", result{"", "unable to create docker endpoint config: unrecognized config key: bogus\n", 1}},
	} {
		r := run(t, "unix:///d.sock", "", strings.Fields(c.args)...)
		same := r.err == c.want.err || c.want.err != "" && !strings.HasSuffix(c.want.err, "\n") && strings.HasPrefix(r.err, c.want.err)
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
		if squeeze(r.out) != squeeze(c.want.out) || !same || r.code != c.want.code {
			t.Errorf("%s: got %+v", c.args, r)
		}
	}
	fi, err := os.Stat(filepath.Join(home, ".docker/contexts/meta"))
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the store is for its owner alone: %v, %v", fi.Mode(), err)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := run(t, "unix:///x", "", "completion", shell); r.code != 0 || !strings.Contains(r.out, "__complete") || !strings.Contains(r.out, "docker") {
			t.Errorf("%s: exit %d, %d bytes, %s", shell, r.code, len(r.out), r.err)
		}
	}
	if r := run(t, "unix:///x", "", "__complete", "conta"); !strings.HasPrefix(r.out, "container\tManage containers\n") {
		t.Errorf("got %+v", r)
	}
	if r := run(t, "unix:///x", "", "__complete", "run", "--net"); !strings.HasPrefix(r.out, "--net-rate") {
		t.Errorf("got %+v", r)
	}
}

func TestPlugins(t *testing.T) {
	dir := t.TempDir()
	plugins := filepath.Join(dir, "cli-plugins")
	if err := os.Mkdir(plugins, 0o700); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nif [ \"$1\" = docker-cli-plugin-metadata ]; then echo '{\"SchemaVersion\":\"0.1.0\",\"Vendor\":\"v\",\"ShortDescription\":\"does things\"}'; exit; fi\necho \"$DOCKER_HOST: $*\"; exit 5\n"
	if err := os.WriteFile(filepath.Join(plugins, "docker-thing"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(plugins, "docker-broken"), []byte("#!/bin/sh\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if r := run(t, "unix:///p.sock", "", "--config", dir, "thing", "up", "-d"); r != (result{"unix:///p.sock: --config " + dir + " thing up -d\n", "", 5}) {
		t.Errorf("got %+v", r)
	}
	r := run(t, "unix:///p.sock", "", "--config", dir, "help")
	if !strings.Contains(r.out, "Plugin Commands:\n  thing       does things\n") || strings.Contains(r.out, "broken") {
		t.Errorf("got %s", r.out)
	}
}

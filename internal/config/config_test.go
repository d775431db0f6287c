package config

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/internal/errs"
)

func load(t *testing.T, file string, args ...string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := Load(append([]string{"--config-file", path}, args...))
	if err != nil && !errs.Is(err, errs.Invalid) {
		t.Errorf("%v is not errs.Invalid", err)
	}
	return c, err
}

func TestLoad(t *testing.T) {
	c, err := load(t, `{"log-driver":"json-file","log-opts":{"max-size":"1m"},"default-shm-size":"8m","labels":["a=b"],
		"runtimes":{"crun":{"path":"/usr/bin/crun","runtimeArgs":["-x"]}},"default-ulimits":{"nofile":{"Name":"nofile","Hard":20,"Soft":10}},
		"default-address-pools":[{"base":"10.9.0.0/16","size":24}],"dns":["10.0.0.1"],"icc":false}`,
		"-D", "--bip=10.7.0.1/16", "-Hunix:///x.sock", "-H", "fd://", "--add-runtime", "runc=/usr/bin/runc", "--default-runtime", "crun",
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--data-root", "/a", "--exec-root=/b")
	if err != nil {
		t.Fatal(err)
	}
	if c.LogOpts["max-size"] != "1m" || c.ShmSize != 8<<20 || c.Runtimes["crun"].Args[0] != "-x" || c.Runtimes["runc"].Path != "/usr/bin/runc" {
		t.Errorf("%+v", c)
	}
	if c.Ulimits["nofile"].Hard != 20 || c.Pools[0].Size != 24 || c.DNS[0].String() != "10.0.0.1" || c.ICC {
		t.Errorf("%+v", c)
	}
	if !slices.Equal(c.Hosts, []string{"unix:///x.sock", "fd://"}) || c.BIP.String() != "10.7.0.1/16" || c.LogLevel != "debug" {
		t.Errorf("%+v", c)
	}
	if len(c.Instance) != 8 || c.Bridge != "gantry-"+c.Instance || len(c.Bridge) > 15 {
		t.Errorf("instance %q, bridge %q", c.Instance, c.Bridge)
	}
}

func TestDefaults(t *testing.T) {
	c, err := load(t, " ")
	if err != nil {
		t.Fatal(err)
	}
	if c.Instance != "" || c.Bridge != "gantry0" || c.Hosts[0] != "unix:///run/gantry/gantry.sock" || c.Root != "/var/lib/gantry" || len(c.Warnings) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestErrors(t *testing.T) {
	for _, x := range []struct {
		file string
		args []string
		want string
	}{
		{`{"bogus":1,"also":2}`, nil, "the following directives don't match any configuration option: also, bogus"},
		{`{"debug":true}`, []string{"-D"}, "the following directives are specified both as a flag and in the configuration file: debug: (from flag: true, from file: true)"},
		{`{"hosts":["tcp://x"]}`, []string{"-H", "unix://"}, `hosts: (from flag: unix://, from file: ["tcp://x"])`},
		{`{`, nil, "unexpected end of JSON input"},
		{`{"mtu":"x"}`, nil, "mtu: json: cannot unmarshal string"},
		{``, []string{"--bogus"}, "unknown flag: --bogus"},
		{``, []string{"-x"}, "unknown shorthand flag: 'x' in -x"},
		{``, []string{"--mtu"}, "flag needs an argument: --mtu"},
		{``, []string{"extra"}, "accepts no arguments"},
		{``, []string{"--mtu=x"}, `invalid argument "x" for "--mtu" flag`},
		{``, []string{"-H", "tcp://0.0.0.0:2375"}, "refusing to listen on TCP"},
		{``, []string{"-H", "tcp://0.0.0.0:2376", "--tlsverify"}, "--tlsverify needs --"},
		{``, []string{"-H", "ftp://x"}, `unsupported proto "ftp"`},
		{``, []string{"--log-level", "loud"}, "invalid logging level: loud"},
		{``, []string{"--default-runtime", "crun"}, "specified default runtime 'crun' does not exist"},
		{``, []string{"--add-runtime", "gantry=/x"}, "reserved"},
		{``, []string{"--instance", "UPPER"}, "invalid instance"},
		{``, []string{"--exec-opt", "native.cgroupdriver=x"}, "native.cgroupdriver option x not supported"},
		{``, []string{"--exec-opt", "native.cgroupdriver=systemd", "--cgroup-parent", "/x"}, "xxx.slice"},
		{``, []string{"--storage-driver", "zfs"}, "zfs is not supported: overlayfs works on zfs"},
		{``, []string{"--storage-driver", "nosuch"}, "known are btrfs, erofs, native, overlay, overlay2, overlayfs, vfs"},
		{``, []string{"--default-address-pool", "base=10.0.0.0/8,bogus=1"}, "unexpected key 'bogus'"},
	} {
		if _, err := load(t, x.file, x.args...); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s %v: %v", x.file, x.args, err)
		}
	}
}

func TestUnsafeTCPIsLoud(t *testing.T) {
	c, err := load(t, "", "-H", "tcp://127.0.0.1:1", "--tls=false")
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "root on this machine") {
		t.Errorf("%v %v", c, err)
	}
}

func TestCommands(t *testing.T) {
	for arg, want := range map[string]Command{"--version": Version, "-v": Version, "--help": Help, "--validate": Validate} {
		if _, cmd, err := Load([]string{arg}); err != nil || cmd != want {
			t.Errorf("%s: %v %v", arg, cmd, err)
		}
	}
	if _, _, err := Load([]string{"--config-file", "/nosuch/daemon.json"}); err == nil {
		t.Error("a file that was asked for must exist")
	}
	var b strings.Builder
	if err := WriteHelp(&b); err != nil || !strings.Contains(b.String(), "-H, --host list") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// Every flag of dockerd is known, with its letter and its key.
func TestKnowsDockerdsFlags(t *testing.T) {
	f, err := os.Open("testdata/dockerd_flags.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes = '\t', true
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	opts := Options()
	for _, row := range rows[1:] {
		name, short := strings.TrimPrefix(row[0], "--"), strings.TrimPrefix(row[1], "-")
		if name == "validate" || name == "version" {
			continue
		}
		i := slices.IndexFunc(opts, func(o Option) bool { return o.Flag == name })
		if i < 0 {
			t.Errorf("flag %s is not in the table", row[0])
			continue
		}
		if opts[i].Short != short {
			t.Errorf("%s has letter %q, want %q", row[0], opts[i].Short, short)
		}
		if (opts[i].kind == "") != (row[2] == "bool") {
			t.Errorf("%s is a %q, want %s", row[0], opts[i].kind, row[2])
		}
	}
	for _, o := range opts {
		if o.Status != Works && o.Reason == "" {
			t.Errorf("%s %s: no reason", o.Flag, o.Key)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add(`{"log-opts":{"a":"b"},"runtimes":{"x":{"path":"y"}},"default-shm-size":5}`)
	f.Add(`{"log-opts":null,"runtimes":null,"default-ulimits":null,"features":null,"tls":null}`)
	f.Fuzz(func(t *testing.T, s string) {
		path := filepath.Join(t.TempDir(), "f")
		if os.WriteFile(path, []byte(s), 0o600) != nil {
			t.Skip()
		}
		if c, _, err := Load([]string{"--config-file=" + path, "--log-opt", "a=b", "--default-ulimit", "core=1"}); err == nil && c.LogOpts["a"] != "b" {
			t.Error("lost a flag")
		}
	})
}

func TestAcceptMark(t *testing.T) {
	for text, want := range map[string]Mark{"": {}, "1": {1, 0xffffffff}, "0x1": {1, 0xffffffff}, "0x10/0xf0": {16, 0xf0}, "0x1/0xf0": {}, "x": {}, "1/0": {}, "1/": {}} {
		var c Config
		err := acceptMark(&c, text)
		if c.AcceptMark != want || (err == nil) != (want != Mark{} || text == "") {
			t.Errorf("%q: %+v %v", text, c.AcceptMark, err)
		}
	}
}

package create

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"gantry/internal/wire"
)

func parse(t *testing.T, args ...string) (*wire.CreateRequest, error) {
	t.Helper()
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f := Register(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	rest := fs.Args()
	if len(rest) == 0 {
		rest = []string{"img"}
	}
	f.Image, f.Args = rest[0], rest[1:]
	return f.Request(fs)
}

// value walks a path of JSON field names in v.
func value(t *testing.T, v any, path string) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var x any
	if err := json.Unmarshal(b, &x); err != nil {
		t.Fatal(err)
	}
	for key := range strings.SplitSeq(path, ".") {
		m, ok := x.(map[string]any)
		if !ok {
			return "<absent>"
		}
		if x, ok = m[strings.ReplaceAll(key, "|", ".")]; !ok {
			return "<absent>"
		}
	}
	b, _ = json.Marshal(x)
	return string(b)
}

func TestFlagsBecomeTheRequest(t *testing.T) {
	t.Setenv("FROM_HERE", "yes")
	dir := t.TempDir()
	env := filepath.Join(dir, "env")
	if err := os.WriteFile(env, []byte("\ufeff# note\nA=1\n  B=\"q\"\nC= x\nFROM_HERE\nNOT_HERE\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	prof := filepath.Join(dir, "prof.json")
	if err := os.WriteFile(prof, []byte("{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, path, want string }{
		{"img echo -n hi", "Image", `"img"`},
		{"img echo -n hi", "Cmd", `["echo","-n","hi"]`},
		{"img", "Cmd", `null`},
		{"img", "AttachStdout", `true`},
		{"img", "AttachStdin", `false`},
		{"-i img", "StdinOnce", `true`},
		{"-a stdin img", "StdinOnce", `false`},
		{"-a STDERR img", "AttachStdout", `false`},
		{"-a STDERR img", "AttachStderr", `true`},
		{"--entrypoint= img", "Entrypoint", `[""]`},
		{"--entrypoint sh img", "Entrypoint", `["sh"]`},
		{"img", "Entrypoint", `null`},
		{"-e A=1 -e FROM_HERE -e GONE img", "Env", `["A=1","FROM_HERE=yes","GONE"]`},
		{"--env-file " + env + " -e Z=2 img", "Env", `["A=1","B=\"q\"","C= x","FROM_HERE=yes","Z=2"]`},
		{"-l a=b -l c img", "Labels", `{"a":"b","c":""}`},
		{"-h web --domainname d -u 1:2 -w /w img", "Hostname", `"web"`},
		{"-v /anon -v vol:/v:ro -v ./x:/y img", "Volumes", `{"/anon":{}}`},
		{"-v /anon -v vol:/v:ro -v ./x:/y img", "HostConfig.Binds", `["vol:/v:ro","` + cwd + `/x:/y"]`},
		{"--tmpfs /t:size=1m --tmpfs /u img", "HostConfig.Tmpfs", `{"/t":"size=1m","/u":""}`},
		{"-p 8080:80 -p 127.0.0.1:53:53/udp img", "ExposedPorts", `{"53/udp":{},"80/tcp":{}}`},
		{"-p 8080:80 img", "HostConfig.PortBindings.80/tcp", `[{"HostIp":"","HostPort":"8080"}]`},
		{"-p [::1]:8080:80 img", "HostConfig.PortBindings.80/tcp", `[{"HostIp":"::1","HostPort":"8080"}]`},
		{"-p published=8080,target=80 img", "HostConfig.PortBindings.80/tcp", `[{"HostIp":"","HostPort":"8080"}]`},
		{"-p 81-82:91-92 img", "HostConfig.PortBindings.92/tcp", `[{"HostIp":"","HostPort":"82"}]`},
		{"--expose 7000-7001/udp img", "ExposedPorts", `{"7000/udp":{},"7001/udp":{}}`},
		{"-m 64m --memory-swap -1 --cpus 1.5 --pids-limit 9 img", "HostConfig.Memory", `67108864`},
		{"-m 64m --memory-swap -1 --cpus 1.5 --pids-limit 9 img", "HostConfig.MemorySwap", `-1`},
		{"--cpus 1.5 img", "HostConfig.NanoCpus", `1500000000`},
		{"--pids-limit 9 img", "HostConfig.PidsLimit", `9`},
		{"--ulimit nofile=5:6 --ulimit core=0 --ulimit nofile=7 img", "HostConfig.Ulimits", `[{"Hard":7,"Name":"nofile","Soft":7},{"Hard":0,"Name":"core","Soft":0}]`},
		{"--device /dev/a:/dev/b:r --device /dev/c:rw --device /dev/d img", "HostConfig.Devices", `[{"CgroupPermissions":"r","PathInContainer":"/dev/b","PathOnHost":"/dev/a"},{"CgroupPermissions":"rw","PathInContainer":"/dev/c","PathOnHost":"/dev/c"},{"CgroupPermissions":"rwm","PathInContainer":"/dev/d","PathOnHost":"/dev/d"}]`},
		{"--device vendor.com/gpu=all img", "HostConfig.DeviceRequests", `[{"Capabilities":null,"Count":0,"DeviceIDs":["vendor.com/gpu=all"],"Driver":"cdi","Options":null}]`},
		{"--gpus all img", "HostConfig.DeviceRequests", `[{"Capabilities":[["gpu"]],"Count":-1,"DeviceIDs":null,"Driver":"","Options":{}}]`},
		{"--restart on-failure:3 img", "HostConfig.RestartPolicy", `{"MaximumRetryCount":3,"Name":"on-failure"}`},
		{"--rm img", "HostConfig.AutoRemove", `true`},
		{"--init img", "HostConfig.Init", `true`},
		{"img", "HostConfig.Init", `<absent>`},
		{"--stop-timeout 0 img", "StopTimeout", `0`},
		{"img", "StopTimeout", `<absent>`},
		{"--sysctl net.ipv4.ip_forward=1 img", "HostConfig.Sysctls", `{"net.ipv4.ip_forward":"1"}`},
		{"--security-opt seccomp=" + prof + " img", "HostConfig.SecurityOpt", `["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]`},
		{"--security-opt systempaths=unconfined --security-opt no-new-privileges img", "HostConfig.SecurityOpt", `["no-new-privileges"]`},
		{"--security-opt systempaths=unconfined img", "HostConfig.MaskedPaths", `[]`},
		{"img", "HostConfig.MaskedPaths", `null`},
		{"--log-opt max-size=1m --log-driver json-file img", "HostConfig.LogConfig", `{"Config":{"max-size":"1m"},"Type":"json-file"}`},
		{"--network none img", "HostConfig.NetworkMode", `"none"`},
		{"img", "HostConfig.NetworkMode", `"default"`},
		{"img", "NetworkingConfig.EndpointsConfig.default.IPAMConfig", `null`},
		{"--network none img", "NetworkingConfig.EndpointsConfig", `{}`},
		{"--network n --ip 10.0.0.2 --network-alias al img", "NetworkingConfig.EndpointsConfig.n.Aliases", `["al"]`},
		{"--network n --ip 10.0.0.2 img", "NetworkingConfig.EndpointsConfig.n.IPAMConfig.IPv4Address", `"10.0.0.2"`},
		{"--network name=n,alias=al,gw-priority=5 img", "NetworkingConfig.EndpointsConfig.n.GwPriority", `5`},
		{"--network a --network b img", "NetworkingConfig.EndpointsConfig.b.GwPriority", `0`},
		{"--mac-address 92:d0:c6:0a:29:33 img", "NetworkingConfig.EndpointsConfig.default.MacAddress", `"92:d0:c6:0a:29:33"`},
		{"--mount type=bind,src=/a,dst=/b,ro,bind-propagation=rslave img", "HostConfig.Mounts", `[{"BindOptions":{"Propagation":"rslave"},"ReadOnly":true,"Source":"/a","Target":"/b","Type":"bind"}]`},
		{"--mount type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=1777 img", "HostConfig.Mounts", `[{"Target":"/b","TmpfsOptions":{"Mode":1023,"SizeBytes":1048576},"Type":"tmpfs"}]`},
		{"--mount src=v,dst=/b,volume-opt=type=nfs,volume-label=a=b,volume-nocopy img", "HostConfig.Mounts", `[{"Source":"v","Target":"/b","Type":"volume","VolumeOptions":{"DriverConfig":{"Options":{"type":"nfs"}},"Labels":{"a":"b"},"NoCopy":true}}]`},
		{"--health-cmd true --health-interval 2s img", "Healthcheck", `{"Interval":2000000000,"Test":["CMD-SHELL","true"]}`},
		{"--no-healthcheck img", "Healthcheck.Test", `["NONE"]`},
		{"--add-host a:1.2.3.4 --add-host b=::1 --add-host c=[::1] --add-host h:host-gateway img", "HostConfig.ExtraHosts", `["a:1.2.3.4","b:::1","c:::1","h:host-gateway"]`},
		{"--dns 9.9.9.9 --dns-search x.y --dns-opt ndots:3 img", "HostConfig.DnsOptions", `["ndots:3"]`},
		{"--dns 9.9.9.9 img", "HostConfig.Dns", `["9.9.9.9"]`},
		{"--device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:10 --blkio-weight-device /dev/sda:20 img", "HostConfig.BlkioDeviceReadBps", `[{"Path":"/dev/sda","Rate":1048576}]`},
		{"--shm-size 2m --oom-score-adj -5 --privileged -P --read-only img", "HostConfig.ShmSize", `2097152`},
		{"img", "HostConfig.MemorySwappiness", `-1`},
		{"--annotation a=b img", "HostConfig.Annotations", `{"a":"b"}`},
	} {
		req, err := parse(t, strings.Fields(c.args)...)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		if got := value(t, req, c.path); got != c.want {
			t.Errorf("%s: %s is %s, want %s", c.args, c.path, got, c.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for args, want := range map[string]string{
		"--restart always --rm":                      "conflicting options: cannot specify both --restart and --rm",
		"-p 99999:80":                                "invalid hostPort: 99999",
		"-p abc":                                     "invalid containerPort: abc",
		"-m abc":                                     `invalid argument "abc" for "-m, --memory" flag: invalid size: 'abc'`,
		"--cpus x":                                   `invalid argument "x" for "--cpus" flag: failed to parse x as a rational number`,
		"-e =":                                       `invalid argument "=" for "-e, --env" flag: invalid environment variable: =`,
		"--mount typ=bind":                           `invalid argument "typ=bind" for "--mount" flag: unexpected key 'typ' in 'typ=bind'`,
		"--mount type=bind,bind-recursive=x":         `invalid argument "type=bind,bind-recursive=x" for "--mount" flag: invalid value for bind-recursive: x (must be "enabled", "disabled", "writable", or "readonly")`,
		"--mount type=tmpfs,volume-nocopy":           `invalid argument "type=tmpfs,volume-nocopy" for "--mount" flag: cannot mix 'volume-*' options with mount type 'tmpfs'`,
		"--security-opt bogus":                       `Invalid --security-opt: "bogus"`,
		"--security-opt seccomp=/nonexistent":        "opening seccomp profile (/nonexistent) failed: open /nonexistent: no such file or directory",
		"--ulimit bogus=1":                           `invalid argument "bogus=1" for "--ulimit" flag: invalid ulimit type: bogus`,
		"--sysctl bogus=1":                           `invalid argument "bogus=1" for "--sysctl" flag: sysctl 'bogus=1' is not allowed`,
		"--env-file nofile":                          "open nofile: no such file or directory",
		"--attach bogus":                             `invalid argument "bogus" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR`,
		"--pid bogus":                                "--pid: invalid PID mode",
		"--memory-swappiness 101":                    "invalid value: 101. Valid memory swappiness range is 0-100",
		"--mac-address bogus":                        "bogus is not a valid mac address",
		"--restart on-failure:x":                     "invalid restart policy format: maximum retry count must be an integer",
		"--device a:b:c:d":                           "bad format for path: a:b:c:d",
		"--device /dev/a:/dev/b:x":                   "bad mode specified: x",
		"--network n --network n":                    `network "n" is specified multiple times`,
		"--network host --network n":                 "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
		"--network name=n,ip=10.0.0.1 --ip 10.0.0.2": "conflicting options: cannot specify both --ip and per-network IPv4 address",
		"--network-alias x":                          "network-scoped aliases are only supported for user-defined networks",
		"--no-healthcheck --health-cmd x":            "--no-healthcheck conflicts with --health-* options",
		"--health-interval -1s":                      "--health-interval cannot be negative",
		"--log-driver none --log-opt a=b":            "invalid logging opts for driver none",
		"--storage-opt x":                            "invalid storage option",
		"--bogus":                                    "unknown flag: --bogus",
		"-v a::b":                                    "invalid spec: a::b: empty section between colons",
		"--add-host a:b":                             `invalid argument "a:b" for "--add-host" flag: invalid IP address in add-host: "b"`,
		"--device-cgroup-rule x":                     `invalid argument "x" for "--device-cgroup-rule" flag: invalid device cgroup format 'x'`,
		"--filterless":                               "unknown flag: --filterless",
	} {
		_, err := parse(t, append(strings.Fields(args), "img")...)
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v", args, err)
		}
	}
}

func TestProxiesFillInOnlyWhatIsMissing(t *testing.T) {
	f := &Flags{}
	f.env.Values = []string{"HTTP_PROXY=mine", "NO_PROXY"}
	f.AddMissingEnv(map[string]string{"HTTP_PROXY": "theirs", "NO_PROXY": "theirs", "FTP_PROXY": "f"})
	if got := strings.Join(f.env.Values, " "); got != "HTTP_PROXY=mine NO_PROXY FTP_PROXY=f" {
		t.Errorf("got %s", got)
	}
}

package plan

import (
	"strings"
	"testing"
)

func TestLogOptionsAreChecked(t *testing.T) {
	for _, c := range []struct{ driver, opts, want string }{
		{"json-file", "max-size=x max-file=0 compress=maybe", ""}, // at start
		{"json-file", "bogus=1", "unknown log opt 'bogus' for json-file log driver"},
		{"journald", "tag=t labels=a,b env-regex=^A", ""},
		{"journald", "max-size=1", "unknown log opt 'max-size' for journald log driver"},
		{"none", "anything=1", ""},
		{"local", "mode=sideways", "logger: logging mode not supported: sideways"},
		{"local", "max-buffer-size=4m", "logger: max-buffer-size option is only supported with 'mode=non-blocking'"},
		{"local", "mode=non-blocking max-buffer-size=4m", ""},
		{"local", "mode=non-blocking max-buffer-size=many", "error parsing option max-buffer-size: invalid size: 'many'"},
		{"gelf", "gelf-address=udp://h:1 x=1", `unknown log opt "x" for gelf log driver`},
		{"gelf", "", "gelf-address is a required parameter"},
		{"gelf", "gelf-address=http://h:1", "gelf: endpoint needs to be TCP or UDP"},
		{"gelf", "gelf-address=udp://h", "gelf: please provide gelf-address as proto://host:port"},
		{"gelf", "gelf-address=udp://h:1 gelf-compression-type=zip", `unknown value "zip" for log opt "gelf-compression-type" for gelf log driver`},
		{"gelf", "gelf-address=tcp://h:1 gelf-compression-type=gzip", "compression is only supported on UDP"},
		{"gelf", "gelf-address=tcp://h:1 gelf-tcp-max-reconnect=3", ""},
		{"syslog", "syslog-address=tcp+tls://h:1 syslog-facility=local7 syslog-format=rfc5424micro", ""},
		{"syslog", "syslog-address=h:1", "syslog-address should be in form proto://address, got h:1"},
		{"syslog", "syslog-facility=local8", "invalid syslog facility"},
		{"syslog", "syslog-format=x", "invalid syslog format"},
		{"fluentd", "fluentd-address=unix:///run/f.sock fluentd-request-ack=true", ""},
		{"fluentd", "fluentd-address=h:99999", `invalid fluentd-address h:99999: strconv.ParseUint: parsing "99999": value out of range`},
		{"fluentd", "fluentd-address=udp://h", "invalid fluentd-address udp://h: unsupported scheme: 'udp'"},
		{"fluentd", "fluentd-async=x", `strconv.ParseBool: parsing "x": invalid syntax`},
		{"fluentd", "cache-disabled=x", "invalid value for option cache-disabled: x"},
		{"splunk", "splunk-url=x splunk-index-acknowledgment=true", ""},
	} {
		opts := map[string]string{}
		for _, kv := range strings.Fields(c.opts) {
			k, v, _ := strings.Cut(kv, "=")
			opts[k] = v
		}
		got := ""
		if err := CheckLog(c.driver, opts); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.driver, c.opts, got, c.want)
		}
	}
}

func TestLogAddresses(t *testing.T) {
	for in, want := range map[string]LogAddress{
		"": {"tcp", "127.0.0.1:24224"}, "h": {"tcp", "h:24224"}, "h:1": {"tcp", "h:1"}, "tls://h:1": {"tls", "h:1"},
		"tcp://": {"tcp", "127.0.0.1:24224"}, "[::1]": {"tcp", "[::1]:24224"}, "unix:///a/b": {"unix", "/a/b"},
	} {
		if got, err := FluentdAddress(in); err != nil || got != want {
			t.Errorf("fluentd %q: %v %v", in, got, err)
		}
	}
	for in, want := range map[string]LogAddress{"": {}, "udp://h": {"udp", "h:514"}, "unixgram:///dev/log": {"unixgram", "/dev/log"}} {
		if got, err := SyslogAddress(in); err != nil || got != want {
			t.Errorf("syslog %q: %v %v", in, got, err)
		}
	}
}

func TestTagsAndAttributes(t *testing.T) {
	i := LogInfo{
		Driver: "syslog", ContainerID: strings.Repeat("a", 64), ContainerName: "web", Image: "img:1", ImageDigest: "sha256:0123456789",
		Args: []string{"a", "b c"}, Labels: map[string]string{"com.x.a": "1", "other": "2"}, Environ: []string{"AA=3", "BB=4", "odd"},
	}
	for tag, want := range map[string]string{
		"":                   strings.Repeat("a", 12),
		"plain":              "plain",
		"{{.Name}}/{{.ID}}":  "web/" + strings.Repeat("a", 12),
		"{{.ImageName}}":     "img:1",
		"{{.ImageID}}":       "sha256:01234",
		"{{upper .Command}}": "A B C",
		"{{.DaemonName}}":    "docker",
		"{{index .Labels \"other\"}}-{{truncate .FullID 3}}": "2-aaa",
	} {
		i.Options = map[string]string{"tag": tag}
		if got, err := i.Tag("{{.ID}}"); err != nil || got != want {
			t.Errorf("%s: %q %v", tag, got, err)
		}
	}
	i.Options = map[string]string{"tag": "{{.Nope}}"}
	if _, err := i.Tag(""); err == nil {
		t.Error("a tag with an unknown field passed")
	}
	i.Driver = LogJSON
	i.Options = map[string]string{"labels": "other,nope", "labels-regex": "^com", "env-regex": "^A", "tag": "T"}
	got, err := i.Attrs()
	if err != nil || len(got) != 4 || got["other"] != "2" || got["com.x.a"] != "1" || got["AA"] != "3" || got["tag"] != "T" {
		t.Errorf("attributes %v %v", got, err)
	}
}

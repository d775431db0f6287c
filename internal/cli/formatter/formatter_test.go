package formatter

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/system"

	"gantry/internal/wire"
)

// now is two minutes after the epoch that the samples count from.
var epoch = time.Date(2026, 11, 21, 5, 0, 0, 0, time.UTC)

const containersJSON = `[
 {"Id":"aaaaaaaaaaaabbbbbbbbbbbb","Names":["/healthy"],"Image":"busybox","Command":"sleep 300","Created":1795237197,"State":"running","Status":"Up 2 seconds (healthy)","Ports":[]},
 {"Id":"ccccccccccccdddddddddddd","Names":["/other/link","/running"],"Image":"reg.io/x:1@sha256:0123456789012345678901234567890123456789012345678901234567890123","Command":"sh -c 'mkdir -p /d/e; echo x'","Created":1795237194,"State":"running","Status":"Up 5 seconds",
  "Ports":[{"IP":"::","PrivatePort":80,"PublicPort":18080,"Type":"tcp"},{"PrivatePort":7000,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":18080,"Type":"tcp"},
   {"IP":"127.0.0.1","PrivatePort":81,"PublicPort":18081,"Type":"udp"},{"IP":"0.0.0.0","PrivatePort":92,"PublicPort":18092,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":91,"PublicPort":18091,"Type":"tcp"}],
  "Labels":{"k":"v","a":"b"},"SizeRw":4096,"SizeRootFs":2070000,"Mounts":[{"Type":"volume","Name":"0123456789abcdef0123","Driver":"local"},{"Type":"bind","Source":"/a"}],
  "NetworkSettings":{"Networks":{"n":{},"bridge":{}}},"ImageManifestDescriptor":{"mediaType":"m","digest":"sha256:0123456789012345678901234567890123456789012345678901234567890123","size":1,"platform":{"architecture":"amd64","os":"linux"}}}
]`

func containers(t *testing.T, o RowOptions) []*ContainerContext {
	t.Helper()
	var list []wire.ContainerSummary
	if err := json.Unmarshal([]byte(containersJSON), &list); err != nil {
		t.Fatal(err)
	}
	return Containers(list, o)
}

func render[T any](t *testing.T, tab Table[T], format string, rows []T) string {
	t.Helper()
	var b bytes.Buffer
	if err := tab.Render(&b, format, rows); err != nil {
		return "error: " + err.Error()
	}
	return b.String()
}

func TestContainers(t *testing.T) {
	const ports = "7000/tcp, 0.0.0.0:18080->80/tcp, [::]:18080->80/tcp, 127.0.0.1:18081->81/udp, 0.0.0.0:18091->91/tcp, 0.0.0.0:18092->92/tcp"
	for _, c := range []struct {
		name, format, want string
		full               bool
	}{
		{name: "default", want: "" +
			"CONTAINER ID   IMAGE        COMMAND                  CREATED         STATUS                   PORTS" + strings.Repeat(" ", len(ports)-2) + "NAMES\n" +
			"aaaaaaaaaaaa   busybox      \"sleep 300\"            3 seconds ago   Up 2 seconds (healthy)   " + strings.Repeat(" ", len(ports)+3) + "healthy\n" +
			"cccccccccccc   reg.io/x:1   \"sh -c 'mkdir -p /d/…\"   6 seconds ago   Up 5 seconds             " + ports + "   running\n"},
		{name: "table", format: `table {{.Names}}\t{{upper .State}}`, want: "NAMES     STATE\nhealthy   RUNNING\nrunning   RUNNING\n"},
		{name: "template", format: "{{.ID}}|{{.Size}}|{{.Label \"k\"}}|{{.Networks}}|{{.Mounts}}|{{.LocalVolumes}}", want: "aaaaaaaaaaaa|0B||||0\ncccccccccccc|4.1kB (virtual 2.07MB)|v|bridge,n|0123456789abcd…,/a|1\n"},
		{name: "whole", full: true, format: "{{.ID}} {{.Names}}", want: "aaaaaaaaaaaabbbbbbbbbbbb healthy\nccccccccccccdddddddddddd other/link,running\n"},
		{name: "unknown field", format: "{{.Bogus}}", want: "error: failed to execute template: template: :1:2: executing \"\" at <.Bogus>: can't evaluate field Bogus in type *formatter.ContainerContext"},
		{name: "bad template", format: "{{.ID", want: "error: template parsing error: template: :1: unclosed action"},
	} {
		if got := render(t, ContainerTable(TableOptions{}), c.format, containers(t, RowOptions{Trunc: !c.full, Now: epoch})); got != strings.ReplaceAll(c.want, "\"sleep 300\"            ", "\"sleep 300\"              ") {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestContainerJSONHasTheRecordedFields(t *testing.T) {
	lines := strings.Split(render(t, ContainerTable(TableOptions{}), "json", containers(t, RowOptions{Trunc: true, Now: epoch})), "\n")
	const want = `"Command":"\"sleep 300\"","CreatedAt":`
	if !strings.HasPrefix(lines[0], "{"+want) {
		t.Errorf("got %s", lines[0])
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(lines[1]), &m); err != nil {
		t.Fatal(err)
	}
	// ps --format json, as recorded.
	for _, k := range strings.Fields("Command CreatedAt ID Image Labels LocalVolumes Mounts Names Networks Platform Ports RunningFor Size State Status") {
		if _, ok := m[k]; !ok {
			t.Errorf("no field %s", k)
		}
		delete(m, k)
	}
	if len(m) > 0 {
		t.Errorf("fields that were not recorded: %v", m)
	}
	if !strings.Contains(lines[1], `18080-\u003e80/tcp`) || !strings.Contains(lines[1], `"Platform":{"architecture":"amd64","os":"linux"}`) {
		t.Errorf("got %s", lines[1])
	}
	if got := render(t, ContainerTable(TableOptions{}), "{{json .}}", containers(t, RowOptions{Trunc: true, Now: epoch})); strings.Split(got, "\n")[1] != lines[1] {
		t.Errorf("{{json .}} and json differ: %s", got)
	}
}

func TestPortGroups(t *testing.T) {
	var list []wire.PortSummary
	if err := json.Unmarshal([]byte(`[{"IP":"0.0.0.0","PrivatePort":82,"PublicPort":82,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":80,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":81,"PublicPort":81,"Type":"tcp"},
	 {"PrivatePort":9,"Type":"udp"},{"PrivatePort":10,"Type":"udp"},{"PrivatePort":12,"Type":"udp"}]`), &list); err != nil {
		t.Fatal(err)
	}
	if got := Ports(list); got != "9-10/udp, 12/udp, 0.0.0.0:80-82->80-82/tcp" {
		t.Errorf("got %s", got)
	}
}

const imagesJSON = `[
 {"Id":"sha256:1111111111112222","RepoTags":["img:1","reg.io/x/y:t"],"RepoDigests":["img@sha256:0123456789012345678901234567890123456789012345678901234567890123"],"Created":1795237199,"Size":3170000,"SharedSize":-1,"Containers":2},
 {"Id":"sha256:3333333333334444","RepoTags":[],"RepoDigests":[],"Created":1795233600,"Size":3120000,"SharedSize":3117000,"Containers":-1}
]`

func TestImages(t *testing.T) {
	var list []wire.ImageSummary
	if err := json.Unmarshal([]byte(imagesJSON), &list); err != nil {
		t.Fatal(err)
	}
	got := render(t, ImageTable(TableOptions{}), "", Images(list, ImageOptions{Trunc: true, Now: epoch}))
	want := "" +
		"REPOSITORY   TAG       IMAGE ID       CREATED             SIZE\n" +
		"img          1         111111111111   1 second ago        3.17MB\n" +
		"reg.io/x/y   t         111111111111   1 second ago        3.17MB\n" +
		"<none>       <none>    333333333333   About an hour ago   3.12MB\n"
	if got != want {
		t.Errorf("got\n%s", got)
	}
	got = render(t, ImageTable(TableOptions{Digests: true}), "{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}} {{.UniqueSize}} {{.Containers}}", Images(list, ImageOptions{Digests: true, Now: epoch}))
	want = "img:1 sha256:0123456789012345678901234567890123456789012345678901234567890123 sha256:1111111111112222 N/A 2\nreg.io/x/y:t <none> sha256:1111111111112222 N/A 2\n<none>:<none> <none> sha256:3333333333334444 3kB N/A\n"
	if got != want {
		t.Errorf("got\n%s", got)
	}
	if got := render(t, ImageTable(TableOptions{}), "", nil); got != "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n" {
		t.Errorf("no images: %q", got)
	}
}

func TestHistory(t *testing.T) {
	list := []wire.ImageHistory{{ID: "sha256:1111111111112222", Created: epoch.Unix() - 1, CreatedBy: "sh -c mkdir -p /d/e; echo x >/d/x; ln -s x /d/l; sleep 300", Size: 32800, Comment: "msg"}, {ID: "<missing>", Created: epoch.Unix() - 3600, Size: 2050000, Comment: "Imported from -"}}
	got := render(t, HistoryTable(), "", History(list, HistoryOptions{Trunc: true, Human: true, Now: epoch}))
	want := "" +
		"IMAGE          CREATED             CREATED BY                                      SIZE      COMMENT\n" +
		"111111111111   1 second ago        sh -c mkdir -p /d/e; echo x >/d/x; ln -s x /…   32.8kB    msg\n" +
		"<missing>      About an hour ago                                                   2.05MB    Imported from -\n"
	if got != want {
		t.Errorf("got\n%s", got)
	}
	if got := render(t, HistoryTable(), "{{.Size}} {{.ID}}", History(list[:1], HistoryOptions{Now: epoch})); got != "32800 sha256:1111111111112222\n" {
		t.Errorf("raw: %s", got)
	}
}

func TestNetworksAndVolumes(t *testing.T) {
	var nets []wire.NetworkSummary
	if err := json.Unmarshal([]byte(`[{"Name":"bridge","Id":"111111111111222","Driver":"bridge","Scope":"local","EnableIPv4":true},{"Name":"none","Id":"333333333333444","Driver":"null","Scope":"local"}]`), &nets); err != nil {
		t.Fatal(err)
	}
	if got := render(t, NetworkTable(), "", Networks(nets, RowOptions{Trunc: true})); got != "NETWORK ID     NAME      DRIVER    SCOPE\n111111111111   bridge    bridge    local\n333333333333   none      null      local\n" {
		t.Errorf("got\n%s", got)
	}
	vols := []*wire.Volume{{Name: "v1", Driver: "local", Labels: map[string]string{"x": "y"}}}
	if got := render(t, VolumeTable(), "", Volumes(vols)); got != "DRIVER    VOLUME NAME\nlocal     v1\n" {
		t.Errorf("got\n%s", got)
	}
	if got := render(t, VolumeTable(), "{{.Name}} {{.Labels}} {{.Size}} {{.Links}}", Volumes(vols)); got != "v1 x=y N/A N/A\n" {
		t.Errorf("got\n%s", got)
	}
}

func TestUsage(t *testing.T) {
	var u system.DiskUsage
	if err := json.Unmarshal([]byte(`{"ImageUsage":{"TotalCount":2,"ActiveCount":1,"TotalSize":3173000,"Reclaimable":3172000},"ContainerUsage":{"TotalCount":1,"ActiveCount":1,"TotalSize":40960},"BuildCacheUsage":{"TotalCount":7,"TotalSize":49540,"Reclaimable":49540}}`), &u); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n" +
		"Images          2         1         3.173MB   3.172MB (99%)\n" +
		"Containers      1         1         40.96kB   0B (0%)\n" +
		"Local Volumes   0         0         0B        0B\n" +
		"Build Cache     7         0         49.54kB   49.54kB\n"
	if got := render(t, UsageTable(), "", Usage(&u)); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestStats(t *testing.T) {
	var s wire.Stats
	if err := json.Unmarshal([]byte(`{"name":"/c","id":"1111111111112222","cpu_stats":{"cpu_usage":{"total_usage":300},"system_cpu_usage":2000,"online_cpus":2},"precpu_stats":{"cpu_usage":{"total_usage":100},"system_cpu_usage":1000},
	 "memory_stats":{"usage":3145728,"limit":10485760,"stats":{"inactive_file":1048576}},"pids_stats":{"current":4},"networks":{"eth0":{"rx_bytes":1000,"tx_bytes":2000},"eth1":{"rx_bytes":10}},
	 "blkio_stats":{"io_service_bytes_recursive":[{"op":"Read","value":5000},{"op":"write","value":7000},{"op":"Total","value":12000}]}}`), &s); err != nil {
		t.Fatal(err)
	}
	rows := Stats([]*Sample{NewSample("c", &s), {Container: "333333333333444", Invalid: true}}, RowOptions{Trunc: true})
	want := "" +
		"CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O         BLOCK I/O     PIDS\n" +
		"111111111111   c         40.00%    2MiB / 10MiB        20.00%    1.01kB / 2kB    5kB / 7kB     4\n" +
		"333333333333   --        --        -- / --             --        -- / --         -- / --       --\n"
	if got := render(t, StatsTable(), "", rows); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got\n%s", got)
	}
}

func TestTemplateFunctions(t *testing.T) {
	for text, want := range map[string]string{
		`{{json .}}`:                          `{"A":"<x> y","L":["p","q"]}`,
		`{{upper .A}} {{lower "ABC"}}`:        "<X> Y abc",
		`{{title "abc"}}`:                     "Abc",
		`{{join .L "-"}}`:                     "p-q",
		`{{index (split "a:b" ":") 1}}`:       "b",
		`{{pad "x" 1 2}}|`:                    " x  |",
		`{{truncate "abcdef" 3}}`:             "abc",
		`a\tb`:                                "a\tb",
		`{{println "x"}}`:                     "x\n",
		`{{range $i, $e := .L}}{{$e}}{{end}}`: "pq",
	} {
		var b bytes.Buffer
		if err := Value(&b, text, map[string]any{"A": "<x> y", "L": []string{"p", "q"}}); err != nil || b.String() != want+"\n" {
			t.Errorf("%s: got %q, %v", text, b.String(), err)
		}
	}
}

func TestEllipsis(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"äöüß", 3, "äö…"}, {"abc", 0, ""}} {
		if got := Ellipsis(c.in, c.n); got != c.want {
			t.Errorf("%q to %d: %q", c.in, c.n, got)
		}
	}
}

func TestCheckContainers(t *testing.T) {
	for format, want := range map[string]string{
		"": "", "table": "", "json": "", "{{.Names}}": "", `table {{.Names}}\t{{.Label "x"}}`: "", "{{json .}}": "", "{{range split .Names \",\"}}{{.}}{{end}}": "",
		"{{.Bogus}}":       `failed to execute template: template: :1:2: executing "" at <.Bogus>: can't evaluate field Bogus in type *formatter.ContainerContext`,
		"table {{.Bogus}}": `failed to execute template: template: :1:8: executing "" at <.Bogus>: can't evaluate field Bogus in type *formatter.ContainerContext`,
		"{{.ID":            "failed to parse template: template: :1: unclosed action",
	} {
		got := ""
		if err := CheckContainers(format); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", format, got, want)
		}
	}
}

func TestShowsSize(t *testing.T) {
	for format, want := range map[string]bool{
		"": false, "json": false, "{{.Names}}": false, "{{.Size}}": true, "{{json .}}": true, "{{ json . }}": true, "{{.|json}}": true, "{{- . -}}": true, "{{json .Names}}": false,
	} {
		if got := ShowsSize(format); got != want {
			t.Errorf("%q: %t", format, got)
		}
	}
}

package shape

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"gantry/internal/wire"
)

// The files of testdata are answers of Docker Engine 29 about one container and
// one set of images at several versions; IDs, times and addresses are made equal.
func read(t *testing.T, name string, v any) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func golden(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestContainer(t *testing.T) {
	for name, v := range map[string]int{"1.56": 1056, "1.52": 1052, "1.51": 1051, "1.44": 1044, "1.40": 1040} {
		var c wire.ContainerJSON
		read(t, "inspect-1.56.json", &c)
		// The order of mounts changes from call to call, and before 1.52 the
		// address that was asked for is also a field of Config.
		var want wire.ContainerJSON
		read(t, "inspect-"+name+".json", &want)
		c.Mounts = want.Mounts
		if v < 1048 {
			c.ImageManifestDescriptor = nil
		}
		got, err := Container(c, v)
		if err != nil {
			t.Fatal(err)
		}
		wantText := strings.Replace(golden(t, "inspect-"+name+".json"), `"MacAddress":"02:42:ac:11:99:0a","OpenStdin"`, `"OpenStdin"`, 1)
		if g := text(t, got); g != wantText {
			t.Errorf("%s:\n got %s\nwant %s", name, g, wantText)
		}
	}
}

func TestContainers(t *testing.T) {
	for name, v := range map[string]int{"1.56": 1056, "1.52": 1052, "1.51": 1051, "1.44": 1044, "1.40": 1040} {
		var list, want []wire.ContainerSummary
		read(t, "list-1.56.json", &list)
		read(t, "list-"+name+".json", &want)
		list[0].Mounts, list[0].Ports, list[0].Status = want[0].Mounts, want[0].Ports, want[0].Status
		if g, w := text(t, Containers(list, v)), golden(t, "list-"+name+".json"); g != w {
			t.Errorf("%s:\n got %s\nwant %s", name, g, w)
		}
	}
	if text(t, Containers(nil, 1056)) != "[]\n" {
		t.Error("no containers must be [] and not null")
	}
}

func TestImages(t *testing.T) {
	for name, v := range map[string]int{"1.56": 1056, "1.42": 1042, "1.40": 1040} {
		var list []wire.ImageSummary
		read(t, "images-1.56.json", &list)
		if g, w := text(t, Images(list, v)), golden(t, "images-"+name+".json"); g != w {
			t.Errorf("%s:\n got %s\nwant %s", name, g, w)
		}
	}
	if got := text(t, Images(nil, 1056)); got != "[]\n" {
		t.Error(got)
	}
}

func TestImage(t *testing.T) {
	for name, v := range map[string]int{"1.56": 1056, "1.40": 1040} {
		var img wire.ImageInspect
		read(t, "image-1.56.json", &img)
		got, err := Image(img, v, "overlayfs")
		if err != nil {
			t.Fatal(err)
		}
		if g, w := text(t, got), golden(t, "image-"+name+".json"); g != w {
			t.Errorf("%s:\n got %s\nwant %s", name, g, w)
		}
	}
}

func TestInfo(t *testing.T) {
	var info wire.Info
	read(t, "info-1.56.json", &info)
	v56, err := Info(info, 1056)
	if err != nil {
		t.Fatal(err)
	}
	if g, w := text(t, v56), golden(t, "info-1.56.json"); g != w {
		t.Errorf("\n got %s\nwant %s", g, w)
	}
	for v, want := range map[int][]string{
		1050: {"Containerd", "FirewallBackend"},
		1049: {"BridgeNfIp6tables", "BridgeNfIptables", "Containerd", "FirewallBackend"},
		1048: {"BridgeNfIp6tables", "BridgeNfIptables", "Containerd"},
		1044: {"BridgeNfIp6tables", "BridgeNfIptables"},
	} {
		got, err := Info(info, v)
		if err != nil {
			t.Fatal(err)
		}
		o, err := toObject(got)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, key := range []string{"BridgeNfIp6tables", "BridgeNfIptables", "Containerd", "FirewallBackend"} {
			if _, ok := o[key]; ok {
				have = append(have, key)
			}
		}
		if !slices.Equal(have, want) {
			t.Errorf("%d: %v, want %v", v, have, want)
		}
		if _, ok := o.sub("RuncCommit")["Expected"]; ok != (v < 1049) {
			t.Errorf("%d: Expected", v)
		}
	}
}

func TestOldCreate(t *testing.T) {
	body := []byte(`{"Image":"b","MacAddress":"02:00:00:00:00:01","HostConfig":{"NetworkMode":"net1","PidsLimit":0}}`)
	for v, want := range map[int]string{1051: "02:00:00:00:00:01", 1056: ""} {
		var c wire.CreateRequest
		if err := json.Unmarshal(body, &c); err != nil {
			t.Fatal(err)
		}
		if err := OldCreate(&c, body, v); err != nil {
			t.Fatal(err)
		}
		got := ""
		if c.NetworkingConfig != nil {
			got = c.NetworkingConfig.EndpointsConfig["net1"].MacAddress.String()
		}
		if got != want || c.HostConfig.PidsLimit != nil {
			t.Errorf("%d: %q %v", v, got, c.HostConfig.PidsLimit)
		}
	}
	c := wire.CreateRequest{Config: &wire.ContainerConfig{}, HostConfig: &wire.HostConfig{NetworkMode: "host"}}
	if err := OldCreate(&c, body, 1044); err == nil {
		t.Error("a hardware address without a network of its own")
	}
	c = wire.CreateRequest{Config: &wire.ContainerConfig{}, HostConfig: &wire.HostConfig{}, NetworkingConfig: &wire.NetworkingConfig{EndpointsConfig: map[string]*wire.EndpointSettings{"b": nil, "a": nil}}}
	if err := OldCreate(&c, nil, 1043); err == nil || err.Error() != "Container cannot be created with multiple network endpoints: a, b" || OldCreate(&c, nil, 1044) != nil {
		t.Error(err)
	}
	if c = (wire.CreateRequest{Config: &wire.ContainerConfig{}, HostConfig: &wire.HostConfig{}}); OldCreate(&c, nil, 1040) != nil || c.HostConfig.CgroupnsMode != "host" {
		t.Errorf("%+v", c.HostConfig.CgroupnsMode)
	}
}

func TestDiskUsage(t *testing.T) {
	u := wire.DiskUsage{
		ImageUsage:      &wire.ImageDiskUsage{TotalSize: 7, Items: []wire.ImageSummary{{ID: "i", Size: 7, Containers: 2}}},
		BuildCacheUsage: &wire.CacheDiskUsage{},
	}
	for _, c := range []struct {
		v       int
		verbose Verbose
		has     []string
		lacks   []string
	}{
		{1041, false, []string{`"LayersSize":7`, `"VirtualSize":7`, `"Containers":2`, `"BuildCache":[]`}, []string{"ImageUsage", "Volumes"}},
		{1051, true, []string{`"LayersSize":7`, `"Containers":2`}, []string{"ImageUsage", "VirtualSize"}},
		{1056, false, []string{`"LayersSize":7`, `"ImageUsage":{`, `"BuildCacheUsage":{`}, []string{`"VolumeUsage"`}},
		{1056, true, []string{`"ImageUsage":{`}, []string{"LayersSize", `"BuildCache":`}},
	} {
		data, err := json.Marshal(DiskUsage(u, c.v, c.verbose))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.has {
			if !strings.Contains(string(data), s) {
				t.Errorf("%d %v: no %s in %s", c.v, c.verbose, s, data)
			}
		}
		for _, s := range c.lacks {
			if strings.Contains(string(data), s) {
				t.Errorf("%d %v: %s in %s", c.v, c.verbose, s, data)
			}
		}
	}
}

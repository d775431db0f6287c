package clients_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gantry/internal/testkit"
)

// A mountRow is one use of --mount or -v, and what sh prints or why it fails.
type mountRow struct{ flags, script, want, text string }

// mountRows: DIR is a directory of the host with a file f and a directory sub.
var mountRows = []mountRow{
	{"--mount type=bind,src=DIR,dst=/d", "cat /d/f; touch /d/new && echo made; rm /d/new", "kept\nmade", ""},
	{"--mount type=bind,source=DIR,target=/d,readonly", "touch /d/x 2>&1", "touch: /d/x: Read-only file system", ""},
	{"--mount type=bind,source=DIR,destination=/d,ro=true", "touch /d/x 2>&1", "touch: /d/x: Read-only file system", ""},
	{"--mount type=bind,src=DIR,dst=/d,ro=false", "touch /d/x && rm /d/x && echo fine", "fine", ""},
	{"--mount type=bind,src=DIR/nosuch,dst=/d", "", "", "bind source path does not exist"},
	{"--mount type=bind,src=DIR,dst=/d,readonly,bind-recursive=readonly,bind-propagation=rprivate", "grep -c ' /d ro' /proc/mounts", "0", ""},
	{"--mount type=bind,src=DIR,dst=/d,ro,bind-recursive=writable", "touch /d/x 2>&1", "touch: /d/x: Read-only file system", ""},
	{"--mount type=bind,src=DIR,dst=/d,bind-recursive=disabled", "cat /d/f", "kept", ""},
	{"--mount type=bind,src=DIR,dst=/d,bind-recursive=enabled", "cat /d/f", "kept", ""},
	{"--mount type=bind,src=DIR,dst=/d,bind-recursive=sometimes", "", "", `must be "enabled", "disabled", "writable", or "readonly"`},
	{"--mount type=bind,src=DIR,dst=/d,bind-recursive=readonly", "", "", "requires 'readonly'"},
	{"--mount type=bind,src=DIR,dst=/d,ro,bind-recursive=readonly", "", "", "requires 'bind-propagation=rprivate'"},
	{"--mount type=bind,src=DIR,dst=/d,bind-propagation=rslave", "grep ' /d ' /proc/self/mountinfo | grep -c master; true", "0", ""},
	{"--mount type=bind,src=DIR,dst=/d,bind-propagation=sideways", "", "", "invalid propagation mode"},
	{"--mount type=bind,src=DIR,dst=/d,consistency=cached", "cat /d/f", "kept", ""},
	{"--mount type=volume,src=rows,dst=/d", "echo volume > /d/v; cat /d/v", "volume", ""},
	{"--mount src=rows,dst=/d", "cat /d/v", "volume", ""},
	{"--mount type=volume,src=rows,dst=/d,readonly", "touch /d/x 2>&1", "touch: /d/x: Read-only file system", ""},
	{"--mount type=volume,dst=/d", "touch /d/x && echo fine", "fine", ""},
	{"--mount type=volume,src=rows,dst=/d,volume-subpath=nosuch", "", "", `cannot access path`},
	{"--mount type=volume,src=rows,dst=/d,volume-subpath=../x", "", "", "subpath must be a relative path within the volume"},
	{"--mount type=volume,src=nocopy,dst=/etc,volume-nocopy", "ls /etc", "hostname\nhosts\nresolv.conf", ""},
	{"--mount type=volume,src=labelled,dst=/d,volume-label=a=b", "echo fine", "fine", ""},
	{"--mount type=volume,src=opted,dst=/d,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m", "df -k /d | tail -1 | awk '{print $2}'", "1024", ""},
	{"--mount type=volume,src=nodriver,dst=/d,volume-driver=nosuch", "", "", `plugin "nosuch" not found`},
	{"--mount type=volume,src=rows,dst=/d,bind-propagation=rslave", "", "", "cannot mix 'bind-*' options with mount type 'volume'"},
	{"--mount type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=1770", "stat -c %a /d; df -k /d | tail -1 | awk '{print $2}'", "1770\n1024", ""},
	{"--mount type=tmpfs,src=x,dst=/d", "", "", "field Source must not be specified"},
	{"--mount type=image,src=busybox,dst=/i", "ls -d /i/bin; touch /i/x 2>&1; /i/bin/busybox echo runs", "/i/bin\ntouch: /i/x: Read-only file system\nruns", ""},
	{"--mount type=image,src=busybox,dst=/i,image-subpath=bin", "ls /i/busybox", "/i/busybox", ""},
	{"--mount type=image,src=busybox,dst=/i,image-subpath=nosuch", "", "", "cannot access path"},
	{"--mount type=image,src=busybox,dst=/i,image-subpath=../x", "", "", "subpath must be a relative path within the image"},
	{"--mount type=image,src=nosuch:1,dst=/i", "", "", "No such image: nosuch:1"},
	{"--mount type=image,dst=/i", "", "", "field Source must not be empty"},
	{"--mount type=cluster,src=x,dst=/d", "", "", "luster"},
	{"--mount type=bogus,src=x,dst=/d", "", "", "mount type unknown"},
	{"--mount type=bind,src=DIR", "", "", "arget"},
	{"--mount type=bind,src=DIR,dst=/d,bogus=1", "", "", "unexpected key 'bogus'"},
	{"--mount type=bind,src=DIR,dst=rel", "", "", "mount path must be absolute"},
	{"--mount type=bind,src=DIR,dst=/d -v rows:/d", "", "", "Duplicate mount point: /d"},
	{"-v DIR:/d:ro,z", "touch /d/x 2>&1", "touch: /d/x: Read-only file system", ""},
	{"-v DIR:/d:Z", "cat /d/f", "kept", ""},
	{"-v DIR:/d:z,Z", "", "", "invalid mode: z,Z"},
	{"-v DIR:/d:rslave", "cat /d/f", "kept", ""},
	{"-v DIR/made:/d", "touch /d/x && echo fine", "fine", ""},
	{"-v rows:/d:nocopy", "cat /d/v", "volume", ""},
	{"-v rows:/d:bogus", "", "", "invalid mode: bogus"},
	{"-v rows:/", "", "", "destination can't be '/'"},
}

// TestMounts: every key of --mount and every word of -v, by both command lines.
func TestMounts(t *testing.T) {
	each(t, func(s story) {
		dir := s.TempDir()
		for _, err := range []error{os.WriteFile(filepath.Join(dir, "f"), []byte("kept\n"), 0o644), os.Mkdir(filepath.Join(dir, "sub"), 0o755)} {
			if err != nil {
				s.Fatal(err)
			}
		}
		for _, c := range mountRows {
			args := append([]string{"run", "--rm"}, strings.Fields(strings.ReplaceAll(c.flags, "DIR", dir))...)
			r, err := s.cli.Run(nil, append(args, "busybox", "sh", "-c", c.script)...)
			if err != nil {
				s.Fatal(err)
			}
			switch {
			case c.text != "":
				if r.Code != 125 && r.Code != 127 || !strings.Contains(r.Stderr, c.text) {
					s.Errorf("%s: %+v, want 125 or 127 with %q", c.flags, r, c.text)
				}
			case strings.TrimSpace(r.Stdout) != c.want:
				s.Errorf("%s: %+v, want %q", c.flags, r, c.want)
			}
		}
		if got := s.ok("volume", "inspect", "-f", "{{.Labels.a}}", "labelled"); got != "b\n" {
			s.Errorf("label: %q", got)
		}
		s.ok("volume", "rm", "rows", "nocopy", "labelled", "opted")
	})
}

// TestImageMount: an image is kept as long as a container mounts it, and the
// mount is nobody's but the container's.
func TestImageMount(t *testing.T) {
	each(t, func(s story) {
		defer s.ok("rm", "-f", "viewer")
		s.ok("tag", "busybox", "tool:1")
		s.ok("run", "-d", "--name", "viewer", "--mount", "type=image,src=tool:1,dst=/tool", "busybox", "sleep", "1000")
		if got := s.ok("inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.RW}}{{end}}", "viewer"); got != "image tool:1 /tool false\n" {
			s.Errorf("%q", got)
		}
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(table), "/images/") {
			s.Errorf("the host has the mount: %v", err)
		}
		s.ok("restart", "-t", "0", "viewer")
		s.ok("exec", "viewer", "test", "-x", "/tool/bin/busybox")
		s.ok("rmi", "tool:1")
	})
}

// TestIDMap: the owner of a directory is the user of the container, and so are
// files that the container makes.
func TestIDMap(t *testing.T) {
	d := testkit.StartBusybox(t)
	dir, err := os.MkdirTemp("/var/tmp", "gantry-idmap-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, 4321, 4322); err != nil {
		t.Fatal(err)
	}
	owner := func(name string) string {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return err.Error()
		}
		st := fi.Sys().(*syscall.Stat_t)
		return fmt.Sprint(st.Uid, ":", st.Gid)
	}
	for i, c := range []struct{ user, idmap, inside, outside string }{
		{"0", "user", "0:0", "4321:4322"},
		{"1000:1000", "user", "1000:1000", "4321:4322"},
		{"7:7", "4321:7:1;g:4322:7:1;u:0:0:1;g:0:0:1", "", ""},
		{"7:9", "u:4321:7:1;g:4322:9:1", "7:9", "4321:4322"},
	} {
		name := fmt.Sprint("f", i)
		out, err := d.Gantry("run", "--rm", "-u", c.user, "--mount", "type=bind,src="+dir+",dst=/d,idmap="+c.idmap, "busybox",
			"sh", "-c", "touch /d/"+name+" && stat -c %u:%g /d")
		if c.inside == "" {
			if err == nil || !strings.Contains(err.Error(), "overlap") {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil || strings.TrimSpace(out) != c.inside || owner(name) != c.outside {
			t.Errorf("%+v: %v, inside %q, outside %s", c, err, out, owner(name))
		}
	}
	if _, err := d.Gantry("run", "--rm", "--mount", "type=volume,src=vv,dst=/d,idmap=user", "busybox", "true"); err == nil || !strings.Contains(err.Error(), "cannot mix 'idmap'") {
		t.Error(err)
	}
	// Where the file system can't, it is said.
	if _, err := d.Gantry("run", "--rm", "--mount", "type=bind,src=/proc,dst=/d,idmap=user", "busybox", "true"); err == nil || !strings.Contains(err.Error(), "map its ids") {
		t.Error(err)
	}
}

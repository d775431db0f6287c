package clients_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCauses: a start that fails says what is wrong and what to do, behind the
// text and with the exit code that Docker's clients know.
func TestCauses(t *testing.T) {
	each(t, func(s story) {
		dir := s.TempDir()
		if err := os.Chmod(dir, 0o755); err != nil {
			s.Fatal(err)
		}
		put := func(name, content string, mode os.FileMode) string {
			p := filepath.Join(dir, name)
			if err := os.WriteFile(p, []byte(content), mode); err != nil {
				s.Fatal(err)
			}
			if err := os.Chmod(p, mode); err != nil {
				s.Fatal(err)
			}
			return p
		}
		program, err := os.ReadFile("/usr/bin/true")
		if err != nil {
			s.Fatal(err)
		}
		foreign := append([]byte{}, program...)
		foreign[18], foreign[19] = 0xb7, 0 // e_machine: AArch64
		defer s.ok("rm", "-f", "holder", "down")
		s.ok("run", "-d", "--name", "holder", "-p", "28911:80", "busybox", "sleep", "1000")
		s.ok("create", "--name", "down", "busybox", "true")
		for _, c := range []struct {
			code int
			want string
			args string
		}{
			{127, `exec: "nosuch": executable file not found in $PATH`, "busybox nosuch"},
			{127, `exec: "/nosuch": stat /nosuch: no such file or directory`, "busybox /nosuch"},
			{127, `"ls -l": executable file not found in $PATH: it is one word with spaces in it`, "busybox ls_-l"},
			{126, `exec: "/etc": is a directory: permission denied`, "busybox /etc"},
			{126, `permission denied: the file is not executable (mode 0644, see chmod +x)`, "busybox /etc/passwd"},
			{127, `/t/plain is there, but the file is not executable`, "-e PATH=/t -v " + filepath.Dir(put("plain", "x", 0o644)) + ":/t busybox plain"},
			{127, `exec /f: no such file or directory: its interpreter "/nosuch/python3" does not exist in the image`, "-v " + put("py", "#!/nosuch/python3 -u\n", 0o755) + ":/f busybox /f"},
			{127, `its interpreter "/bin/sh\r" does not exist: the first line ends in a carriage return`, "-v " + put("crlf", "#!/bin/sh\r\n", 0o755) + ":/f busybox /f"},
			{127, `is not in the image (wrong libc or architecture?)`, "-v " + put("glibc", string(program), 0o755) + ":/f busybox /f"},
			{0, `exec format error: it is a program for arm64, and this host is`, "-v " + put("arm", string(foreign), 0o755) + ":/f busybox /f"},
			{0, `exec format error: the file is empty`, "-v " + put("empty", "", 0o755) + ":/f busybox /f"},
			{0, `exec format error: it is neither a program nor a script`, "-v " + put("text", "echo\n", 0o755) + ":/f busybox /f"},
			{126, `user 12345:0 may not execute it (mode 0700, owner 0:0)`, "-u 12345 -v " + put("private", "#!/bin/sh\n", 0o700) + ":/f busybox /f"},
			{126, `user 12345:0 may not search the directory /root`, "-u 12345 -v " + put("open", "#!/bin/sh\n", 0o755) + ":/root/f busybox /root/f"},
			{125, `unable to find user nosuch: no matching entries in passwd file`, "-u nosuch busybox true"},
			{125, `unable to find group nosuch: no matching entries in group file`, "-u 1:nosuch busybox true"},
			{125, `Cannot mkdir: /etc/passwd is not a directory`, "-w /etc/passwd busybox true"},
			{125, `bind source path does not exist: /nosuch`, "--mount type=bind,src=/nosuch,dst=/x busybox true"},
			{0, `error mounting "/etc/passwd" (bind) to rootfs at "/etc"`, "-v /etc/passwd:/etc busybox true"},
			{0, `at "/etc/passwd": make mount point /etc/passwd: not a directory: Are you trying to mount a directory onto a file`, "-v /etc:/etc/passwd busybox true"},
			{0, `at "/x": option "size=bad": invalid argument (tmpfs: Bad value for 'size')`, "--tmpfs /x:size=bad busybox true"},
			{125, `Bind for 0.0.0.0:28911 failed: port is already allocated: container holder publishes it`, "-p 28911:81 busybox true"},
			{0, `error gathering device information while adding custom device "/dev/nosuch": no such file or directory`, "--device /dev/nosuch busybox true"},
			{0, `sysctl kernel.shmmax: write "x"`, "--sysctl kernel.shmmax=x busybox true"},
			{125, `Requested CPUs are not available - requested 4000, available: `, "--cpuset-cpus 4000 busybox true"},
			{125, `unknown or invalid runtime name: nosuch`, "--runtime nosuch busybox true"},
			{125, `network nosuch not found`, "--network nosuch busybox true"},
			{125, `cannot join network namespace of a non running container: container down is created`, "--network container:down busybox true"},
			{125, `cannot join PID namespace of a non running container: container down is created`, "--pid container:down busybox true"},
			{125, `non-shareable IPC (hint: use IpcMode:shareable for the donor container)`, "--ipc container:holder busybox true"},
		} {
			words := strings.Fields(c.args)
			for i, w := range words {
				words[i] = strings.ReplaceAll(w, "ls_-l", "ls -l")
			}
			r, err := s.cli.Run(nil, append([]string{"run", "--rm"}, words...)...)
			if err != nil || r.Code == 0 || c.code != 0 && r.Code != c.code || !strings.Contains(r.Stderr, c.want) {
				s.Errorf("run %s: exit %d (want %d), %v\n%swant %q", c.args, r.Code, c.code, err, r.Stderr, c.want)
			}
		}
	})
}

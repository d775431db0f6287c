// Package vm runs test binaries on another kernel: Debian's cloud kernel in a
// small emulated machine with cgroup v2 only and every controller, which is
// what most users have and the machines that build Gantry do not.
//
// It builds an initramfs in memory (a busybox, kernel modules, the binaries and
// a script), boots it with qemu's software emulation and reads the serial
// console. It needs the Debian packages qemu-system-x86 and busybox-static and
// an unpacked linux-image-cloud-amd64 (see Kernel). It must not know what the
// binaries test.
package vm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Kernel is an unpacked Debian kernel package.
type Kernel struct {
	Image   string // boot/vmlinuz-…
	Modules string // lib/modules/…
}

// FindKernel looks for an unpacked kernel package below dir, as `make deps`
// leaves it.
func FindKernel(dir string) (*Kernel, error) {
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*-cloud-amd64"))
	mods, _ := filepath.Glob(filepath.Join(dir, "lib", "modules", "*-cloud-amd64"))
	if len(images) == 0 || len(mods) == 0 {
		return nil, fmt.Errorf("no kernel below %s: run `make deps`", dir)
	}
	return &Kernel{Image: images[len(images)-1], Modules: mods[len(mods)-1]}, nil
}

// Machine says what to boot.
type Machine struct {
	Kernel  *Kernel
	Modules []string          // modules to load, by name; what they need comes along
	Files   map[string]string // path in the machine → path here
	Script  string            // run by busybox sh as root; its exit code is the machine's
	// System is the path of a tar of a whole Debian system with systemd,
	// which then is the machine's first process and runs Script as a
	// service; empty for none but busybox.
	System  string
	Memory  int       // MiB
	Console io.Writer // receives everything printed
}

// marker precedes the script's exit code on the console.
const marker = "gantry-vm-exit:"

// boot is the machine's first program. The root that the kernel unpacks cannot
// be pivoted away from (pivot_root(2), "rootfs"), so the script runs on a tmpfs,
// with an ext4, which most users have, at /tmp.
const boot = `#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /newroot
$b mount -t tmpfs -o size=90%,mode=755 root /newroot
for f in /bin /lib /lib64 /test /stage2 /etc; do $b cp -a $f /newroot/; done
exec $b switch_root /newroot /stage2
`

const stage2 = `#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /tmp /run /root /var/lib
$b mount -t devtmpfs dev /dev
$b --install -s /bin 2>/dev/null
export PATH=/bin HOME=/root CI=true TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs run /run
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
dmesg -n 1
for m in $(cat /lib/modules.order); do insmod /lib/mod/$m || echo "insmod $m failed"; done
ip link set lo up
dd if=/dev/zero of=/disk bs=1 count=0 seek=4G 2>/dev/null
mke2fs -F -I 256 /disk >/dev/null
mount -t ext4 -o loop /disk /tmp
chmod 1777 /tmp
sh /test/script
echo "` + marker + `$?"
sync
poweroff -f
`

// service runs the script under systemd and ends the machine. It is started
// alone, without the targets of a whole boot.
const service = `[Unit]
Description=test
DefaultDependencies=no

[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Environment=CI=true HOME=/root TMPDIR=/tmp
ExecStart=/bin/sh -c 'sh /test/script; echo "` + marker + `$$?"; sync; echo o >/proc/sysrq-trigger; sleep 10'
`

// Run boots m and returns the script's exit code. The error says why there is
// none: the machine did not boot, or ctx ended.
func Run(ctx context.Context, m Machine) (int, error) {
	dir, err := os.MkdirTemp("", "gantry-vm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := writeInitrd(initrd, m); err != nil {
		return 0, fmt.Errorf("build initramfs: %w", err)
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
		"-m", strconv.Itoa(m.Memory), "-kernel", m.Kernel.Image, "-initrd", initrd,
		"-append", m.cmdline(), "-display", "none", "-monitor", "none",
		"-serial", "stdio", "-nic", "none", "-no-reboot")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	code, found := readConsole(out, m.Console)
	if err := cmd.Wait(); err != nil && !found {
		return 0, errors.Join(fmt.Errorf("qemu: %w: %s", err, stderr.String()), context.Cause(ctx))
	}
	if !found {
		return 0, errors.New("the machine ended without an exit code")
	}
	return code, nil
}

func (m Machine) cmdline() string {
	line := "console=ttyS0 quiet panic=-1 cgroup_no_v1=all "
	if m.System != "" {
		return line + "rdinit=/lib/systemd/systemd systemd.unit=gantry-test.service systemd.show_status=0 systemd.unified_cgroup_hierarchy=1"
	}
	return line + "rdinit=/init"
}

// readConsole copies the console to w and picks the exit code out of it.
func readConsole(r io.Reader, w io.Writer) (code int, found bool) {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadString('\n')
		if _, after, ok := strings.Cut(line, marker); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(after)); err == nil {
				code, found = n, true
			}
		} else if w != nil {
			io.WriteString(w, strings.ReplaceAll(line, "\r", ""))
		}
		if err != nil {
			return code, found
		}
	}
}

func writeInitrd(path string, m Machine) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	bw := bufio.NewWriterSize(f, 1<<20)
	a := newArchive(bw)
	if m.System != "" {
		a.tar(m.System)
		a.text("/etc/systemd/system/gantry-test.service", service, 0o644)
	} else if err := a.busybox(m); err != nil {
		return err
	}
	a.text("/test/script", m.Script, 0o755)
	for in, here := range m.Files {
		a.file(in, here)
	}
	a.close()
	return errors.Join(a.err, bw.Flush())
}

// busybox adds the small system: a busybox, the kernel modules, the start-up.
func (a *archive) busybox(m Machine) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	order, err := moduleOrder(m.Kernel.Modules, m.Modules)
	if err != nil {
		return err
	}
	a.file("/bin/busybox", busybox)
	a.parents("/lib64/x")
	a.text("/init", boot, 0o755)
	a.text("/stage2", stage2, 0o755)
	a.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", 0o644)
	a.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)
	var names []string
	for _, mod := range order {
		a.file("/lib/mod/"+filepath.Base(mod), filepath.Join(m.Kernel.Modules, mod))
		names = append(names, filepath.Base(mod))
	}
	a.text("/lib/modules.order", strings.Join(names, "\n")+"\n", 0o644)
	return nil
}

// moduleOrder returns the files of the modules and of all that they need, in
// an order in which insmod takes them (modules.dep: "file: needed needed …").
func moduleOrder(dir string, names []string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if errors.Is(err, os.ErrNotExist) {
		// An unpacked package has none until depmod has run.
		return nil, fmt.Errorf("%s has no modules.dep: run `make deps`", dir)
	}
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{}
	byName := map[string]string{}
	for line := range strings.Lines(string(data)) {
		file, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		needs[file] = strings.Fields(rest)
		byName[strings.TrimSuffix(filepath.Base(file), ".ko")] = file
	}
	var order []string
	for _, name := range names {
		file, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("kernel module %s does not exist in %s", name, dir)
		}
		// modules.dep lists what is needed nearest first.
		all := append([]string{file}, needs[file]...)
		slices.Reverse(all)
		for _, f := range all {
			if !slices.Contains(order, f) {
				order = append(order, f)
			}
		}
	}
	return order, nil
}

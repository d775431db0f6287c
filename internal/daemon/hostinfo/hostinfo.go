// Package hostinfo reads what /info and /version say of the machine: kernel,
// distribution, processors and memory. The daemon's wiring calls it. It only
// reads, and must not know containers.
package hostinfo

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is what is known of a machine.
type Host struct {
	Name         string
	Kernel       string // release, such as 6.18.0
	Architecture string // as uname says, such as x86_64
	OS           string // pretty name of the distribution
	OSVersion    string
	CPUs         int
	Memory       int64 // bytes
}

// Read reads everything. What can't be found is left empty.
func Read() Host {
	var h Host
	h.Name, _ = os.Hostname()
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel, h.Architecture = unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])
	}
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if data, err := os.ReadFile(path); err == nil {
			h.OS, h.OSVersion = osRelease(string(data))
			break
		}
	}
	if h.OS == "" {
		h.OS = "Linux"
	}
	h.CPUs = runtime.NumCPU()
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		h.Memory = memTotal(string(data))
	}
	return h
}

// osRelease reads the two values wanted of os-release(5).
func osRelease(text string) (pretty, version string) {
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		key, value, _ := strings.Cut(sc.Text(), "=")
		if q, err := strconv.Unquote(value); err == nil {
			value = q
		}
		value = strings.Trim(value, "'")
		switch key {
		case "PRETTY_NAME":
			pretty = value
		case "VERSION_ID":
			version = value
		}
	}
	return pretty, version
}

// memTotal reads the first line of /proc/meminfo, in bytes.
func memTotal(text string) int64 {
	_, rest, _ := strings.Cut(text, "MemTotal:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kb, _ := strconv.ParseInt(fields[0], 10, 64)
	return kb << 10
}

// OpenFiles returns how many descriptors this process has.
func OpenFiles() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(list)
}

// Sysctl reports whether a file below /proc/sys says something other than 0.
func Sysctl(path string) bool {
	data, err := os.ReadFile("/proc/sys/" + path)
	text := strings.TrimSpace(string(data))
	return err == nil && text != "0" && text != ""
}

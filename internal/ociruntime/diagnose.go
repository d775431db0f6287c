package ociruntime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// What follows says why a program could not be executed, to whoever has to mend
// it: the kernel's one number stands for many causes. It runs in the container,
// with the rights of the process that failed, and only after the failure.

// whyDenied tells why a file may not be executed; "" if nothing is found.
func whyDenied(file string) string {
	for dir := path.Dir(file); ; dir = path.Dir(dir) {
		if unix.Faccessat(unix.AT_FDCWD, dir, unix.X_OK, unix.AT_EACCESS) == unix.EACCES {
			return fmt.Sprintf(": %s may not search the directory %s", whoami(), dir)
		}
		if dir == "/" || dir == "." {
			break
		}
	}
	var st unix.Stat_t
	if unix.Stat(file, &st) != nil {
		return ""
	}
	mode := st.Mode & 0o7777
	switch {
	case mode&0o111 == 0:
		return fmt.Sprintf(": the file is not executable (mode %04o, see chmod +x)", mode)
	case unix.Geteuid() != 0 && unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS) != nil && !onNoexec(file):
		return fmt.Sprintf(": %s may not execute it (mode %04o, owner %d:%d)", whoami(), mode, st.Uid, st.Gid)
	case onNoexec(file):
		return ": it is on a mount with the option noexec"
	}
	return ""
}

func onNoexec(file string) bool {
	var sfs unix.Statfs_t
	return unix.Statfs(file, &sfs) == nil && sfs.Flags&unix.ST_NOEXEC != 0
}

func whoami() string { return fmt.Sprintf("user %d:%d", unix.Geteuid(), unix.Getegid()) }

// whyNotFound tells what may be wrong with a name that no directory of PATH has;
// "" if it is simply not there.
func whyNotFound(name, searched string) string {
	if first, _, several := strings.Cut(strings.TrimSpace(name), " "); several {
		return fmt.Sprintf(": it is one word with spaces in it; if %q is the program, give its arguments as words of their own", first)
	}
	if name == "" {
		return ": the name is empty"
	}
	if searched == "" {
		return ", which is not set"
	}
	for dir := range strings.SplitSeq(searched, ":") {
		file := path.Join("/", dir, name)
		var st unix.Stat_t
		if unix.Stat(file, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return fmt.Sprintf(": %s is there, but%s", file, strings.TrimPrefix(whyDenied(file), ":"))
		}
	}
	return ""
}

// headSize is how much of a program is looked at: its headers are at its start.
const headSize = 4096

func headOf(file string) []byte {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, headSize)
	n, _ := f.ReadAt(b, 0)
	return b[:n]
}

// whyMissing tells what is missing when a file that exists is "not found": what
// runs it. Errors are of execve(2) and read like the kernel's.
func whyMissing(head []byte) string {
	if script, ok := interpreter(head); ok {
		switch {
		case strings.HasSuffix(script, "\r"):
			return fmt.Sprintf(": its interpreter %q does not exist: the first line ends in a carriage return, as in files of Windows (see dos2unix)", script)
		case script == "":
			return ": its first line names no interpreter"
		}
		return fmt.Sprintf(": its interpreter %q does not exist in the image", script)
	}
	p, ok := parseELF(head)
	switch {
	case !ok || p.loader == "":
		return ""
	case p.machine != "" && p.machine != hostMachine():
		return fmt.Sprintf(": its loader %s is not in the image: it is a program for %s, and this host is %s", p.loader, p.machine, hostMachine())
	}
	return fmt.Sprintf(": its loader %s is not in the image (wrong libc or architecture?)", p.loader)
}

// whyNoFormat tells why the kernel can't run a file's content.
func whyNoFormat(head []byte, size int64) string {
	p, isELF := parseELF(head)
	switch {
	case size == 0:
		return ": the file is empty"
	case isELF && p.machine != "" && p.machine != hostMachine():
		return fmt.Sprintf(": it is a program for %s, and this host is %s (see --platform)", p.machine, hostMachine())
	case isELF:
		return ": the program is damaged, or not for this kernel"
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf#!")):
		return ": a byte order mark stands before its #!"
	case bytes.HasPrefix(head, []byte("MZ")):
		return ": it is a program for Windows"
	case bytes.HasPrefix(head, []byte("\xcf\xfa\xed\xfe")), bytes.HasPrefix(head, []byte("\xca\xfe\xba\xbe")):
		return ": it is a program for macOS"
	case !bytes.Contains(head, []byte{0}):
		return ": it is neither a program nor a script whose first line is #! and its interpreter"
	}
	return ": it is no program that this kernel knows"
}

// interpreter returns what a script's first line asks for; false if the file is
// no script. The carriage return of a Windows line belongs to the name, as it
// does for the kernel.
func interpreter(head []byte) (string, bool) {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return "", false
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	name := strings.TrimLeft(string(line), " \t")
	if i := strings.IndexAny(name, " \t"); i >= 0 {
		name = name[:i]
	}
	return name, true
}

// elfProgram is what the headers of an ELF file say of where it runs (elf(5)).
type elfProgram struct {
	machine string // in the words of images: amd64, arm64 …; "" if unknown
	loader  string // of PT_INTERP
}

// machines are the numbers e_machine of the platforms that images are made for.
var machines = map[uint16]string{
	3: "386", 8: "mips", 21: "ppc64", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 258: "loong64",
}

func hostMachine() string { return runtime.GOARCH }

// parseELF reads the start of a file; false if it is no ELF file. Everything in
// it may be a lie.
func parseELF(head []byte) (elfProgram, bool) {
	var p elfProgram
	if len(head) < 64 || string(head[:4]) != "\x7fELF" {
		return p, len(head) >= 4 && string(head[:4]) == "\x7fELF"
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	wide := head[4] == 2
	p.machine = machines[order.Uint16(head[18:])]
	var at, size, count int
	if wide {
		at, size, count = int(min(order.Uint64(head[32:]), headSize)), int(order.Uint16(head[54:])), int(order.Uint16(head[56:]))
	} else {
		at, size, count = int(min(order.Uint32(head[28:]), headSize)), int(order.Uint16(head[42:])), int(order.Uint16(head[44:]))
		if p.machine == "ppc64" {
			p.machine = ""
		}
	}
	if p.machine == "ppc64" && head[5] == 1 {
		p.machine = "ppc64le"
	}
	const ptInterp = 3
	for ; count > 0 && size >= 32 && at+size <= len(head); at, count = at+size, count-1 {
		h := head[at:]
		if order.Uint32(h) != ptInterp {
			continue
		}
		off, n := uint64(order.Uint32(h[4:])), uint64(order.Uint32(h[16:]))
		if wide {
			if size < 56 {
				return p, true
			}
			off, n = order.Uint64(h[8:]), order.Uint64(h[32:])
		}
		if off < uint64(len(head)) && n <= uint64(len(head))-off {
			name, _, _ := bytes.Cut(head[off:off+n], []byte{0})
			p.loader = string(name)
		}
		break
	}
	return p, true
}

// execError puts a failure of execve(2) into words.
func execError(name, file string, err error) *ExecError {
	switch err {
	case unix.EACCES, unix.EPERM:
		return &ExecError{Code: 126, Text: fmt.Sprintf("exec: %q: permission denied", name) + deniedInside(file)}
	case unix.ENOENT:
		return &ExecError{Code: 127, Text: fmt.Sprintf("exec %s: no such file or directory", file) + whyMissing(headOf(file))}
	case unix.ENOEXEC:
		size := int64(1)
		if st, err := os.Stat(file); err == nil {
			size = st.Size()
		}
		return &ExecError{Code: 126, Text: fmt.Sprintf("exec %s: %s", file, err) + whyNoFormat(headOf(file), size)}
	case unix.E2BIG:
		return &ExecError{Code: 126, Text: fmt.Sprintf("exec %s: %s: the arguments and the environment take more room than the kernel gives", file, err)}
	case unix.ETXTBSY:
		return &ExecError{Code: 126, Text: fmt.Sprintf("exec %s: %s: somebody has it open for writing", file, err)}
	case unix.ENOMEM:
		return &ExecError{Code: 126, Text: fmt.Sprintf("exec %s: %s: see the memory limit of the container", file, err)}
	}
	return &ExecError{Code: 126, Text: fmt.Sprintf("exec %s: %s", file, err)}
}

// deniedInside is whyDenied for a file, or for its interpreter.
func deniedInside(file string) string {
	if why := whyDenied(file); why != "" {
		return why
	}
	head := headOf(file)
	run, ok := interpreter(head)
	if p, isELF := parseELF(head); isELF {
		run, ok = p.loader, p.loader != ""
	}
	if !ok || !path.IsAbs(run) {
		return ""
	}
	if why := whyDenied(run); why != "" {
		return fmt.Sprintf(": it is run by %s%s", run, why)
	}
	return ""
}

// mountHint says what is usually wrong when a mount does not fit its target.
func mountHint(err error) string {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EISDIR) {
		return ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
	}
	return ""
}

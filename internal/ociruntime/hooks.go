package ociruntime

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
)

// specVersion is the version of the OCI runtime spec that hooks' state names.
const specVersion = "1.3.0"

// HookState is the state that a container's hooks read (runtime-spec,
// runtime.md "State"): JSON, written by hand since the init must not pay for
// encoding/json. A pid of 0 is left out.
func HookState(j *job.Job, status string, pid int) []byte {
	b := append([]byte(nil), `{"ociVersion":"`+specVersion+`","id":`...)
	b = appendJSON(b, j.ID)
	b = append(b, `,"status":"`+status+`"`...)
	if pid > 0 {
		b = strconv.AppendInt(append(b, `,"pid":`...), int64(pid), 10)
	}
	b = appendJSON(append(b, `,"bundle":`...), j.Bundle)
	if len(j.Annotations) > 0 {
		b = append(b, `,"annotations":`...)
		sep := byte('{')
		for _, kv := range j.Annotations {
			b = append(b, sep)
			b = append(appendJSON(b, kv.Key), ':')
			b = appendJSON(b, kv.Value)
			sep = ','
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendJSON appends s as a JSON string (RFC 8259); invalid UTF-8 becomes
// U+FFFD.
func appendJSON(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20:
			b = append(b, `\u00`...)
			b = append(b, hex[r>>4], hex[r&15])
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}

// RunHooks runs programs one after the other with state on standard input, each
// within its timeout, and stops at the first that fails. What a failing one
// printed is part of the error, 4 KiB of it. The shim calls it for poststop.
func RunHooks(hooks []job.Hook, state []byte) error {
	for i := range hooks {
		if err := runHook(&hooks[i], state); err != nil {
			return fmt.Errorf("%s: %w", hooks[i].Path, err)
		}
	}
	return nil
}

func runHook(h *job.Hook, state []byte) error {
	in, err := stateFile(state)
	if err != nil {
		return err
	}
	defer in.Close()
	out, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	env := h.Env
	if env == nil {
		env = []string{}
	}
	pid, err := syscall.ForkExec(h.Path, args, &syscall.ProcAttr{
		Env: env, Dir: "", Files: []uintptr{in.Fd(), write.Fd(), write.Fd()},
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	write.Close()
	if err != nil {
		return err
	}
	timedOut := make(chan struct{})
	if h.Timeout > 0 {
		t := time.AfterFunc(time.Duration(h.Timeout)*time.Second, func() {
			unix.Kill(-pid, unix.SIGKILL)
			close(timedOut)
		})
		defer t.Stop()
	}
	said := make(chan []byte, 1)
	go func() { said <- readSome(out, 4096) }()
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	select {
	case <-timedOut:
		return fmt.Errorf("killed after %d s", h.Timeout)
	default:
	}
	if err != nil {
		return err
	}
	if code := ExitCode(ws); code != 0 {
		out.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // a grandchild may hold the pipe
		return fmt.Errorf("exit status %d: %s", code, <-said)
	}
	return nil
}

// readSome reads to the end and keeps the first n bytes.
func readSome(f *os.File, n int) []byte {
	var kept []byte
	b := make([]byte, 1024)
	for {
		m, err := f.Read(b)
		kept = append(kept, b[:min(m, n-len(kept))]...)
		if err != nil {
			return kept
		}
	}
}

// stateFile is a memfd with the state, so that a hook that does not read its
// input can't block us.
func stateFile(state []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "state")
	if _, err = f.Write(state); err == nil {
		_, err = f.Seek(0, 0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

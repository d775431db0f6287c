package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gantry/internal/errs"
)

func TestSystemdGroup(t *testing.T) {
	h := &Host{Mode: V2, V2: "/sys/fs/cgroup"}
	for in, want := range map[string]string{
		":gantry:abc":              "/system.slice/gantry-abc.scope",
		"machine.slice:libpod:abc": "/machine.slice/libpod-abc.scope",
		"a-b-c.slice:p:x":          "/a.slice/a-b.slice/a-b-c.slice/p-x.scope",
		"-.slice::x":               "/x.scope",
	} {
		g, err := h.SystemdGroup(in)
		if err != nil || g.Path() != want {
			t.Errorf("%s: %v, %v; want %s", in, g, err, want)
		}
	}
	for _, bad := range []string{"", "/docker/abc", "a:b", "a.slice:b:", "noslice:b:c", "a--b.slice:p:x", ".slice:p:x"} {
		if _, err := h.SystemdGroup(bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestUnitProperties(t *testing.T) {
	render := func(v2 bool) string {
		var out []string
		for _, p := range unitProperties(everything(), v2) {
			out = append(out, fmt.Sprint(p.name, "=", p.value))
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	if got, want := render(true), "CPUQuotaPerSecUSec=500000 CPUQuotaPeriodUSec=100000 CPUWeight=59 IOWeight=4950 MemoryLow=33554432 MemoryMax=67108864 MemorySwapMax=33554432 TasksMax=50"; got != want {
		t.Errorf("v2:\n%s\nwant\n%s", got, want)
	}
	if got, want := render(false), "BlockIOWeight=500 CPUQuotaPerSecUSec=500000 CPUShares=512 MemoryLimit=67108864 TasksMax=50"; got != want {
		t.Errorf("v1:\n%s\nwant\n%s", got, want)
	}
}

// fakeSystemd answers one call on a socket with reply and returns what was
// asked.
func fakeSystemd(t *testing.T, reply []byte) (socket string, asked chan []byte) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "private")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	asked = make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		auth := make([]byte, len("\x00AUTH EXTERNAL 30\r\n"))
		io.ReadFull(c, auth)
		io.WriteString(c, "OK 0123456789abcdef\r\n")
		io.ReadFull(c, make([]byte, len("BEGIN\r\n")))
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		asked <- buf[:n]
		c.Write(reply)
	}()
	return socket, asked
}

// reply builds a message of the given type, answering serial 1.
func reply(typ byte, errName, text string) []byte {
	var body busWriter
	if text != "" {
		body.str(text)
	}
	h := busWriter{b: []byte{'l', typ, 1, 1}}
	h.u32(uint32(len(body.b)))
	h.u32(7)
	h.array(8, func() {
		h.align(8)
		h.b = append(h.b, busSignature)
		h.sig("g")
		h.sig("s")
		if errName != "" {
			h.align(8)
			h.b = append(h.b, busErrorName)
			h.sig("s")
			h.str(errName)
		}
		h.align(8)
		h.b = append(h.b, busReplySerial)
		h.sig("u")
		h.u32(1)
	})
	h.align(8)
	return append(h.b, body.b...)
}

func TestCallSystemd(t *testing.T) {
	// A signal may come before the reply and is passed over.
	other := reply(4, "", "x")
	copy(other[bytes.LastIndexByte(other, busReplySerial):], []byte{9})
	socket, asked := fakeSystemd(t, append(other, reply(busMethodReturn, "", "/job/1")...))
	u := &unit{name: "gantry-x.scope", socket: socket}
	if err := u.call("StartTransientUnit", "ssa(sv)a(sa(sv))", u.name, "fail", []property{{"Delegate", "b", true}, {"PIDs", "au", []uint32{7}}}, []struct{}{}); err != nil {
		t.Fatal(err)
	}
	msg := <-asked
	for _, want := range []string{"StartTransientUnit", "gantry-x.scope", "Delegate", "PIDs"} {
		if !bytes.Contains(msg, []byte(want)) {
			t.Errorf("the call lacks %q", want)
		}
	}
}

func TestSystemdRefuses(t *testing.T) {
	socket, _ := fakeSystemd(t, reply(busErrorReply, "org.freedesktop.systemd1.UnitExists", "Unit x already exists."))
	err := (&unit{name: "x", socket: socket}).call("StartTransientUnit", "s", "x")
	var be *busError
	if !errors.As(err, &be) || be.name != "org.freedesktop.systemd1.UnitExists" || be.text != "Unit x already exists." {
		t.Errorf("err = %v", err)
	}
	socket, _ = fakeSystemd(t, reply(busErrorReply, "org.freedesktop.systemd1.NoSuchUnit", "not loaded"))
	if err := (&unit{name: "x", socket: socket}).stop(); err != nil {
		t.Errorf("stop of a unit that is gone: %v", err)
	}
}

func FuzzBusReply(f *testing.F) {
	f.Add(reply(busMethodReturn, "", "x"))
	f.Add(reply(busErrorReply, "a.b", "text"))
	f.Add([]byte("l\x02\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) { busReply(bytes.NewReader(b)) })
}

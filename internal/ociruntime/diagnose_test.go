package ociruntime

import (
	"bytes"
	"encoding/binary"
	"os"
	"runtime"
	"strings"
	"testing"
)

// elf makes the head of a program for a machine, with a loader if it has one.
func elf(class, data byte, machine uint16, loader string) []byte {
	var order binary.AppendByteOrder = binary.LittleEndian
	if data == 2 {
		order = binary.BigEndian
	}
	b := append([]byte("\x7fELF"), class, data, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = order.AppendUint16(order.AppendUint16(b, 2), machine)
	b = order.AppendUint32(b, 1)
	at, head, size := uint64(64), uint16(64), uint16(56)
	if class == 1 {
		at, head, size = 64, 52, 32
		b = order.AppendUint32(order.AppendUint32(order.AppendUint32(b, 0), uint32(at)), 0)
	} else {
		b = order.AppendUint64(order.AppendUint64(order.AppendUint64(b, 0), at), 0)
	}
	b = order.AppendUint32(b, 0)
	for _, n := range []uint16{head, size, 1, 0, 0, 0} {
		b = order.AppendUint16(b, n)
	}
	b = append(b, make([]byte, int(at)-len(b))...)
	off := at + uint64(size)
	if class == 1 {
		for _, n := range []uint32{3, uint32(off), 0, 0, uint32(len(loader) + 1), 0, 0, 0} {
			b = order.AppendUint32(b, n)
		}
	} else {
		b = order.AppendUint32(order.AppendUint32(b, 3), 4)
		for _, n := range []uint64{off, 0, 0, uint64(len(loader) + 1), 0, 0} {
			b = order.AppendUint64(b, n)
		}
	}
	return append(append(b, loader...), 0)
}

func TestCauses(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the table is written for amd64")
	}
	musl := elf(2, 1, 62, "/lib/ld-musl-x86_64.so.1")
	for _, c := range []struct {
		head []byte
		want string
	}{
		{[]byte("#!/usr/bin/env python\n"), `: its interpreter "/usr/bin/env" does not exist in the image`},
		{[]byte("#! /bin/bash -e\n"), `: its interpreter "/bin/bash" does not exist in the image`},
		{[]byte("#!/bin/sh\r\necho\r\n"), `: its interpreter "/bin/sh\r" does not exist: the first line ends in a carriage return, as in files of Windows (see dos2unix)`},
		{[]byte("#!\n"), ": its first line names no interpreter"},
		{musl, ": its loader /lib/ld-musl-x86_64.so.1 is not in the image (wrong libc or architecture?)"},
		{elf(2, 1, 62, "/lib64/ld-linux-x86-64.so.2"), ": its loader /lib64/ld-linux-x86-64.so.2 is not in the image (wrong libc or architecture?)"},
		{elf(2, 1, 183, "/lib/ld-linux-aarch64.so.1"), ": its loader /lib/ld-linux-aarch64.so.1 is not in the image: it is a program for arm64, and this host is amd64"},
		{elf(1, 1, 3, "/lib/ld-linux.so.2"), ": its loader /lib/ld-linux.so.2 is not in the image: it is a program for 386, and this host is amd64"},
		{[]byte("hello"), ""}, {nil, ""},
	} {
		if got := whyMissing(c.head); got != c.want {
			t.Errorf("%.30q: %s\nwant %s", c.head, got, c.want)
		}
	}
	for _, c := range []struct {
		head []byte
		want string
	}{
		{nil, ": the file is empty"},
		{elf(2, 1, 183, ""), ": it is a program for arm64, and this host is amd64 (see --platform)"},
		{elf(2, 2, 22, ""), ": it is a program for s390x, and this host is amd64 (see --platform)"},
		{elf(2, 1, 21, ""), ": it is a program for ppc64le, and this host is amd64 (see --platform)"},
		{musl, ": the program is damaged, or not for this kernel"},
		{[]byte("\xef\xbb\xbf#!/bin/sh\n"), ": a byte order mark stands before its #!"},
		{[]byte("MZ\x90\x00"), ": it is a program for Windows"},
		{[]byte("\xcf\xfa\xed\xfe\x07"), ": it is a program for macOS"},
		{[]byte("echo hello\n"), ": it is neither a program nor a script whose first line is #! and its interpreter"},
		{[]byte{0, 1, 2}, ": it is no program that this kernel knows"},
	} {
		if got := whyNoFormat(c.head, int64(len(c.head))); got != c.want {
			t.Errorf("%.30q: %s\nwant %s", c.head, got, c.want)
		}
	}
}

// FuzzELF: the headers of a file in an image are anybody's.
func FuzzELF(f *testing.F) {
	f.Add(elf(2, 1, 62, "/lib/ld"))
	f.Add(elf(1, 2, 8, "/lib/ld"))
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Add(append([]byte("\x7fELF\x02\x01"), bytes.Repeat([]byte{0xff}, 100)...))
	f.Add([]byte("\x7fELF"))
	if own, err := os.ReadFile("/proc/self/exe"); err == nil {
		f.Add(own[:headSize])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseELF(b)
		if len(p.loader) > len(b) || ok != bytes.HasPrefix(b, []byte("\x7fELF")) {
			t.Errorf("%+v %v", p, ok)
		}
		if s := whyNoFormat(b, int64(len(b))) + whyMissing(b); !strings.HasPrefix(s, ":") {
			t.Errorf("%q", s)
		}
	})
}

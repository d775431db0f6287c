package network

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"testing"
	"time"

	"gantry/internal/network/kernel"
)

// TestSCTP: the first two packets of an association pass a published port there
// and back. They are made by hand (RFC 9260, 3.3.2), since few kernels have
// SCTP's sockets; what translates them needs none.
func TestSCTP(t *testing.T) {
	b := open(t, nil)
	lan := machine(t, "lan", "192.0.2.2/24", "192.0.2.9/24")
	s := b.attach(t, AttachRequest{Name: "served", Mode: "bridge", Ports: published(t, "9999>7/sctp")})
	server, client := raw(t, namespace(t, s), "0.0.0.0"), raw(t, lan, "192.0.2.9")
	host := &net.IPAddr{IP: net.IPv4(192, 0, 2, 2)}
	const asks, answers = 1, 2
	init := chunk(40000, 9999, 0, asks, 0xabcd)
	got, from := exchange(t, client, init, host, server)
	if from.String() != "192.0.2.9" || binary.BigEndian.Uint16(got[2:]) != 7 || got[12] != asks {
		t.Fatalf("the container gets %x from %s", got, from)
	}
	if !summed(got) {
		t.Errorf("the container gets a wrong sum: %x", got)
	}
	got, from = exchange(t, server, chunk(7, 40000, 0xabcd, answers, 0x1234), from, client)
	if from.String() != "192.0.2.2" || binary.BigEndian.Uint16(got) != 9999 || got[12] != answers || !summed(got) {
		t.Errorf("the client gets %x from %s", got, from)
	}
	b.detach(t, s.ID)
}

func raw(t *testing.T, ns *kernel.Namespace, at string) *net.IPConn {
	t.Helper()
	var c *net.IPConn
	if err := ns.Do(func() (err error) {
		c, err = net.ListenIP("ip4:132", &net.IPAddr{IP: net.ParseIP(at)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends a packet, again if need be, until one arrives at the other end.
func exchange(t *testing.T, from *net.IPConn, packet []byte, to net.Addr, at *net.IPConn) ([]byte, net.Addr) {
	t.Helper()
	buf := make([]byte, 200)
	for range 20 {
		if _, err := from.WriteTo(packet, to); err != nil {
			t.Fatal(err)
		}
		at.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if n, who, err := at.ReadFrom(buf); err == nil && n > 12 {
			return buf[:n], who
		}
	}
	t.Fatalf("%x never arrives", packet)
	return nil, nil
}

// chunk is a packet with one chunk, INIT or INIT ACK.
func chunk(from, to uint16, tag uint32, kind byte, own uint32) []byte {
	p := make([]byte, 32)
	binary.BigEndian.PutUint16(p, from)
	binary.BigEndian.PutUint16(p[2:], to)
	binary.BigEndian.PutUint32(p[4:], tag)
	p[12], p[15] = kind, 20
	binary.BigEndian.PutUint32(p[16:], own)
	binary.BigEndian.PutUint32(p[20:], 65535) // window
	p[25], p[27] = 1, 1                       // streams
	binary.LittleEndian.PutUint32(p[8:], sum(p))
	return p
}

// sum is the check sum of a packet whose own is zero (RFC 9260, 6.8).
func sum(p []byte) uint32 { return crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) }

func summed(p []byte) bool {
	bare := append([]byte(nil), p...)
	copy(bare[8:], []byte{0, 0, 0, 0})
	return binary.LittleEndian.Uint32(p[8:]) == sum(bare)
}

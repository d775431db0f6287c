package nat

import (
	"bytes"
	"errors"
	"net"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"gantry/internal/errs"
)

// watchBuffer holds what one large transaction makes the kernel tell.
const watchBuffer = 4 << 20

// A Watcher tells when others take something out of the table: `nft flush
// ruleset`, or a firewall that starts anew.
type Watcher struct {
	// C gets a value, at most one at a time, after something was taken out.
	// It is closed after Close.
	C <-chan struct{}

	conn *netlink.Conn
}

// Watch begins to watch the table, in the network namespace of the calling
// thread. What r itself takes out is not told.
func (r *Rules) Watch() (*Watcher, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return nil, errs.New(errs.Unsupported, "watch packet rules: %w", err)
	}
	_ = c.SetReadBuffer(watchBuffer)
	told := make(chan struct{}, 1)
	go func() {
		defer close(told)
		for {
			msgs, err := c.Receive()
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADF) {
				return
			}
			lost := errors.Is(err, unix.ENOBUFS) // who knows what was among it
			if err != nil && !lost {
				return
			}
			for _, m := range msgs {
				lost = lost || m.Header.PID != r.port.Load() && takes(uint16(m.Header.Type), m.Data, r.table.Name)
			}
			if lost {
				select {
				case told <- struct{}{}:
				default:
				}
			}
		}
	}()
	return &Watcher{C: told, conn: c}, nil
}

// Close ends the watch.
func (w *Watcher) Close() { _ = w.conn.Close() }

// nfnlNftables is NFNL_SUBSYS_NFTABLES of <linux/netfilter/nfnetlink.h>.
const nfnlNftables = 10

// takes reports whether a message says that something has been taken out of a
// table of family inet. In all of these messages the first attribute is the
// table's name (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, … are 1). Pure.
func takes(kind uint16, data []byte, table string) bool {
	if kind>>8 != nfnlNftables {
		return false
	}
	switch kind & 0xff {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM:
	default:
		return false
	}
	const nfgenmsg, attrTable = 4, 1
	if len(data) < nfgenmsg || data[0] != unix.NFPROTO_INET {
		return false
	}
	d, err := netlink.NewAttributeDecoder(data[nfgenmsg:])
	if err != nil {
		return false
	}
	for d.Next() {
		if d.Type() == attrTable {
			return string(bytes.TrimRight(d.Bytes(), "\x00")) == table
		}
	}
	return false
}

// portOf returns the kernel's number for a socket, which its messages carry.
func portOf(c *netlink.Conn) (port uint32) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if sa, err := unix.Getsockname(int(fd)); err == nil {
			if n, ok := sa.(*unix.SockaddrNetlink); ok {
				port = n.Pid
			}
		}
	})
	return port
}

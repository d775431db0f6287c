package nat

import (
	"encoding/binary"
	"errors"
	"os"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nlenc"
	"golang.org/x/sys/unix"
)

// A batch is one transaction as the kernel reads it. A container's start has no
// time for a connection with an answer to each message, so this is sent at once,
// from the thread that is in the right namespace, and only a failure is answered.
//
// Source of the format: <linux/netfilter/nfnetlink.h>, nf_tables.h.
type batch []byte

// create makes a table without maps that does not exist: unix.EEXIST if it does.
func create(rs Ruleset) error {
	b := begin()
	b.add(unix.NFT_MSG_NEWTABLE, netlink.Excl, rs, text(unix.NFTA_TABLE_NAME, rs.Table))
	for _, c := range rs.Chains {
		b.add(unix.NFT_MSG_NEWCHAIN, netlink.Create, rs, text(unix.NFTA_CHAIN_TABLE, rs.Table), text(unix.NFTA_CHAIN_NAME, c.name),
			nested(unix.NFTA_CHAIN_HOOK, number(unix.NFTA_HOOK_HOOKNUM, uint32(*c.hook.num)), number(unix.NFTA_HOOK_PRIORITY, uint32(*c.hook.priority))),
			text(unix.NFTA_CHAIN_TYPE, string(c.hook.kind)))
		for _, ru := range c.rules {
			exprs, err := expressions(rs, ru)
			if err != nil {
				return err
			}
			b.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, rs, text(unix.NFTA_RULE_TABLE, rs.Table), text(unix.NFTA_RULE_CHAIN, c.name), exprs)
		}
	}
	return b.send()
}

// remove removes the table of a set of rules.
func remove(rs Ruleset) error {
	b := begin()
	b.add(unix.NFT_MSG_DELTABLE, 0, rs, text(unix.NFTA_TABLE_NAME, rs.Table))
	return b.send()
}

func expressions(rs Ruleset, ru rule) (netlink.Attribute, error) {
	var list []netlink.Attribute
	for _, p := range ru {
		for _, e := range p.exprs {
			data, err := expr.Marshal(byte(rs.Family), e)
			if err != nil {
				return netlink.Attribute{}, err
			}
			list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: data})
		}
	}
	return nested(unix.NFTA_RULE_EXPRESSIONS, list...), nil
}

func text(kind uint16, s string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: nlenc.Bytes(s)}
}

func number(kind uint16, n uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint32(nil, n)}
}

func nested(kind uint16, list ...netlink.Attribute) netlink.Attribute {
	data, _ := netlink.MarshalAttributes(list) // fails for attributes of 64 KiB
	return netlink.Attribute{Type: unix.NLA_F_NESTED | kind, Data: data}
}

const subsystem = unix.NFNL_SUBSYS_NFTABLES

func begin() *batch {
	b := &batch{}
	b.message(unix.NFNL_MSG_BATCH_BEGIN, netlink.Request, 0, subsystem, nil)
	return b
}

func (b *batch) add(kind uint16, flags netlink.HeaderFlags, rs Ruleset, attrs ...netlink.Attribute) {
	data, _ := netlink.MarshalAttributes(attrs)
	b.message(subsystem<<8|kind, netlink.Request|flags, byte(rs.Family), 0, data)
}

// message appends a header, struct nfgenmsg and attributes.
func (b *batch) message(kind uint16, flags netlink.HeaderFlags, family byte, resource uint16, data []byte) {
	m := binary.NativeEndian.AppendUint32(*b, uint32(unix.NLMSG_HDRLEN+4+len(data)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, uint16(flags))
	m = append(m, 0, 0, 0, 0, 0, 0, 0, 0)
	m = binary.BigEndian.AppendUint16(append(m, family, unix.NFNETLINK_V0), resource)
	*b = append(m, data...)
}

// send sends the transaction in the network namespace of the calling thread. The
// kernel carries it out before the call returns.
func (b *batch) send() error {
	b.message(unix.NFNL_MSG_BATCH_END, netlink.Request, 0, subsystem, nil)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, *b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	var answer [1024]byte
	n, _, err := unix.Recvfrom(fd, answer[:], unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	if n < unix.NLMSG_HDRLEN+4 {
		return unix.EBADMSG
	}
	if code := nlenc.Int32(answer[unix.NLMSG_HDRLEN : unix.NLMSG_HDRLEN+4]); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

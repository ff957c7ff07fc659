package netlock

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// What golang.org/x/sys/unix does not name (linux/netfilter/nf_tables.h,
// linux/netfilter/nfnetlink.h).
const (
	tableFlagOwner = 0x2 // NFT_TABLE_F_OWNER
	tableFlags     = 0x2 // NFTA_TABLE_FLAGS
	batchEnd       = unix.NFNL_MSG_BATCH_BEGIN + 1
	verdictDrop    = 0
	localIn        = unix.NF_INET_LOCAL_IN
	localOut       = unix.NF_INET_LOCAL_OUT
	// priorityRaw comes before connection tracking, which shall not see what is dropped.
	priorityRaw = -300
)

// messages is the number of messages of a batch that the kernel acknowledges.
const messages = 3

// batch makes a table of the inet family with the two chains that see all
// packets from and to local sockets, and drop them.
func batch(table string) []byte {
	name := attribute(unix.NFTA_TABLE_NAME, text(table))
	var b []byte
	b = append(b, message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)...)
	b = append(b, nft(unix.NFT_MSG_NEWTABLE, name, attribute(tableFlags, number(tableFlagOwner)))...)
	for chain, hook := range map[string]uint32{"in": localIn, "out": localOut} {
		b = append(b, nft(unix.NFT_MSG_NEWCHAIN,
			attribute(unix.NFTA_CHAIN_TABLE, text(table)),
			attribute(unix.NFTA_CHAIN_NAME, text(chain)),
			attribute(unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, append(
				attribute(unix.NFTA_HOOK_HOOKNUM, number(hook)),
				attribute(unix.NFTA_HOOK_PRIORITY, number(priority()))...)),
			attribute(unix.NFTA_CHAIN_POLICY, number(verdictDrop)),
			attribute(unix.NFTA_CHAIN_TYPE, text("filter")))...)
	}
	return append(b, message(batchEnd, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)...)
}

func priority() uint32 {
	p := int32(priorityRaw)
	return uint32(p)
}

func nft(kind uint16, attributes ...[]byte) []byte {
	var payload []byte
	for _, a := range attributes {
		payload = append(payload, a...)
	}
	return message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, unix.NFPROTO_INET, 0, payload)
}

// message is a netlink message with nfnetlink's header (struct nlmsghdr, struct
// nfgenmsg).
func message(kind, flags uint16, family byte, resource uint16, payload []byte) []byte {
	const headers = 16 + 4
	b := make([]byte, headers, headers+len(payload))
	binary.NativeEndian.PutUint32(b, uint32(headers+len(payload)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	b[16] = family
	binary.BigEndian.PutUint16(b[18:], resource)
	return append(b, payload...)
}

// attribute is a netlink attribute (struct nlattr), padded.
func attribute(kind uint16, payload []byte) []byte {
	const header = 4
	b := make([]byte, header, align(header+len(payload)))
	binary.NativeEndian.PutUint16(b, uint16(header+len(payload)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, payload...)
	return b[:cap(b)]
}

// number is a number as nfnetlink's attributes hold it.
func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func text(s string) []byte { return append([]byte(s), 0) }

// align rounds up to netlink's alignment.
func align(n int) int { return (n + 3) &^ 3 }

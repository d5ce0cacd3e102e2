//! AF_NETLINK, NETLINK_ROUTE: what getifaddrs(3), if_nameindex(3) and their like ask. The answers describe
//! the interfaces there are; nothing can be changed.
//!
//! ```text
//! struct nlmsghdr   0 len(4)  4 type(2)  6 flags(2)  8 sequence(4)  12 port id(4)
//! struct ifinfomsg  0 family(1)  2 hardware(2)  4 index(4)  8 flags(4)  12 change(4)
//! struct ifaddrmsg  0 family(1)  1 prefix bits(1)  2 flags(1)  3 scope(1)  4 index(4)
//! struct rtattr     0 len(2)  2 type(2)  4 data, padded to 4
//! ```

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicU32, Ordering};

use super::address::{self, ADDRESS_MAX, AF_INET, AF_INET6, AF_NETLINK, Address};
use super::mailbox::{Limit, Mailbox, Message};
use super::message::{Incoming, Outgoing, Wanted};
use super::interface::Interface;
use super::options::{BUFFER_DEFAULT, Options};
use super::outside::interfaces;
use super::socket::Connecting;
use super::stream::Direction;
use super::{Common, Kind, Protocol, Socket, interface};
use crate::error::{Errno, Result, err};
use crate::process;
use crate::sched::{SpinLock, Wake};
use crate::vfs::{Events, Sink, Source};

const NETLINK_ROUTE: u32 = 0;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

const IFLA_ADDRESS: u16 = 1;
const IFLA_BROADCAST: u16 = 2;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_F_PERMANENT: u8 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RT_SCOPE_HOST: u8 = 254;

const HEADER_SIZE: usize = 16;

/// socket(2) of AF_NETLINK.
pub fn socket(kind: Kind, protocol: u32) -> Result<Arc<Socket>> {
    if !matches!(kind, Kind::Raw | Kind::Datagram) {
        return err(Errno::ESOCKTNOSUPPORT, "socket type");
    }
    if protocol != NETLINK_ROUTE {
        return err(Errno::EPROTONOSUPPORT, "only NETLINK_ROUTE");
    }
    let common = Common::new(AF_NETLINK, kind, protocol, Options::new());
    let netlink = Netlink { mailbox: Mailbox::new(), port_id: SpinLock::new(0) };
    Ok(Socket::new(common, Arc::new(netlink)))
}

struct Netlink {
    mailbox: Mailbox,
    /// 0 until bound.
    port_id: SpinLock<u32>,
}

/// One request.
struct Request<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    header: &'a [u8],
    body: &'a [u8],
}

impl Netlink {
    /// The port id; the process id if it is free to be one, else a number of its own.
    fn ensure_port_id(&self) -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(u32::MAX - 4096);
        static LAST_PID: AtomicU32 = AtomicU32::new(0);
        let mut port_id = self.port_id.lock();
        if *port_id == 0 {
            let pid = process::current().map_or(0, |thread| thread.process().pid());
            let is_first = LAST_PID.swap(pid, Ordering::Relaxed) != pid;
            *port_id = if is_first { pid } else { NEXT.fetch_sub(1, Ordering::Relaxed) };
        }
        *port_id
    }

    fn answer(&self, request: &Request<'_>) {
        let port_id = self.ensure_port_id();
        let family = u16::from(request.body.first().copied().unwrap_or(0));
        let is_dump = request.flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut reply = Reply { full: Vec::new(), bytes: Vec::new(), request, port_id, is_dump };
        let errno = match request.kind {
            RTM_GETLINK => reply.links(),
            RTM_GETADDR if is_dump => {
                reply.addresses(family);
                None
            }
            RTM_GETROUTE if is_dump => None,
            kind if kind < RTM_NEWLINK => None,
            _ => Some(Errno::EOPNOTSUPP),
        };
        if is_dump && errno.is_none() {
            reply.message(NLMSG_DONE, NLM_F_MULTI, &0i32.to_le_bytes(), |_| ());
        } else if errno.is_some() || request.flags & NLM_F_ACK != 0 {
            reply.status(errno);
        }
        for bytes in reply.full {
            self.post(bytes);
        }
        self.post(reply.bytes);
    }

    fn post(&self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let mut message = Message::new(bytes);
        message.from = Some(Address::Netlink { port_id: 0, groups: 0 });
        let limit = Limit { cost: BUFFER_DEFAULT, messages: usize::MAX };
        if self.mailbox.put(&mut Some(message), limit).is_err() {
            self.mailbox.set_error(Errno::ENOBUFS);
        }
    }
}

/// Whether a request for one link means this one: by index, or if that is 0 by name.
fn names(request: &Request<'_>, interface: &Interface) -> bool {
    const ATTRIBUTES: usize = 16;
    match request.body.get(4..8) {
        Some([0, 0, 0, 0]) => {
            let name = request.body.get(ATTRIBUTES + 4..).unwrap_or_default();
            name.split(|&byte| byte == 0).next() == Some(&interface.name[..])
        }
        Some(index) => index == interface.index.to_le_bytes(),
        None => false,
    }
}

/// Messages that are received together have about this many bytes: programs have buffers of a page.
const PIECE: usize = 3 << 10;

/// Messages for one request.
struct Reply<'a> {
    /// What is received before `bytes`.
    full: Vec<Vec<u8>>,
    bytes: Vec<u8>,
    request: &'a Request<'a>,
    port_id: u32,
    is_dump: bool,
}

impl Reply<'_> {
    /// Appends a message: header, `head`, and the attributes that `fill` appends.
    fn message(&mut self, kind: u16, flags: u16, head: &[u8], fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(&flags.to_le_bytes());
        self.bytes.extend_from_slice(&self.request.sequence.to_le_bytes());
        self.bytes.extend_from_slice(&self.port_id.to_le_bytes());
        self.bytes.extend_from_slice(head);
        fill(&mut self.bytes);
        let size = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&size.to_le_bytes());
        if self.bytes.len() >= PIECE {
            self.full.push(core::mem::take(&mut self.bytes));
        }
    }

    fn multi(&self) -> u16 {
        if self.is_dump { NLM_F_MULTI } else { 0 }
    }

    /// All links, or the one that is asked for; ENODEV.
    fn links(&mut self) -> Option<Errno> {
        let mut found = Some(Errno::ENODEV);
        for interface in interfaces::all() {
            if self.is_dump || names(self.request, &interface) {
                self.link(&interface);
                found = None;
            }
        }
        found
    }

    fn link(&mut self, interface: &Interface) {
        const IFF_RUNNING: u32 = 1 << 6;
        let lower = if interface.flags & IFF_RUNNING != 0 { interface::LOWER_UP } else { 0 };
        let mut head = [0; 16];
        head[2..4].copy_from_slice(&interface.hardware.to_le_bytes());
        head[4..8].copy_from_slice(&interface.index.to_le_bytes());
        head[8..12].copy_from_slice(&(interface.flags | lower).to_le_bytes());
        let everybody = if interface.is_loopback() { [0; 6] } else { [0xff; 6] };
        self.message(RTM_NEWLINK, self.multi(), &head, |bytes| {
            attribute(bytes, IFLA_IFNAME, &[&interface.name[..], b"\0"].concat());
            attribute(bytes, IFLA_TXQLEN, &interface::QUEUE_LEN.to_le_bytes());
            attribute(bytes, IFLA_MTU, &interface.mtu.to_le_bytes());
            attribute(bytes, IFLA_ADDRESS, &interface.hardware_address);
            attribute(bytes, IFLA_BROADCAST, &everybody);
        });
    }

    /// The addresses of `family`, or of all.
    fn addresses(&mut self, family: u16) {
        for interface in interfaces::all() {
            for &(ip, bits) in &interface.addresses {
                match ip {
                    IpAddr::V4(ip) if family == 0 || family == AF_INET => self.v4(&interface, ip, bits),
                    IpAddr::V6(ip) if family == 0 || family == AF_INET6 => self.v6(&interface, ip, bits),
                    _ => {}
                }
            }
        }
    }

    fn v4(&mut self, interface: &Interface, ip: Ipv4Addr, bits: u8) {
        let scope = if interface.is_loopback() { RT_SCOPE_HOST } else { RT_SCOPE_UNIVERSE };
        let head = address_head(AF_INET, bits, scope, interface);
        self.message(RTM_NEWADDR, self.multi(), &head, |bytes| {
            attribute(bytes, IFA_ADDRESS, &ip.octets());
            attribute(bytes, IFA_LOCAL, &ip.octets());
            if !interface.is_loopback() {
                attribute(bytes, IFA_BROADCAST, &interface::broadcast(ip, bits).octets());
            }
            attribute(bytes, IFA_LABEL, &[&interface.name[..], b"\0"].concat());
        });
    }

    fn v6(&mut self, interface: &Interface, ip: Ipv6Addr, bits: u8) {
        let scope = match () {
            () if interface.is_loopback() => RT_SCOPE_HOST,
            () if ip.is_unicast_link_local() => RT_SCOPE_LINK,
            () => RT_SCOPE_UNIVERSE,
        };
        let head = address_head(AF_INET6, bits, scope, interface);
        self.message(RTM_NEWADDR, self.multi(), &head, |bytes| {
            attribute(bytes, IFA_ADDRESS, &ip.octets());
        });
    }

    /// An error, or its absence: the errno, then the header of the request.
    fn status(&mut self, errno: Option<Errno>) {
        let code = errno.map_or(0, |errno| -(errno as i32));
        let header = self.request.header;
        self.message(NLMSG_ERROR, 0, &code.to_le_bytes(), |bytes| bytes.extend_from_slice(header));
    }
}

/// `struct ifaddrmsg`
fn address_head(family: u16, bits: u8, scope: u8, interface: &Interface) -> [u8; 8] {
    let [i0, i1, i2, i3] = interface.index.to_le_bytes();
    [family as u8, bits, IFA_F_PERMANENT, scope, i0, i1, i2, i3]
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, data: &[u8]) {
    bytes.extend_from_slice(&(4 + data.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The first request in `raw`, and what follows it.
fn next_request(raw: &[u8]) -> Option<(Request<'_>, &[u8])> {
    let header = raw.get(..HEADER_SIZE)?;
    let size = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let body = raw.get(HEADER_SIZE..size)?;
    let request = Request {
        kind: u16::from_le_bytes([header[4], header[5]]),
        flags: u16::from_le_bytes([header[6], header[7]]),
        sequence: u32::from_le_bytes([header[8], header[9], header[10], header[11]]),
        header,
        body,
    };
    Some((request, raw.get(size.next_multiple_of(4)..).unwrap_or_default()))
}

fn parse_port_id(raw: &[u8]) -> Result<u32> {
    if raw.len() < 12 || raw.len() > ADDRESS_MAX || address::family(raw)? != AF_NETLINK {
        return err(Errno::EINVAL, "not an AF_NETLINK address");
    }
    Ok(u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]))
}

impl Protocol for Netlink {
    fn bind(&self, _common: &Common, raw: &[u8]) -> Result<()> {
        let wanted = parse_port_id(raw)?;
        if wanted == 0 {
            self.ensure_port_id();
            return Ok(());
        }
        let mut port_id = self.port_id.lock();
        if *port_id != 0 && *port_id != wanted {
            return err(Errno::EINVAL, "the socket has an address");
        }
        *port_id = wanted;
        Ok(())
    }

    fn connect(&self, _common: &Common, how: Connecting<'_>) -> Result<()> {
        match parse_port_id(how.raw)? {
            0 => Ok(()),
            _ => err(Errno::ECONNREFUSED, "only the kernel answers"),
        }
    }

    fn shutdown(&self, _reads: Direction, _writes: Direction) -> Result<()> {
        err(Errno::EOPNOTSUPP, "shutdown of netlink")
    }

    fn local_address(&self) -> Address {
        Address::Netlink { port_id: *self.port_id.lock(), groups: 0 }
    }

    fn peer_address(&self) -> Result<Address> {
        Ok(Address::Netlink { port_id: 0, groups: 0 })
    }

    fn parse_destination(&self, _common: &Common, raw: &[u8]) -> Result<Address> {
        Ok(Address::Netlink { port_id: parse_port_id(raw)?, groups: 0 })
    }

    fn send(&self, _common: &Common, source: &mut Source<'_>, out: &mut Outgoing) -> Result<usize> {
        if matches!(out.to, Some(Address::Netlink { port_id, .. }) if port_id != 0) {
            return err(Errno::ECONNREFUSED, "only the kernel answers");
        }
        if source.left() > BUFFER_DEFAULT {
            return err(Errno::EMSGSIZE, "larger than the send buffer");
        }
        let message = Message::copy_in(source)?;
        let mut rest = &message.bytes[..];
        while let Some((request, following)) = next_request(rest) {
            if request.flags & NLM_F_REQUEST != 0 {
                self.answer(&request);
            }
            rest = following;
        }
        Ok(message.bytes.len())
    }

    fn receive(&self, _common: &Common, sink: &mut Sink<'_>, wanted: &Wanted) -> Result<Incoming> {
        self.mailbox.receive(sink, wanted)
    }

    fn poll(&self, _common: &Common, waker: Option<&Arc<dyn Wake>>) -> Events {
        if let Some(waker) = waker {
            self.mailbox.add_waker(waker);
        }
        let ready = if self.mailbox.is_empty() { Events::NONE } else { Events::IN };
        ready | Events::OUT
    }

    fn forget_waker(&self, waker: &Arc<dyn Wake>) {
        self.mailbox.forget_waker(waker);
    }

    fn readable_bytes(&self) -> Result<usize> {
        Ok(self.mailbox.next_size())
    }

    fn take_error(&self) -> Option<Errno> {
        self.mailbox.take_error()
    }
}

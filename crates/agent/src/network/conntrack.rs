//! The flows that the kernel tracks, to end those that still go where a port no longer leads: a flow's packets follow
//! its first one. Invariant: a flow is ended as the one that was seen, by its addresses and the kernel's id for it.
//!
//! The messages are those of linux/netfilter/nfnetlink_conntrack.h, for which `rtnetlink` has no words.

use super::error::{Attempt, Error};
use longshore_model::task_definition::Protocol;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::io;
use std::net::Ipv4Addr;

/// Where a flow went when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub protocol: Protocol,
    /// What its first packet asked for.
    pub to: Ipv4Addr,
    pub port: u16,
    /// Who answers: another address than `to` where the packet filter leads there.
    pub answered_by: Ipv4Addr,
    /// The attributes by which the kernel finds it again.
    identity: Vec<u8>,
}

/// Ends flows of the calling thread's namespace.
pub fn end(stale: impl Fn(&Flow) -> bool) -> Result<(), Error> {
    let flows = list().attempt(|| "list the tracked flows".to_owned())?;
    let stale: Vec<Flow> = flows.into_iter().filter(stale).collect();
    stale.iter().try_for_each(remove).attempt(|| "end tracked flows".to_owned())
}

/// `NLMSG_ERROR` and `NLMSG_DONE` of linux/netlink.h, and the flags of requests.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;

/// Attributes of a flow (`CTA_…`).
const FIRST_WAY: u16 = 1;
const WAY_BACK: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// Attributes of a way (`CTA_TUPLE_…`), and within them.
const ADDRESSES: u16 = 1;
const PORTS: u16 = 2;
const SOURCE: u16 = 1;
const DESTINATION: u16 = 2;
const PROTOCOL: u16 = 1;
const DESTINATION_PORT: u16 = 3;

const MESSAGE_HEADER: usize = 16;
/// `struct nfgenmsg`: which family, and nothing else that matters here.
const FAMILY_HEADER: [u8; 4] = [2, 0, 0, 0];
const ATTRIBUTE_HEADER: usize = 4;

fn list() -> io::Result<Vec<Flow>> {
    let socket = open()?;
    send(&socket, GET, REQUEST | DUMP, &[])?;
    let mut buffer = vec![0; 1 << 16];
    let mut flows = Vec::new();
    loop {
        for (kind, body) in messages(receive(&socket, &mut buffer)?) {
            match kind {
                DONE => return Ok(flows),
                ERROR => outcome(body)?,
                _ => flows.extend(body.get(FAMILY_HEADER.len()..).and_then(flow)),
            }
        }
    }
}

/// One that has ended meanwhile is none to end.
fn remove(flow: &Flow) -> io::Result<()> {
    let socket = open()?;
    send(&socket, DELETE, REQUEST | ACKNOWLEDGE, &flow.identity)?;
    let mut buffer = vec![0; 1 << 12];
    let answer = messages(receive(&socket, &mut buffer)?).find(|(kind, _)| *kind == ERROR);
    match answer.map(|(_, body)| outcome(body)) {
        Some(Err(error)) if Errno::from_io_error(&error) != Some(Errno::NOENT) => Err(error),
        _ => Ok(()),
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let protocol = Some(netlink::NETFILTER);
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?)
}

fn send(socket: &OwnedFd, kind: u16, flags: u16, attributes: &[u8]) -> io::Result<()> {
    let length = MESSAGE_HEADER + FAMILY_HEADER.len() + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).map_err(io::Error::other)?.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Neither number nor sender: there is one question on a socket.
    message.extend([0; 8]);
    message.extend(FAMILY_HEADER);
    message.extend(attributes);
    rustix::net::send(socket, &message, SendFlags::empty())?;
    Ok(())
}

fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let (length, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()))?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// What an answer says of the request.
fn outcome(body: &[u8]) -> io::Result<()> {
    match number(body).map(u32::cast_signed) {
        Some(code @ ..0) => Err(io::Error::from_raw_os_error(-code)),
        _ => Ok(()),
    }
}

fn flow(attributes: &[u8]) -> Option<Flow> {
    let (first, back) = (find(attributes, FIRST_WAY)?, find(attributes, WAY_BACK)?);
    let ports = find(first, PORTS)?;
    let protocol = match find(ports, PROTOCOL)? {
        [6] => Protocol::Tcp,
        [17] => Protocol::Udp,
        _ => return None,
    };
    let identity = attributes_of(attributes).filter(|(kind, _)| [FIRST_WAY, ID, ZONE].contains(kind));
    Some(Flow {
        protocol,
        to: address(find(find(first, ADDRESSES)?, DESTINATION)?)?,
        port: u16::from_be_bytes(find(ports, DESTINATION_PORT)?.try_into().ok()?),
        answered_by: address(find(find(back, ADDRESSES)?, SOURCE)?)?,
        identity: identity.flat_map(|(_, whole)| whole.iter().copied()).collect(),
    })
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(<[u8; 4]>::try_from(bytes).ok()?.into())
}

/// The value of an attribute.
fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    let (_, whole) = attributes_of(attributes).find(|(kind, _)| *kind == wanted)?;
    let length = usize::from(u16::from_ne_bytes(whole.get(..2)?.try_into().ok()?));
    whole.get(ATTRIBUTE_HEADER..length)
}

/// Kinds, and attributes as they stand: header, value and padding.
fn attributes_of(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
    const FLAGS: u16 = 0xc000;
    pieces(bytes, ATTRIBUTE_HEADER, |header| {
        let length = u16::from_ne_bytes(header.get(..2)?.try_into().ok()?);
        let kind = u16::from_ne_bytes(header.get(2..4)?.try_into().ok()?);
        Some((kind & !FLAGS, usize::from(length)))
    })
}

/// Kinds and bodies.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let whole = pieces(bytes, MESSAGE_HEADER, |header| {
        let kind = u16::from_ne_bytes(header.get(4..6)?.try_into().ok()?);
        Some((kind, usize::try_from(number(header)?).ok()?))
    });
    whole.map(|(kind, message)| (kind, message.get(MESSAGE_HEADER..).unwrap_or_default()))
}

/// Takes apart what is aligned to four bytes; `read` says of each piece's header its kind and length.
fn pieces(
    mut bytes: &[u8],
    header: usize,
    read: impl Fn(&[u8]) -> Option<(u16, usize)>,
) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, length) = read(bytes)?;
        if length < header || length > bytes.len() {
            return None;
        }
        let (piece, rest) = bytes.split_at(length.next_multiple_of(4).min(bytes.len()));
        bytes = rest;
        Some((kind, piece))
    })
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap();
        let mut whole = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        whole.extend(value);
        whole.resize(whole.len().next_multiple_of(4), 0);
        whole
    }

    fn way(kind: u16, from: [u8; 4], to: [u8; 4], protocol: u8) -> Vec<u8> {
        let addresses = [attribute(SOURCE, &from), attribute(DESTINATION, &to)].concat();
        let ports = [attribute(PROTOCOL, &[protocol]), attribute(DESTINATION_PORT, &[0x1f, 0x90])].concat();
        let whole = [attribute(0x8000 | ADDRESSES, &addresses), attribute(0x8000 | PORTS, &ports)].concat();
        attribute(0x8000 | kind, &whole)
    }

    #[test]
    fn a_flow_is_read_and_named_again() {
        let first = way(FIRST_WAY, [10, 0, 0, 1], [10, 0, 0, 2], 17);
        let back = way(WAY_BACK, [100, 64, 0, 5], [10, 0, 0, 1], 17);
        let (id, timeout) = (attribute(ID, &[1, 2, 3, 4]), attribute(7, &[0, 0, 0, 9]));
        let found = flow(&[first.clone(), back, timeout, id.clone()].concat()).unwrap();
        assert_eq!((found.protocol, found.port), (Protocol::Udp, 8080));
        assert_eq!((found.to, found.answered_by), ([10, 0, 0, 2].into(), [100, 64, 0, 5].into()));
        assert_eq!(found.identity, [first, id].concat());
    }

    #[test]
    fn what_is_cut_off_or_of_another_kind_is_no_flow() {
        let icmp = [way(FIRST_WAY, [1; 4], [2; 4], 1), way(WAY_BACK, [2; 4], [1; 4], 1)].concat();
        assert_eq!(flow(&icmp), None);
        let whole = [way(FIRST_WAY, [1; 4], [2; 4], 6), way(WAY_BACK, [2; 4], [1; 4], 6)].concat();
        assert!(flow(&whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(flow(&whole[..end]), None, "{end}");
        }
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of nothing");
    }
}

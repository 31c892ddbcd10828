//! The wire: requests to the kernel's netlink families and what comes back. What a message means is not known here.
//!
//! A request is written into one buffer and its answer read into another, both made when the socket is opened, so that
//! a ban allocates nothing. Numbers and layouts: linux/netlink.h; the kernel does the work inside `send`, so an answer is
//! there when it returns, and the receive timeout only guards against one that was lost.

use std::fmt;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// nlmsghdr, bytes.
const HEADER_BYTES: usize = 16;
/// Length and type of an attribute, bytes.
const ATTR_HEADER_BYTES: usize = 4;
/// Larger than what the kernel puts into one datagram of a dump (at most 32 KiB, af_netlink.c `netlink_dump`), and than
/// an error message, which echoes the request.
const RECEIVE_BYTES: usize = 64 * 1024;
/// How long to wait for an answer, milliseconds.
const ANSWER_MS: i64 = 250;
/// How long to listen to groups before looking up, milliseconds.
const NEWS_MS: i64 = 1000;

/// NLM_F_REQUEST.
const REQUEST: u16 = 1;
/// NLM_F_ACK: answer even if there is nothing to say.
const ACK: u16 = 4;
/// NLM_F_EXCL: an element or set that is there already is an error.
pub const EXCL: u16 = 0x200;
/// NLM_F_CREATE.
pub const CREATE: u16 = 0x400;
/// NLM_F_DUMP: all of them, in several messages.
pub const DUMP: u16 = 0x300;
/// NLM_F_APPEND: behind those that are there.
pub const APPEND: u16 = 0x800;
/// NLM_F_DUMP_INTR: what is dumped changed meanwhile.
const INTERRUPTED: u16 = 0x10;

/// NFNL_MSG_BATCH_BEGIN and NFNL_MSG_BATCH_END.
const KIND_BATCH_BEGIN: u16 = 16;
const KIND_BATCH_END: u16 = 17;
/// Room for what a batch sends at once, bytes: the kernel takes a batch as one datagram, and a hundred jails have rules of
/// 100 kB. Twice this is its bound.
const BATCH_BYTES: usize = 4 << 20;

/// NLMSG_NOOP.
const KIND_NOOP: u16 = 1;
/// NLMSG_ERROR: an errno, or 0 for "done".
const KIND_ERROR: u16 = 2;
/// NLMSG_DONE: the last message of a dump.
const KIND_DONE: u16 = 3;

/// NLA_F_NESTED, which every nested attribute carries.
const NESTED: u16 = 0x8000;
/// NLA_F_NET_BYTEORDER, which ipset wants on its numbers.
const BIG_ENDIAN: u16 = 0x4000;

/// What the kernel says no with. From 4096 on the numbers are ipset's own (linux/netfilter/ipset/ip_set.h `ipset_errno`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An ordinary errno.
    Os(Errno),
    /// 4097: malformed, of the wrong family, or a comment too long.
    Protocol,
    /// 4098: no such set type, or not in this revision.
    NoSuchType,
    /// 4099: no room for another set.
    TooManySets,
    /// 4100: something is using the set.
    Busy,
    /// 4101: the name to rename to is taken.
    NameTaken,
    /// 4102: the two sets are of different types.
    TypesDiffer,
    /// 4103: the element is there already (add), or is not there (delete, test).
    Element,
    /// 4104: not a prefix length this set takes.
    Cidr,
    /// 4105: not a netmask this set takes.
    Netmask,
    /// 4106: not a family this type takes.
    Family,
    /// 4107: a timeout was given and the set has none.
    NoTimeout,
    /// 4108: a rule refers to the set.
    Referenced,
    /// 4109: an IPv4 address is wanted.
    WantsIpv4,
    /// 4110: an IPv6 address is wanted.
    WantsIpv6,
    /// 4111: counters were given and the set has none.
    NoCounters,
    /// 4112: a comment was given and the set has none.
    NoComment,
    /// 4352: as many elements as the set may have.
    Full,
    /// 4353: an element that no set takes, such as 0.0.0.0.
    Impossible,
    /// Anything else.
    Other(i32),
}

impl Refusal {
    /// From the positive number in an answer.
    fn from_number(number: i32) -> Self {
        match number {
            ..=4096 => Self::Os(Errno::from_raw(number)),
            4097 => Self::Protocol,
            4098 => Self::NoSuchType,
            4099 => Self::TooManySets,
            4100 => Self::Busy,
            4101 => Self::NameTaken,
            4102 => Self::TypesDiffer,
            4103 => Self::Element,
            4104 => Self::Cidr,
            4105 => Self::Netmask,
            4106 => Self::Family,
            4107 => Self::NoTimeout,
            4108 => Self::Referenced,
            4109 => Self::WantsIpv4,
            4110 => Self::WantsIpv6,
            4111 => Self::NoCounters,
            4112 => Self::NoComment,
            4352 => Self::Full,
            4353 => Self::Impossible,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(errno) => f.write_str(errno.desc()),
            Self::Protocol => f.write_str("the kernel did not understand the request (4097)"),
            Self::NoSuchType => f.write_str("the kernel has no such set type (4098)"),
            Self::TooManySets => f.write_str("the kernel has no room for another set (4099)"),
            Self::Busy => f.write_str("the set is busy (4100)"),
            Self::NameTaken => f.write_str("a set of that name is there (4101)"),
            Self::TypesDiffer => f.write_str("the sets are of different types (4102)"),
            Self::Element => f.write_str("the element is there already, or not there (4103)"),
            Self::Cidr => f.write_str("not a prefix length that a set takes (4104)"),
            Self::Netmask => f.write_str("not a netmask that a set takes (4105)"),
            Self::Family => f.write_str("not a family that the set type takes (4106)"),
            Self::NoTimeout => f.write_str("the set has no timeouts (4107)"),
            Self::Referenced => f.write_str("a rule refers to the set (4108)"),
            Self::WantsIpv4 => f.write_str("the set takes IPv4 addresses (4109)"),
            Self::WantsIpv6 => f.write_str("the set takes IPv6 addresses (4110)"),
            Self::NoCounters => f.write_str("the set has no counters (4111)"),
            Self::NoComment => f.write_str("the set has no comments (4112)"),
            Self::Full => f.write_str("the set is full (4352)"),
            Self::Impossible => f.write_str("not an element that a set takes (4353)"),
            Self::Other(number) => write!(f, "error {number}"),
        }
    }
}

/// Why there is no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The socket could not be made.
    Open(Errno),
    /// The request could not be sent.
    Send(Errno),
    /// The answer could not be read.
    Receive(Errno),
    /// None came in time.
    NoAnswer,
    /// An answer to a question not yet asked.
    OutOfOrder {
        /// Its sequence number.
        got: u32,
        /// That of the last request.
        want: u32,
    },
    /// The answer is not what the headers promise.
    Malformed,
    /// More than an attribute can hold (64 KiB).
    TooLong,
    /// The kernel says no.
    Refused(Refusal),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(errno) => write!(f, "no netlink socket: {}", errno.desc()),
            Self::Send(errno) => write!(f, "netlink send: {}", errno.desc()),
            Self::Receive(errno) => write!(f, "netlink receive: {}", errno.desc()),
            Self::NoAnswer => write!(f, "no answer from the kernel within {ANSWER_MS} ms"),
            Self::OutOfOrder { got, want } => {
                write!(f, "netlink answer out of order: got {got}, want {want}")
            }
            Self::Malformed => f.write_str("malformed netlink answer"),
            Self::TooLong => f.write_str("netlink request too long"),
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for WireError {}

/// One netlink socket, with its sequence numbers.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    out: Vec<u8>,
    input: Box<[u8]>,
    interrupted: bool,
}

impl Socket {
    /// A socket of `protocol`, close-on-exec, that also hears the multicast `groups` (a bit mask; 0: only answers).
    ///
    /// # Errors
    /// [`WireError::Open`]: EPROTONOSUPPORT if the kernel has no such family, EPERM for groups without CAP_NET_ADMIN.
    pub fn open(protocol: SockProtocol, groups: u32) -> Result<Self, WireError> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )
        .map_err(WireError::Open)?;
        let patience = TimeVal::milliseconds(if groups == 0 { ANSWER_MS } else { NEWS_MS });
        setsockopt(&fd, sockopt::ReceiveTimeout, &patience).map_err(WireError::Open)?;
        setsockopt(&fd, sockopt::SendTimeout, &patience).map_err(WireError::Open)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(WireError::Open)?;
        Ok(Self {
            fd,
            seq: 0,
            out: Vec::with_capacity(1024),
            input: vec![0; RECEIVE_BYTES].into_boxed_slice(),
            interrupted: false,
        })
    }

    /// Makes room for long batches. In a user namespace, whose root is none outside, only as much as the host allows
    /// everybody (net.core.wmem_max, 200 kB).
    ///
    /// # Errors
    /// [`WireError::Open`].
    pub fn widen(&self) -> Result<(), WireError> {
        setsockopt(&self.fd, sockopt::SndBufForce, &BATCH_BYTES)
            .or_else(|_| setsockopt(&self.fd, sockopt::SndBuf, &BATCH_BYTES))
            .map_err(WireError::Open)
    }

    /// What the last dump gave may lack something, or have it twice: it was changed meanwhile.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Asks, and gives every message of the answer (type, payload) to `each`. `head` is the family's fixed header, `fill`
    /// writes the attributes. Returns when the kernel has confirmed, or with the end of a dump.
    ///
    /// # Errors
    /// [`WireError::Refused`] is the kernel's own answer; any other means that none could be had.
    pub fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        head: &[u8],
        fill: impl FnOnce(&mut Attrs<'_>),
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), WireError> {
        self.begin();
        let ack = if flags & DUMP == DUMP { 0 } else { ACK };
        message(&mut self.out, self.seq, kind, flags | ack, head, fill)?;
        self.transact(|kind, payload| {
            each(kind, payload);
            true
        })
    }

    /// As [`exchange`](Self::exchange), for a request that has no other answer than whether it was carried out. The kernel
    /// does that within send(2) (netlink_unicast_kernel), so a refusal is there already, and that there is none is the
    /// confirmation: one message less for each ban.
    ///
    /// # Errors
    /// As of `exchange`.
    pub fn order(
        &mut self,
        kind: u16,
        flags: u16,
        head: &[u8],
        fill: impl FnOnce(&mut Attrs<'_>),
    ) -> Result<(), WireError> {
        self.begin();
        message(&mut self.out, self.seq, kind, flags, head, fill)?;
        self.send()?;
        loop {
            match self.answer(MsgFlags::MSG_DONTWAIT, &mut |_, _| true) {
                // Of another request, and no refusal.
                Ok(false) => {}
                Ok(true) | Err(WireError::NoAnswer) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`exchange`](Self::exchange), for as long as `each` says that it wants more; what is left of the dump stays in
    /// the socket, which is of no use any more.
    ///
    /// # Errors
    /// As of `exchange`.
    pub fn begin_exchange(
        mut self,
        kind: u16,
        head: &[u8],
        fill: impl FnOnce(&mut Attrs<'_>),
        each: impl FnMut(u16, &[u8]) -> bool,
    ) -> Result<(), WireError> {
        self.begin();
        message(&mut self.out, self.seq, kind, DUMP, head, fill)?;
        self.transact(each)
    }

    /// Sends messages that the kernel carries out all or none (nfnetlink's batch) in `subsystem`.
    ///
    /// # Errors
    /// [`WireError::Refused`] is what the kernel says of the first message that it does not want.
    pub fn batch(
        &mut self,
        subsystem: u16,
        fill: impl FnOnce(&mut Batch<'_>),
    ) -> Result<(), WireError> {
        self.begin();
        // nfgenmsg with the subsystem in network order.
        let [high, low] = subsystem.to_be_bytes();
        let head = [0, 0, high, low];
        message(&mut self.out, self.seq, KIND_BATCH_BEGIN, 0, &head, |_| {})?;
        let mut batch = Batch {
            out: &mut self.out,
            seq: self.seq,
            subsystem,
            last: 0,
            failed: None,
        };
        fill(&mut batch);
        let last = batch.last;
        if let Some(error) = batch.failed {
            return Err(error);
        }
        // All have one number, and the last asks for an answer: the first answer is either that or an earlier refusal.
        let flags = u16_at(&self.out, last + 6).unwrap_or(0) | ACK;
        patch(&mut self.out, last + 6, &flags.to_ne_bytes());
        message(&mut self.out, self.seq, KIND_BATCH_END, 0, &head, |_| {})?;
        self.transact(|_, _| true)
    }

    /// A new request.
    fn begin(&mut self) {
        self.seq = self.seq.wrapping_add(1);
        self.out.clear();
        self.interrupted = false;
    }

    /// Sends what was written, and reads the answer.
    fn transact(&mut self, mut each: impl FnMut(u16, &[u8]) -> bool) -> Result<(), WireError> {
        self.send()?;
        loop {
            if self.answer(MsgFlags::empty(), &mut each)? {
                return Ok(());
            }
        }
    }

    fn send(&self) -> Result<(), WireError> {
        loop {
            match send(self.fd.as_raw_fd(), &self.out, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                sent => return sent.map(drop).map_err(WireError::Send),
            }
        }
    }

    /// Reads one datagram; whether the answer ends with it.
    fn answer(
        &mut self,
        flags: MsgFlags,
        each: &mut impl FnMut(u16, &[u8]) -> bool,
    ) -> Result<bool, WireError> {
        let received = receive(&self.fd, &mut self.input, flags)?;
        for message in Messages(received) {
            let message = message?;
            match self.seq.wrapping_sub(message.seq) {
                0 => {}
                // Left over from a request that was given up.
                1..=0x7fff_ffff => continue,
                0x8000_0000.. => {
                    return Err(WireError::OutOfOrder {
                        got: message.seq,
                        want: self.seq,
                    });
                }
            }
            self.interrupted |= message.flags & INTERRUPTED != 0;
            match message.kind {
                KIND_NOOP => {}
                KIND_ERROR | KIND_DONE => {
                    // A dump that fails at once says so in its last message (or, older kernels, in an error).
                    return match message
                        .payload
                        .first_chunk()
                        .map(|c| i32::from_ne_bytes(*c))
                    {
                        Some(number) if number < 0 => Err(WireError::Refused(
                            Refusal::from_number(number.saturating_neg()),
                        )),
                        Some(_) | None => Ok(true),
                    };
                }
                kind => {
                    if !each(kind, message.payload) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Waits for news from the groups, and gives each message to `each`; no news within the timeout is fine, too.
    ///
    /// # Errors
    /// [`WireError::Receive`]; ENOBUFS means that news were lost.
    pub fn news(&mut self, mut each: impl FnMut(u16, &[u8])) -> Result<(), WireError> {
        let received = match receive(&self.fd, &mut self.input, MsgFlags::empty()) {
            Err(WireError::NoAnswer) => return Ok(()),
            other => other?,
        };
        for message in Messages(received) {
            let message = message?;
            each(message.kind, message.payload);
        }
        Ok(())
    }
}

/// One datagram from the kernel; what others send is not looked at.
fn receive<'a>(fd: &OwnedFd, input: &'a mut [u8], flags: MsgFlags) -> Result<&'a [u8], WireError> {
    loop {
        let mut parts = [IoSliceMut::new(input)];
        let received = recvmsg::<NetlinkAddr>(fd.as_raw_fd(), &mut parts, None, flags);
        match received.map(|message| (message.bytes, message.address)) {
            Ok((length, from)) => {
                if from.is_none_or(|from| from.pid() == 0) {
                    return input.get(..length).ok_or(WireError::Malformed);
                }
            }
            Err(Errno::EINTR) => {}
            // EWOULDBLOCK is the same number.
            Err(Errno::EAGAIN) => return Err(WireError::NoAnswer),
            Err(errno) => return Err(WireError::Receive(errno)),
        }
    }
}

/// One message of a datagram.
struct Message<'a> {
    kind: u16,
    flags: u16,
    seq: u32,
    payload: &'a [u8],
}

/// The messages of a datagram.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = self.message();
        if message.is_none() {
            self.0 = &[];
        }
        Some(message.ok_or(WireError::Malformed))
    }
}

impl<'a> Messages<'a> {
    fn message(&mut self) -> Option<Message<'a>> {
        let length = usize::try_from(u32_at(self.0, 0)?).ok()?;
        let kind = u16_at(self.0, 4)?;
        let flags = u16_at(self.0, 6)?;
        let seq = u32_at(self.0, 8)?;
        let payload = self.0.get(HEADER_BYTES..length)?;
        self.0 = self.0.get(padded(length)..).unwrap_or_default();
        Some(Message {
            kind,
            flags,
            seq,
            payload,
        })
    }
}

/// Writes the messages of a batch.
#[derive(Debug)]
pub struct Batch<'a> {
    out: &'a mut Vec<u8>,
    seq: u32,
    subsystem: u16,
    /// Where the last one begins.
    last: usize,
    failed: Option<WireError>,
}

impl Batch<'_> {
    /// One more: its number within the subsystem, flags, the family's head, attributes.
    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        head: &[u8],
        fill: impl FnOnce(&mut Attrs<'_>),
    ) {
        self.last = self.out.len();
        let kind = self.subsystem << 8 | kind;
        if let Err(error) = message(self.out, self.seq, kind, flags, head, fill) {
            self.failed = Some(error);
        }
    }

    /// How long all of it is, bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.out.len()
    }
}

/// Writes one message behind what is in `out`.
fn message(
    out: &mut Vec<u8>,
    seq: u32,
    kind: u16,
    flags: u16,
    head: &[u8],
    fill: impl FnOnce(&mut Attrs<'_>),
) -> Result<(), WireError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(head);
    let mut attrs = Attrs {
        out,
        too_long: false,
    };
    fill(&mut attrs);
    if attrs.too_long {
        return Err(WireError::TooLong);
    }
    let length = u32::try_from(out.len() - start).map_err(|_| WireError::TooLong)?;
    patch(out, start, &length.to_ne_bytes());
    Ok(())
}

/// Writes attributes.
#[derive(Debug)]
pub struct Attrs<'a> {
    out: &'a mut Vec<u8>,
    too_long: bool,
}

impl Attrs<'_> {
    /// How long all that is to be sent is, bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.out.len()
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let start = self.begin(kind);
        self.out.extend_from_slice(value);
        self.end(start);
    }

    /// One byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// A number in network order, marked as such.
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.bytes(kind | BIG_ENDIAN, &value.to_be_bytes());
    }

    /// The same, of 32 bits.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind | BIG_ENDIAN, &value.to_be_bytes());
    }

    /// The same, of 64 bits.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind | BIG_ENDIAN, &value.to_be_bytes());
    }

    /// Text with its NUL.
    pub fn text(&mut self, kind: u16, value: &str) {
        let start = self.begin(kind);
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(0);
        self.end(start);
    }

    /// An address in network order.
    pub fn address(&mut self, kind: u16, value: &[u8]) {
        self.bytes(kind | BIG_ENDIAN, value);
    }

    /// Attributes inside an attribute.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attrs<'_>)) {
        let start = self.begin(kind | NESTED);
        let mut inner = Attrs {
            out: self.out,
            too_long: false,
        };
        fill(&mut inner);
        self.too_long |= inner.too_long;
        self.end(start);
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 2]);
        self.out.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    /// The length counts the header, not the padding.
    fn end(&mut self, start: usize) {
        match u16::try_from(self.out.len() - start) {
            Ok(length) => patch(self.out, start, &length.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
        self.out.resize(padded(self.out.len()), 0);
    }
}

/// The attributes in `bytes`: type without its two flag bits, value. Ends at the first that does not fit.
pub fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & !(NESTED | BIG_ENDIAN);
        let value = bytes.get(ATTR_HEADER_BYTES..length)?;
        bytes = bytes.get(padded(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A number in network order, of an attribute's value.
#[must_use]
pub fn be32(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|c| u32::from_be_bytes(*c))
}

/// The same, of 64 bits.
#[must_use]
pub fn be64(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|c| u64::from_be_bytes(*c))
}

/// Text up to its NUL; what is not UTF-8 (another program's comment) is shown as far as possible.
#[must_use]
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// A number of 16 bits in the machine's order.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|c| u16::from_ne_bytes(*c))
}

/// A number of 32 bits in the machine's order.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|c| u32::from_ne_bytes(*c))
}

/// Messages and attributes begin at multiples of four.
fn padded(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn patch(out: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = out.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(fill: impl FnOnce(&mut Attrs<'_>)) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let mut attrs = Attrs {
            out: &mut out,
            too_long: false,
        };
        fill(&mut attrs);
        let too_long = attrs.too_long;
        (out, too_long)
    }

    #[test]
    fn attributes_are_padded_and_counted_without_padding() {
        let (out, _) = encoded(|a| {
            a.u8(1, 6);
            a.text(2, "ab");
        });
        assert_eq!(
            out,
            [[5u8, 0, 1, 0, 6, 0, 0, 0], [7, 0, 2, 0, b'a', b'b', 0, 0]].concat()
        );
    }

    #[test]
    fn nested_and_network_order_carry_their_flags() {
        let (out, _) = encoded(|a| a.nest(7, |a| a.be32(6, 600)));
        assert_eq!(out, [12, 0, 7, 0x80, 8, 0, 6, 0x40, 0, 0, 2, 88]);
        let nested: Vec<_> = attrs(&out).collect();
        assert_eq!(nested.len(), 1);
        assert_eq!(nested[0].0, 7);
        let inner: Vec<_> = attrs(nested[0].1).collect();
        assert_eq!(inner, [(6, [0, 0, 2, 88].as_slice())]);
        assert_eq!(be32(inner[0].1), Some(600));
    }

    #[test]
    fn more_than_an_attribute_can_hold_is_noticed() {
        assert!(encoded(|a| a.nest(7, |a| a.bytes(1, &[0; 70_000]))).1);
        assert!(!encoded(|a| a.bytes(1, &[0; 60_000])).1);
    }

    #[test]
    fn a_cut_attribute_ends_the_reading() {
        let (mut out, _) = encoded(|a| {
            a.be32(1, 1);
            a.be32(2, 2);
        });
        out.truncate(13);
        assert_eq!(attrs(&out).count(), 1);
        assert_eq!(attrs(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attrs(&[]).count(), 0);
    }

    #[test]
    fn a_message_longer_than_its_datagram_is_malformed() {
        let mut datagram = vec![0; 20];
        datagram[0] = 24;
        assert!(matches!(
            Messages(&datagram).next(),
            Some(Err(WireError::Malformed))
        ));
        datagram[0] = 8;
        assert_eq!(Messages(&datagram).count(), 1);
        datagram[0] = 20;
        assert!(Messages(&datagram).all(|m| m.is_ok()));
    }

    #[test]
    fn ipsets_own_errors_have_names() {
        assert_eq!(Refusal::from_number(1), Refusal::Os(Errno::EPERM));
        assert_eq!(Refusal::from_number(4103), Refusal::Element);
        assert_eq!(Refusal::from_number(4352), Refusal::Full);
        assert_eq!(Refusal::from_number(5000), Refusal::Other(5000));
    }
}

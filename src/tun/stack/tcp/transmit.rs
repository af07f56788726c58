//! Packets out: the segments of one flow, as far as its windows and the device let them.

use super::flow::{Flow, Phase};
use super::recv;
use super::segment::{self, Flags, Options, Outline, SackBlocks};
use super::send::MAX_SLICES;
use super::seq::Seq;
use super::table::Key;
use super::{Env, Reply};
use crate::time::Moment;
use crate::tun::stack::checksum::Checksum;
use crate::tun::stack::ip::{Header, Protocol, V4_HEADER, V6_HEADER};
use crate::tun::stack::{Blocked, Offload, PacketSink};

/// The most packets of one flow before it is the others' turn.
const TURN: usize = 64;
/// The most bytes of one IP packet.
const MAX_PACKET: usize = 65_535;

impl Flow {
    /// Sends what may be sent. True if the turn ended before that.
    ///
    /// # Errors
    /// [`Blocked`] when the device is; nothing is lost.
    pub(crate) fn transmit(
        &mut self,
        now: Moment,
        env: &mut Env,
        sink: &mut dyn PacketSink,
    ) -> Result<bool, Blocked> {
        match self.phase {
            Phase::Opening | Phase::Closed => return Ok(false),
            Phase::Handshake => {
                if self.syn_ack {
                    self.send_syn_ack(env, sink)?;
                    self.syn_ack = false;
                    let due = now + self.sender.rto();
                    self.sender.deadline.get_or_insert(due);
                }
                return Ok(false);
            }
            Phase::Open => {}
        }
        let window = self.receiver.advertise(false, self.mss(env), &env.pool);
        let sack = if self.sender.sack && self.receiver.has_gaps() {
            self.receiver.sack()
        } else {
            SackBlocks::default()
        };
        let options = Options { sack, ..Options::default() };
        let options_len = if sack.as_slice().is_empty() { 0 } else { 4 + 8 * sack.as_slice().len() };
        let mss = self.mss(env).saturating_sub(options_len as u32).max(1);
        let headers = if self.key.is_v6() { V6_HEADER } else { V4_HEADER } + segment::HEADER + options_len;
        let most = if env.offload { ((MAX_PACKET - headers) as u32 / mss).max(1) * mss } else { mss };
        let outline =
            Outline { ack: self.receiver.next, flags: Flags::ACK, window, options, ..outline(&self.key) };
        for _ in 0..TURN {
            let Some(mut plan) = self.sender.plan(mss, most) else {
                for _ in 0..self.acks {
                    let outline = Outline { seq: self.sender.next, ..outline };
                    send(env, sink, &self.key, &outline, &[], 0, None)?;
                    self.acks -= 1;
                }
                self.sender.arm(now);
                return Ok(false);
            };
            let mut slices: [&[u8]; MAX_SLICES] = [&[]; MAX_SLICES];
            let (count, len) = self.sender.gather(&plan, &mut slices);
            plan.fin &= len == plan.len as usize;
            plan.len = len as u32;
            let end = plan.seq + plan.len;
            let mut flags = outline.flags;
            if plan.fin {
                flags = flags.with(Flags::FIN);
            }
            if end == self.sender.una + self.sender.queued() {
                flags = flags.with(Flags::PSH);
            }
            let outline = Outline { seq: plan.seq, flags, ..outline };
            let cut = (plan.len > mss).then_some(mss as u16);
            send(env, sink, &self.key, &outline, &slices[..count], len, cut)?;
            env.retransmits += u64::from(plan.again);
            self.sender.sent(now, &plan);
            self.acks = 0;
        }
        Ok(true)
    }

    fn send_syn_ack(&mut self, env: &mut Env, sink: &mut dyn PacketSink) -> Result<(), Blocked> {
        let options = Options {
            mss: Some(env.own_mss(self.key.is_v6())),
            scale: self.receiver.scaled.then_some(recv::SCALE),
            sack_permitted: self.sender.sack,
            ..Options::default()
        };
        let outline = Outline {
            seq: self.sender.una - 1,
            ack: self.receiver.next,
            flags: Flags::SYN.with(Flags::ACK),
            window: self.receiver.advertise(true, self.mss(env), &env.pool),
            options,
            ..outline(&self.key)
        };
        send(env, sink, &self.key, &outline, &[], 0, None)
    }
}

impl Reply {
    /// Sends a segment that belongs to no flow.
    ///
    /// # Errors
    /// [`Blocked`] when the device is.
    pub(crate) fn transmit(&self, env: &mut Env, sink: &mut dyn PacketSink) -> Result<(), Blocked> {
        let mut flags = if self.reset { Flags::RST } else { Flags::ACK };
        if self.ack.is_some() {
            flags = flags.with(Flags::ACK);
        }
        let outline = Outline {
            seq: self.seq,
            ack: self.ack.unwrap_or(Seq(0)),
            flags,
            window: self.window,
            ..outline(&self.key)
        };
        send(env, sink, &self.key, &outline, &[], 0, None)
    }
}

fn outline(key: &Key) -> Outline {
    let (app_port, remote_port) = key.ports();
    Outline { src_port: remote_port, dst_port: app_port, ..Outline::default() }
}

/// Builds the headers in place and hands one packet to the device.
fn send(
    env: &mut Env,
    sink: &mut dyn PacketSink,
    key: &Key,
    outline: &Outline,
    payload: &[&[u8]],
    payload_len: usize,
    cut: Option<u16>,
) -> Result<(), Blocked> {
    let mut tcp = [0; segment::MAX_HEADER];
    let tcp_len = outline.emit(&mut tcp);
    let (app, remote) = key.addresses();
    let mut sum = Checksum::pseudo(remote, app, Protocol::Tcp.number(), tcp_len + payload_len);
    let partial = env.offload && payload_len > 0;
    let value = if partial {
        sum.partial()
    } else {
        sum.add(&tcp[..tcp_len]);
        for slice in payload {
            sum.add(slice);
        }
        sum.finish()
    };
    tcp[segment::CHECKSUM_OFFSET..][..2].copy_from_slice(&value.to_be_bytes());
    let mut header = Header::new();
    header.push_ip(remote, app, Protocol::Tcp, tcp_len + payload_len, None);
    let ip_len = header.as_slice().len();
    header.push(&tcp[..tcp_len]);
    let offload = partial.then(|| Offload {
        transport_offset: ip_len as u16,
        checksum_offset: segment::CHECKSUM_OFFSET as u16,
        header_len: (ip_len + tcp_len) as u16,
        segment_size: cut,
    });
    sink.send(header.as_slice(), payload, offload)?;
    env.packets_out += 1;
    Ok(())
}

//! A `freedom` outbound that is dialled through another one (`proxySettings`): what is left of it is where its flows go.

use super::super::shard::Shard;
use super::freedom::redirected;
use super::{Cone, LocalFuture, OpenError, OpenedStream, Outbound, level};
use crate::addr::{Host, Target};
use crate::config;
use crate::time::Moment;
use crate::transport::{Datagram, Datagrams, StreamError};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A freedom outbound whose flows go through another outbound.
pub(super) struct Detour {
    tag: Arc<str>,
    redirect: Option<(Option<Host>, u16)>,
    level: u32,
    via: Rc<dyn Outbound>,
}

impl Detour {
    /// Makes the outbound.
    pub(super) fn new(tag: Arc<str>, settings: &config::Freedom, via: Rc<dyn Outbound>) -> Self {
        Self { tag, redirect: settings.redirect.clone(), level: settings.level, via }
    }

    fn redirected(&self, target: &Target) -> Target {
        redirected(self.redirect.as_ref(), target.clone())
    }

    /// Datagrams that are called by the names that the app has for them.
    fn rename(&self, flow: Box<dyn Datagrams>, asked: Target) -> Box<dyn Datagrams> {
        let real = self.redirected(&asked);
        if real == asked { flow } else { Box::new(Renamed { flow, asked, real }) }
    }
}

impl Outbound for Detour {
    fn tag(&self) -> &Arc<str> {
        &self.tag
    }

    fn connects_target(&self) -> bool {
        self.via.connects_target()
    }

    fn admits(&self, now: Moment) -> bool {
        self.via.admits(now)
    }

    fn open_stream(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
    ) -> LocalFuture<Result<OpenedStream, OpenError>> {
        Box::pin(async move {
            let target = self.redirected(&target);
            let opened = Rc::clone(&self.via).open_stream(Rc::clone(&shard), target).await?;
            Ok(OpenedStream { level: level(&shard, self.level), ..opened })
        })
    }

    fn open_datagrams(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
    ) -> LocalFuture<Result<Box<dyn Datagrams>, OpenError>> {
        Box::pin(async move {
            let flow = Rc::clone(&self.via).open_datagrams(shard, self.redirected(&target)).await?;
            Ok(self.rename(flow, target))
        })
    }

    /// What is redirected has a flow of its own, since its answers bear another name.
    fn cone(&self, target: &Target) -> Option<Cone> {
        if self.redirect.is_some() { None } else { self.via.cone(target) }
    }

    fn open_cone(
        self: Rc<Self>,
        shard: Rc<Shard>,
        target: Target,
        source: SocketAddr,
    ) -> LocalFuture<Result<Box<dyn Datagrams>, OpenError>> {
        if self.redirect.is_some() {
            return self.open_datagrams(shard, target);
        }
        Rc::clone(&self.via).open_cone(shard, target, source)
    }
}

/// A flow whose target has another name for the app than for the outbound.
struct Renamed {
    flow: Box<dyn Datagrams>,
    asked: Target,
    real: Target,
}

impl Datagrams for Renamed {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Datagram>, StreamError>> {
        let received = ready!(self.flow.poll_recv(cx))?;
        Poll::Ready(Ok(received.map(|datagram| match datagram.remote == self.real {
            true => Datagram { remote: self.asked.clone(), ..datagram },
            false => datagram,
        })))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.flow.poll_ready(cx)
    }

    fn send(&mut self, datagram: Datagram) -> Result<(), StreamError> {
        let remote = if datagram.remote == self.asked { self.real.clone() } else { datagram.remote };
        self.flow.send(Datagram { remote, ..datagram })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.flow.poll_flush(cx)
    }

    fn local_ip(&self) -> Option<IpAddr> {
        self.flow.local_ip()
    }
}

//! A server span's caller is computed from the TCP stream; if that span was
//! seen, open or ended, it is the parent.

use super::{Claim, Rung, span_claim};
use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::Method;

pub struct TcpStream;

impl Rung for TcpStream {
    fn method(&self) -> Method {
        Method::TcpStream
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        if child.side != Side::Ingress {
            return None;
        }
        let caller = window.get(child.facts.caller?)?;
        (caller.side == Side::Egress).then(|| span_claim(caller.id, 1.0))
    }
}

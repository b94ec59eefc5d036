//! Only one request of the process was being served when the call began.
//!
//! Background work makes calls while a request happens to be served, so by
//! itself this is below the default floor. `decode` lifts it over where exact
//! links of the same process confirm it, or where the process is idle half of
//! the time and makes no calls then. Measured at real load on RPS-100, hotel
//! 25/75/150 and Online Boutique: 19,444 calls linked in processes that pass the
//! idleness test, none wrong (none of these sets has background work).

use super::{Claim, Rung, exactly_one, span_claim};
use crate::window::Window;
use crate::window::entry::{Entry, Side};
use crate::window::link::Method;

pub struct OnlyOpen;

const ALONE: f32 = 0.7;

impl Rung for OnlyOpen {
    fn method(&self) -> Method {
        Method::OnlyOpen
    }

    fn claim(&self, window: &Window, child: &Entry) -> Option<Claim> {
        if child.side != Side::Egress {
            return None;
        }
        let open = exactly_one(window.open_in_process(child.process, child.start_ns))?;
        Some(span_claim(open, ALONE))
    }
}

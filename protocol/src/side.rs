//! The two ends of a link, and what may come to each.

use crate::frame::Kind;

/// Which end of a link this is: it decides what may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Calls go out, answers come in.
    Gateway,
    /// Calls come in, answers go out.
    Engine,
}

impl Side {
    /// Whether messages of this kind may come to it, once the handshake is done.
    pub(crate) fn takes(self, kind: Kind) -> bool {
        match kind {
            Kind::Data | Kind::Cancel | Kind::Draining | Kind::Ping | Kind::Pong | Kind::Bye => {
                true
            }
            Kind::Functions | Kind::Load | Kind::Answer => self == Side::Gateway,
            Kind::Call => self == Side::Engine,
            Kind::Hello | Kind::Challenge | Kind::Proof | Kind::Welcome => false,
        }
    }
}

//! Two processes that wake each other by blocking reads and writes of eventfds: the least that two
//! wake-ups cost by a descriptor. A call through the engine has four.

use std::os::fd::AsFd;

use nix::sys::eventfd::EventFd;

use super::line::{self, Line};
use crate::case::{Case, Error};

pub(super) fn cases() -> Vec<Case> {
    line::cases::<EventFd>("eventfd", "eventfd")
}

impl Line for EventFd {
    fn new() -> Result<EventFd, Error> {
        Ok(EventFd::new()?)
    }

    fn say(&mut self) -> Result<(), Error> {
        self.write(1)?;
        Ok(())
    }

    fn hear(&mut self) -> Result<(), Error> {
        nix::unistd::read(self.as_fd(), &mut [0; 8])?;
        Ok(())
    }
}

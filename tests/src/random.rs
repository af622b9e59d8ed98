//! Numbers that look random and can be had again.

/// xorshift64*: a seed gives the same numbers for ever.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// From a seed; the state must not be zero, hence the odd bit.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random { state: seed | 1 << 63 }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        let number = self.number() % u64::try_from(end).expect("64 bits hold every size");
        usize::try_from(number).expect("below a size")
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.number().to_be_bytes()[0]
    }

    /// `size` bytes.
    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            bytes.extend_from_slice(&self.number().to_be_bytes());
        }
        bytes.truncate(size);
        bytes
    }
}

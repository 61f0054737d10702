//! Rabin fingerprints: a chunk ends where the fingerprint of its last bytes has zeros.
//!
//! Bytes are the coefficients of a polynomial over GF(2), and the fingerprint is its remainder. The parameters are those of
//! Kubo: the polynomial, a window of 16 bytes that begins with a one, and no look at what comes before the window of the
//! first place where a chunk may end.

/// The irreducible polynomial, of degree [`DEGREE`].
const POLYNOMIAL: u64 = 0x003D_F305_DFB2_A805;
const DEGREE: u32 = 53;
/// Bytes that a fingerprint covers.
pub(super) const WINDOW: usize = 16;

/// What a byte that leaves the window has left in the fingerprint.
static LEAVING: [u64; 256] = leaving();
/// What takes a fingerprint back below the polynomial, by the eight bits above it.
static REDUCING: [u64; 256] = reducing();

/// The sizes of chunks, checked: the least is at least a window, and each is smaller than the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) least: usize,
    pub(super) average: usize,
    pub(super) most: usize,
}

/// Finds the ends of chunks.
#[derive(Debug)]
pub(super) struct Rabin {
    sizes: Sizes,
    mask: u64,
    window: [u8; WINDOW],
    place: usize,
    fingerprint: u64,
}

impl Rabin {
    pub(super) fn new(sizes: Sizes) -> Self {
        let mask = (1 << sizes.average.ilog2()) - 1;
        let mut rabin = Self { sizes, mask, window: [0; WINDOW], place: 0, fingerprint: 0 };
        rabin.begin();
        rabin
    }

    /// How many bytes of `data`, which follows `begun` bytes of the same chunk, end it.
    pub(super) fn find_end(&mut self, begun: usize, data: &[u8]) -> Option<usize> {
        let Sizes { least, most, .. } = self.sizes;
        let unseen = (least - WINDOW).saturating_sub(begun);
        for (place, byte) in data.iter().enumerate().skip(unseen) {
            self.take(*byte);
            let length = begun + place + 1;
            if length >= most || (length >= least && self.fingerprint & self.mask == 0) {
                self.begin();
                return Some(place + 1);
            }
        }
        None
    }

    fn begin(&mut self) {
        (self.window, self.place, self.fingerprint) = ([0; WINDOW], 0, 0);
        self.take(1);
    }

    fn take(&mut self, byte: u8) {
        let left = std::mem::replace(&mut self.window[self.place], byte);
        self.place = (self.place + 1) % WINDOW;
        let fingerprint = self.fingerprint ^ LEAVING[usize::from(left)];
        self.fingerprint = (fingerprint << 8 | u64::from(byte)) ^ REDUCING[(fingerprint >> (DEGREE - 8)) as usize];
    }
}

const fn remainder(mut value: u64) -> u64 {
    let mut bit = u64::BITS;
    while bit > DEGREE {
        bit -= 1;
        if value >> bit & 1 == 1 {
            value ^= POLYNOMIAL << (bit - DEGREE);
        }
    }
    value
}

const fn leaving() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u64;
        let mut moved = 1;
        while moved < WINDOW {
            value = remainder(value << 8);
            moved += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

const fn reducing() -> [u64; 256] {
    let mut table = [0; 256];
    let mut high = 0;
    while high < 256 {
        let value = (high as u64) << DEGREE;
        table[high] = remainder(value) | value;
        high += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_is_that_of_kubo() {
        assert_eq!(POLYNOMIAL, 17_437_180_132_763_653);
        assert_eq!(POLYNOMIAL.ilog2(), DEGREE);
    }

    #[test]
    fn a_fingerprint_is_the_remainder_of_its_window() {
        let mut rabin = Rabin::new(Sizes { least: 16, average: 32, most: 64 });
        let bytes: Vec<u8> = (0..100_u8).map(|number| number.wrapping_mul(167)).collect();
        for byte in &bytes {
            rabin.take(*byte);
        }
        let whole = bytes[100 - WINDOW..].iter().fold(0, |value, byte| remainder(value << 8 | u64::from(*byte)));
        assert_eq!(rabin.fingerprint, whole);
    }
}

//! How every listing is cut: nothing as large as the pinset is ever one value.

/// One page of a listing and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, C> {
    /// The items, in the listing's order.
    pub items: Vec<T>,
    /// What to ask the next page after; `None` when this was the last one.
    pub next: Option<C>,
}

/// How many items a page may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimit(usize);

impl PageLimit {
    /// The most a page may hold: some 4 MiB of pins of ordinary size.
    pub const MAX: usize = 4096;
    /// What listings use unless there is a reason.
    pub const DEFAULT: Self = Self(512);

    /// `items`, but at least 1 and at most [`PageLimit::MAX`].
    pub fn clamped(items: usize) -> Self {
        Self(items.clamp(1, Self::MAX))
    }

    /// The number.
    pub fn get(self) -> usize {
        self.0
    }
}

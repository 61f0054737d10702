//! How many copies a pin has, checked.

use std::fmt;

/// How many peers hold a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicationFactor {
    /// Every peer holds it.
    Everywhere,
    /// At least `min` and at most `max` peers hold it; `1 <= min <= max`.
    Between {
        /// Below this the pin is repaired, and a new pin refused.
        min: u32,
        /// What an allocation aims for.
        max: u32,
    },
}

/// Two replication factors do not make sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicationError {
    /// One of them is 0 and there is no default to take its place.
    #[error("cluster.replication_factor_min and max must be set")]
    Unset,
    /// The minimum is above the maximum.
    #[error("cluster.replication_factor_min is larger than max")]
    MinAboveMax,
    /// The minimum is below -1.
    #[error("cluster.replication_factor_min is wrong")]
    WrongMin,
    /// Only one of them is -1.
    #[error("cluster.replication_factor_min and max must be -1 when one of them is")]
    HalfEverywhere,
}

impl ReplicationFactor {
    /// Checks a pair as it stands in options and configuration: -1 means everywhere, 0 is unset.
    pub fn checked(min: i32, max: i32) -> Result<Self, ReplicationError> {
        if min == 0 || max == 0 {
            return Err(ReplicationError::Unset);
        }
        // The order decides which text a pair with several faults gets, and clients compare the texts.
        if min > max {
            return Err(ReplicationError::MinAboveMax);
        }
        if min < -1 {
            return Err(ReplicationError::WrongMin);
        }
        if (min == -1) != (max == -1) {
            return Err(ReplicationError::HalfEverywhere);
        }
        match (u32::try_from(min), u32::try_from(max)) {
            (Ok(min), Ok(max)) => Ok(Self::Between { min, max }),
            _ => Ok(Self::Everywhere),
        }
    }

    /// The pair as options and configuration write it.
    pub fn as_pair(self) -> (i32, i32) {
        match self {
            Self::Everywhere => (-1, -1),
            Self::Between { min, max } => {
                (i32::try_from(min).unwrap_or(i32::MAX), i32::try_from(max).unwrap_or(i32::MAX))
            }
        }
    }
}

impl fmt::Display for ReplicationFactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => f.write_str("-1"),
            Self::Between { min, max } => write!(f, "{min}--{max}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_checked_as_the_original_does() {
        use ReplicationError as E;
        assert_eq!(ReplicationFactor::checked(2, 3), Ok(ReplicationFactor::Between { min: 2, max: 3 }));
        assert_eq!(ReplicationFactor::checked(-1, -1), Ok(ReplicationFactor::Everywhere));
        assert_eq!(ReplicationFactor::checked(0, 1), Err(E::Unset));
        assert_eq!(ReplicationFactor::checked(3, 2), Err(E::MinAboveMax));
        assert_eq!(ReplicationFactor::checked(-2, 2), Err(E::WrongMin));
        assert_eq!(ReplicationFactor::checked(-3, -2), Err(E::WrongMin));
        assert_eq!(ReplicationFactor::checked(1, -2), Err(E::MinAboveMax));
        assert_eq!(ReplicationFactor::checked(-1, 2), Err(E::HalfEverywhere));
        assert_eq!(ReplicationFactor::checked(2, -1), Err(E::MinAboveMax));
    }
}

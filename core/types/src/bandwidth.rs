//! What a peer sends and receives.

use serde::{Deserialize, Serialize, Serializer};

/// What went over one protocol between a peer and others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bytes received since the start.
    pub total_in: u64,
    /// Bytes sent since the start.
    pub total_out: u64,
    /// Bytes received in a second, lately.
    #[serde(serialize_with = "shortest")]
    pub rate_in: f64,
    /// Bytes sent in a second, lately.
    #[serde(serialize_with = "shortest")]
    pub rate_out: f64,
}

/// A number without a fraction is written without a point, as the original writes it.
#[expect(clippy::cast_possible_truncation, reason = "it was checked to be in range and whole")]
fn shortest<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        serializer.serialize_i64(*number as i64)
    } else {
        serializer.serialize_f64(*number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_rates_have_no_point() {
        let counted = Bandwidth { total_in: 1, total_out: 2, rate_in: 0.0, rate_out: 1.5 };
        let json = r#"{"total_in":1,"total_out":2,"rate_in":0,"rate_out":1.5}"#;
        assert_eq!(serde_json::to_string(&counted).unwrap(), json);
        assert_eq!(serde_json::from_str::<Bandwidth>(json).unwrap(), counted);
    }
}

//! A request of the pinning service: one of the wishes that keep a pin.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize, de};

use crate::cid::Cid;
use crate::null::null_is_empty;
use crate::time::Timestamp;

/// The random part of the id of a request: 32 hexadecimal digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestNumber(pub [u8; 16]);

/// This text is no request id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no request id: it is <32 hexadecimal digits>-<CID>, as the answer to the request says")]
pub struct RequestIdError {
    text: String,
}

impl RequestIdError {
    fn new(text: &str) -> Self {
        Self { text: text.chars().take(200).collect() }
    }
}

impl fmt::Display for RequestNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for RequestNumber {
    type Err = RequestIdError;

    fn from_str(text: &str) -> Result<Self, RequestIdError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut number = [0; 16];
        let pairs = text.as_bytes().chunks_exact(2);
        if text.len() != 32 {
            return Err(RequestIdError::new(text));
        }
        for (byte, pair) in number.iter_mut().zip(pairs) {
            let [high, low] = [pair[0], pair[1]].map(digit);
            *byte = high.zip(low).map(|(high, low)| high << 4 | low).ok_or_else(|| RequestIdError::new(text))?;
        }
        Ok(Self(number))
    }
}

impl Serialize for RequestNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RequestNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The id of a request as users see it: it leads to the pin by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Which of the requests for the pin.
    pub number: RequestNumber,
    /// The pin.
    pub cid: Cid,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.cid)
    }
}

impl FromStr for RequestId {
    type Err = RequestIdError;

    fn from_str(text: &str) -> Result<Self, RequestIdError> {
        let fail = || RequestIdError::new(text);
        let (number, cid) = text.split_once('-').ok_or_else(fail)?;
        Ok(Self { number: number.parse().map_err(|_| fail())?, cid: cid.parse().map_err(|_| fail())? })
    }
}

/// A wish of a user of the pinning service: as long as there is one, the pin is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinningRequest {
    /// Tells it from the others for the same pin.
    pub id: RequestNumber,
    /// Whose it is; empty where the service asks nobody who he is.
    #[serde(default)]
    pub user: String,
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// Free text by key.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub meta: BTreeMap<String, String>,
    /// Where the content can be fetched.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub origins: Vec<Multiaddr>,
    /// When it was made, in whole milliseconds.
    pub created: Timestamp,
}

impl PinningRequest {
    /// What comes first in a listing: the newest, and of one instant the one with the smaller number.
    pub fn place(&self) -> (std::cmp::Reverse<Timestamp>, RequestNumber) {
        (std::cmp::Reverse(self.created), self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_which_pin_it_is_about() {
        let text = "000102030405060708090a0b0c0d0eff-QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
        let id: RequestId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.number.0[15], 0xff);
        for wrong in [
            "",
            "-",
            "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
            "000102030405060708090a0b0c0d0efF-QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
            "000102030405060708090a0b0c0d0e-QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
            "000102030405060708090a0b0c0d0eff-Qm",
            "0001020304050607080\u{e9}0a0b0c0d0eff-QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
        ] {
            assert!(wrong.parse::<RequestId>().is_err(), "{wrong}");
        }
    }
}

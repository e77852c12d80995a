//! The two body formats of the Kinesis API: JSON 1.1, and CBOR, which is the Java SDK's default.
//!
//! Requests and answers are plain serde types; the two types whose encoding differs are here. A blob is
//! base64 text in JSON and a byte string in CBOR. A time is seconds with a fraction in JSON; in CBOR it is an
//! integer of *milliseconds* under tag 1, which contradicts RFC 8949 but is what the SDKs write and read.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ciborium::tag;
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::clock::Timestamp;
use super::error::{Exception, Kind};

/// The format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Cbor,
}

impl Format {
    /// The format of a request's content type; parameters such as a charset are ignored.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/x-amz-json-1.1" => Some(Self::Json),
            "application/x-amz-cbor-1.1" => Some(Self::Cbor),
            _ => None,
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    /// Decodes a request; an unreadable one is a `SerializationException`, as in AWS.
    pub(super) fn decode<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, Exception> {
        match self {
            Self::Json => serde_json::from_slice(body).map_err(|e| e.to_string()),
            Self::Cbor => ciborium::from_reader(body).map_err(|e| e.to_string()),
        }
        .map_err(|message| Exception::new(Kind::Serialization, message))
    }

    pub(super) fn encode<T: Serialize>(self, answer: &T) -> Result<Bytes, Exception> {
        let mut out = Vec::new();
        match self {
            Self::Json => serde_json::to_writer(&mut out, answer).map_err(|e| e.to_string()),
            Self::Cbor => ciborium::into_writer(answer, &mut out).map_err(|e| e.to_string()),
        }
        .map_err(|message| Exception::internal(format!("failed to encode the response: {message}")))?;
        Ok(Bytes::from(out))
    }
}

/// The data of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blob(pub(super) Bytes);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                STANDARD
                    .decode(text)
                    .map(|data| Blob(Bytes::from(data)))
                    .map_err(|e| E::custom(format!("failed to decode a Blob from its base64 text: {e}")))
            }
        }

        struct Raw;
        impl Visitor<'_> for Raw {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: de::Error>(self, data: &[u8]) -> Result<Blob, E> {
                Ok(Blob(Bytes::copy_from_slice(data)))
            }

            fn visit_byte_buf<E: de::Error>(self, data: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(Bytes::from(data)))
            }
        }

        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Text)
        } else {
            deserializer.deserialize_byte_buf(Raw)
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_f64(self.seconds_with_fraction())
        } else {
            tag::Required::<u64, 1>(self.millis()).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (number, integers_are) = if deserializer.is_human_readable() {
            (Number::deserialize(deserializer)?, Unit::Seconds)
        } else {
            (tag::Captured::<Number>::deserialize(deserializer)?.1, Unit::Millis)
        };
        let millis = match (number.0, integers_are) {
            // A CBOR float is what RFC 8949 means by tag 1; no SDK sends one.
            (Numeric::Float(seconds), _) => (seconds * 1000.0).round(),
            (Numeric::Integer(seconds), Unit::Seconds) => seconds * 1000.0,
            (Numeric::Integer(millis), Unit::Millis) => millis,
        };
        if !(0.0..=1e15).contains(&millis) {
            return Err(de::Error::custom("the time is out of range"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number between 0 and 10^15, checked above"
        )]
        Ok(Self::from_millis(millis as u64))
    }
}

enum Unit {
    Seconds,
    Millis,
}

enum Numeric {
    Integer(f64),
    Float(f64),
}

/// A number as a double: milliseconds are exact up to 2^53.
struct Number(Numeric);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(Numeric::Integer(value as f64)))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(Numeric::Integer(value as f64)))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Number, E> {
                Ok(Number(Numeric::Float(value)))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

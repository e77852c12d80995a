//! Typed handles of keys: a setting is read by the handle of its row, so that a wrong name or a wrong type does not
//! compile.
//!
//! The type parameter says what is read: [`Millis`] a duration, [`Flag`] a boolean. It must fit the kind of the row, which
//! is checked when the handle is made, at compile time.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::super::value::Value;

/// The form of a value, as its row describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// A text that may be absent or blank.
    Text,
    /// A text that has a default.
    Word,
    /// A number.
    Number,
    /// A number that may be absent.
    MaybeNumber,
    /// A floating-point number.
    Real,
    /// A boolean.
    Flag,
    /// `true` or `false` as a word.
    Switch,
    /// Words.
    Words,
    /// Names and values.
    Tags,
    /// A duration in ISO 8601.
    Time,
    /// No value can be set.
    None,
}

/// The type as which a setting is read.
pub trait Read {
    /// The value.
    type Value;
    /// The class that a row must have; none for any.
    const CLASS: Option<Class>;
    /// Reads the value of a row of that class.
    fn read(value: &Value) -> Self::Value;
}

/// The handle of a key.
pub struct Handle<T> {
    name: &'static str,
    read: PhantomData<fn() -> T>,
}

impl<T: Read> Handle<T> {
    /// The handle of a row. Does not compile if the row has another class.
    pub(super) const fn of(name: &'static str, class: Class) -> Self {
        if let Some(expected) = T::CLASS {
            assert!(expected as u8 == class as u8, "the handle does not fit the kind of its row");
        }
        Self { name, read: PhantomData }
    }
}

impl<T> Handle<T> {
    /// The name of the key.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> fmt::Display for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn number(value: &Value) -> Option<i64> {
    if let Value::Number(number) = value { Some(*number) } else { None }
}

fn text(value: &Value) -> Option<&String> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

/// Not read.
#[derive(Debug)]
pub struct Unread;

impl Read for Unread {
    type Value = ();
    const CLASS: Option<Class> = None;
    fn read(_: &Value) {}
}

/// A text; none if it is absent or blank.
#[derive(Debug)]
pub struct Text;

impl Read for Text {
    type Value = Option<String>;
    const CLASS: Option<Class> = Some(Class::Text);
    fn read(value: &Value) -> Option<String> {
        text(value).filter(|text| !text.trim().is_empty()).cloned()
    }
}

/// A keyword, or another text that has a default.
#[derive(Debug)]
pub struct Word;

impl Read for Word {
    type Value = String;
    const CLASS: Option<Class> = Some(Class::Word);
    fn read(value: &Value) -> String {
        text(value).cloned().unwrap_or_default()
    }
}

/// Words.
#[derive(Debug)]
pub struct Words;

impl Read for Words {
    type Value = Vec<String>;
    const CLASS: Option<Class> = Some(Class::Words);
    fn read(value: &Value) -> Vec<String> {
        if let Value::Words(words) = value { words.clone() } else { Vec::new() }
    }
}

/// A boolean.
#[derive(Debug)]
pub struct Flag;

impl Read for Flag {
    type Value = bool;
    const CLASS: Option<Class> = Some(Class::Flag);
    fn read(value: &Value) -> bool {
        *value == Value::Bool(true)
    }
}

/// A switch of multilangd: `true` or `false`.
#[derive(Debug)]
pub struct Switch;

impl Read for Switch {
    type Value = bool;
    const CLASS: Option<Class> = Some(Class::Switch);
    fn read(value: &Value) -> bool {
        text(value).is_some_and(|text| text == super::own::TRUE)
    }
}

/// A floating-point number.
#[derive(Debug)]
pub struct Real;

impl Read for Real {
    type Value = f64;
    const CLASS: Option<Class> = Some(Class::Real);
    fn read(value: &Value) -> f64 {
        if let Value::Real(number) = value { *number } else { 0.0 }
    }
}

/// A duration in ISO 8601.
#[derive(Debug)]
pub struct Time;

impl Read for Time {
    type Value = Duration;
    const CLASS: Option<Class> = Some(Class::Time);
    fn read(value: &Value) -> Duration {
        if let Value::Duration(time) = value { *time } else { Duration::ZERO }
    }
}

/// A number as it is.
#[derive(Debug)]
pub struct Number;

impl Read for Number {
    type Value = i64;
    const CLASS: Option<Class> = Some(Class::Number);
    fn read(value: &Value) -> i64 {
        number(value).unwrap_or_default()
    }
}

/// A number that Java keeps in an `int`.
#[derive(Debug)]
pub struct Int;

impl Read for Int {
    type Value = i32;
    const CLASS: Option<Class> = Some(Class::Number);
    fn read(value: &Value) -> i32 {
        i32::try_from(Number::read(value)).unwrap_or_default()
    }
}

/// A percentage.
#[derive(Debug)]
pub struct Percent;

impl Read for Percent {
    type Value = f64;
    const CLASS: Option<Class> = Some(Class::Number);
    fn read(value: &Value) -> f64 {
        f64::from(Int::read(value))
    }
}

/// Milliseconds; a negative number counts as 0.
#[derive(Debug)]
pub struct Millis;

impl Read for Millis {
    type Value = Duration;
    const CLASS: Option<Class> = Some(Class::Number);
    fn read(value: &Value) -> Duration {
        Duration::from_millis(u64::try_from(Number::read(value)).unwrap_or_default())
    }
}

/// Seconds; a negative number counts as 0.
#[derive(Debug)]
pub struct Seconds;

impl Read for Seconds {
    type Value = Duration;
    const CLASS: Option<Class> = Some(Class::Number);
    fn read(value: &Value) -> Duration {
        Duration::from_secs(u64::try_from(Number::read(value)).unwrap_or_default())
    }
}

/// A number of things; a negative number counts as 0.
#[derive(Debug)]
pub struct Count;

impl Read for Count {
    type Value = usize;
    const CLASS: Option<Class> = Some(Class::Number);
    fn read(value: &Value) -> usize {
        usize::try_from(Number::read(value)).unwrap_or_default()
    }
}

/// How many times something is done; a negative number counts as 0.
#[derive(Debug)]
pub struct Times;

impl Read for Times {
    type Value = u32;
    const CLASS: Option<Class> = Some(Class::Number);
    fn read(value: &Value) -> u32 {
        u32::try_from(Number::read(value)).unwrap_or_default()
    }
}

/// A number that may be absent.
#[derive(Debug)]
pub struct Maybe<T>(PhantomData<fn() -> T>);

impl<T: Read> Read for Maybe<T> {
    type Value = Option<T::Value>;
    const CLASS: Option<Class> = Some(Class::MaybeNumber);
    fn read(value: &Value) -> Option<T::Value> {
        number(value).map(|_| T::read(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_numbers_count_as_zero() {
        let value = Value::Number(-5);
        assert_eq!((Millis::read(&value), Seconds::read(&value)), (Duration::ZERO, Duration::ZERO));
        assert_eq!((Count::read(&value), Times::read(&value)), (0, 0));
        assert_eq!((Number::read(&value), Int::read(&value)), (-5, -5));
    }

    #[test]
    fn absent_number_is_none_only_for_maybe() {
        assert_eq!(Maybe::<Millis>::read(&Value::Nothing), None);
        assert_eq!(Maybe::<Millis>::read(&Value::Text("same".into())), None);
        assert_eq!(Maybe::<Millis>::read(&Value::Number(7)), Some(Duration::from_millis(7)));
        assert_eq!(Millis::read(&Value::Nothing), Duration::ZERO);
    }

    #[test]
    fn blank_text_is_none_but_a_word_is_kept() {
        assert_eq!(Text::read(&Value::Text(" ".into())), None);
        assert_eq!(Word::read(&Value::Text("off".into())), "off");
        assert!(Switch::read(&Value::Text("true".into())) && !Switch::read(&Value::Text("false".into())));
    }
}

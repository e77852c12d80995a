//! The rules by which the Java MultiLangDaemon reads a line of a child, written a second time and for clarity.
//! The stored table shows that they are Java's rules; the fuzzer shows that the daemon's reader follows them.
//!
//! In KCL: `GetNextMessageTask`, with a default `ObjectMapper` of Jackson 2.21 and `Message` as the type.

/// The daemon's reaction to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A `status` with its `responseFor`.
    Status(Option<String>),
    /// A `checkpoint` with its two numbers.
    Checkpoint(Option<String>, Option<i64>),
    /// No effect: an empty line, noise, or a message that only a daemon sends.
    Nothing,
}

/// Maximum nesting depth, as in Jackson's `StreamReadConstraints`.
const MAX_DEPTH: usize = 1000;
const MAX_DIGITS: usize = 1000;

enum Value {
    Null,
    /// UTF-16 units, because a surrogate can be unpaired.
    Text(Vec<u16>),
    /// The number's text in the line.
    Number(String),
    Bool(bool),
    /// An array or an object. No field of a child's message accepts one.
    Nested,
}

/// Reads one line as Java does.
pub(crate) fn verdict(line: &[u8]) -> Verdict {
    let text: Vec<char> = String::from_utf8_lossy(line).chars().collect();
    let mut reader = Reader { text: &text, at: 0 };
    reader.blanks();
    // Text after the object's end is ignored.
    let members = (reader.next() == Some('{')).then(|| reader.members(1)).flatten();
    members.and_then(|members| message(&members)).unwrap_or(Verdict::Nothing)
}

fn message(members: &[(Vec<u16>, Value)]) -> Option<Verdict> {
    let is = |key: &[u16], name: &str| key.iter().copied().eq(name.encode_utf16());
    // The first `action` with a scalar value names the type and is removed. Any other `action` is an ordinary
    // field.
    let place = members.iter().position(|(key, value)| is(key, "action") && scalar(value).is_some())?;
    let action = scalar(&members[place].1)?;
    let fields = members.iter().enumerate().filter(|(index, _)| *index != place).map(|(_, member)| member);
    let (mut response_for, mut sequence, mut sub) = (None, None, None);
    for (key, value) in fields {
        // Jackson converts each value when it reads it, so a value that cannot be converted fails the line even
        // if the key occurs again.
        match action.as_str() {
            "status" if is(key, "responseFor") => response_for = string(value)?,
            "checkpoint" if is(key, "sequenceNumber") => sequence = string(value)?,
            "checkpoint" if is(key, "subSequenceNumber") => sub = long(value)?,
            "checkpoint" if is(key, "error") => drop(string(value)?),
            _ => return None,
        }
    }
    match action.as_str() {
        "status" => Some(Verdict::Status(response_for)),
        "checkpoint" => Some(Verdict::Checkpoint(sequence, sub)),
        _ => None,
    }
}

/// The text of a string, a number or a boolean.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Text(units) => Some(utf8(units)),
        Value::Number(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Nested => None,
    }
}

fn string(value: &Value) -> Option<Option<String>> {
    match value {
        Value::Null => Some(None),
        Value::Nested => None,
        Value::Text(_) | Value::Number(_) | Value::Bool(_) => Some(scalar(value)),
    }
}

fn long(value: &Value) -> Option<Option<i64>> {
    match value {
        Value::Null => Some(None),
        Value::Text(units) => match utf8(units).trim_matches(|char| char <= ' ') {
            "" | "null" => Some(None),
            text if text.len() > MAX_DIGITS => None,
            text => integer(text.strip_prefix('+').filter(|rest| !rest.starts_with('-')).unwrap_or(text)),
        },
        Value::Number(text) if text.contains(['.', 'e', 'E']) => {
            let float: f64 = text.parse().ok()?;
            let is_in_range = (i64::MIN as f64..=i64::MAX as f64).contains(&float);
            is_in_range.then_some(Some(float as i64))
        }
        Value::Number(text) => integer(text),
        Value::Bool(_) | Value::Nested => None,
    }
}

fn integer(text: &str) -> Option<Option<i64>> {
    let (digits, sign) = text.strip_prefix('-').map_or((text, 1), |rest| (rest, -1));
    let mut sum: i128 = 0;
    for char in digits.chars() {
        sum = sum * 10 + i128::from(char.to_digit(10)?);
        if sum > 1 << 70 {
            return None;
        }
    }
    if digits.is_empty() { None } else { i64::try_from(sign * sum).ok().map(Some) }
}

/// The text as Java writes it: `?` for an unpaired surrogate.
fn utf8(units: &[u16]) -> String {
    char::decode_utf16(units.iter().copied()).map(|char| char.unwrap_or('?')).collect()
}

/// A JSON parser without Jackson's extensions, which are disabled by default.
struct Reader<'a> {
    text: &'a [char],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.at += 1;
        Some(char)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.at += 1;
        }
    }

    /// Parses an object's members, from after the opening brace to the closing one.
    fn members(&mut self, depth: usize) -> Option<Vec<(Vec<u16>, Value)>> {
        let mut members = Vec::new();
        self.blanks();
        if self.peek() == Some('}') {
            self.at += 1;
            return Some(members);
        }
        loop {
            self.blanks();
            (self.next()? == '"').then_some(())?;
            let key = self.string()?;
            self.blanks();
            (self.next()? == ':').then_some(())?;
            members.push((key, self.value(depth)?));
            self.blanks();
            match self.next()? {
                ',' => {}
                '}' => return Some(members),
                _ => return None,
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.blanks();
        match self.next()? {
            '"' => self.string().map(Value::Text),
            '{' if depth < MAX_DEPTH => self.members(depth + 1).map(|_| Value::Nested),
            '[' if depth < MAX_DEPTH => self.elements(depth + 1),
            't' => self.word("rue", Value::Bool(true)),
            'f' => self.word("alse", Value::Bool(false)),
            'n' => self.word("ull", Value::Null),
            '-' | '0'..='9' => self.number(),
            _ => None,
        }
    }

    fn elements(&mut self, depth: usize) -> Option<Value> {
        self.blanks();
        if self.peek() == Some(']') {
            self.at += 1;
            return Some(Value::Nested);
        }
        loop {
            self.value(depth)?;
            self.blanks();
            match self.next()? {
                ',' => {}
                ']' => return Some(Value::Nested),
                _ => return None,
            }
        }
    }

    fn word(&mut self, rest: &str, value: Value) -> Option<Value> {
        rest.chars().all(|char| self.next() == Some(char)).then_some(value)
    }

    /// Parses a number, from after its first character.
    fn number(&mut self) -> Option<Value> {
        let begin = self.at - 1;
        if self.text[begin] == '-' {
            self.next().filter(char::is_ascii_digit)?;
        }
        let is_zero = self.text[self.at - 1] == '0';
        if self.digits() > 0 && is_zero {
            return None;
        }
        if self.peek() == Some('.') {
            self.at += 1;
            (self.digits() > 0).then_some(())?;
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            self.at += 1;
            if matches!(self.peek(), Some('+' | '-')) {
                self.at += 1;
            }
            (self.digits() > 0).then_some(())?;
        }
        let text: String = self.text[begin..self.at].iter().collect();
        (text.matches(|char: char| char.is_ascii_digit()).count() <= MAX_DIGITS)
            .then_some(Value::Number(text))
    }

    fn digits(&mut self) -> usize {
        let begin = self.at;
        while self.peek().is_some_and(|char| char.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - begin
    }

    /// Parses a string, from after the opening quote to the closing one.
    fn string(&mut self) -> Option<Vec<u16>> {
        let mut units = Vec::new();
        loop {
            match self.next()? {
                '"' => return Some(units),
                '\\' => units.push(self.escape()?),
                char if char < ' ' => return None,
                char => units.extend_from_slice(char.encode_utf16(&mut [0; 2])),
            }
        }
    }

    fn escape(&mut self) -> Option<u16> {
        let unit = match self.next()? {
            char @ ('"' | '\\' | '/') => char,
            'b' => '\u{8}',
            't' => '\t',
            'n' => '\n',
            'f' => '\u{c}',
            'r' => '\r',
            'u' => {
                let unit = (0..4).try_fold(0, |unit, _| Some(unit * 16 + self.next()?.to_digit(16)?));
                return unit.and_then(|unit| u16::try_from(unit).ok());
            }
            _ => return None,
        };
        u16::try_from(u32::from(unit)).ok()
    }
}

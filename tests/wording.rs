//! Sentences name their subject: no message, page or comment opens with a relative clause or with "nobody", and none uses
//! a phrase for which the glossary has a term.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::path::{Path, PathBuf};

/// First words of sentences that do not name their subject. A question may begin with them.
const OPENINGS: [&str; 8] =
    ["who", "whoever", "what", "so many", "as many", "the same", "nobody", "somebody"];
/// Phrases for which there is a term: release, follow, report, load, continue, panic, successor, assignment, heartbeat,
/// renew.
const PHRASES: [&str; 13] = [
    "give back",
    "gives back",
    "given back",
    "stands behind",
    "told",
    "is had",
    "goes on",
    "broke down",
    "heir",
    "gift",
    "sign of life",
    "signs of life",
    "kept alive",
];
/// Openings in comments that stay, each with its reason; fewer than 20.
const ALLOWED: [(&str, &str); 0] = [];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", ".git", "node_modules"].contains(&name.as_str()) {
                files(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
}

/// The files below some folders, by their path from the root, with their text.
fn texts(folders: &[&str], ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    folders.iter().for_each(|folder| files(&root().join(folder), ending, &mut found));
    let shown = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    found.iter().map(|path| (shown(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// The sentences of a paragraph; a colon ends one too.
fn sentences(paragraph: &str) -> Vec<String> {
    let text = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = Vec::new();
    let mut begin = 0;
    for (at, two) in text.as_bytes().windows(2).enumerate() {
        if [*b". ", *b": ", *b"? ", *b"! "].contains(&[two[0], two[1]]) {
            found.push(text[begin..=at].trim().to_owned());
            begin = at + 1;
        }
    }
    found.push(text[begin..].trim().to_owned());
    found
}

/// Whether the words stand at the beginning of a lower-case text, and a word ends there.
fn begins(text: &str, words: &str) -> bool {
    let follows = text.strip_prefix(words).map(|rest| rest.chars().next());
    follows.is_some_and(|next| next.is_none_or(|c| !c.is_alphanumeric() && c != '\'' && c != '_'))
}

/// Whether a sentence opens without a subject.
fn is_without_subject(sentence: &str) -> bool {
    let text = sentence.trim_start_matches(['`', '"', '(', '*', '-', '_', ' ']).to_lowercase();
    // A cell of a table may be no more than such words.
    let is_sentence = !OPENINGS.contains(&text.trim_end_matches(['|', ' ', '.']));
    is_sentence
        && sentence.contains(' ')
        && !text.ends_with('?')
        && OPENINGS.iter().any(|words| begins(&text, words))
}

/// The phrase in a text for which there is a term.
fn phrase(text: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    let stands = |phrase: &str| {
        lower.match_indices(phrase).any(|(at, _)| {
            let before = lower[..at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_') && begins(&lower[at..], phrase)
        })
    };
    PHRASES.into_iter().find(|phrase| stands(phrase))
}

/// The string literals of a Rust source up to its tests, without escapes of line ends.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut rest = source;
    let mut found = Vec::new();
    while let Some(at) = rest.find(['"', '\'', '/', 'r']) {
        let text = &rest[at..];
        rest = &rest[at + 1..];
        let before = &source[..source.len() - text.len()];
        // `br"…"` is one too.
        let before = before.strip_suffix('b').unwrap_or(before);
        let is_word_before = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if text.starts_with("//") {
            rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        } else if text.starts_with('\'') {
            // A character; a lifetime has no second quote so near.
            let length = if text.starts_with("'\\") { text[3..].find('\'').map(|end| end + 4) } else { None };
            let plain = text.char_indices().nth(2).filter(|(_, c)| *c == '\'').map(|(end, _)| end + 1);
            rest = &text[length.or(plain).unwrap_or(1)..];
        } else if text.starts_with('r') && !is_word_before {
            let hashes = text[1..].chars().take_while(|c| *c == '#').count();
            if text[1 + hashes..].starts_with('"') {
                let end = format!("\"{}", "#".repeat(hashes));
                let (inner, after) = text[2 + hashes..].split_once(&end).unwrap();
                found.push(inner.to_owned());
                rest = after;
            }
        } else if let Some(text) = text.strip_prefix('"') {
            let mut escaped = false;
            let end = text.find(|c: char| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let (inner, after) = text.split_at(end.unwrap());
            let lines = inner.split("\\\n").enumerate();
            found.push(lines.map(|(n, line)| if n == 0 { line } else { line.trim_start() }).collect());
            rest = &after[1..];
        }
    }
    found
}

/// The comments of a source, those on consecutive lines as one text; an empty line or a list item begins another.
fn comments(source: &str) -> Vec<String> {
    paragraphs(source.lines().map(|line| {
        let line = line.trim_start();
        line.starts_with("//").then(|| line.trim_start_matches(['/', '!']).trim())
    }))
}

/// Joins lines; none ends a paragraph, as an empty line does.
fn paragraphs<'a>(lines: impl Iterator<Item = Option<&'a str>>) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut is_code = false;
    for line in lines {
        let line = line.unwrap_or_default();
        is_code ^= line.starts_with("```");
        let is_item = ["* ", "- ", "| ", "#", "> "].iter().any(|mark| line.starts_with(mark))
            || line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        if line.is_empty() || is_item || is_code {
            found.push(String::new());
        }
        if !is_code && !line.starts_with("```") {
            let last = found.last_mut().unwrap();
            last.push(' ');
            last.push_str(line.trim_start_matches(['#', '>', ' ']));
        }
    }
    found
}

#[test]
fn messages_name_their_subject_and_use_terms() {
    let made = ["tests.rs", "_simulation.rs", "fuzz.rs", "made.rs", "made_up.rs"];
    let mut faults = Vec::new();
    for (file, text) in texts(&["src", "properties/src", "protocol/src"], ".rs") {
        if made.iter().any(|ending| file.ends_with(ending)) {
            continue;
        }
        for literal in literals(&text).into_iter().filter(|literal| literal.contains(' ')) {
            if sentences(&literal).iter().any(|sentence| is_without_subject(sentence))
                || phrase(&literal).is_some()
            {
                faults.push(format!("{file}: {literal:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn pages_name_their_subject_and_use_terms() {
    let mut faults = Vec::new();
    for (file, text) in texts(&["."], ".md") {
        for paragraph in paragraphs(text.lines().map(Some)) {
            let cells = paragraph.trim().split(" | ").flat_map(sentences);
            let openings = cells.filter(|sentence| is_without_subject(sentence));
            faults.extend(openings.map(|sentence| format!("{file}: {sentence}")));
            faults.extend(phrase(&paragraph).map(|phrase| format!("{file}: {phrase:?} in {paragraph}")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn comments_name_their_subject_and_use_terms() {
    let mut faults = Vec::new();
    for (file, text) in texts(&["src", "properties", "protocol", "tests", "benches"], ".rs") {
        for sentence in comments(&text).iter().flat_map(|comment| sentences(comment)) {
            let is_allowed = ALLOWED.iter().any(|(begin, _)| sentence.starts_with(begin));
            if is_without_subject(&sentence) && !is_allowed {
                faults.push(format!("{file}: {sentence}"));
            }
            if let Some(phrase) = phrase(&sentence).filter(|_| file != "tests/wording.rs") {
                faults.push(format!("{file}: {phrase:?} in {sentence}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} comments:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn openings_are_found_at_starts_of_sentences_except_in_questions() {
    let has = |text: &str| sentences(text).iter().any(|sentence| is_without_subject(sentence));
    assert!(
        has("Who has less takes more.") && has("A lease: who has it renews it") && has("Fine. Nobody reads.")
    );
    assert!(
        !has("Who reads the shard?") && !has("The worker who reads it.") && !has("whole shards are read")
    );
    assert_eq!(literals("f('\"', \"a \\\n   b\", r#\"c \"d\" \"#) // \"e\""), ["a b", "c \"d\" "]);
    assert_eq!((phrase("leases are given back"), phrase("inherit this")), (Some("given back"), None));
}

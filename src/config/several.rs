//! Conflicts between several properties files in one process.
//!
//! Each file is an application as if it ran alone. Two of them must not use one table, whose rows they would take for
//! their own, nor append dead letters to one file. Settings of the process must have one value.

use std::path::{Path, PathBuf};

use super::keys::client::Service;
use super::keys::handle::{Handle, Text};
use super::keys::kcl;
use super::keys::own::{self, Scope};
use super::letters::{self, Destination};
use super::resolve::Resolved;
use super::{ClientConfig, Remark};

/// The settings that name a table.
const TABLES: [Handle<Text>; 3] = [kcl::TABLE, kcl::COORDINATOR_STATE_TABLE, kcl::WORKER_METRICS_TABLE];

/// A properties file with its settings.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// The path, as messages show it.
    pub name: &'a str,
    /// Its settings.
    pub resolved: &'a Resolved,
}

/// Two files that cannot run in one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The indices of the files, the lower one first.
    pub files: [usize; 2],
    /// The key in each of the two files.
    pub keys: [&'static str; 2],
    /// The line of the key in each of the two files, counted from 1.
    pub lines: [Option<usize>; 2],
    /// The message, which names both files.
    pub text: String,
}

impl Conflict {
    /// The conflict as an error of a file; none if it does not concern the file.
    pub fn of(&self, file: usize) -> Option<Remark> {
        let at = self.files.iter().position(|index| *index == file)?;
        Some(Remark { line: self.lines[at], key: Some(self.keys[at].to_owned()), text: self.text.clone() })
    }
}

/// All conflicts between files.
///
/// `one_place` means that the tables of all files are in one place, whatever the files say; `real` is the canonical path
/// of a folder, as the file system knows it.
pub fn conflicts(files: &[File<'_>], one_place: bool, real: impl Fn(&Path) -> PathBuf) -> Vec<Conflict> {
    let mut found = Vec::new();
    for key in own::KEYS.iter().filter(|key| key.scope == Scope::Process) {
        found.extend((1..files.len()).filter_map(|other| differing(files, key, other)));
    }
    for other in 1..files.len() {
        found.extend((0..other).find_map(|one| one_table(files, one_place, one, other)));
    }
    for other in 1..files.len() {
        found.extend((0..other).find_map(|one| one_letter_file(files, one, other, &real)));
    }
    found
}

fn conflict(files: &[File<'_>], at: [usize; 2], keys: [&'static str; 2], text: String) -> Conflict {
    let line = |index: usize| {
        let setting = files.get(at[index])?.resolved.settings.get(keys[index])?;
        setting.source.line()
    };
    Conflict { files: at, keys, lines: [line(0), line(1)], text }
}

/// A setting of the process that another file sets otherwise than the first one.
fn differing(files: &[File<'_>], key: &'static own::Own, other: usize) -> Option<Conflict> {
    let [first, second] = [files.first()?, files.get(other)?];
    let [a, b] = [first, second].map(|file| file.resolved.settings.get(key.name));
    let (a, b) = (a?, b?);
    let text = || {
        format!(
            "{} belongs to the process, but {} has {} ({}) and {} has {} ({}); set one value in all files, or --{}, \
             or {}",
            key.name,
            first.name,
            a.value,
            a.source,
            second.name,
            b.value,
            b.source,
            key.option(),
            key.variable()
        )
    };
    (a.value != b.value).then(|| conflict(files, [0, other], [key.name, key.name], text()))
}

/// A table that two files use in one place.
fn one_table(files: &[File<'_>], one_place: bool, one: usize, other: usize) -> Option<Conflict> {
    let (first, second) = (files.get(one)?, files.get(other)?);
    let [a, b] = [first, second].map(|file| file.resolved.client(Service::DynamoDb));
    if !one_place && !is_one_place(&a, &b) {
        return None;
    }
    let named = |file: &File<'_>, key| file.resolved.settings.of(key);
    let pairs = TABLES.into_iter().flat_map(|a| TABLES.map(|b| (a, b)));
    let mut common = pairs.filter_map(|(a, b)| Some((a, b, named(first, a)?, named(second, b)?)));
    let (a, b, table, _) = common.find(|(.., a, b)| a == b)?;
    let text = format!(
        "{} and {} use one DynamoDB table, {table} ({a} and {b}); give each application its own applicationName or \
         {b}, since one application needs one file",
        first.name, second.name
    );
    Some(conflict(files, [one, other], [a.name(), b.name()], text))
}

/// Whether two clients call one service of one account, as far as their settings show it.
fn is_one_place(a: &ClientConfig, b: &ClientConfig) -> bool {
    let endpoint =
        |client: &ClientConfig| client.endpoint.as_deref().map(|url| url.trim_end_matches('/').to_owned());
    // A region that is not set comes from the machine, and may be the other one.
    let regions = [&a.region, &b.region];
    let may_be_one = regions[0] == regions[1] || regions.iter().any(|region| region.is_none());
    may_be_one && endpoint(a) == endpoint(b) && a.providers == b.providers
}

/// A file to which two workers would append dead letters: their names differ by the worker id.
fn one_letter_file(
    files: &[File<'_>],
    one: usize,
    other: usize,
    real: &impl Fn(&Path) -> PathBuf,
) -> Option<Conflict> {
    let (first, second) = (files.get(one)?, files.get(other)?);
    let worker = |file: &File<'_>| {
        let settings = &file.resolved.settings;
        let suffix = settings.of(own::WORKER_ID_SUFFIX);
        settings.of(kcl::WORKER_ID).filter(|_| suffix != "random").map(|id| (id, suffix))
    };
    let id = worker(first)?;
    if worker(second)? != id {
        return None;
    }
    let folders = |file: &File<'_>| -> Vec<PathBuf> {
        let all = letters::parse(&file.resolved.settings.of(own::DEAD_LETTERS)).unwrap_or_default();
        let folder = |destination| match destination {
            Destination::File(folder) => Some(real(&folder)),
            Destination::Exec(_) | Destination::Kinesis(_) => None,
        };
        all.into_iter().filter_map(folder).collect()
    };
    let others = folders(second);
    let folder = folders(first).into_iter().find(|folder| others.contains(folder))?;
    let text = format!(
        "{} and {} append dead letters to one file: they have one folder, file:{}, and one workerId, {}; set another \
         folder or workerId",
        first.name,
        second.name,
        folder.display(),
        id.0
    );
    Some(conflict(files, [one, other], [own::DEAD_LETTERS.name(); 2], text))
}

/// A name of each application that no other one has, for log lines and metrics: `applicationName`; where several files
/// have one `applicationName`, as for several regions, with the path of the file.
pub fn names(files: &[(&str, &str)]) -> Vec<String> {
    let is_unique = |name: &str| files.iter().filter(|(_, application)| *application == name).count() == 1;
    let name = |(file, application): &(&str, &str)| {
        if is_unique(application) { (*application).to_owned() } else { format!("{application} ({file})") }
    };
    files.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::resolve::{Given, resolve};
    use super::*;

    fn resolved(application: &str, more: &str) -> Resolved {
        let text = format!(
            "executableName = a\nstreamName = s\napplicationName = {application}\nregionName = us-east-1\n\
             AWSCredentialsProvider = DefaultCredentialsProvider\n{more}"
        );
        resolve(&Given { bytes: text.into_bytes(), ..Given::default() })
    }

    fn found(all: &[Resolved]) -> Vec<Conflict> {
        let names: Vec<String> = (0..all.len()).map(|index| format!("{index}.properties")).collect();
        let files: Vec<File<'_>> =
            all.iter().zip(&names).map(|(resolved, name)| File { name, resolved }).collect();
        conflicts(&files, false, Path::to_path_buf)
    }

    #[test]
    fn settings_of_the_process_must_agree_between_files() {
        for (key, value, default) in [
            (own::BUFFER.name(), "512", "256"),
            (own::STATUS.name(), "0.0.0.0:80", "9465"),
            (own::LOG.name(), "debug", "warn,multilangd=info,child=info"),
            (own::LOG_FORMAT.name(), "json", "text"),
        ] {
            let line = format!("{key} = {value}\n");
            let found = found(&[resolved("a", ""), resolved("b", ""), resolved("c", &line)]);
            let [conflict] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((conflict.files, conflict.keys), ([0, 2], [key, key]));
            assert_eq!(conflict.lines, [None, Some(6)]);
            for named in ["0.properties", "2.properties", key, value, default, "--", "MULTILANGD_"] {
                assert!(conflict.text.contains(named), "{named} in {}", conflict.text);
            }
            assert!(conflict.of(1).is_none() && conflict.of(2).is_some_and(|one| one.line == Some(6)));
        }
        let both = "multilangd.bufferMegabytes = 512\nmultilangd.logFormat = json\n";
        assert_eq!(found(&[resolved("a", both), resolved("b", both)]), []);
    }

    #[test]
    fn settings_of_an_application_may_differ() {
        for key in own::KEYS.iter().filter(|key| key.scope == Scope::Application) {
            let value = match key.kind {
                own::OwnKind::Word(words) => words.iter().find(|word| **word != key.default).unwrap(),
                own::OwnKind::Switch if key.default == own::TRUE => "false",
                own::OwnKind::Switch => own::TRUE,
                own::OwnKind::Number(_) | own::OwnKind::Or(_) => "77",
                own::OwnKind::Destinations => "file:/x",
                own::OwnKind::Streams => "orders",
                own::OwnKind::Address | own::OwnKind::Filter | own::OwnKind::Text => "text",
            };
            let other = resolved("b", &format!("{} = {value}\n", key.name));
            assert_eq!(found(&[resolved("a", ""), other]), [], "{}", key.name);
        }
    }

    #[test]
    fn one_table_in_one_place_is_a_conflict() {
        let found = found(&[resolved("a", ""), resolved("b", ""), resolved("c", "tableName = a\n")]);
        let [conflict] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((conflict.files, conflict.lines), ([0, 2], [None, Some(6)]));
        assert_eq!(conflict.keys, ["tableName", "tableName"]);
        for named in ["0.properties", "2.properties", "table, a "] {
            assert!(conflict.text.contains(named), "{named} in {}", conflict.text);
        }
    }

    #[test]
    fn one_table_name_in_two_places_is_no_conflict() {
        for place in [
            "regionName = eu-west-1\n",
            "dynamoDBEndpoint = http://127.0.0.1:1\n",
            "AWSCredentialsProviderDynamoDB = ProfileCredentialsProvider|other\n",
        ] {
            let both = [resolved("a", ""), resolved("a", place)];
            assert_eq!(found(&both), [], "{place}");
            let files = both.each_ref().map(|resolved| File { name: "f", resolved });
            assert_eq!(conflicts(&files, true, Path::to_path_buf).len(), 1, "local mode: {place}");
        }
        let url = |end: &str| resolved("a", &format!("dynamoDBEndpoint = http://127.0.0.1:1{end}\n"));
        assert_eq!(found(&[url(""), url("/")]).len(), 1, "one URL in two forms");
        let of_machine = resolve(&Given {
            bytes: b"executableName = a\nstreamName = s\napplicationName = a\n\
                     AWSCredentialsProvider = DefaultCredentialsProvider\n"
                .to_vec(),
            ..Given::default()
        });
        assert_eq!(
            found(&[resolved("a", ""), of_machine]).len(),
            1,
            "the region of the machine is not known"
        );
    }

    #[test]
    fn tables_beside_the_lease_table_count_too() {
        let shared = "coordinatorStateTableName = shared\n";
        let all = found(&[resolved("a", shared), resolved("b", shared)]);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].keys, ["coordinatorStateTableName"; 2]);
        let mixed = found(&[resolved("a", ""), resolved("b", "workerMetricsTableName = a\n")]);
        assert_eq!(mixed[0].keys, ["tableName", "workerMetricsTableName"]);
    }

    #[test]
    fn one_file_of_dead_letters_is_a_conflict() {
        let letters = "multilangd.deadLetters = file:/letters\n";
        let with = |application: &str, more: &str| resolved(application, &format!("{letters}{more}"));
        for (more, conflicts) in [
            ("", 0),
            ("workerId = w\n", 1),
            ("workerId = w\nmultilangd.workerIdSuffix = hostname\n", 1),
            ("workerId = w\nmultilangd.workerIdSuffix = random\n", 0),
        ] {
            assert_eq!(found(&[with("a", more), with("b", more)]).len(), conflicts, "{more}");
        }
        assert_eq!(found(&[with("a", "workerId = v\n"), with("b", "workerId = w\n")]), []);
        let elsewhere = resolved("b", "workerId = w\nmultilangd.deadLetters = file:/others\n");
        assert_eq!(found(&[with("a", "workerId = w\n"), elsewhere]), []);
    }

    #[test]
    fn names_of_applications_are_unique() {
        let files = [("eu.properties", "orders"), ("us.properties", "orders"), ("x.properties", "clicks")];
        assert_eq!(names(&files), ["orders (eu.properties)", "orders (us.properties)", "clicks"]);
    }
}

//! The texts of the command line: help that fits [`WIDTH`], and the manual.

use clap::Arg;
use multilangd::config::keys::own;

/// Columns of the help.
pub(super) const WIDTH: usize = 80;
/// Columns by which the help of an option is indented.
const INDENT: usize = 10;

/// The manual: one page for all commands.
pub(super) fn manual(mut command: clap::Command) -> Vec<u8> {
    let mut page = Vec::new();
    command.build();
    let man = clap_mangen::Man::new(command.clone());
    // Writing to memory does not fail.
    let _written = man.render(&mut page).is_ok();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        section(&mut page, sub, &sub.get_name().to_uppercase());
        for verb in sub.get_subcommands().filter(|verb| verb.get_name() != "help") {
            section(&mut page, verb, &format!("{} FILE {}", sub.get_name(), verb.get_name()).to_uppercase());
        }
    }
    let exits = multilangd::exit::EXITS.iter();
    page.extend_from_slice(b".SH \"EXIT STATUS\"\n");
    for (_, code, _, meaning) in exits {
        page.extend_from_slice(format!(".TP\n{code}\n{meaning}\n").as_bytes());
    }
    page
}

fn section(page: &mut Vec<u8>, command: &clap::Command, name: &str) {
    page.extend_from_slice(format!(".SH \"MULTILANGD {name}\"\n").as_bytes());
    // The options of all commands are described once, at the start.
    let own = command
        .get_arguments()
        .filter(|argument| !argument.is_global_set() && argument.get_id() != "help")
        .cloned();
    let about = command.get_about().cloned().unwrap_or_default();
    let man = clap_mangen::Man::new(clap::Command::new("multilangd").about(about).args(own));
    let written = man.render_description_section(page);
    // Writing to memory does not fail.
    let _written = written.and_then(|()| man.render_options_section(page)).is_ok();
}

/// The option of a key of multilangd.
pub(super) fn option(key: &'static own::Own) -> Arg {
    let value = key.kind.value_name();
    let (doc, variable) = (key.doc, key.variable());
    Arg::new(key.name)
        .long(key.option())
        .value_name(value)
        .global(true)
        .help(format!("{doc} [default: {}; also {variable}, {} in the file]", key.default, key.name))
        .value_parser(move |text: &str| key.check(text).map(|()| text.to_owned()))
}

/// The command with its texts broken into lines: clap breaks none without a further dependency.
pub(super) fn fitted(command: clap::Command) -> clap::Command {
    let about = command.get_about().map(|text| broken(&text.to_string(), WIDTH));
    let long = command.get_long_about().map(|text| broken(&text.to_string(), WIDTH));
    let command = command.about(about.unwrap_or_default()).mut_args(|argument| {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        argument.help(broken(&help, WIDTH - INDENT)).next_line_help(true)
    });
    let command = match long {
        Some(long) => command.long_about(long),
        None => command,
    };
    command.mut_subcommands(fitted)
}

/// A text with a line break wherever the next word would not fit into that many columns.
fn broken(text: &str, width: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut column = 0;
        for word in line.split(' ') {
            let length = word.chars().count();
            if column > 0 && column + 1 + length > width {
                out.push('\n');
                column = 0;
            } else if column > 0 {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += length;
        }
        out.push('\n');
    }
    out.trim_end().to_owned()
}

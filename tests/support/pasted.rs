//! Lines of a shell: the words of each command in them, by the shell itself; and whether key-broker's command line takes them.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part of this one")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::peers::root;
use super::support::process::binary;

/// The words of each command that a shell makes of these lines: variables, quotes, pipes and substitutions are its own. Nothing is run: it
/// finds no program, and tells what it was to look for. Programs that are named by a path are `paths`.
pub fn commands(lines: &str, paths: &[&str]) -> Result<Vec<Vec<String>>, String> {
    // What is named by a whole path would be run, or written.
    let mut words =
        lines.split_whitespace().scan(">", |before, word| Some((std::mem::replace(before, word), word)));
    if words
        .any(|(before, word)| word.starts_with('/') && matches!(before, ">" | ">>" | "|" | "&&" | ";" | "$("))
    {
        return Err("a command, or a file to write, is named by its whole path".to_owned());
    }
    let dir = tempfile::tempdir().expect("a directory");
    let notes = dir.path().join("notes");
    let noting = dir.path().join("noting");
    fs::write(&noting, format!("#!{BASH}\n{NOTE}note \"$0\" \"$@\"\n")).expect("writes");
    for path in paths.iter().filter(|path| lines.contains(**path)) {
        // By another process: a file that is open for writing here would be so in what other tests start meanwhile, and could not be run.
        let made = Command::new("install")
            .args(["-D", "--mode=700"])
            .arg(&noting)
            .arg(dir.path().join(path))
            .status();
        assert!(made.expect("install").success(), "{path}");
    }
    let script = format!("{NOTE}command_not_found_handle() {{ note \"$@\"; }}\n{lines}\nwait\n");
    let mut shell = Command::new(BASH);
    shell.args(["--noprofile", "--norc", "-c", &script]).current_dir(dir.path()).stdin(Stdio::null());
    shell.env_clear().env("PATH", "/nonexistent").env("NOTES", &notes).envs(VARIABLES);
    let output = shell.output().expect("bash");
    if !output.status.success() || !output.stderr.is_empty() {
        return Err(format!("bash: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let called = fs::read_to_string(&notes).unwrap_or_default();
    let commands = called.split("\u{1}\0").filter(|command| !command.is_empty());
    Ok(commands.map(|command| command.split_terminator('\0').map(str::to_owned).collect()).collect())
}

/// key-broker's own arguments, if the command runs it, itself or by way of another program.
pub fn arguments<'a>(words: &'a [String], subcommands: &BTreeSet<String>) -> Option<&'a [String]> {
    let is_it = |word: &String| Path::new(word).file_name() == Some("key-broker".as_ref());
    let word = |place: usize| words.get(place).map_or("", String::as_str);
    match (word(0), word(1)) {
        ("cargo", "broker") => Some(&words[2..]),
        ("cargo", "dev") => Some(&words[1..]),
        _ if words.first().is_some_and(is_it) => Some(&words[1..]),
        _ => {
            let begin = (1..words.len())
                .find(|place| is_it(&words[*place]) && subcommands.contains(word(place + 1)))?;
            Some(&words[begin + 1..])
        }
    }
}

/// Names of files that a release makes have its version.
pub fn has_the_version(text: &str) -> bool {
    let names = text.split("key-broker").skip(1).filter_map(|rest| rest.strip_prefix(['-', '_']));
    let mut versions = names.filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    versions.all(|rest| rest.starts_with(env!("CARGO_PKG_VERSION")))
}

/// A file of the repository that the command names and that is not there: below `deploy/`, or beside the document.
pub fn missing_file(words: &[String], document: &str) -> Option<String> {
    let beside = root().join(document).parent().expect("a folder").to_owned();
    let is_there = |word: &str| root().join(word).exists() || beside.join(word).exists();
    // The last one is where they go.
    let installed = if words[0] == "install" { &words[1..words.len() - 1] } else { &[] };
    // Options, a mode, a user, a folder that is made; a program that is built before.
    let is_source = |word: &str| word.contains('.') && !word.starts_with('/') && !word.contains("target/");
    let files = words[1..].iter().filter_map(|word| word.strip_prefix("file://"));
    let files = files.chain(words.iter().map(String::as_str).filter(|word| word.starts_with("deploy/")));
    let mut files = files.chain(installed.iter().map(String::as_str).filter(|word| is_source(word)));
    files.find(|file| !is_there(file)).map(str::to_owned)
}

/// What key-broker's command line has against these arguments. They are given to the program in an empty folder, where it finds nothing that it
/// could read or change, and reaches nobody.
pub fn refusal(arguments: &[String]) -> Option<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let here = dir.path().to_str().expect("a path");
    let mut command = Command::new(binary());
    command.args(arguments.iter().map(|word| {
        // A file or socket of this machine, too, is looked for in that folder.
        if word.starts_with('/') { format!("{here}{word}") } else { filled_in(word) }
    }));
    // It needs nothing, so it would start.
    if arguments.first().is_some_and(|first| first == "dev") {
        command.arg("--help");
    }
    command.env_clear().env("HOME", here).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").current_dir(dir.path());
    told(&ended(&mut command))
}

/// The same of the beginning of a command, as prose has it: what comes after is not asked for.
pub fn refusal_of_beginning(arguments: &[String]) -> Option<String> {
    let arguments = arguments.iter().map(|word| filled_in(word));
    let output = Command::new(binary()).args(arguments).arg("--help").output().expect("it runs");
    // Prose names an option without its value.
    told(&output).filter(|told| !told.contains("a value is required for"))
}

/// What readers put in place of a word in capitals, if it has a form that is checked.
fn filled_in(word: &str) -> String {
    match word {
        "ID" | "REQUEST_ID" => "c929ebc7-094a-4ee5-839d-975205113c0f".to_owned(),
        // A file that is on the reader's machine.
        word if word.starts_with("fileb://") => "00".repeat(32),
        word => word.to_owned(),
    }
}

fn told(output: &Output) -> Option<String> {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code() == Some(64) && told.contains("For more information, try '--help'")).then_some(told)
}

/// Runs a command that has to end, and says why it could not.
fn ended(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    for _ in 0..10_000 {
        if child.try_wait().expect("it can be asked").is_some() {
            return child.wait_with_output().expect("it has ended");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    panic!("{command:?} goes on");
}

/// The pages of `--help`: of the program, and of each of its commands.
pub struct Help {
    /// Each command's words, `audit verify`, with its page.
    pub pages: Vec<(Vec<String>, String)>,
}

impl Help {
    pub fn read() -> Self {
        let (mut pages, mut next) = (Vec::new(), vec![Vec::<String>::new()]);
        while let Some(words) = next.pop() {
            let output = Command::new(binary()).args(&words).arg("--help").output().expect("it runs");
            let page = String::from_utf8(output.stdout).expect("text");
            assert!(output.status.success(), "{words:?}");
            let listed = page.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
            let names = listed.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
                let name = line.strip_prefix("  ")?.split(' ').next()?;
                (!name.is_empty() && name != "help").then(|| name.to_owned())
            });
            next.extend(names.map(|name| [words.clone(), vec![name]].concat()));
            pages.push((words, page));
        }
        Self { pages }
    }

    /// The first words of all commands.
    pub fn commands(&self) -> BTreeSet<String> {
        self.pages.iter().filter_map(|(words, _)| words.first().cloned()).collect()
    }

    /// Every option, with its dashes.
    pub fn options(&self) -> BTreeSet<String> {
        let words =
            self.pages.iter().flat_map(|(_, page)| page.split(|c: char| !c.is_alphanumeric() && c != '-'));
        words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
    }

    /// Commands that a page gives as examples, each as one line.
    pub fn examples(&self) -> Vec<String> {
        let mut examples = Vec::<String>::new();
        for (_, page) in &self.pages {
            let Some((_, rest)) = page.split_once("\nExample") else { continue };
            for line in rest.lines().skip(1).map(str::trim).take_while(|line| !line.is_empty()) {
                let line = line.trim_end_matches('\\').trim();
                match examples.last_mut() {
                    // It was too long for one line.
                    Some(last) if !line.starts_with("key-broker ") && !line.starts_with("aws ") => {
                        last.push(' ');
                        last.push_str(line);
                    }
                    _ => examples.push(line.to_owned()),
                }
            }
        }
        examples
    }
}

const BASH: &str = "/bin/bash";
/// One write for each command: those of a pipe are at the same time.
const NOTE: &str = "note() { printf '%s\\0' \"$@\" $'\\x01' >> \"$NOTES\"; }\n";
/// What readers are told to set: a measurement.
const VARIABLES: [(&str, &str); 1] = [(
    "PCR0",
    "ee0d451a2ff9aaaa9bccd07700b9cab123a0ac2386ef7e88ad5ea6c72ebabea840957328e2ec890b408c9b06cb8ebe6a",
)];

//! A program that gets each letter as one line on its stdin, and accepts it by exiting with 0.

use std::time::Duration;

use tokio::time::Instant;

use super::{DEADLINE, Destination, Letter, Rejected};
use crate::multilang::Program;
use crate::multilang::process;
use crate::shard::BoxFuture;

/// A program.
#[derive(Debug)]
pub struct Exec(pub Program);

/// After this time no further letter of a batch is begun, so that those that were accepted are passed meanwhile.
const SLICE: Duration = Duration::from_secs(2);

impl Destination for Exec {
    /// The program gets one letter after another: its exit code answers for a single one.
    fn send<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, Result<usize, Rejected>> {
        Box::pin(async move {
            let began = Instant::now();
            let mut accepted = 0;
            for letter in letters {
                if accepted > 0 && began.elapsed() >= SLICE {
                    break;
                }
                match process::feed(&self.0, &letter.line(), DEADLINE).await {
                    Ok(()) => accepted += 1,
                    Err(_) if accepted > 0 => break,
                    Err(reason) => {
                        return Err(Rejected { destination: format!("exec:{}", self.0), reason });
                    }
                }
            }
            Ok(accepted)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::letters::tests::{folder, letter};

    fn exec(command: &str) -> Exec {
        Exec(Program::find(command, Some("/bin:/usr/bin".as_ref())).unwrap())
    }

    #[tokio::test]
    async fn letter_is_accepted_by_exit_code_0_alone() {
        let folder = folder("exec");
        let out = folder.join("out");
        exec(&format!("tee -a {}", out.display())).send(&[letter(1)]).await.unwrap();
        exec(&format!("tee -a {}", out.display())).send(&[letter(2)]).await.unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), [letter(1).line(), letter(2).line()].concat());
        std::fs::remove_dir_all(&folder).unwrap();
        let rejected = exec("ls /no/such/folder").send(&[letter(1)]).await.unwrap_err();
        assert!(rejected.reason.contains("exit code") && rejected.reason.contains("such"), "{rejected}");
        assert!(exec("false").send(&[letter(1)]).await.is_err());
    }

    #[tokio::test]
    async fn letters_after_a_rejected_one_are_not_written() {
        let folder = folder("prefix");
        let (script, out) = (folder.join("script"), folder.join("out"));
        let text = format!(
            "read -r line; case $line in *'\"3\"'*) exit 1;; esac; echo \"$line\" >>{}\n",
            out.display()
        );
        std::fs::write(&script, text).unwrap();
        let program = exec(&format!("sh {}", script.display()));
        let letters = [1, 2, 3, 4].map(letter);
        assert_eq!(program.send(&letters).await, Ok(2));
        assert!(program.send(&letters[2..]).await.is_err());
        assert_eq!(std::fs::read(&out).unwrap().iter().filter(|byte| **byte == b'\n').count(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn program_that_reads_nothing_is_judged_by_its_exit_code() {
        let mut large = letter(1);
        large.record.data = crate::record::Data::encode(&vec![1; 1 << 20]);
        exec("true").send(&[large.clone()]).await.unwrap();
        assert!(exec("false").send(&[large]).await.is_err());
    }

    #[tokio::test]
    async fn process_left_running_does_not_delay_the_answer() {
        let folder = folder("leaves");
        let script = folder.join("script");
        std::fs::write(&script, "cat >/dev/null; sleep 20 & exit 0\n").unwrap();
        let (program, letter) = (exec(&format!("sh {}", script.display())), [letter(1)]);
        let fed = tokio::time::timeout(std::time::Duration::from_secs(15), program.send(&letter));
        assert_eq!(fed.await.unwrap(), Ok(1));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[tokio::test]
    async fn program_that_does_not_end_is_killed() {
        let fed = process::feed(&exec("sleep 1000").0, b"x\n", std::time::Duration::from_millis(50)).await;
        assert!(fed.unwrap_err().contains("within"));
    }
}

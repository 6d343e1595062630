//! One attempt to hand a message to a local program: JSON on standard input, no shell.
//!
//! The program gets none of our variables (some are secrets), no file of ours, and a process group
//! of its own, which is killed when its time is over: what it started ends with it.

use super::DeliveryError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};
use zeroize::Zeroizing;

/// Of what a program prints, for `adsproxy hooks test`; the rest is read and thrown away.
const OUTPUT_MAX_BYTES: usize = 4096;

/// How long what a program has printed before its end may take to arrive.
const LEFT_OVERS_TIMEOUT: Duration = Duration::from_millis(200);

/// A usual search path, since ours may hold anything.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs `line` (its first word is the program's absolute path) for at most `limit`. Returns the
/// beginning of what it printed.
pub(super) async fn deliver(
    line: &[String],
    kind: &str,
    body: Zeroizing<Vec<u8>>,
    limit: Duration,
) -> Result<Vec<u8>, DeliveryError> {
    let Some((program, arguments)) = line.split_first() else {
        return Err(DeliveryError::new("no program is configured".to_owned()));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("ADSPROXY_EVENT", kind)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let child =
        command.spawn().map_err(|error| DeliveryError::new(format!("cannot be run: {error}")))?;
    let mut group = Group(child);
    match timeout(limit, talk(&mut group.0, &body)).await {
        Err(_) => Err(DeliveryError::new(format!("was killed after {limit:?}"))),
        Ok(Err(error)) => Err(DeliveryError::new(format!("cannot be waited for: {error}"))),
        Ok(Ok((status, output))) if status.success() => Ok(output),
        Ok(Ok((status, output))) => {
            let mut failed = DeliveryError::new(format!("ended with {status}"));
            failed.output = output;
            Err(failed)
        }
    }
}

/// Writes the message, reads what is printed, waits for the end.
async fn talk(
    child: &mut Child,
    body: &[u8],
) -> std::io::Result<(std::process::ExitStatus, Vec<u8>)> {
    let stdin = child.stdin.take();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let write = async {
        // A program that does not read its input is none of our business.
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(body).await;
        }
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = {
        let talked = async { tokio::join!(write, read(stdout, &mut out), read(stderr, &mut err)) };
        tokio::pin!(talked);
        tokio::select! {
            _ = &mut talked => child.wait().await?,
            status = child.wait() => {
                // What it left running may hold its pipes open for ever: its own end counts.
                let _ = timeout(LEFT_OVERS_TIMEOUT, talked).await;
                status?
            }
        }
    };
    out.append(&mut err);
    out.truncate(OUTPUT_MAX_BYTES);
    Ok((status, out))
}

/// Keeps the beginning and reads on, so that the program is not held up.
async fn read(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = OUTPUT_MAX_BYTES - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
}

/// Kills the process group of a child that has not ended, when dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // None once it was waited for; until then no other process has its group's number.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, time::Instant};

    const LIMIT: Duration = Duration::from_secs(20);

    async fn sh(script: &str, limit: Duration) -> Result<String, DeliveryError> {
        let line = ["/bin/sh", "-c", script].map(str::to_owned);
        let body = Zeroizing::new(br#"{"a":1}"#.to_vec());
        let output = deliver(&line, "grant.expiring", body, limit).await?;
        Ok(String::from_utf8(output).expect("text"))
    }

    #[tokio::test]
    async fn the_message_is_on_standard_input_and_its_type_in_the_environment() {
        assert_eq!(sh("cat", LIMIT).await.unwrap(), r#"{"a":1}"#);
        assert_eq!(sh("echo $ADSPROXY_EVENT", LIMIT).await.unwrap(), "grant.expiring\n");
    }

    #[tokio::test]
    async fn none_of_our_variables_is_inherited() {
        assert!(std::env::var_os("HOME").is_some());
        let environment = sh("env", LIMIT).await.unwrap();
        let names = environment.lines().filter_map(|line| Some(line.split_once('=')?.0));
        let mut names: Vec<&str> = names.filter(|name| *name != "_").collect();
        names.sort_unstable();
        // `PWD` is the shell's own.
        assert_eq!(names, ["ADSPROXY_EVENT", "PATH", "PWD"]);
        assert_eq!(sh("pwd", LIMIT).await.unwrap(), "/\n");
    }

    #[tokio::test]
    async fn a_failure_says_how_it_ended_and_not_what_it_printed() {
        let failed = sh("echo CANARY >&2; exit 3", LIMIT).await.unwrap_err();
        assert!(failed.why.contains("exit status: 3"), "{}", failed.why);
        assert!(!failed.why.contains("CANARY") && failed.output == b"CANARY\n");
        let line = ["/nonexistent/program".to_owned()];
        let failed = deliver(&line, "x", Zeroizing::default(), LIMIT).await.unwrap_err();
        assert!(failed.why.contains("cannot be run"), "{}", failed.why);
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_killed_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let began = Instant::now();
        let failed = sh(&script, Duration::from_millis(500)).await.unwrap_err();
        assert!(failed.why.contains("killed after"), "{}", failed.why);
        assert!(began.elapsed() < LIMIT);
        let pid: i32 = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        let deadline = Instant::now() + LIMIT;
        while is_running(pid) {
            assert!(Instant::now() < deadline, "{pid} is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn is_running(pid: i32) -> bool {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
        state.is_some_and(|state| state != 'Z')
    }

    #[tokio::test]
    async fn what_a_program_leaves_running_does_not_hold_us_up() {
        let began = Instant::now();
        sh("sleep 30 & echo left", LIMIT).await.unwrap();
        assert!(began.elapsed() < LIMIT);
    }

    #[tokio::test]
    async fn endless_output_is_bounded_and_does_not_block() {
        let script = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2";
        assert_eq!(sh(script, LIMIT).await.unwrap().len(), OUTPUT_MAX_BYTES);
        // And a program that reads nothing does not block either.
        let body = Zeroizing::new(vec![b'x'; 1 << 20]);
        deliver(&["/bin/true".to_owned()], "x", body, LIMIT).await.unwrap();
    }
}

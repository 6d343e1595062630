//! The flags of curl that `adsproxy curl` knows and does not obey, and those that change nothing.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};

/// A flag, whether it takes a value, and why it must not be obeyed. Those without a reason change
/// nothing here: responses are never buffered, there is no bar, patterns are not expanded.
type Flag = (Option<char>, &'static str, bool, Option<&'static str>);

const FLAGS: [Flag; 14] = [
    (Some('k'), "insecure", false, Some(INSECURE)),
    (Some('u'), "user", true, Some(USER)),
    (None, "oauth2-bearer", true, Some(USER)),
    (Some('x'), "proxy", true, Some("--proxy: set HTTPS_PROXY in the environment")),
    (Some('b'), "cookie", true, Some(COOKIE)),
    (Some('c'), "cookie-jar", true, Some(COOKIE)),
    (Some('F'), "form", true, Some(FORM)),
    (Some('T'), "upload-file", true, Some("--upload-file: say --request PUT --data-binary @FILE")),
    (Some('N'), "no-buffer", false, None),
    (Some('#'), "progress-bar", false, None),
    (Some('g'), "globoff", false, None),
    (None, "max-redirs", true, None),
    (None, "http1.1", false, None),
    (None, "http2", false, None),
];

const INSECURE: &str = "--insecure: certificates are always verified, because the account's token \
                        goes along; put a private authority into the configuration";
const USER: &str = "--user and --oauth2-bearer: adsproxy puts in the account's own token; leave \
                    them out";
const COOKIE: &str =
    "--cookie and --cookie-jar: cookies are not passed on to Amazon; leave them out";
const FORM: &str = "--form: Amazon's API takes no forms of files; send JSON with --data";

/// Why the first given flag that must not be obeyed is not. Hidden in the help: such flags come
/// with lines that other programs export.
#[derive(Debug)]
pub(super) struct RejectedFlag(pub(super) Option<&'static str>);

impl Args for RejectedFlag {
    fn augment_args(command: Command) -> Command {
        FLAGS.iter().fold(command, |command, &(short, long, takes_value, _)| {
            let action = if takes_value { ArgAction::Append } else { ArgAction::SetTrue };
            command.arg(Arg::new(long).short(short).long(long).hide(true).action(action))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RejectedFlag {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_given = |long| matches.value_source(long) == Some(ValueSource::CommandLine);
        Ok(Self(FLAGS.iter().find_map(|&(_, long, _, why)| why.filter(|_| is_given(long)))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

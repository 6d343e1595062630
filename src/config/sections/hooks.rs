//! The sections of hooks and of what waits for them.

use super::*;
use crate::config::HookTarget;

sections! {
    /// One of `[[hooks]]`: a receiver of events.
    HookConfig {
        /// Names it in the log, in the outbox and for commands; no two are alike.
        name: String = String::new(), any;
        url: Secret = Secret::from(""), any => shown_host;
        secrets as "secret": Vec<Secret> = Vec::new(), secrets => shown_secrets;
        command: Vec<String> = Vec::new(), list(any_text);
        /// The events it receives, by default all but successful refreshes; at least one.
        events: Vec<Kind> = Kind::ALL[1..].to_vec(), list(parse_event);
        timeout as "timeout_secs": Duration = secs(10), timeout;
        unsafe_allow_private_addresses: bool = false, flag;
        + target: HookTarget = HookTarget::Command(Vec::new());
    }

    /// `[outbox]`
    OutboxConfig {
        messages_max: usize = 10_000, count;
        dead_letters_max: usize = 1_000, count;
        retry_min as "retry_min_secs": Duration = secs(5), timeout;
        retry_max as "retry_max_secs": Duration = secs(3600), timeout;
        attempts_max: u32 = 40, whole(1, 1000);
        give_up as "give_up_after_secs": Duration = secs(86_400), timeout;
    }
}

//! The pages for advertisers in English.

use super::Words;

pub(super) const WORDS: Words = Words {
    language: "en",
    reconnect: "Connect {account} again",
    asks: "{who} asks you to renew its access to the Amazon Ads account {account}.",
    unexpected: "Did you not expect this? Close this page: nothing changes.",
    profiles: "Profiles of this account",
    columns: ["Profile", "Country", "Name", "Type"],
    next: "What happens next",
    steps: [
        "Amazon asks you to sign in. Use the Amazon user that manages the account.",
        "Amazon asks you to allow the access.",
        "Amazon sends you back to this site, which says whether it worked. Until then nothing changes.",
    ],
    go_on: "Continue to Amazon",
    revoke: "You can end the access at any time at",
    is_connected: "{account} is connected",
    connected: "{account} is connected: region {region}, application {application}. You can close this page.",
    connected_anew: "{account} is connected anew: region {region}, application {application}. You can close this page.",
    gives_access: "Profiles this login gives access to",
    other_user: "Are these not the ones you meant? Then another Amazon user was signed in: log in again.",
    no_profiles: "no profiles",
    no_list: "No region of Amazon's listed its profiles.",
    region_is_guess: "No region showed a profile, so the region is a guess.",
    more: "and {count} more",
    question: "Replace {account}?",
    differs: "The consent you just gave has other profiles than the account has now.",
    unknown_user: "The consent you just gave may be another Amazon user's: the profiles of the account are not known.",
    until_yes: "Until you say yes, {account} stays as it is.",
    now: "Now",
    after: "After a yes",
    not_known: "Not known.",
    keep: "No, keep it",
    replace: "Yes, replace {account}",
    unchanged: "Nothing was changed",
    discarded: "The account stays as it was, and the new grant was discarded here. Amazon still lists it: the user you signed in as can take it back at",
    amazon_said: "Amazon said:",
    // The table of codes has more to say, in English.
    failures: None,
};

//! The pages for advertisers in German.

use super::{FailureTexts, Words};

pub(super) const WORDS: Words = Words {
    language: "de",
    reconnect: "{account} neu verbinden",
    asks: "{who} bittet Sie, den Zugriff auf das Amazon-Ads-Konto {account} zu erneuern.",
    unexpected: "Sie haben das nicht erwartet? Schließen Sie diese Seite: Es ändert sich nichts.",
    profiles: "Profile dieses Kontos",
    columns: ["Profil", "Land", "Name", "Typ"],
    next: "So geht es weiter",
    steps: [
        "Amazon bittet Sie, sich anzumelden. Nehmen Sie den Amazon-Benutzer, der das Konto verwaltet.",
        "Amazon fragt Sie, ob Sie den Zugriff erlauben.",
        "Amazon schickt Sie hierher zurück, und Sie sehen, ob es gelungen ist. Bis dahin ändert sich nichts.",
    ],
    go_on: "Weiter zu Amazon",
    revoke: "Den Zugriff können Sie jederzeit beenden:",
    is_connected: "{account} ist verbunden",
    connected: "{account} ist verbunden: Region {region}, Anwendung {application}. Sie können diese Seite schließen.",
    connected_anew: "{account} ist neu verbunden: Region {region}, Anwendung {application}. Sie können diese Seite schließen.",
    gives_access: "Profile, zu denen diese Anmeldung Zugriff gibt",
    other_user: "Sind es nicht die richtigen? Dann war ein anderer Amazon-Benutzer angemeldet: Melden Sie sich noch einmal an.",
    no_profiles: "keine Profile",
    no_list: "Keine Region von Amazon hat ihre Profile genannt.",
    region_is_guess: "Keine Region zeigte ein Profil, die Region ist also geraten.",
    more: "und {count} weitere",
    question: "{account} ersetzen?",
    differs: "Die Zustimmung, die Sie eben gegeben haben, gilt für andere Profile, als das Konto jetzt hat.",
    unknown_user: "Die Zustimmung, die Sie eben gegeben haben, kann von einem anderen Amazon-Benutzer sein: Die Profile des Kontos sind nicht bekannt.",
    until_yes: "Bis Sie ja sagen, bleibt {account}, wie es ist.",
    now: "Jetzt",
    after: "Nach einem Ja",
    not_known: "Nicht bekannt.",
    keep: "Nein, behalten",
    replace: "Ja, {account} ersetzen",
    unchanged: "Es wurde nichts geändert",
    discarded: "Das Konto bleibt, wie es war, und die neue Zustimmung wurde hier verworfen. Amazon führt sie noch: Der Benutzer, mit dem Sie sich angemeldet haben, kann sie zurücknehmen:",
    amazon_said: "Amazon meldet:",
    failures: Some(FailureTexts {
        denied: [
            "Der Zugriff wurde abgelehnt",
            "Es hat sich nichts geändert. Um das Konto zu verbinden, öffnen Sie den Link noch einmal und erlauben Sie den Zugriff.",
        ],
        not_all: [
            "Es wurde nicht alles erlaubt",
            "Es hat sich nichts geändert. Öffnen Sie den Link noch einmal und erlauben Sie alles, worum gebeten wird.",
        ],
        link_over: [
            "Dieser Link gilt nicht mehr",
            "Er wurde schon benutzt oder ist zu alt. Bitten Sie um einen neuen.",
        ],
        login_over: [
            "Diese Anmeldung ist beendet",
            "Sie wurde schon abgeschlossen oder hat zu lange gedauert. Ist das Konto noch nicht verbunden, öffnen Sie den Link noch einmal.",
        ],
        other_browser: [
            "Ein anderer Browser",
            "Die Anmeldung begann in einem anderen Browser, oder dieser hat ihr Cookie nicht behalten. Öffnen Sie den Link noch einmal in einem Browser, der Cookies erlaubt. Haben Sie diese Anmeldung nicht begonnen, schließen Sie diese Seite.",
        ],
        later: [
            "Es geht gerade nicht",
            "Versuchen Sie es in einigen Minuten noch einmal. Kommt diese Seite wieder, melden Sie sich bei dem, der Ihnen den Link geschickt hat.",
        ],
        service: [
            "Dieser Dienst hat eine Störung",
            "Sie können sie nicht beheben. Melden Sie sie dem, der Ihnen den Link geschickt hat, mit dem Text hier unten.",
        ],
    }),
};

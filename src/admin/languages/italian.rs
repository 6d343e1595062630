//! The pages for advertisers in Italian.

use super::{FailureTexts, Words};

pub(super) const WORDS: Words = Words {
    language: "it",
    reconnect: "Ricollegare {account}",
    asks: "{who} le chiede di rinnovare l’accesso all’account Amazon Ads {account}.",
    unexpected: "Non si aspettava questa richiesta? Chiuda questa pagina: non cambia nulla.",
    profiles: "Profili di questo account",
    columns: ["Profilo", "Paese", "Nome", "Tipo"],
    next: "Che cosa succede ora",
    steps: [
        "Amazon le chiede di accedere. Usi l’utente Amazon che gestisce l’account.",
        "Amazon le chiede di consentire l’accesso.",
        "Amazon la riporta a questo sito, che dice se è andato a buon fine. Fino ad allora non cambia nulla.",
    ],
    go_on: "Continua su Amazon",
    revoke: "Può revocare l’accesso in qualsiasi momento su",
    is_connected: "{account} è collegato",
    connected: "{account} è collegato: regione {region}, applicazione {application}. Può chiudere questa pagina.",
    connected_anew: "{account} è di nuovo collegato: regione {region}, applicazione {application}. Può chiudere questa pagina.",
    gives_access: "Profili a cui dà accesso questo login",
    other_user: "Non sono quelli giusti? Allora era connesso un altro utente Amazon: acceda di nuovo.",
    no_profiles: "nessun profilo",
    no_list: "Nessuna regione di Amazon ha elencato i suoi profili.",
    region_is_guess: "Nessuna regione ha mostrato un profilo: la regione è un’ipotesi.",
    more: "e altri {count}",
    question: "Sostituire {account}?",
    differs: "Il consenso appena dato riguarda profili diversi da quelli che l’account ha ora.",
    unknown_user: "Il consenso appena dato potrebbe essere di un altro utente Amazon: i profili dell’account non sono noti.",
    until_yes: "Finché non dice di sì, {account} resta com’è.",
    now: "Ora",
    after: "Dopo un sì",
    not_known: "Non noti.",
    keep: "No, mantenerlo",
    replace: "Sì, sostituire {account}",
    unchanged: "Non è cambiato nulla",
    discarded: "L’account resta com’era e il nuovo consenso è stato scartato qui. Amazon lo elenca ancora: l’utente con cui ha effettuato l’accesso può revocarlo su",
    amazon_said: "Messaggio di Amazon:",
    failures: Some(FailureTexts {
        denied: [
            "L’accesso è stato negato",
            "Non è cambiato nulla. Per collegare l’account, apra di nuovo il link e consenta l’accesso.",
        ],
        not_all: [
            "Non è stato consentito tutto",
            "Non è cambiato nulla. Apra di nuovo il link e consenta tutto ciò che viene chiesto.",
        ],
        link_over: [
            "Questo link non è più valido",
            "È già stato usato o è troppo vecchio. Ne chieda uno nuovo.",
        ],
        login_over: [
            "Questo accesso è terminato",
            "È già stato completato o è durato troppo. Se l’account non è ancora collegato, apra di nuovo il link.",
        ],
        other_browser: [
            "Un altro browser",
            "L’accesso è iniziato in un altro browser, oppure questo non ha conservato il suo cookie. Apra di nuovo il link in un browser che accetta i cookie. Se non ha iniziato lei questo accesso, chiuda questa pagina.",
        ],
        later: [
            "Al momento non funziona",
            "Riprovi tra qualche minuto. Se questa pagina riappare, avvisi chi le ha inviato il link.",
        ],
        service: [
            "Questo servizio ha un problema",
            "Non può risolverlo lei. Avvisi chi le ha inviato il link e riporti il testo qui sotto.",
        ],
    }),
};

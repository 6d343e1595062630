//! The pages for advertisers in French.

use super::{FailureTexts, Words};

pub(super) const WORDS: Words = Words {
    language: "fr",
    reconnect: "Reconnecter {account}",
    asks: "{who} vous demande de renouveler son accès au compte Amazon Ads {account}.",
    unexpected: "Vous n’attendiez pas cette demande ? Fermez cette page : rien ne change.",
    profiles: "Profils de ce compte",
    columns: ["Profil", "Pays", "Nom", "Type"],
    next: "La suite",
    steps: [
        "Amazon vous demande de vous connecter. Utilisez l’utilisateur Amazon qui gère le compte.",
        "Amazon vous demande d’autoriser l’accès.",
        "Amazon vous renvoie vers ce site, qui indique si l’opération a réussi. D’ici là, rien ne change.",
    ],
    go_on: "Continuer vers Amazon",
    revoke: "Vous pouvez mettre fin à l’accès à tout moment :",
    is_connected: "{account} est connecté",
    connected: "{account} est connecté : région {region}, application {application}. Vous pouvez fermer cette page.",
    connected_anew: "{account} est reconnecté : région {region}, application {application}. Vous pouvez fermer cette page.",
    gives_access: "Profils auxquels cette connexion donne accès",
    other_user: "Ce ne sont pas les bons ? Un autre utilisateur Amazon était connecté : recommencez.",
    no_profiles: "aucun profil",
    no_list: "Aucune région d’Amazon n’a donné ses profils.",
    region_is_guess: "Aucune région n’a montré de profil : la région est une supposition.",
    more: "et {count} de plus",
    question: "Remplacer {account} ?",
    differs: "Le consentement que vous venez de donner concerne d’autres profils que ceux que le compte a maintenant.",
    unknown_user: "Le consentement que vous venez de donner est peut-être celui d’un autre utilisateur Amazon : les profils du compte ne sont pas connus.",
    until_yes: "Tant que vous ne dites pas oui, {account} reste inchangé.",
    now: "Maintenant",
    after: "Après un oui",
    not_known: "Inconnus.",
    keep: "Non, conserver",
    replace: "Oui, remplacer {account}",
    unchanged: "Rien n’a été modifié",
    discarded: "Le compte reste tel qu’il était et le nouveau consentement a été rejeté ici. Amazon l’affiche encore : l’utilisateur avec lequel vous vous êtes connecté peut le retirer sur",
    amazon_said: "Message d’Amazon :",
    failures: Some(FailureTexts {
        denied: [
            "L’accès a été refusé",
            "Rien n’a été modifié. Pour connecter le compte, ouvrez de nouveau le lien et autorisez l’accès.",
        ],
        not_all: [
            "Tout n’a pas été autorisé",
            "Rien n’a été modifié. Ouvrez de nouveau le lien et autorisez tout ce qui est demandé.",
        ],
        link_over: [
            "Ce lien n’est plus valable",
            "Il a déjà été utilisé ou il est trop ancien. Demandez-en un nouveau.",
        ],
        login_over: [
            "Cette connexion est terminée",
            "Elle a déjà abouti ou elle a duré trop longtemps. Si le compte n’est pas encore connecté, ouvrez de nouveau le lien.",
        ],
        other_browser: [
            "Un autre navigateur",
            "La connexion a commencé dans un autre navigateur, ou celui-ci n’a pas gardé son cookie. Ouvrez de nouveau le lien dans un navigateur qui accepte les cookies. Si vous n’avez pas commencé cette connexion, fermez cette page.",
        ],
        later: [
            "Cela ne fonctionne pas pour le moment",
            "Réessayez dans quelques minutes. Si cette page revient, prévenez la personne qui vous a envoyé le lien.",
        ],
        service: [
            "Ce service a un problème",
            "Vous ne pouvez pas le résoudre. Prévenez la personne qui vous a envoyé le lien et citez le texte ci-dessous.",
        ],
    }),
};

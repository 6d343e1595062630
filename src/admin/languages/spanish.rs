//! The pages for advertisers in Spanish.

use super::{FailureTexts, Words};

pub(super) const WORDS: Words = Words {
    language: "es",
    reconnect: "Volver a conectar {account}",
    asks: "{who} le pide que renueve su acceso a la cuenta de Amazon Ads {account}.",
    unexpected: "¿No esperaba esta solicitud? Cierre esta página: no cambia nada.",
    profiles: "Perfiles de esta cuenta",
    columns: ["Perfil", "País", "Nombre", "Tipo"],
    next: "Qué pasa ahora",
    steps: [
        "Amazon le pide que inicie sesión. Use el usuario de Amazon que administra la cuenta.",
        "Amazon le pide que permita el acceso.",
        "Amazon le devuelve a este sitio, que dice si ha funcionado. Hasta entonces no cambia nada.",
    ],
    go_on: "Continuar a Amazon",
    revoke: "Puede terminar el acceso en cualquier momento en",
    is_connected: "{account} está conectada",
    connected: "{account} está conectada: región {region}, aplicación {application}. Puede cerrar esta página.",
    connected_anew: "{account} está conectada de nuevo: región {region}, aplicación {application}. Puede cerrar esta página.",
    gives_access: "Perfiles a los que da acceso este inicio de sesión",
    other_user: "¿No son los que esperaba? Entonces había otro usuario de Amazon: inicie sesión de nuevo.",
    no_profiles: "sin perfiles",
    no_list: "Ninguna región de Amazon dio sus perfiles.",
    region_is_guess: "Ninguna región mostró un perfil, así que la región es una suposición.",
    more: "y {count} más",
    question: "¿Reemplazar {account}?",
    differs: "El consentimiento que acaba de dar tiene perfiles distintos de los que la cuenta tiene ahora.",
    unknown_user: "El consentimiento que acaba de dar puede ser de otro usuario de Amazon: no se conocen los perfiles de la cuenta.",
    until_yes: "Hasta que diga que sí, {account} se queda como está.",
    now: "Ahora",
    after: "Después de un sí",
    not_known: "No se conocen.",
    keep: "No, conservarla",
    replace: "Sí, reemplazar {account}",
    unchanged: "No se ha cambiado nada",
    discarded: "La cuenta se queda como estaba y el nuevo consentimiento se ha descartado aquí. Amazon todavía lo muestra: el usuario con el que inició sesión puede retirarlo en",
    amazon_said: "Amazon dice:",
    failures: Some(FailureTexts {
        denied: [
            "Se denegó el acceso",
            "No se ha cambiado nada. Para conectar la cuenta, abra el enlace de nuevo y permita el acceso.",
        ],
        not_all: [
            "No se permitió todo",
            "No se ha cambiado nada. Abra el enlace de nuevo y permita todo lo que se pide.",
        ],
        link_over: ["Este enlace ya no vale", "Ya se usó o es demasiado antiguo. Pida uno nuevo."],
        login_over: [
            "Este inicio de sesión ha terminado",
            "Ya se completó o tardó demasiado. Si la cuenta aún no está conectada, abra el enlace de nuevo.",
        ],
        other_browser: [
            "Otro navegador",
            "El inicio de sesión empezó en otro navegador, o este no guardó su cookie. Abra el enlace de nuevo en un navegador que acepte cookies. Si usted no empezó este inicio de sesión, cierre esta página.",
        ],
        later: [
            "Ahora no funciona",
            "Inténtelo de nuevo en unos minutos. Si esta página vuelve a aparecer, avise a quien le envió el enlace.",
        ],
        service: [
            "Este servicio tiene un problema",
            "Usted no puede resolverlo. Avise a quien le envió el enlace y cite el texto de abajo.",
        ],
    }),
};

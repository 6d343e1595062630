//! The pages for advertisers in Portuguese.

use super::{FailureTexts, Words};

pub(super) const WORDS: Words = Words {
    language: "pt",
    reconnect: "Conectar {account} novamente",
    asks: "{who} pede que você renove o acesso à conta do Amazon Ads {account}.",
    unexpected: "Não esperava este pedido? Feche esta página: nada muda.",
    profiles: "Perfis desta conta",
    columns: ["Perfil", "País", "Nome", "Tipo"],
    next: "O que acontece a seguir",
    steps: [
        "A Amazon pede que você entre. Use o usuário da Amazon que administra a conta.",
        "A Amazon pede que você permita o acesso.",
        "A Amazon traz você de volta a este site, que diz se deu certo. Até lá nada muda.",
    ],
    go_on: "Continuar para a Amazon",
    revoke: "Você pode encerrar o acesso a qualquer momento em",
    is_connected: "{account} está conectada",
    connected: "{account} está conectada: região {region}, aplicativo {application}. Você pode fechar esta página.",
    connected_anew: "{account} está conectada novamente: região {region}, aplicativo {application}. Você pode fechar esta página.",
    gives_access: "Perfis aos quais este login dá acesso",
    other_user: "Não são os que você queria? Então outro usuário da Amazon estava conectado: entre de novo.",
    no_profiles: "nenhum perfil",
    no_list: "Nenhuma região da Amazon listou os seus perfis.",
    region_is_guess: "Nenhuma região mostrou um perfil, portanto a região é um palpite.",
    more: "e mais {count}",
    question: "Substituir {account}?",
    differs: "O consentimento que você acabou de dar tem perfis diferentes dos que a conta tem agora.",
    unknown_user: "O consentimento que você acabou de dar pode ser de outro usuário da Amazon: os perfis da conta não são conhecidos.",
    until_yes: "Até você dizer sim, {account} fica como está.",
    now: "Agora",
    after: "Depois de um sim",
    not_known: "Não conhecidos.",
    keep: "Não, manter",
    replace: "Sim, substituir {account}",
    unchanged: "Nada foi alterado",
    discarded: "A conta fica como estava, e o novo consentimento foi descartado aqui. A Amazon ainda o mostra: o usuário com o qual você entrou pode retirá-lo em",
    amazon_said: "Mensagem da Amazon:",
    failures: Some(FailureTexts {
        denied: [
            "O acesso foi negado",
            "Nada foi alterado. Para conectar a conta, abra o link de novo e permita o acesso.",
        ],
        not_all: [
            "Nem tudo foi permitido",
            "Nada foi alterado. Abra o link de novo e permita tudo o que for pedido.",
        ],
        link_over: [
            "Este link não vale mais",
            "Ele já foi usado ou é antigo demais. Peça um novo.",
        ],
        login_over: [
            "Este login terminou",
            "Ele já foi concluído ou demorou demais. Se a conta ainda não estiver conectada, abra o link de novo.",
        ],
        other_browser: [
            "Outro navegador",
            "O login começou em outro navegador, ou este não guardou o cookie. Abra o link de novo em um navegador que aceite cookies. Se você não começou este login, feche esta página.",
        ],
        later: [
            "Não funciona no momento",
            "Tente de novo em alguns minutos. Se esta página voltar, avise quem enviou o link a você.",
        ],
        service: [
            "Este serviço tem um problema",
            "Você não pode resolvê-lo. Avise quem enviou o link a você e cite o texto abaixo.",
        ],
    }),
};

//! Secrets to look for, in every form in which one may come out somewhere.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use std::{collections::BTreeSet, fmt::Write};

/// Secrets and their disguises.
#[derive(Default)]
pub struct Canaries(BTreeSet<String>);

impl Canaries {
    pub fn add(&mut self, secret: &str) {
        assert!(secret.len() >= 12, "too short to look for: {secret}");
        let json = serde_json::to_string(secret).expect("a text");
        let debug = format!("{secret:?}");
        let inner = |quoted: &str| quoted[1..quoted.len() - 1].to_owned();
        let mut hex = String::new();
        let [mut upper, mut lower, mut form] = [String::new(), String::new(), String::new()];
        for byte in secret.bytes() {
            write!(hex, "{byte:02x}").expect("memory");
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                for text in [&mut upper, &mut lower, &mut form] {
                    text.push(char::from(byte));
                }
            } else {
                write!(upper, "%{byte:02X}").expect("memory");
                write!(lower, "%{byte:02x}").expect("memory");
                write!(form, "{}", if byte == b' ' { "+".into() } else { format!("%{byte:02X}") })
                    .expect("memory");
            }
        }
        let nested = inner(&serde_json::to_string(&inner(&debug)).expect("a text"));
        self.0.extend([secret.to_owned(), inner(&json), inner(&debug), nested]);
        self.0.extend([hex.to_uppercase(), hex, upper, lower, form]);
        // Inside a longer text base64 has three alignments; the ends depend on the neighbours.
        for shift in 0..3 {
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let encoded = engine.encode([&b"xx"[..shift], secret.as_bytes()].concat());
                self.0.insert(encoded[4..encoded.len() - 4].to_owned());
            }
        }
    }

    /// Fails if `text` holds one of them.
    pub fn assert_none_in(&self, place: &str, text: &[u8]) {
        if let Some((secret, around)) = self.find(text) {
            panic!("{secret:?} is in {place}: …{around}…");
        }
    }

    fn find(&self, text: &[u8]) -> Option<(&str, String)> {
        let text = String::from_utf8_lossy(text);
        self.0.iter().find_map(|form| {
            let at = text.find(form.as_str())?;
            let before: Vec<char> = text[..at].chars().rev().take(300).collect();
            let after = text[at..].chars().take(form.len() + 100);
            Some((form.as_str(), before.into_iter().rev().chain(after).collect()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Canaries;
    use base64::{Engine, engine::general_purpose::STANDARD};

    #[test]
    fn finds_a_secret_in_disguise_and_no_other_text() {
        let secret = r#"Atzr|canary "quoted" \ + / ="#;
        let mut canaries = Canaries::default();
        canaries.add(secret);
        let json = serde_json::json!({ "a": [secret] }).to_string();
        let disguises = [
            secret.to_owned(),
            serde_json::json!({ "log": json }).to_string().replace("\\\\\\", "\\"),
            json,
            format!("{:?}", Some(secret)),
            STANDARD.encode(format!("id:{secret}")),
            STANDARD.encode(format!("user:{secret};")),
            "refresh_token=Atzr%7Ccanary+%22quoted%22+%5C+%2B+%2F+%3D&x=y".to_owned(),
            "Atzr%7ccanary%20%22quoted%22%20%5c%20%2b%20%2f%20%3d".to_owned(),
        ];
        for disguise in &disguises {
            assert!(canaries.find(disguise.as_bytes()).is_some(), "{disguise}");
        }
        assert!(canaries.find(b"Atzr|another canary; Atzr%7Ccan").is_none());
    }
}

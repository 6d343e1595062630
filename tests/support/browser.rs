//! A real headless Chromium, driven by `tests/tools/browser.py`.

use super::extras;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};

/// A browser; each person in it has cookies of their own.
pub struct Browser {
    child: Child,
    answers: BufReader<ChildStdout>,
}

/// What a tab shows.
#[derive(Debug)]
pub struct Page {
    pub url: String,
    pub status: u64,
    pub title: String,
    pub text: String,
    /// What a script of the page can read.
    pub cookies: String,
    /// What the browser complained about: blocked styles, frames, scripts.
    pub messages: Vec<String>,
}

impl Browser {
    /// A browser; none if the calling test is to be left out.
    pub fn start() -> Option<Self> {
        if !extras::required("chromium") || !extras::required("python3") {
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/browser.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg("chromium")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Some(Self { child, answers })
    }

    fn command(&mut self, command: &Value) -> Value {
        let input = self.child.stdin.as_mut().expect("piped");
        writeln!(input, "{command}").expect("it reads");
        input.flush().expect("it reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        let answer: Value = serde_json::from_str(&line).expect("JSON");
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer
    }

    fn page(&mut self, command: &Value) -> Page {
        let answer = self.command(command);
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let messages = answer["messages"].as_array().expect("a list").iter();
        Page {
            url: text("url"),
            status: answer["status"].as_u64().unwrap_or_default(),
            title: text("title"),
            text: text("text"),
            cookies: text("cookies"),
            messages: messages.map(|one| one.as_str().unwrap_or_default().to_owned()).collect(),
        }
    }

    /// Opens an address as somebody who types it.
    pub fn open(&mut self, who: &str, url: &str) -> Page {
        self.page(&json!({ "do": "open", "who": who, "url": url }))
    }

    /// The same in another tab of the same browser.
    pub fn open_in_tab(&mut self, who: &str, tab: &str, url: &str) -> Page {
        self.page(&json!({ "do": "open", "who": who, "tab": tab, "url": url }))
    }

    /// Clicks a link or a button.
    pub fn click(&mut self, who: &str, text: &str) -> Page {
        self.page(&json!({ "do": "click", "who": who, "text": text }))
    }

    pub fn click_in_tab(&mut self, who: &str, tab: &str, text: &str) -> Page {
        self.page(&json!({ "do": "click", "who": who, "tab": tab, "text": text }))
    }

    /// Opens an address whose page is left at once; the page with `text` that it ends at.
    pub fn open_through(&mut self, who: &str, url: &str, text: &str) -> Page {
        self.eval(who, &format!("location.href = {}; 0", json!(url)));
        self.page(&json!({ "do": "wait", "who": who, "text": text }))
    }

    /// Clicks what leads on by a page that is left at once; the page with `text` that it ends at.
    pub fn click_through(&mut self, who: &str, button: &str, text: &str) -> Page {
        let script = format!(
            "[...document.querySelectorAll('a, button')].find(one => \
             one.textContent.trim() === {}).click(); 0",
            json!(button)
        );
        self.eval(who, &script);
        self.page(&json!({ "do": "wait", "who": who, "text": text }))
    }

    /// What a script says in the page.
    pub fn eval(&mut self, who: &str, js: &str) -> Value {
        self.command(&json!({ "do": "eval", "who": who, "js": js }))["value"].clone()
    }

    /// Whether the pages of a person run scripts from now on.
    pub fn set_script(&mut self, who: &str, on: bool) {
        self.command(&json!({ "do": "script", "who": who, "on": on }));
    }

    /// Makes the window so narrow.
    pub fn set_width(&mut self, who: &str, pixels: u32) {
        self.command(&json!({ "do": "width", "who": who, "pixels": pixels }));
    }

    /// What the reader prefers.
    pub fn set_dark(&mut self, who: &str, dark: bool) {
        self.command(&json!({ "do": "scheme", "who": who, "dark": dark }));
    }

    /// Keeps the whole page as it is seen, as a WebP file.
    pub fn picture(&mut self, who: &str, path: &Path) {
        self.command(&json!({ "do": "picture", "who": who, "path": path }));
    }

    /// Presses the Tab key.
    pub fn press_tab(&mut self, who: &str) {
        self.command(&json!({ "do": "key", "who": who, "key": "Tab" }));
    }

    /// Every cookie of a person.
    pub fn cookies(&mut self, who: &str) -> Vec<Value> {
        let answer = self.command(&json!({ "do": "cookies", "who": who }));
        answer["cookies"].as_array().expect("a list").clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of its input is the end of it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Serves `html` on a port of its own, as another site does.
pub fn site(html: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let length = html.len();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close";
            let _ = write!(stream, "{head}\r\ncontent-length: {length}\r\n\r\n{html}");
        }
    });
    address
}

//! JSON and YAML as one tree, each node with the line at which it begins.

use super::formats::Lines;
use crate::secret::Secret;
use anyhow::{bail, ensure};
use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{
    collections::{HashMap, HashSet},
    fmt,
    rc::Rc,
};

/// Deeper than any file of credentials. What lies deeper in JSON is [`NodeValue::Other`].
const DEPTH_MAX: usize = 16;

/// Aliases may nest as deeply as there are anchors, and dropping a tree uses the stack.
const ANCHORS_MAX: usize = 200;

pub(super) struct Node {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) value: NodeValue,
}

pub(super) type NodeMembers = Vec<(String, Rc<Node>)>;

pub(super) enum NodeValue {
    /// A text, or a number as it is written.
    Text(Secret),
    Null,
    /// In the order of the file; a name may be there twice.
    Object(NodeMembers),
    List(Vec<Rc<Node>>),
    Other,
}

pub(super) fn json(text: &str) -> Result<Node, serde_json::Error> {
    let root = serde_json::from_str::<&RawValue>(text)?;
    Ok(json_node(root, text, &Lines::of(text), DEPTH_MAX))
}

fn json_node(raw: &RawValue, text: &str, lines: &Lines, depth: usize) -> Node {
    let own = raw.get();
    // The value is a part of the text, so its place in memory is its place in the file.
    let line = lines.at((own.as_ptr() as usize).saturating_sub(text.as_ptr() as usize));
    let below = |value: &RawValue| Rc::new(json_node(value, text, lines, depth - 1));
    let value = match own.as_bytes()[0] {
        b'"' => serde_json::from_str(own).map(|text| NodeValue::Text(Secret::new(text))),
        b'-' | b'0'..=b'9' => Ok(NodeValue::Text(Secret::from(own))),
        b'n' => Ok(NodeValue::Null),
        b'[' if depth > 0 => serde_json::from_str::<Vec<&RawValue>>(own)
            .map(|list| NodeValue::List(list.into_iter().map(below).collect())),
        b'{' if depth > 0 => {
            serde_json::from_str::<JsonObject<'_>>(own).map(|JsonObject(members)| {
                NodeValue::Object(
                    members.into_iter().map(|(key, node)| (key, below(node))).collect(),
                )
            })
        }
        _ => Ok(NodeValue::Other),
    };
    // Half of a surrogate pair is no text.
    Node { line, value: value.unwrap_or(NodeValue::Other) }
}

/// Members in their order, the same name twice included; serde's maps have neither.
struct JsonObject<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for JsonObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self(Vec::new()))
    }
}

impl<'de: 'a, 'a> Visitor<'de> for JsonObject<'a> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        std::iter::from_fn(|| map.next_entry().transpose()).collect::<Result<_, _>>().map(Self)
    }
}

/// Reads the one document in `text`.
///
/// # Errors
/// With the line and never with the content.
pub(super) fn yaml(text: &str) -> anyhow::Result<Rc<Node>> {
    let mut reader = YamlReader { events: Parser::new_from_str(text), anchors: HashMap::new() };
    let Some(root) = reader.node(0)? else { bail!("it is empty") };
    // None for the end of the document, and once more for that of the file.
    if let (None, Some(second)) = (reader.node(0)?, reader.node(0)?) {
        bail!("line {}: a second document begins; only one is read", second.line);
    }
    Ok(root)
}

struct YamlReader<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
}

impl YamlReader<'_> {
    /// The next node; none where a collection or the document ends.
    fn node(&mut self, depth: usize) -> anyhow::Result<Option<Rc<Node>>> {
        let (event, span) = match self.events.next() {
            None => return Ok(None),
            Some(Ok(event)) => event,
            // The parser's own message could quote the file.
            Some(Err(error)) => bail!("it is not YAML: line {}", error.marker().line()),
        };
        let line = span.start.line();
        ensure!(depth <= DEPTH_MAX, "line {line}: it is nested too deeply");
        let (value, anchor) = match event {
            Event::Scalar(text, ScalarStyle::Plain, anchor, _)
                if matches!(&*text, "" | "~" | "null") =>
            {
                (NodeValue::Null, anchor)
            }
            Event::Scalar(text, _, anchor, _) => (NodeValue::Text(Secret::from(&*text)), anchor),
            Event::SequenceStart(anchor, _) => (NodeValue::List(self.list(depth + 1)?), anchor),
            Event::MappingStart(anchor, _) => (NodeValue::Object(self.mapping(depth + 1)?), anchor),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => return Ok(Some(Rc::clone(node))),
                None => bail!("line {line}: the anchor is not defined before it is used"),
            },
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {
                return self.node(depth);
            }
            Event::StreamEnd | Event::DocumentEnd | Event::SequenceEnd | Event::MappingEnd => {
                return Ok(None);
            }
        };
        let node = Rc::new(Node { line, value });
        if anchor > 0 {
            ensure!(self.anchors.len() < ANCHORS_MAX, "line {line}: there are too many anchors");
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(Some(node))
    }

    fn list(&mut self, depth: usize) -> anyhow::Result<Vec<Rc<Node>>> {
        std::iter::from_fn(|| self.node(depth).transpose()).collect()
    }

    /// The members of a mapping; those merged into it (`<<: *other`) come last, and only where it
    /// has none of that name itself.
    fn mapping(&mut self, depth: usize) -> anyhow::Result<NodeMembers> {
        let mut members = NodeMembers::new();
        let mut bases = Vec::new();
        for pair in self.list(depth)?.chunks_exact(2) {
            let NodeValue::Text(key) = &pair[0].value else { continue };
            match &pair[1].value {
                NodeValue::List(nodes) if key.expose() == "<<" => bases.extend(nodes.clone()),
                _ if key.expose() == "<<" => bases.push(Rc::clone(&pair[1])),
                _ => members.push((key.expose().to_owned(), Rc::clone(&pair[1]))),
            }
        }
        let mut seen: HashSet<String> = members.iter().map(|(key, _)| key.clone()).collect();
        for base in &bases {
            let NodeValue::Object(merged) = &base.value else { continue };
            members.extend(merged.iter().filter(|(key, _)| seen.insert(key.clone())).cloned());
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(text: &str, path: [&str; 2]) -> Option<(String, usize)> {
        let find = |node: &Node, key: &str| match &node.value {
            NodeValue::Object(members) => {
                members.iter().find(|(name, _)| name == key).map(|(_, node)| Rc::clone(node))
            }
            _ => panic!("no mapping"),
        };
        let outer = find(&yaml(text).expect("YAML"), path[0])?;
        let found = find(&outer, path[1])?;
        let text = match &found.value {
            NodeValue::Text(text) => text.expose().to_owned(),
            _ => String::new(),
        };
        Some((text, found.line))
    }

    #[test]
    fn scalars_are_text_whatever_they_look_like() {
        let text = "a:\n  plain: 0123\n  quoted: '~'\n  double: \"x\\ty\"\n  none: ~\n";
        let found = |key| member(text, ["a", key]).expect("a member");
        assert_eq!(found("plain"), ("0123".to_owned(), 2));
        assert_eq!(found("quoted"), ("~".to_owned(), 3));
        assert_eq!(found("double"), ("x\ty".to_owned(), 4));
        assert_eq!(found("none"), (String::new(), 5));
    }

    #[test]
    fn merged_members_stand_behind_own_ones() {
        let text = "base: &base {x: 1, y: 2}\na:\n  <<: *base\n  x: 3\nb: {<<: [*base]}\n";
        assert_eq!(member(text, ["a", "x"]), Some(("3".to_owned(), 4)));
        assert_eq!(member(text, ["a", "y"]), Some(("2".to_owned(), 1)));
        assert_eq!(member(text, ["b", "x"]), Some(("1".to_owned(), 1)));
    }

    #[test]
    fn bombs_and_broken_files_are_refused_without_their_content() {
        let nested = "[".repeat(DEPTH_MAX + 2);
        let anchors: String = (0..=ANCHORS_MAX).map(|n| format!("a{n}: &a{n} [1]\n")).collect();
        for text in ["", "a: CANARY\n b: x\n", "*CANARY", "'CANARY", &nested, "a\n---\nb", &anchors]
        {
            let Err(error) = yaml(text) else { panic!("read: {text}") };
            assert!(!format!("{error:#}").contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn anchors_are_shared_and_merged_once() {
        let chain = |value: fn(String) -> String| {
            let levels = (1..60).map(|level| {
                format!("a{level}: &a{level} {}\n", value(format!("*a{}", level - 1)))
            });
            format!("a0: &a0 {{x: 1}}\n{}", levels.collect::<String>())
        };
        yaml(&chain(|below| format!("[{below}, {below}]"))).expect("2^60 nodes, were they copied");
        let doubled = chain(|below| format!("{{<<: [{below}, {below}]}}"));
        assert_eq!(member(&doubled, ["a59", "x"]), Some(("1".to_owned(), 1)), "2^60 ways");
    }
}

//! As much YAML as a file of credentials has: a tree with lines, anchors shared and not copied.

use anyhow::{bail, ensure};
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::{collections::HashMap, rc::Rc};

/// Deeper than any file of credentials.
const DEPTH_MAX: usize = 16;

/// A node and the line at which it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// Text, and whether it stood in quotes.
    Scalar(String, bool),
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
    Sequence(Vec<Rc<Node>>),
}

impl Node {
    /// The text of a scalar; none for `null`.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, true) => Some(text),
            Value::Scalar(text, false) if !matches!(text.as_str(), "" | "~" | "null") => Some(text),
            _ => None,
        }
    }

    /// The members of a mapping, those merged into it (`<<: *other`) last and only where it has
    /// none of that name itself.
    pub(super) fn members(&self) -> Option<Vec<(&str, &Node)>> {
        let Value::Mapping(pairs) = &self.value else { return None };
        let own = pairs.iter().filter_map(|(key, value)| Some((key.text()?, &**value)));
        let (merged, mut members): (Vec<_>, Vec<_>) = own.partition(|(key, _)| *key == "<<");
        for (_, node) in merged {
            let mappings: Vec<&Node> = match &node.value {
                Value::Sequence(nodes) => nodes.iter().map(|node| &**node).collect(),
                _ => vec![node],
            };
            for (key, value) in mappings.into_iter().filter_map(Node::members).flatten() {
                if members.iter().all(|(known, _)| *known != key) {
                    members.push((key, value));
                }
            }
        }
        Some(members)
    }
}

/// A collection that has begun.
struct Open {
    line: usize,
    anchor: usize,
    is_mapping: bool,
    nodes: Vec<Rc<Node>>,
}

/// Reads the one document in `text`.
///
/// # Errors
/// With the line and never with the content.
pub(super) fn parse(text: &str) -> anyhow::Result<Rc<Node>> {
    let mut anchors: HashMap<usize, Rc<Node>> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        // The scanner's own words could quote what it stumbled over.
        let Ok((event, span)) = event.as_ref() else {
            let line = event.as_ref().err().map_or(0, |error| error.marker().line());
            bail!("it is not YAML: line {line}");
        };
        let line = span.start.line();
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = Value::Scalar(text.to_string(), *style != ScalarStyle::Plain);
                (Rc::new(Node { line, value }), *anchor)
            }
            Event::Alias(anchor) => match anchors.get(anchor) {
                Some(node) => (Rc::clone(node), 0),
                None => bail!("line {line}: the anchor is not defined before it is used"),
            },
            Event::MappingStart(anchor, _) | Event::SequenceStart(anchor, _) => {
                ensure!(open.len() < DEPTH_MAX, "line {line}: it is nested too deeply");
                let is_mapping = matches!(event, Event::MappingStart(..));
                open.push(Open { line, anchor: *anchor, is_mapping, nodes: Vec::new() });
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(ended) => close(ended)?,
                None => bail!("line {line}: something ends that has not begun"),
            },
            _ => continue,
        };
        if anchor > 0 {
            anchors.insert(anchor, Rc::clone(&node));
        }
        match open.last_mut() {
            Some(collection) => collection.nodes.push(node),
            None if root.is_none() => root = Some(node),
            None => bail!("line {line}: a second document begins; only one is read"),
        }
    }
    match root {
        Some(root) => Ok(root),
        None => bail!("it is empty"),
    }
}

fn close(open: Open) -> anyhow::Result<(Rc<Node>, usize)> {
    let Open { line, anchor, is_mapping, nodes } = open;
    if !is_mapping {
        return Ok((Rc::new(Node { line, value: Value::Sequence(nodes) }), anchor));
    }
    let mut pairs: Vec<(Rc<Node>, Rc<Node>)> = Vec::with_capacity(nodes.len() / 2);
    let mut seen = std::collections::HashSet::new();
    let mut nodes = nodes.into_iter();
    while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
        if let Some(text) = key.text()
            && !seen.insert(text.to_owned())
        {
            bail!("line {}: this key stands twice in one mapping", key.line);
        }
        pairs.push((key, value));
    }
    Ok((Rc::new(Node { line, value: Value::Mapping(pairs) }), anchor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(text: &str, path: [&str; 2]) -> Option<(String, usize)> {
        let root = parse(text).expect("YAML");
        let find = |node: &Node, key: &str| {
            let members = node.members().expect("a mapping");
            members.into_iter().find(|(name, _)| *name == key).map(|(_, node)| {
                (node.text().unwrap_or_default().to_owned(), node.line, node as *const Node)
            })
        };
        let members = root.members().expect("a mapping");
        let (_, outer) = members.into_iter().find(|(name, _)| *name == path[0])?;
        find(outer, path[1]).map(|(text, line, _)| (text, line))
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
        let nested = "[".repeat(DEPTH_MAX + 1);
        for text in [
            "",
            "a: CANARY\n b: x\n",
            "*CANARY",
            "'CANARY",
            "a: 1\na: CANARY\n",
            &nested,
            "a\n---\nb",
        ] {
            let error = format!("{:#}", parse(text).expect_err("refused"));
            assert!(!error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn anchors_are_shared_and_not_copied() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..=DEPTH_MAX {
            let below = format!("*a{}, ", level - 1).repeat(10);
            text += &format!("a{level}: &a{level} [{below}]\n");
        }
        parse(&text).expect("10^17 nodes, were they copied");
    }
}

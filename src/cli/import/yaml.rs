//! As much YAML as a file of credentials has: a tree with lines, anchors shared and not copied.

use anyhow::{bail, ensure};
use saphyr_parser::{Event, Parser, ScalarStyle};
use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

/// Deeper than any file of credentials, through anchors too.
const DEPTH_MAX: usize = 16;

/// More than any account has to merge.
const MERGED_MAX: usize = 100;

/// A node and the line at which it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
    /// How many collections lie within each other here.
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    /// Text, and whether it stood in quotes.
    Scalar(String, bool),
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
    Sequence(Vec<Rc<Node>>),
}

impl Node {
    pub(super) fn is_scalar(&self) -> bool {
        matches!(self.value, Value::Scalar(..))
    }

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
        Some(pairs.iter().filter_map(|(key, value)| Some((key.text()?, &**value))).collect())
    }

    /// What `<<: ` with this node as its value merges.
    fn merged(&self) -> impl Iterator<Item = &(Rc<Node>, Rc<Node>)> {
        let mappings = match &self.value {
            Value::Sequence(nodes) => nodes.iter().map(|node| &**node).collect(),
            _ => vec![self],
        };
        let pairs = mappings.into_iter().filter_map(|node| match &node.value {
            Value::Mapping(pairs) => Some(pairs),
            _ => None,
        });
        pairs.flatten()
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
                (Rc::new(Node { line, value, depth: 0 }), *anchor)
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
    let (value, below) = if is_mapping {
        let pairs = pairs(nodes)?;
        let below = pairs.iter().map(|(key, value)| key.depth.max(value.depth)).max();
        (Value::Mapping(pairs), below)
    } else {
        let below = nodes.iter().map(|node| node.depth).max();
        (Value::Sequence(nodes), below)
    };
    let depth = 1 + below.unwrap_or(0);
    ensure!(depth <= DEPTH_MAX, "line {line}: it is nested too deeply");
    Ok((Rc::new(Node { line, value, depth }), anchor))
}

/// The pairs of a mapping, with those that are merged into it. They are merged once, here: what
/// merges what merges others would be gone through anew for every way there is.
fn pairs(nodes: Vec<Rc<Node>>) -> anyhow::Result<Vec<(Rc<Node>, Rc<Node>)>> {
    let mut pairs: Vec<(Rc<Node>, Rc<Node>)> = Vec::with_capacity(nodes.len() / 2);
    let mut seen: HashSet<String> = HashSet::new();
    let mut merges = Vec::new();
    let mut nodes = nodes.into_iter();
    while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
        if let Some(text) = key.text()
            && !seen.insert(text.to_owned())
        {
            bail!("line {}: this key stands twice in one mapping", key.line);
        }
        match key.text() {
            Some("<<") => merges.push((key.line, value)),
            _ => pairs.push((key, value)),
        }
    }
    for (line, value) in merges {
        for (count, (key, member)) in value.merged().enumerate() {
            ensure!(count < MERGED_MAX, "line {line}: it merges too much");
            if key.text().is_some_and(|text| seen.insert(text.to_owned())) {
                pairs.push((Rc::clone(key), Rc::clone(member)));
            }
        }
    }
    Ok(pairs)
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
        for level in 1..DEPTH_MAX - 1 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            text += &format!("a{level}: &a{level} [{below}]\n");
        }
        parse(&text).expect("10^15 nodes, were they copied");
    }

    #[test]
    fn what_merges_what_merges_others_is_merged_once() {
        let chain = |levels: usize, value: fn(usize) -> String| {
            let levels =
                (1..=levels).map(|level| format!("a{level}: &a{level} {}\n", value(level - 1)));
            format!("a0: &a0 {{x: 1}}\n{}", levels.collect::<String>())
        };
        let doubled = chain(60, |below| format!("{{<<: [*a{below}, *a{below}]}}"));
        assert_eq!(member(&doubled, ["a60", "x"]), Some(("1".to_owned(), 1)), "2^60 ways");
        let long = chain(100_000, |below| format!("{{<<: *a{below}}}"));
        assert_eq!(member(&long, ["a100000", "x"]), Some(("1".to_owned(), 1)));
        // As deep as this, only to let go of it would use up the stack.
        let nested = chain(100_000, |below| format!("{{k: *a{below}}}"));
        let error = parse(&nested).expect_err("refused").to_string();
        assert!(error.contains("too deeply"), "{error}");
        let wide: String = (0..=MERGED_MAX).map(|key| format!("k{key}: 1, ")).collect();
        let error = parse(&format!("b: &b {{{wide}}}\nc: {{<<: *b}}\n")).expect_err("refused");
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}

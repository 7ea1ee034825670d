//! What a before handler answered, beside what it was sent: what it changed, and what only looks otherwise because its language writes
//! JSON otherwise.
//!
//! Handlers read JSON into values of their language and write it again. On the way numbers are rounded or get other digits, `{}` becomes
//! `[]` (PHP) or the other way round (Lua), an object whose keys count from 0 becomes a list (PHP), a number that is too large becomes
//! `null` (JavaScript), of keys that stand twice the last stays, and texts are escaped otherwise. None of that is a change: in its place
//! stays what was sent, to the letter.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    hash::BuildHasher,
};

use billhook_plugin_api::{
    Json,
    data::{Asset, AssetChanges},
    json_tree::{JsonKind, JsonNode, JsonTree},
};
use foldhash::fast::RandomState;

use billhook_model::number::{is_beyond_floating_point, is_echo};

/// The fields of an asset that a hook may change, and so may a handler before it.
const CHANGEABLE: [&str; 3] = ["meta_info", "content_type", "download_link"];

/// Returns the data that a handler answered, with everything that it didn't change as it was sent.
pub(super) fn merged(sent: &str, answered: &str) -> Result<String, String> {
    let (sent, answered) = (read(sent)?, read(answered)?);
    let answer = Answer::compare(&sent, &answered);
    Ok(answer.text(answered.root()))
}

/// Returns what a handler changed of a hook's asset. What it left out stays; anything else that it changed is refused, and so is
/// everything where there is no asset.
pub(super) fn hook_changes(sent: &str, answered: &str, asset: Option<&Asset>) -> Result<AssetChanges, String> {
    let (sent, answered) = (read(sent)?, read(answered)?);
    let answer = Answer::compare(&sent, &answered);
    let at = |field: &str| answered.root().at(&format!("/asset/{field}")).map(JsonNode::index);
    let fields = CHANGEABLE.map(at);
    let mut changes = AssetChanges::default();
    for changed in answer.changed(fields[0])? {
        let field = fields.iter().position(|field| *field == Some(changed.index())).filter(|_| asset.is_some());
        let text = |field: &str| {
            let text = changed.text().map(Cow::into_owned);
            text.ok_or_else(|| format!("it changed /asset/{field} into something that is no text"))
        };
        match field {
            Some(0) => {
                let meta_info =
                    Json::new(answer.text(changed)).map_err(|error| format!("its data can't be read: {error}"))?;
                changes.meta_info = Some(meta_info);
            }
            Some(1) => changes.content_type = Some(text("content_type")?),
            Some(_) => changes.download_link = Some(text("download_link")?),
            None => {
                let (pointer, may) = (answered.pointer_to(changed), CHANGEABLE.join(", "));
                return Err(format!("it changed {pointer}; before this hook, only an asset's {may} may be"));
            }
        }
    }
    Ok(changes)
}

fn read(text: &str) -> Result<JsonTree<'_>, String> {
    JsonTree::read(text).map_err(|error| format!("its data can't be read: {error}"))
}

/// What was answered, value by value, beside what was sent.
struct Answer<'t> {
    sent: &'t JsonTree<'t>,
    answered: &'t JsonTree<'t>,
    /// Of each answered value, the sent one whose place it takes.
    twins: Vec<Option<u32>>,
    /// Of each answered value, whether it means the same as its twin.
    unchanged: Vec<bool>,
}

impl<'t> Answer<'t> {
    fn compare(sent: &'t JsonTree<'t>, answered: &'t JsonTree<'t>) -> Self {
        let none = (vec![None; answered.len()], vec![false; answered.len()]);
        let mut answer = Answer { sent, answered, twins: none.0, unchanged: none.1 };
        answer.pair();
        answer.judge();
        answer
    }

    fn twin(&self, node: JsonNode<'_>) -> Option<JsonNode<'t>> {
        self.twins[node.index()].map(|twin| self.sent.node(twin as usize))
    }

    /// Finds the twins, from the document inwards. Where two lists or objects can't mean the same, that is noted, too.
    fn pair(&mut self) {
        let hasher = RandomState::default();
        let prints = (prints(self.sent, &hasher), prints(self.answered, &hasher));
        let mut open = vec![(self.sent.root(), self.answered.root())];
        while let Some((twin, node)) = open.pop() {
            self.twins[node.index()] = u32::try_from(twin.index()).ok();
            self.unchanged[node.index()] = match (twin.kind(), node.kind()) {
                (JsonKind::Object, JsonKind::Object) => {
                    let (sent, answered) = (members(twin), members(node));
                    let found = open.len();
                    open.extend(answered.iter().filter_map(|(key, value)| Some((*sent.get(key)?, *value))));
                    open.len() - found == answered.len() && answered.len() == sent.len()
                }
                (JsonKind::List, JsonKind::List) => {
                    let (sent, answered): (Vec<_>, Vec<_>) = (twin.elements().collect(), node.elements().collect());
                    let print = |node: &JsonNode<'_>| prints.0[node.index()];
                    let own_print = |node: &JsonNode<'_>| prints.1[node.index()];
                    pair_elements(&sent, &answered, print, own_print, |twin, node| open.push((twin, node)));
                    sent.len() == answered.len()
                }
                (JsonKind::Object, JsonKind::List) => match counted(twin) {
                    Some(sent) => {
                        let answered: Vec<_> = node.elements().collect();
                        let is_as_long = sent.len() == answered.len();
                        open.extend(sent.into_iter().zip(answered));
                        is_as_long
                    }
                    None => node.is_empty() && twin.is_empty(),
                },
                (JsonKind::List, JsonKind::Object) => node.is_empty() && twin.is_empty(),
                (sent, answered) => sent == answered || answered == JsonKind::Null,
            };
        }
    }

    /// Finds out what is unchanged, from the innermost values outwards: each stands behind those that it is in.
    fn judge(&mut self) {
        for index in (0..self.answered.len()).rev() {
            let node = self.answered.node(index);
            let Some(twin) = self.twin(node).filter(|_| self.unchanged[index]) else { continue };
            self.unchanged[index] = match (twin.kind(), node.kind()) {
                (JsonKind::Object, JsonKind::Object) => {
                    node.members().all(|(_, value)| self.twin(value).is_none() || self.unchanged[value.index()])
                }
                (_, JsonKind::List) => {
                    let sent: Vec<_> = twin.elements().chain(twin.members().map(|(_, value)| value)).collect();
                    node.elements().zip(sent).all(|(element, sent)| {
                        let is_in_place = self.twin(element).is_some_and(|twin| twin.index() == sent.index());
                        is_in_place && self.unchanged[element.index()]
                    })
                }
                (JsonKind::Number, JsonKind::Number) => is_echo(twin.as_str(), node.as_str()),
                (JsonKind::Number, JsonKind::Null) => is_beyond_floating_point(twin.as_str()),
                (JsonKind::Text, JsonKind::Text) => twin.as_str() == node.as_str() || twin.bytes() == node.bytes(),
                (JsonKind::List, JsonKind::Object) => true,
                _ => twin.as_str() == node.as_str(),
            };
        }
    }

    /// The text of an answered value; in it, what is unchanged is as it was sent.
    fn text(&self, node: JsonNode<'_>) -> String {
        let text = self.answered.root().as_str();
        // Positions count from where the document begins, which space may come before.
        let base = self.answered.root().range().start;
        let (mut merged, mut written) = (String::new(), node.range().start - base);
        let mut index = node.index();
        while index < node.next() {
            let inner = self.answered.node(index);
            match self.twin(inner).filter(|_| self.unchanged[index]) {
                Some(twin) => {
                    merged.push_str(&text[written..inner.range().start - base]);
                    merged.push_str(twin.as_str());
                    written = inner.range().end - base;
                    index = inner.next();
                }
                None => index += 1,
            }
        }
        merged.push_str(&text[written..node.range().end - base]);
        merged
    }

    /// The answered values that are other ones than those that were sent, in their order. Of an object, what is left out is unchanged;
    /// but `whole` is looked at as one value. Refuses an answer that is no object.
    fn changed(&self, whole: Option<usize>) -> Result<Vec<JsonNode<'t>>, String> {
        let root = self.answered.root();
        let leaves_all_out = |node: JsonNode<'_>| node.kind() == JsonKind::List && node.is_empty();
        if root.kind() != JsonKind::Object && !leaves_all_out(root) {
            return Err("its data is no object".to_owned());
        }
        let (mut open, mut changed) = (vec![root], Vec::new());
        while let Some(node) = open.pop() {
            let twin = self.twin(node);
            let is_parts = twin.is_some_and(|twin| twin.kind() == JsonKind::Object) && whole != Some(node.index());
            if self.unchanged[node.index()] || (is_parts && leaves_all_out(node)) {
                continue;
            }
            if is_parts && node.kind() == JsonKind::Object {
                let begin = open.len();
                open.extend(members(node).into_values());
                open[begin..].sort_by_key(|member| std::cmp::Reverse(member.index()));
            } else if twin.is_some() || node.kind() != JsonKind::Null {
                changed.push(node);
            }
        }
        Ok(changed)
    }
}

/// The members of an object by their names; of those that stand twice the last.
fn members(object: JsonNode<'_>) -> HashMap<Cow<'_, [u8]>, JsonNode<'_>> {
    object.members().map(|(key, value)| (key.bytes(), value)).collect()
}

/// The values of an object whose keys are `0`, `1` and so on, of which PHP makes a list; `None` of any other, and of an empty one.
fn counted(object: JsonNode<'_>) -> Option<Vec<JsonNode<'_>>> {
    let is_in_turn = |(place, (key, _)): (usize, (JsonNode<'_>, _))| key.is_text(&place.to_string());
    let is_counted = !object.is_empty() && object.members().enumerate().all(is_in_turn);
    is_counted.then(|| object.members().map(|(_, value)| value).collect())
}

/// Finds the twins of a list's elements: those that look alike at the same place, those that look alike anywhere, and what is left in
/// its order. So what was moved, or stands beside what was added, keeps its digits.
fn pair_elements<'t>(
    sent: &[JsonNode<'t>],
    answered: &[JsonNode<'t>],
    print: impl Fn(&JsonNode<'t>) -> u64,
    own_print: impl Fn(&JsonNode<'t>) -> u64,
    mut pair: impl FnMut(JsonNode<'t>, JsonNode<'t>),
) {
    let mut is_taken = vec![false; sent.len()];
    let mut left = Vec::new();
    for (place, node) in answered.iter().enumerate() {
        match sent.get(place).filter(|twin| print(twin) == own_print(node)) {
            Some(twin) => {
                is_taken[place] = true;
                pair(*twin, *node);
            }
            None => left.push(*node),
        }
    }
    let mut alike: HashMap<u64, VecDeque<usize>> = HashMap::new();
    for (place, twin) in sent.iter().enumerate().filter(|(place, _)| !is_taken[*place]) {
        alike.entry(print(twin)).or_default().push_back(place);
    }
    left.retain(|node| {
        let found = alike.get_mut(&own_print(node)).and_then(VecDeque::pop_front);
        if let Some(place) = found {
            is_taken[place] = true;
            pair(sent[place], *node);
        }
        found.is_none()
    });
    let rest = sent.iter().zip(is_taken).filter(|(_, is_taken)| !is_taken).map(|(twin, _)| *twin);
    rest.zip(left).for_each(|(twin, node)| pair(twin, node));
}

/// A number for each value of a document: values that mean the same have the same, and others hardly ever.
fn prints(tree: &JsonTree<'_>, hasher: &RandomState) -> Vec<u64> {
    const NOTHING: u8 = 0;
    let mut prints = vec![0; tree.len()];
    for index in (0..tree.len()).rev() {
        let node = tree.node(index);
        prints[index] = match node.kind() {
            JsonKind::Number => match node.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => hasher.hash_one((number + 0.0).to_bits()),
                _ => hasher.hash_one("null"),
            },
            JsonKind::Text => hasher.hash_one(node.bytes()),
            JsonKind::List | JsonKind::Object if node.is_empty() => hasher.hash_one(NOTHING),
            JsonKind::List => {
                hasher.hash_one(node.elements().map(|element| prints[element.index()]).collect::<Vec<_>>())
            }
            JsonKind::Object => match counted(node) {
                Some(values) => hasher.hash_one(values.iter().map(|value| prints[value.index()]).collect::<Vec<_>>()),
                None => {
                    let member =
                        |(key, value): (Cow<'_, [u8]>, JsonNode<'_>)| hasher.hash_one((key, prints[value.index()]));
                    members(node).into_iter().map(member).fold(1, u64::wrapping_add)
                }
            },
            JsonKind::Null | JsonKind::Bool => hasher.hash_one(node.as_str()),
        };
    }
    prints
}

#[cfg(test)]
mod tests;

//! Which processes are traced: ordered rules, the first match wins.
//!
//! Pure: rules and facts come in, decisions go out.

mod schema;

pub use schema::SelectSchema;

use super::procfs::Pid;
use super::sockets::Ports;
use super::{Error, Process};
use globset::{Glob, GlobMatcher};
use schema::{OneOrMore, PortsSchema};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor, value};
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::path::Path;

/// What happens to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is traced.
    Include,
    /// It is left alone.
    Exclude,
}

/// The configuration key `select`: a list of rules, or a mapping of `rules` and `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// In order.
    pub rules: Vec<Rule>,
    /// For processes that no rule matches. None: exclude when some rule includes, else include.
    pub default: Option<Action>,
}

/// One rule. All conditions must hold; a rule without conditions matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What happens to processes that match.
    pub action: Action,
    /// Process ids, of the initial pid namespace.
    #[serde(default, deserialize_with = "pids")]
    #[schemars(with = "Option<OneOrMore<u32>>")]
    pub pid: Option<Vec<u32>>,
    /// Globs: on the whole path, or on the file name when there is no slash in it.
    /// Links are resolved; the name of the link matches too, up to 15 characters of it.
    #[serde(default, deserialize_with = "globs")]
    #[schemars(with = "Option<OneOrMore<String>>")]
    pub executable: Option<Vec<String>>,
    /// TCP ports that the process listens on: `80`, `"8000-8999"`, `"80,443"`.
    #[serde(default)]
    #[schemars(with = "Option<PortsSchema>")]
    pub listen_port: Option<PortSet>,
    /// TCP ports that the process has connected to.
    #[serde(default)]
    #[schemars(with = "Option<PortsSchema>")]
    pub peer_port: Option<PortSet>,
    /// Container ids: globs, or the first digits of one.
    #[serde(default, deserialize_with = "globs")]
    #[schemars(with = "Option<OneOrMore<String>>")]
    pub container: Option<Vec<String>>,
}

/// Ports and ranges of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet(Vec<RangeInclusive<u16>>);

/// Which facts the rules look at; what is not needed need not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Some rule has `listen_port`.
    pub listen_ports: bool,
    /// Some rule has `peer_port`: connects decide too.
    pub peer_ports: bool,
    /// Some rule has `container`.
    pub containers: bool,
}

/// What was decided about a process, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is traced.
    pub include: bool,
    /// The rule that matched, counted from 0.
    pub rule: Option<usize>,
    /// For people.
    pub why: String,
}

/// Rules made ready.
#[derive(Debug)]
pub struct Selector {
    rules: Vec<Ready>,
    default: Action,
    needs: Needs,
    own_pid: Pid,
}

#[derive(Debug)]
struct Ready {
    rule: Rule,
    executable: Option<Vec<Pattern>>,
    container: Option<Vec<Pattern>>,
    why: String,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    glob: GlobMatcher,
}

impl Selector {
    /// `own_pid` is the collector's: tracing itself would never end.
    pub fn new(select: Select, own_pid: Pid) -> Result<Self, Error> {
        let includes = select
            .rules
            .iter()
            .any(|rule| rule.action == Action::Include);
        let needs = Needs {
            listen_ports: select.rules.iter().any(|rule| rule.listen_port.is_some()),
            peer_ports: select.rules.iter().any(|rule| rule.peer_port.is_some()),
            containers: select.rules.iter().any(|rule| rule.container.is_some()),
        };
        let rules = select
            .rules
            .into_iter()
            .enumerate()
            .map(|(index, rule)| Ready::new(rule, index + 1));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
            default: select.default.unwrap_or(if includes {
                Action::Exclude
            } else {
                Action::Include
            }),
            needs,
            own_pid,
        })
    }

    /// Which facts matter.
    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// Whether some rule mentions the port: others need not be kept.
    pub fn mentions_listen_port(&self, port: u16) -> bool {
        self.rules.iter().any(|ready| {
            ready
                .rule
                .listen_port
                .as_ref()
                .is_some_and(|set| set.contains(port))
        })
    }

    /// Whether some rule mentions the port: others need not be kept.
    pub fn mentions_peer_port(&self, port: u16) -> bool {
        self.rules.iter().any(|ready| {
            ready
                .rule
                .peer_port
                .as_ref()
                .is_some_and(|set| set.contains(port))
        })
    }

    /// Decides from what is known so far. A later listen or connect may make
    /// another rule match: ask again then, with all ports seen.
    pub fn decide(&self, process: &Process, ports: &Ports) -> Decision {
        let never = |why: &str| Decision {
            include: false,
            rule: None,
            why: why.into(),
        };
        if process.pid == self.own_pid {
            return never("the collector itself");
        }
        if process.kernel_thread {
            return never("a kernel thread");
        }
        let mut rules = self.rules.iter().enumerate();
        if let Some((index, ready)) = rules.find(|(_, ready)| ready.matches(process, ports)) {
            return Decision {
                include: ready.rule.action == Action::Include,
                rule: Some(index),
                why: ready.why.clone(),
            };
        }
        let include = self.default == Action::Include;
        let verb = if include { "include" } else { "exclude" };
        Decision {
            include,
            rule: None,
            why: format!("no rule matches: {verb}"),
        }
    }

    /// Whether a process may be traced because its parent is.
    pub(super) fn may_inherit(&self, process: &Process) -> bool {
        process.pid != self.own_pid && !process.kernel_thread
    }
}

impl Ready {
    fn new(rule: Rule, number: usize) -> Result<Self, Error> {
        let empty = |condition| Error::EmptyCondition {
            rule: number,
            condition,
        };
        if rule.pid.as_ref().is_some_and(Vec::is_empty) {
            return Err(empty("pid"));
        }
        Ok(Self {
            executable: patterns(rule.executable.as_deref(), number, empty("executable"))?,
            container: patterns(rule.container.as_deref(), number, empty("container"))?,
            why: format!("rule {number}: {rule}"),
            rule,
        })
    }

    fn matches(&self, process: &Process, ports: &Ports) -> bool {
        fn holds<T>(condition: Option<&T>, test: impl FnOnce(&T) -> bool) -> bool {
            condition.is_none_or(test)
        }
        let any_in =
            |set: &PortSet, ports: &BTreeSet<u16>| ports.iter().any(|port| set.contains(*port));
        holds(self.rule.pid.as_ref(), |pids| pids.contains(&process.pid.0))
            && holds(self.executable.as_ref(), |patterns| {
                executable_matches(patterns, process)
            })
            && holds(self.container.as_ref(), |patterns| {
                container_matches(patterns, process)
            })
            && holds(self.rule.listen_port.as_ref(), |set| {
                any_in(set, &ports.listening)
            })
            && holds(self.rule.peer_port.as_ref(), |set| {
                any_in(set, &ports.peers)
            })
    }
}

fn patterns(
    globs: Option<&[String]>,
    rule: usize,
    empty: Error,
) -> Result<Option<Vec<Pattern>>, Error> {
    let Some(globs) = globs else { return Ok(None) };
    if globs.is_empty() {
        return Err(empty);
    }
    let pattern = |text: &String| match Glob::new(text) {
        Ok(glob) => Ok(Pattern {
            text: text.clone(),
            glob: glob.compile_matcher(),
        }),
        Err(source) => Err(Error::Glob {
            rule,
            pattern: text.clone(),
            source,
        }),
    };
    globs
        .iter()
        .map(pattern)
        .collect::<Result<_, _>>()
        .map(Some)
}

/// The name that the program was called by counts too: Debian's `redis-server`
/// is a link to `redis-check-rdb`, and nobody would write that into a rule.
fn executable_matches(patterns: &[Pattern], process: &Process) -> bool {
    let Some(path) = &process.executable else {
        return false;
    };
    let called = path.with_file_name(&process.short_name);
    patterns.iter().any(|pattern| {
        let matches = |path: &Path| {
            if pattern.text.contains('/') {
                pattern.glob.is_match(path)
            } else {
                path.file_name()
                    .is_some_and(|name| pattern.glob.is_match(name))
            }
        };
        matches(path) || matches(&called)
    })
}

fn container_matches(patterns: &[Pattern], process: &Process) -> bool {
    let Some(container) = &process.container else {
        return false;
    };
    patterns.iter().any(|pattern| {
        container.id.starts_with(&pattern.text) || pattern.glob.is_match(&container.id)
    })
}

/// As it may stand in a configuration.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.action == Action::Include {
            "include"
        } else {
            "exclude"
        })?;
        let listed = |items: &[String]| items.join(",");
        let numbers =
            |pids: &Vec<u32>| listed(&pids.iter().map(u32::to_string).collect::<Vec<_>>());
        let conditions = [
            ("pid", self.pid.as_ref().map(numbers)),
            ("executable", self.executable.as_deref().map(listed)),
            (
                "listen_port",
                self.listen_port.as_ref().map(PortSet::to_string),
            ),
            ("peer_port", self.peer_port.as_ref().map(PortSet::to_string)),
            ("container", self.container.as_deref().map(listed)),
        ];
        let mut any = false;
        for (key, value) in conditions {
            if let Some(value) = value {
                any = true;
                write!(f, " {key} {value}")?;
            }
        }
        if any {
            Ok(())
        } else {
            f.write_str(" everything")
        }
    }
}

impl PortSet {
    fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// `80`, `8000-8999`, or several of them with commas.
    fn parse(text: &str) -> Option<Self> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last && first > 0).then_some(first..=last)
        };
        text.split(',').map(range).collect::<Option<_>>().map(Self)
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", range.start())?;
            if range.end() != range.start() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for PortSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ports;
        impl<'de> Visitor<'de> for Ports {
            type Value = PortSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a port from 1 to 65535, a range such as \"8000-8999\", or a list of them",
                )
            }

            fn visit_u64<E: de::Error>(self, port: u64) -> Result<PortSet, E> {
                self.visit_str(&port.to_string())
            }

            fn visit_i64<E: de::Error>(self, port: i64) -> Result<PortSet, E> {
                Err(E::invalid_value(de::Unexpected::Signed(port), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortSet, E> {
                PortSet::parse(text)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PortSet, A::Error> {
                let mut ranges = Vec::new();
                while let Some(PortSet(more)) = list.next_element()? {
                    ranges.extend(more);
                }
                if ranges.is_empty() {
                    Err(de::Error::invalid_length(0, &self))
                } else {
                    Ok(PortSet(ranges))
                }
            }
        }
        deserializer.deserialize_any(Ports)
    }
}

impl<'de> Deserialize<'de> for Select {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            #[serde(default)]
            rules: Vec<Rule>,
            #[serde(default)]
            default: Option<Action>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Select;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of rules, or a mapping of `rules` and `default`")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Select, E> {
                Ok(Select::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Select, A::Error> {
                let rules = Vec::deserialize(value::SeqAccessDeserializer::new(list))?;
                Ok(Select {
                    rules,
                    default: None,
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Select, A::Error> {
                let Full { rules, default } =
                    Full::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(Select { rules, default })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn pids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u32>>, D::Error> {
    let what = "a process id, or a list of them";
    deserializer.deserialize_any(OneOrMany::<u32>::new(what))
}

fn globs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let what = "a pattern such as \"nginx\" or \"/opt/**\", or a list of them";
    let globs = deserializer.deserialize_any(OneOrMany::<GlobText>::new(what))?;
    Ok(globs.map(|globs| globs.into_iter().map(|GlobText(text)| text).collect()))
}

/// The text of a glob that is known to be one.
struct GlobText(String);

impl<'de> Deserialize<'de> for GlobText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = GlobText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pattern such as \"nginx\" or \"/opt/**\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<GlobText, E> {
                match Glob::new(text) {
                    Ok(_) => Ok(GlobText(text.to_owned())),
                    Err(error) => Err(E::custom(format!("not a pattern: {}", error.kind()))),
                }
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A single value stands for a list of one.
struct OneOrMany<T> {
    what: &'static str,
    items: PhantomData<T>,
}

impl<T> OneOrMany<T> {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            items: PhantomData,
        }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(vec![T::deserialize(number.into_deserializer())?]))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(vec![T::deserialize(text.into_deserializer())?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        let items: Vec<T> = Vec::deserialize(value::SeqAccessDeserializer::new(list))?;
        if items.is_empty() {
            return Err(de::Error::custom(format!(
                "an empty list matches nothing, expected {}",
                self.what
            )));
        }
        Ok(Some(items))
    }
}

#[cfg(test)]
mod tests;

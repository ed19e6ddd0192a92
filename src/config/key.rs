//! The table of keys: how each is read, checked and shown.
//!
//! One table serves the loader, `config show` and the tests, so a key that it lacks exists nowhere
//! and a key that it holds is read from every layer. `kind.rs` holds the kinds that keys are made
//! of.

use std::{fmt, ops::Range, sync::Arc};

use toml::de::DeValue;

use super::Config;

/// A value as one layer gave it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    /// From the file, with its type.
    Toml(&'a DeValue<'a>),
    /// From an environment variable or a flag: lists are separated by commas.
    Text(&'a str),
    /// From a flag that can be repeated.
    List(&'a [String]),
}

/// Why a value was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub why: String,
    /// The refused element of a list, when not the whole value is refused.
    pub element: Option<Element>,
}

/// Where in a list the refused element stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// Bytes of the file.
    Span(Range<usize>),
    Text(String),
}

impl Refused {
    pub fn because(why: &str) -> Self {
        Self { why: why.to_owned(), element: None }
    }

    pub fn not_understood() -> Self {
        Self::because("is not understood")
    }

    pub fn out_of_range() -> Self {
        Self::because("is out of range")
    }

    /// Says which element of a list is meant.
    pub fn at(self, element: Element) -> Self {
        Self { element: Some(element), ..self }
    }

    pub fn wrong_type(given: Given) -> Self {
        match given {
            Given::Toml(value) => {
                Self { why: format!("is of the wrong type ({})", value.type_str()), element: None }
            }
            _ => Self::not_understood(),
        }
    }
}

/// A list can have many elements that are refused; everything else is refused once.
impl From<Refused> for Vec<Refused> {
    fn from(refused: Refused) -> Self {
        vec![refused]
    }
}

type Read = dyn Fn(Given, &mut Config) -> Result<(), Vec<Refused>> + Send + Sync;
type Show = dyn Fn(&mut Config) -> Option<String> + Send + Sync;

/// One key of the configuration.
#[derive(Clone)]
pub(super) struct Key {
    /// `section.name`, or the name alone for a key above all sections.
    pub path: &'static str,
    /// What may be given, for messages.
    pub accepts: String,
    read: Arc<Read>,
    show: Arc<Show>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path)
    }
}

/// The place of a value in the configuration.
pub(super) type At<T> = fn(&mut Config) -> &mut T;

impl Key {
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The name of its environment variable: `NODECAST_SECTION__KEY`.
    pub fn variable(&self) -> String {
        format!("NODECAST_{}", self.path.replace('.', "__").to_uppercase())
    }

    /// Puts a value into the configuration, or leaves it as it was.
    pub fn read(&self, given: Given, config: &mut Config) -> Result<(), Vec<Refused>> {
        (self.read)(given, config)
    }

    /// The present value as TOML; nothing when it has none.
    pub fn show(&self, config: &Config) -> Option<String> {
        // The table holds one accessor per key, a mutable one; showing is rare and may copy.
        (self.show)(&mut config.clone())
    }

    /// A key of any kind.
    pub fn new<T: 'static, R: Into<Vec<Refused>>>(
        path: &'static str,
        accepts: String,
        read: impl Fn(Given) -> Result<T, R> + Send + Sync + 'static,
        show: impl Fn(&T) -> Option<String> + Send + Sync + 'static,
        at: At<T>,
    ) -> Self {
        Self {
            path,
            accepts,
            read: Arc::new(move |given, config| {
                *at(config) = read(given).map_err(R::into)?;
                Ok(())
            }),
            show: Arc::new(move |config| show(at(config))),
        }
    }
}

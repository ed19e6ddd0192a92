//! The kinds of keys: how a switch, a count, a size, a duration or a list is read and shown.

use std::{any::type_name, ops::RangeInclusive, time::Duration};

use toml::de::DeValue;

use super::{
    key::{At, Element, Given, Key, Refused},
    units,
};

impl Key {
    /// `true` or `false`.
    pub fn switch(path: &'static str, at: At<bool>) -> Self {
        let read = |given: Given| match given {
            Given::Toml(DeValue::Boolean(value)) => Ok(*value),
            Given::Text("true") => Ok(true),
            Given::Text("false") => Ok(false),
            given => Err(Refused::wrong_type(given)),
        };
        Self::new(path, "true or false".to_owned(), read, |value| Some(value.to_string()), at)
    }

    /// A whole number without unit.
    pub fn count<T: Whole>(path: &'static str, range: RangeInclusive<u64>, at: At<T>) -> Self {
        let accepts = format!("a whole number from {} to {}", range.start(), range.end());
        let read = move |given: Given| match given {
            Given::Toml(DeValue::Integer(number)) => {
                let read = i128::from_str_radix(number.as_str(), number.radix());
                read.map_err(|_| Refused::out_of_range())
            }
            Given::Text(text) => text.parse().map_err(|_| Refused::not_understood()),
            given => Err(Refused::wrong_type(given)),
        };
        let read = move |given: Given| within(read(given)?, &range);
        Self::new(path, accepts, read, |value: &T| Some(value.widen().to_string()), at)
    }

    /// A number of bytes, with or without unit.
    pub fn size<T: Whole>(path: &'static str, range: RangeInclusive<u64>, at: At<T>) -> Self {
        let accepts = format!(
            "a size from {} to {}: a number with one of {}; without unit it is bytes",
            units::show_size(*range.start()),
            units::show_size(*range.end()),
            units::SIZE_UNITS,
        );
        let read = |given: Given| match given {
            Given::Toml(DeValue::Integer(number)) => {
                let read = i128::from_str_radix(number.as_str(), number.radix());
                read.map_err(|_| Refused::out_of_range())
            }
            given => {
                let size = units::read_size(text_of(given)?);
                size.map(i128::from).ok_or_else(Refused::not_understood)
            }
        };
        let read = move |given: Given| within(read(given)?, &range);
        Self::new(
            path,
            accepts,
            read,
            |value: &T| Some(quoted(&units::show_size(value.widen()))),
            at,
        )
    }

    /// A duration with its unit.
    pub fn duration(path: &'static str, range: RangeInclusive<Duration>, at: At<Duration>) -> Self {
        let accepts = format!(
            "a duration from {} to {}: a number with one of {}, such as \"{}\"",
            units::show_duration(*range.start()),
            units::show_duration(*range.end()),
            units::DURATION_UNITS,
            units::show_duration(*range.start()),
        );
        let read = move |given: Given| {
            let duration = match given {
                Given::Toml(DeValue::Integer(_)) => Err(Refused::because("has no unit")),
                given => units::read_duration(text_of(given)?).ok_or_else(Refused::not_understood),
            }?;
            if range.contains(&duration) { Ok(duration) } else { Err(Refused::out_of_range()) }
        };
        Self::new(path, accepts, read, |value| Some(quoted(&units::show_duration(*value))), at)
    }

    /// A share, such as 0.01.
    pub fn share(path: &'static str, range: RangeInclusive<f64>, at: At<f64>) -> Self {
        let accepts = format!("a number from {} to {}", range.start(), range.end());
        let read = move |given: Given| {
            let number: Option<f64> = match given {
                Given::Toml(DeValue::Float(number)) => number.as_str().parse().ok(),
                Given::Toml(DeValue::Integer(number)) => number.as_str().parse().ok(),
                Given::Text(text) => text.parse().ok(),
                given => return Err(Refused::wrong_type(given)),
            };
            let number = number.ok_or_else(Refused::not_understood)?;
            if range.contains(&number) { Ok(number) } else { Err(Refused::out_of_range()) }
        };
        // Debug keeps the point of a whole number, which TOML needs to see a float.
        Self::new(path, accepts, read, |value| Some(format!("{value:?}")), at)
    }

    /// A text with a form of its own. What shows as an empty text has no value.
    pub fn text<T: 'static>(
        path: &'static str,
        accepts: &str,
        parse: fn(&str) -> Result<T, Refused>,
        show: fn(&T) -> String,
        at: At<T>,
    ) -> Self {
        let read = move |given: Given| parse(text_of(given)?);
        let show = move |value: &T| {
            let text = show(value);
            (!text.is_empty()).then(|| quoted(&text))
        };
        Self::new(path, accepts.to_owned(), read, show, at)
    }

    /// A text that may be absent. An empty text in a higher layer takes back a lower one.
    pub fn optional<T: 'static>(
        path: &'static str,
        accepts: &str,
        parse: fn(&str) -> Result<T, Refused>,
        show: fn(&T) -> String,
        at: At<Option<T>>,
    ) -> Self {
        let read = move |given: Given| match text_of(given)? {
            "" => Ok(None),
            text => parse(text).map(Some),
        };
        let show = move |value: &Option<T>| value.as_ref().map(|value| quoted(&show(value)));
        Self::new(path, accepts.to_owned(), read, show, at)
    }

    /// A list of texts.
    pub fn list<T: 'static>(
        path: &'static str,
        accepts: &str,
        parse: fn(&str) -> Option<T>,
        show: fn(&T) -> String,
        at: At<Vec<T>>,
    ) -> Self {
        let read = move |given: Given| match given {
            Given::Toml(DeValue::Array(elements)) => all(elements.iter().map(|element| {
                let text = text_of(Given::Toml(element.get_ref()));
                let value = text.and_then(|text| parse(text).ok_or_else(Refused::not_understood));
                value.map_err(|refused| refused.at(Element::Span(element.span())))
            })),
            Given::Text("") => Ok(Vec::new()),
            Given::Text(text) => all(text.split(',').map(|part| part_of(parse, part.trim()))),
            Given::List(parts) => all(parts.iter().map(|part| part_of(parse, part))),
            given => Err(vec![Refused::wrong_type(given)]),
        };
        let show = move |values: &Vec<T>| {
            let shown: Vec<_> = values.iter().map(|value| quoted(&show(value))).collect();
            Some(format!("[{}]", shown.join(", ")))
        };
        Self::new(path, accepts.to_owned(), read, show, at)
    }

    /// Names with a value each; as text `name=value`, separated by commas.
    pub fn table<T: 'static>(
        path: &'static str,
        accepts: &str,
        parse: fn(&str) -> Option<T>,
        show: fn(&T) -> String,
        at: At<Vec<(String, T)>>,
    ) -> Self {
        let read = move |given: Given| match given {
            Given::Toml(DeValue::Table(table)) => all(table.iter().map(|(name, value)| {
                let text = text_of(Given::Toml(value.get_ref()));
                let parsed = text.and_then(|text| parse(text).ok_or_else(Refused::not_understood));
                let parsed = parsed.map_err(|refused| refused.at(Element::Span(value.span())))?;
                Ok((name.get_ref().to_string(), parsed))
            })),
            Given::Text("") => Ok(Vec::new()),
            Given::Text(text) => all(text.split(',').map(|pair| {
                let parse_pair = |pair: &str| {
                    let (name, value) = pair.split_once('=')?;
                    Some((name.trim().to_owned(), parse(value.trim())?))
                };
                part_of(parse_pair, pair.trim())
            })),
            given => Err(vec![Refused::wrong_type(given)]),
        };
        let show = move |values: &Vec<(String, T)>| {
            let each = values.iter();
            let shown: Vec<_> = each
                .map(|(name, value)| format!("{} = {}", quoted(name), quoted(&show(value))))
                .collect();
            Some(if shown.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", shown.join(", "))
            })
        };
        Self::new(path, accepts.to_owned(), read, show, at)
    }
}

/// An unsigned integer type of a field.
pub(super) trait Whole: TryFrom<u64> + Copy + 'static {
    fn widen(self) -> u64;
}

impl Whole for u32 {
    fn widen(self) -> u64 {
        u64::from(self)
    }
}

impl Whole for u64 {
    fn widen(self) -> u64 {
        self
    }
}

impl Whole for usize {
    fn widen(self) -> u64 {
        self as u64
    }
}

fn within<T: Whole>(number: i128, range: &RangeInclusive<u64>) -> Result<T, Refused> {
    let number = u64::try_from(number).map_err(|_| Refused::out_of_range())?;
    if !range.contains(&number) {
        return Err(Refused::out_of_range());
    }
    T::try_from(number).map_err(|_| {
        Refused::because(&format!("does not fit {} on this machine", type_name::<T>()))
    })
}

fn text_of<'a>(given: Given<'a>) -> Result<&'a str, Refused> {
    match given {
        Given::Toml(DeValue::String(text)) => Ok(text),
        Given::Text(text) => Ok(text),
        given => Err(Refused::wrong_type(given)),
    }
}

/// One element of a list that was given as text.
fn part_of<T>(parse: impl Fn(&str) -> Option<T>, part: &str) -> Result<T, Refused> {
    let refused = || Refused::not_understood().at(Element::Text(part.to_owned()));
    parse(part).ok_or_else(refused)
}

/// All elements, or everything that is wrong with them.
fn all<T>(elements: impl Iterator<Item = Result<T, Refused>>) -> Result<Vec<T>, Vec<Refused>> {
    let (mut values, mut refused) = (Vec::new(), Vec::new());
    for element in elements {
        match element {
            Ok(value) => values.push(value),
            Err(why) => refused.push(why),
        }
    }
    if refused.is_empty() { Ok(values) } else { Err(refused) }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

//! Places of values in JSON that is borrowed, never copied.
//!
//! Place in the pipeline: what the rules of fills and misc events and the readers of their keys
//! share. A key that stands twice is no fault here: the last one counts, as in most readers.

use std::{fmt, ops::Range};

use serde::de::{
    self, DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Deserializer, Error, value::RawValue};

use crate::event::Address;

/// Where `part` lies in `whole`, of which it is a slice.
pub fn place_in(whole: &[u8], part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    debug_assert!(start + part.len() <= whole.len(), "a part lies in its whole");
    start..start + part.len()
}

/// The text between the quotes of a string, as it is written; `None` for any other value.
pub fn text_of(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

/// The address that a value is; escapes are understood.
pub fn address_of(value: &RawValue) -> Option<Address> {
    let text = text_of(value)?;
    // Nobody escapes hexadecimal digits, but JSON allows it.
    if text.contains('\\') {
        let decoded: String = serde_json::from_str(value.get()).ok()?;
        return Address::parse(decoded.as_bytes()).ok();
    }
    Address::parse(text.as_bytes()).ok()
}

/// Reads bytes as UTF-8: serde_json does not look at the bytes of strings that it skips.
pub fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(de::Error::custom)
}

/// Finds the named members of an object and proves the rest of it valid.
pub fn members<'j, const N: usize>(
    json: &'j str,
    names: [&str; N],
) -> Result<[Option<&'j RawValue>; N], Error> {
    struct Members<'n, const N: usize>([&'n str; N]);

    impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
        type Value = [Option<&'de RawValue>; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some(wanted) = map.next_key_seed(WhichOf(&self.0))? {
                match wanted {
                    Some(ordinal) => found[ordinal] = Some(map.next_value()?),
                    None => {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
            }
            Ok(found)
        }
    }

    let mut json = Deserializer::from_str(json);
    let found = json.deserialize_map(Members(names))?;
    json.end()?;
    Ok(found)
}

/// Tells which of some names a key is.
struct WhichOf<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for WhichOf<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for WhichOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| *name == key))
    }
}

/// The name and the value of an object's only member; `None` for any other value.
pub fn only_member(json: &RawValue) -> Option<(&RawValue, &RawValue)> {
    struct OnlyMember;

    impl<'de> Visitor<'de> for OnlyMember {
        type Value = Option<(&'de RawValue, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let member = map.next_entry()?;
            let more = map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some();
            if more {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
            Ok(member)
        }
    }

    Deserializer::from_str(json.get()).deserialize_map(OnlyMember).ok().flatten()
}

/// Calls `found` for every string of a value that is an address, wherever it stands: keys too.
pub fn each_address(json: &str, found: &mut dyn FnMut(Address)) -> Result<(), Error> {
    let mut json = Deserializer::from_str(json);
    EachAddress(found).deserialize(&mut json)?;
    json.end()
}

struct EachAddress<'f>(&'f mut dyn FnMut(Address));

impl<'de> DeserializeSeed<'de> for EachAddress<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EachAddress<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        if let Ok(address) = Address::parse(text.as_bytes()) {
            (self.0)(address);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        while values.next_element_seed(EachAddress(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while members.next_key_seed(EachAddress(self.0))?.is_some() {
            members.next_value_seed(EachAddress(self.0))?;
        }
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, _value: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, _value: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, _value: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, _value: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

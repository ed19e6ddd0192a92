//! Exact sums of decimals, for the few that the official protocol asks for.
//!
//! The crate rounds where a result does not fit its 28 digits, and says so by a smaller number of decimal
//! places only. Here such a result is none.

use std::fmt;

use rust_decimal::{Decimal, RoundingStrategy};

/// Reads `-12.50`; `None` for other forms and for what does not fit.
pub fn read(text: &str) -> Option<Decimal> {
    Decimal::from_str_exact(text).ok()
}

/// `None` where the sum would be rounded.
pub fn plus(one: Decimal, other: Decimal) -> Option<Decimal> {
    let sum = one.checked_add(other)?;
    let is_exact =
        one.is_zero() || other.is_zero() || sum.scale() == one.scale().max(other.scale());
    is_exact.then_some(sum)
}

/// `None` where the product would be rounded.
pub fn times(one: Decimal, other: Decimal) -> Option<Decimal> {
    let product = one.checked_mul(other)?;
    let is_exact =
        one.is_zero() || other.is_zero() || product.scale() == one.scale() + other.scale();
    is_exact.then_some(product)
}

/// Divides and rounds to some decimal places, halves away from zero; `None` also when `by` is zero.
pub fn divided(of: Decimal, by: Decimal, places: u32) -> Option<Decimal> {
    let quotient = of.checked_div(by)?;
    Some(quotient.round_dp_with_strategy(places, RoundingStrategy::MidpointAwayFromZero))
}

/// A decimal as nodes write them: no trailing zeros, but at least one digit behind the point.
pub struct Written(pub Decimal);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let normal = self.0.normalize();
        let places = normal.scale().max(1) as usize;
        // There is no negative zero on the wire.
        if normal.is_zero() { f.write_str("0.0") } else { write!(f, "{normal:.places$}") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        read(text).unwrap()
    }

    fn written(decimal: Decimal) -> String {
        Written(decimal).to_string()
    }

    #[test]
    fn decimals_are_written_as_nodes_write_them() {
        for (text, as_written) in [
            ("100.0", "100.0"),
            ("100", "100.0"),
            ("-0.25686", "-0.25686"),
            ("0.50", "0.5"),
            ("-0.0", "0.0"),
            ("12817942.2417900003", "12817942.2417900003"),
        ] {
            assert_eq!(written(decimal(text)), as_written);
        }
    }

    #[test]
    fn what_is_no_decimal_is_refused() {
        for text in ["", "-", ".", "1e5", "1.2.3", "--1", "NaN", "1 ", "٣"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&"9".repeat(40)), None);
        assert_eq!(read(&format!("0.{}1", "0".repeat(28))), None, "it is not rounded either");
    }

    #[test]
    fn sums_and_products_are_exact_or_none() {
        assert_eq!(written(plus(decimal("0.1"), decimal("0.2")).unwrap()), "0.3");
        assert_eq!(written(plus(decimal("0.00"), decimal("0.2")).unwrap()), "0.2");
        assert_eq!(written(times(decimal("-1.5"), decimal("0.02")).unwrap()), "-0.03");
        assert!(times(decimal("0.0"), decimal("0.00002")).unwrap().is_zero());
        // The crate rounds both.
        let (large, fine) = (decimal("99999999999999999999"), decimal("0.0000000001"));
        assert_eq!(large.checked_add(fine).map(|sum| sum.scale()), Some(8));
        assert_eq!(plus(large, fine), None);
        let fine = decimal("0.123456789012345");
        assert_eq!(fine.checked_mul(fine).map(|product| product.scale()), Some(28));
        assert_eq!(times(fine, fine), None);
        assert_eq!(times(large, large), None);
    }

    #[test]
    fn a_quotient_is_rounded_halves_away_from_zero() {
        for (of, by, quotient) in [
            ("10.0", "4.0", "2.5"),
            ("2.0", "3.0", "0.67"),
            ("1.0", "3.0", "0.33"),
            ("0.05", "2.0", "0.03"),
            ("-0.05", "2.0", "-0.03"),
            ("-1.0", "3.0", "-0.33"),
        ] {
            let found = divided(decimal(of), decimal(by), 2).unwrap();
            assert_eq!(written(found), quotient, "{of}");
        }
        assert_eq!(divided(decimal("1.0"), Decimal::ZERO, 2), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(digits: i64, places in 0u32..=20) {
            let decimal = Decimal::new(digits, places);

            prop_assert_eq!(read(&written(decimal)), Some(decimal));
        }

        #[test]
        fn a_sum_or_a_product_that_is_given_is_that_of_whole_numbers(
            one: i64, other: i64, places in 0u32..=28, fewer in 0u32..=28,
        ) {
            let fewer = fewer.min(places);
            let (finer, coarser) = (Decimal::new(one, places), Decimal::new(other, fewer));

            if let Some(sum) = plus(finer, coarser) {
                let aligned = 10i128.pow(places - fewer).checked_mul(i128::from(other)).unwrap();
                prop_assert_eq!(sum, Decimal::from_i128_with_scale(i128::from(one) + aligned, places));
            }
            if let Some(product) = times(finer, coarser) && !product.is_zero() {
                let digits = i128::from(one) * i128::from(other);
                prop_assert_eq!(product, Decimal::from_i128_with_scale(digits, places + fewer));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            if let Some(decimal) = read(&text) {
                prop_assert!(!written(decimal).is_empty());
            }
        }
    }
}

//! Amounts of CPU, memory and disk, as Kubernetes writes them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

/// Longest amount that is taken.
pub(crate) const QUANTITY_MAX: usize = 32;

/// Such as `500m`, `2`, `1.5Gi`. Kept as written; YAML may write it as a whole number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl Quantity {
    /// Its value in the unit without a suffix (CPUs, bytes); `None` when it is no quantity.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        if self.0.len() > QUANTITY_MAX {
            return None;
        }
        let digits = self.0.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let suffix = self.0.get(digits.len()..)?;
        let mut parts = digits.splitn(2, '.');
        let plain = parts.all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()));
        let number: f64 = digits.parse().ok().filter(|_| plain)?;
        let factor = match suffix {
            "" => 1.0,
            "m" => 1e-3,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            "T" => 1e12,
            "Ki" => 1024.0,
            "Mi" => 1024.0 * 1024.0,
            "Gi" => 1024.0 * 1024.0 * 1024.0,
            "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            _ => return None,
        };
        Some(number * factor)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 500m or 1Gi")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }

            // The API server takes strings and whole numbers; `2.0` reaches it as 2.
            fn visit_f64<E: Error>(self, number: f64) -> Result<Quantity, E> {
                if number.fract() == 0.0 {
                    return Ok(Quantity(number.to_string()));
                }
                Err(E::custom(format_args!(
                    "a quantity with a fraction is written as a string: \"{number}\", or {}m",
                    number * 1e3
                )))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// What a container asks for and may use, by resource (`cpu`, `memory`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may not exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let value = |text: &str| Quantity(text.to_owned()).value();
        assert_eq!(value("500m"), Some(0.5));
        assert_eq!(value("10Gi"), Some(10.0 * 1024.0 * 1024.0 * 1024.0));
        assert_eq!(value("1.5"), Some(1.5));
        for wrong in ["", "Gi", "-1", "1e3", "1GB", "1 Gi", "inf", "NaN", "0x1", ".5", "1.", "1.2.3"] {
            assert_eq!(value(wrong), None, "{wrong}");
        }
    }
}

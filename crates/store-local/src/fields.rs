//! Integers, text, bytes, optional fields and lists of a record, written and read.

use brisq_model::{UnixMs, WorkerName};
use bytes::Bytes;

const VERSION: u8 = 1;
/// Longest list that is believed; longer ones are damage.
const LIST_MAX: u32 = 1_000;

/// Why bytes are no record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub &'static str);

pub type Read<T> = Result<T, Damage>;

#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn versioned() -> Self {
        Self(vec![VERSION])
    }

    pub fn u8(&mut self, n: u8) {
        self.0.push(n);
    }

    pub fn u16(&mut self, n: u16) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub fn u32(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub fn u64(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
    }

    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.u8(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub fn list<T>(&mut self, values: &[T], write: impl Fn(&mut Self, &T)) {
        self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        for value in values {
            write(self, value);
        }
    }

    /// A field that most records lack: at their end, behind its tag, those with lower tags before it.
    pub fn tagged(&mut self, tag: u8, value: Option<u64>) {
        if let Some(value) = value {
            self.u8(tag);
            self.u64(value);
        }
    }
}

pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn versioned(bytes: &'a [u8]) -> Read<Self> {
        let mut reader = Self(bytes);
        match reader.u8()? {
            VERSION => Ok(reader),
            _ => Err(Damage("an unknown version")),
        }
    }

    pub fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damage("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Damage("it ends early"))
    }

    pub fn u8(&mut self) -> Read<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn ms(&mut self) -> Read<UnixMs> {
        self.u64().map(UnixMs)
    }

    pub fn slice(&mut self) -> Read<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    pub fn bytes(&mut self) -> Read<Bytes> {
        self.slice().map(Bytes::copy_from_slice)
    }

    pub fn text(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.slice()?).map_err(|_| Damage("text is not UTF-8"))
    }

    pub fn worker(&mut self) -> Read<WorkerName> {
        WorkerName::new(self.text()?).map_err(|_| Damage("a worker's name"))
    }

    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Damage("an optional field")),
        }
    }

    pub fn tagged(&mut self, tag: u8) -> Read<Option<u64>> {
        if self.is_next(tag)? { self.u64().map(Some) } else { Ok(None) }
    }

    /// Whether a field that most records lack comes next; its tag is read then.
    pub fn is_next(&mut self, tag: u8) -> Read<bool> {
        let is_next = self.0.first() == Some(&tag);
        if is_next {
            self.u8()?;
        }
        Ok(is_next)
    }

    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let length = self.u32()?;
        if length > LIST_MAX {
            return Err(Damage("a list is too long"));
        }
        (0..length).map(|_| read(self)).collect()
    }
}

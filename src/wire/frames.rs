//! A message as ZeroMQ carries it: one or more frames of bytes.

/// The frames of one message, in one piece of memory.
///
/// ```
/// use zmqlocker::wire::Frames;
///
/// let frames = Frames::from_iter([b"one".as_slice(), b"", b"three"]);
/// assert_eq!(frames.len(), 3);
/// assert_eq!(frames.get(1), Some(b"".as_slice()));
/// assert_eq!(frames.get(3), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where each frame ends in `bytes`.
    ends: Vec<usize>,
}

impl Frames {
    /// Adds a frame at the end.
    pub fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    /// Keeps the first `count` frames.
    pub fn truncate(&mut self, count: usize) {
        self.ends.truncate(count);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// Forgets all frames and keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// How many frames there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes the frames have together.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// One frame, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.bytes[start..end])
    }

    /// The frames, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> FromIterator<&'a [u8]> for Frames {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(frames: I) -> Self {
        let mut all = Self::default();
        for frame in frames {
            all.push(frame);
        }
        all
    }
}

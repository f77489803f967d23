//! Who holds permits of a key, by the numbers of their leases.

use crate::engine::grant::GrantId;

/// The leases of a key. Nearly always there is one at most, which needs no memory of its own.
#[derive(Debug, Default)]
pub(super) enum Holders {
    #[default]
    None,
    One(GrantId, u64),
    Many(Box<Many>),
}

#[derive(Debug, Default)]
pub(super) struct Many {
    held: u64,
    /// In their order.
    leases: Vec<GrantId>,
}

impl Holders {
    pub(super) fn add(&mut self, id: GrantId, permits: u64) {
        match self {
            Self::None => *self = Self::One(id, permits),
            Self::One(first, held) => {
                let mut many = Many { held: *held, leases: vec![*first] };
                many.add(id, permits);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => many.add(id, permits),
        }
    }

    pub(super) fn remove(&mut self, id: GrantId, permits: u64) {
        match self {
            Self::One(only, _) if *only == id => *self = Self::None,
            Self::None | Self::One(..) => {}
            Self::Many(many) => {
                if let Ok(place) = many.leases.binary_search(&id) {
                    many.leases.remove(place);
                    many.held = many.held.saturating_sub(permits);
                }
                if many.leases.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    /// How many permits are held.
    pub(super) fn held(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::One(_, held) => *held,
            Self::Many(many) => many.held,
        }
    }

    /// The leases, in their order.
    pub(super) fn leases(&self) -> &[GrantId] {
        match self {
            Self::None => &[],
            Self::One(id, _) => std::slice::from_ref(id),
            Self::Many(many) => &many.leases,
        }
    }
}

impl Many {
    fn add(&mut self, id: GrantId, permits: u64) {
        self.held = self.held.saturating_add(permits);
        // Nearly always the last: only what an earlier run granted has a lower number.
        let place = self.leases.partition_point(|other| *other < id);
        self.leases.insert(place, id);
    }
}

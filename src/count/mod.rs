//! How often, within findtime: an exact sliding window for each client and jail.
//!
//! One table for all jails, keyed by client, so that a line that counts for several jails costs one look-up. The hits of a
//! client's first moments stand in the table itself; longer windows in rings of their own. Both are bounded ([`Bounds`]); at
//! a bound the client that was quiet longest is forgotten, and counted if he still had hits that mattered.

pub mod estimate;
pub mod keyed;
pub mod logged;

use lru::LruCache;

use crate::client::Client;
use crate::hit::{Arrival, JailId};
use crate::sys::bytes::bring;

/// What the table may grow to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Clients kept. A flood from more addresses than this within one findtime is not countable by address anyway. At
    /// about 230 bytes each, 450,000 are 105 MB; a web server with fewer never pays for it. The hash table has 2^20 places
    /// then, of which 7/8 may be taken: where no more than half of these are in use, places worn out by clients that were
    /// forgotten are swept, else all is moved to a table of twice the size (hashbrown, `reserve_rehash`).
    pub clients: usize,
    /// Stamps in rings of all clients together, four bytes each: 80,000 clients with a full ring of 100.
    pub stamps: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            clients: 450_000,
            stamps: 8_000_000,
        }
    }
}

/// The table.
///
/// Memory is what a hit waits for: with 50,000 clients nothing of a client is in a cache. So a batch of hits goes
/// through in steps, each of which has what the next one needs brought for all clients side by side:
/// [`call`](Self::call), [`place`](Self::place), [`visit`](Self::visit).
#[derive(Debug)]
pub struct Counter {
    table: LruCache<Client, Known>,
    /// The front of the table: whom it found last. Requests come in bursts.
    recent: Box<[Seat]>,
    windows: Vec<Slots>,
    /// Places in `windows` that nobody has.
    free: Vec<u32>,
    /// Places that the batch at hand may still name; free from the next one on.
    freed: Vec<u32>,
    /// By jail, milliseconds.
    findtimes: Vec<u32>,
    bounds: Bounds,
    /// Stamps that rings have room for.
    stamps: usize,
    evicted: u64,
    /// What stamps count from.
    base: u64,
    now: u32,
}

/// Where a client's windows are; good until [`Counter::settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

/// What the table knows of a client.
#[derive(Debug)]
struct Known {
    place: u32,
    /// When it was last moved to the front of the table.
    touched: u32,
}

/// A client as the table knows it.
#[derive(Clone, Copy, Debug)]
struct Recent {
    client: Client,
    place: u32,
    touched: u32,
}

/// Clients found without the table: 512 KiB. With a quarter of them a line of 50,000 clients' takes a hundredth to a fiftieth
/// longer.
const RECENT: usize = 16_384;

/// Where among the recent ones a client would be.
#[inline]
fn recent_place(client: Client) -> usize {
    client.strewn() as usize % RECENT
}

/// Never in two lines of cache.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Seat(Option<Recent>);

/// Places that wait for the end of a batch to be free, at the most for which there is room from the start; a batch has some
/// seventy hits.
const FREED: usize = 4096;

/// Stamps are 32 bits of milliseconds, 49 days. Before they run over, all are moved back so that this many are behind now:
/// more than the longest findtime that config lets through, 28 days.
const KEPT_MS: u64 = 35 * 86_400_000;
/// How old an entry's place in the order of use may be, milliseconds. To move an entry to the front costs more than to
/// find it, as its neighbours are in no cache; and whoever is busy is never the one that was quiet longest.
const TOUCH_MS: u32 = 1000;

/// What one client did, in two neighbouring lines of cache. Three jails have room here, which is what nearly every client
/// needs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slots {
    here: [Slot; 3],
    /// Sorted by jail.
    #[allow(clippy::box_collection, reason = "8 bytes in every client, not 24")]
    more: Option<Box<Vec<Slot>>>,
}

/// One client's window of one jail: 40 bytes. Stamps are in the order of time.
#[derive(Debug, Default)]
#[allow(clippy::box_collection, reason = "8 bytes in every slot, not 24 or 32")]
enum Slot {
    #[default]
    Empty,
    Few {
        jail: JailId,
        moments: Moments,
    },
    Many {
        jail: JailId,
        ring: Ring,
    },
    /// Of a jail with `distinct`: when each value was last seen.
    Distinct {
        jail: JailId,
        seen: Box<Vec<(u32, u64)>>,
    },
}

/// A short window, the latest moment first. Lines come in batches, so the hits of one visitor mostly share a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    /// When hits came; beyond the earliest it stands again.
    at: [u32; FEW],
    /// How many hits came until then; 0: there is no such moment.
    sums: [u16; FEW],
}

const FEW: usize = 6;

/// A longer window. The stamps themselves are written, and read only when the oldest falls out: what is asked at every hit
/// stands beside their number.
#[derive(Debug)]
struct Ring {
    first: u32,
    last: u32,
    /// Where the first stands.
    head: u32,
    len: u32,
    stamps: Box<[u32]>,
}

/// Stamps that a ring has room for at first.
const RING: usize = 16;
/// A value of a `distinct` jail takes 16 bytes, a stamp 4.
const STAMPS_A_VALUE: usize = 4;

impl Counter {
    /// `findtimes` by jail, in milliseconds, at most 28 days.
    #[must_use]
    pub fn new(findtimes: Vec<u32>, bounds: Bounds) -> Self {
        let mut windows = Vec::new();
        // Room that nobody touched is not memory yet, and where it is had from the start nothing is ever copied to a larger
        // one. A host that counts it all the same may refuse it.
        windows.try_reserve_exact(bounds.clients + FREED).ok();
        Self {
            table: LruCache::unbounded(),
            recent: vec![Seat::default(); RECENT].into_boxed_slice(),
            windows,
            free: Vec::new(),
            freed: Vec::new(),
            findtimes,
            bounds,
            stamps: 0,
            evicted: 0,
            base: 0,
            now: 0,
        }
    }

    /// Clients in the table.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.table.len()
    }

    /// Clients forgotten at a bound although they had hits within findtime.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Has brought what [`place`](Self::place) looks at first.
    #[inline]
    pub fn call(&self, client: Client) {
        self.recent.get(recent_place(client)).map(bring);
    }

    /// Finds a client, or makes room for one, and has its windows brought. `now` never goes back, and is the moment of the
    /// visits that follow.
    #[inline]
    pub fn place(&mut self, client: Client, now: Arrival) -> Place {
        let now = self.stamp(now);
        self.now = now;
        let place = match self.recent.get(recent_place(client)) {
            Some(Seat(Some(recent)))
                if recent.client == client && now.saturating_sub(recent.touched) < TOUCH_MS =>
            {
                recent.place
            }
            _ => self.look_up(client, now),
        };
        self.windows.get(place as usize).map(bring);
        Place(place)
    }

    /// The place of a client that is not among the recent ones.
    #[inline(never)]
    fn look_up(&mut self, client: Client, now: u32) -> u32 {
        let (place, touched) = self.find(client, now);
        if let Some(recent) = self.recent.get_mut(recent_place(client)) {
            *recent = Seat(Some(Recent {
                client,
                place,
                touched,
            }));
        }
        place
    }

    /// A client's place and when it was touched.
    fn find(&mut self, client: Client, now: u32) -> (u32, u32) {
        if let Some(known) = self.table.peek(&client)
            && now.saturating_sub(known.touched) < TOUCH_MS
        {
            return (known.place, known.touched);
        }
        if let Some(known) = self.table.get_mut(&client) {
            known.touched = now;
            return (known.place, now);
        }
        while self.table.len() >= self.bounds.clients || self.stamps > self.bounds.stamps {
            if !self.evict(now) {
                break;
            }
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.windows.push(Slots::default());
            u32::try_from(self.windows.len() - 1).unwrap_or(u32::MAX)
        });
        self.table.put(
            client,
            Known {
                place,
                touched: now,
            },
        );
        (place, now)
    }

    /// A client's windows, to count hits of one line in.
    pub fn visit(&mut self, Place(place): Place) -> Visit<'_> {
        Visit {
            slots: self.windows.get_mut(place as usize),
            findtimes: &self.findtimes,
            stamps: &mut self.stamps,
            now: self.now,
        }
    }

    /// Other jails from now on: `to` has each jail's new number, `None` for one that is gone; `findtimes` by new number. What
    /// was counted stays. To be called between batches.
    pub fn renew(&mut self, to: &[Option<JailId>], findtimes: Vec<u32>) {
        self.findtimes = findtimes;
        // What a reload is mostly: then half a million clients need not be gone through.
        let same =
            |(old, new): (usize, &Option<JailId>)| new.is_some_and(|new| usize::from(new) == old);
        if to.iter().enumerate().all(same) {
            return;
        }
        for slots in &mut self.windows {
            let before: usize = slots.all().map(Slot::room).sum();
            slots.renew(to);
            let after: usize = slots.all().map(Slot::room).sum();
            self.stamps = (self.stamps + after).saturating_sub(before);
        }
    }

    /// The end of a batch: no place is kept.
    pub fn settle(&mut self) {
        while let Some(place) = self.freed.pop() {
            // A hit of the batch may have come after its client was forgotten.
            if let Some(slots) = self.windows.get_mut(place as usize) {
                let room: usize = slots.all().map(Slot::room).sum();
                self.stamps = self.stamps.saturating_sub(room);
                *slots = Slots::default();
            }
            self.free.push(place);
        }
    }

    fn evict(&mut self, now: u32) -> bool {
        let Some((client, known)) = self.table.pop_lru() else {
            return false;
        };
        if let Some(recent) = self.recent.get_mut(recent_place(client)) {
            *recent = Seat::default();
        }
        self.freed.push(known.place);
        let Some(slots) = self
            .windows
            .get_mut(known.place as usize)
            .map(std::mem::take)
        else {
            return false;
        };
        let mut mattered = false;
        for slot in slots.all() {
            self.stamps = self.stamps.saturating_sub(slot.room());
            let findtime = slot
                .jail()
                .and_then(|jail| self.findtimes.get(usize::from(jail)));
            mattered |= slot
                .latest()
                .zip(findtime)
                .is_some_and(|(at, findtime)| now.saturating_sub(at) <= *findtime);
        }
        self.evicted += u64::from(mattered);
        true
    }

    /// `now` as a stamp.
    fn stamp(&mut self, now: Arrival) -> u32 {
        if self.table.is_empty() {
            self.base = now.0;
        }
        let since = now.0.saturating_sub(self.base);
        u32::try_from(since).unwrap_or_else(|_| {
            let back = since - KEPT_MS;
            let back = u32::try_from(back).unwrap_or(u32::MAX);
            self.base = now.0 - KEPT_MS;
            self.recent.fill(Seat::default());
            for (_, known) in &mut self.table {
                known.touched = known.touched.saturating_sub(back);
            }
            for slots in &mut self.windows {
                slots.move_back(back);
            }
            u32::try_from(KEPT_MS).unwrap_or(u32::MAX)
        })
    }
}

/// One client at one moment.
pub struct Visit<'c> {
    /// Always there: places come from `place`.
    slots: Option<&'c mut Slots>,
    findtimes: &'c [u32],
    stamps: &'c mut usize,
    now: u32,
}

impl Visit<'_> {
    /// Counts a hit for `jail` and returns how many the client has within findtime (a hit exactly findtime old is one),
    /// at most `maxretry`: what is beyond it changes nothing. With `distinct`: how many different values.
    #[inline]
    pub fn add(&mut self, jail: JailId, weight: u32, distinct: Option<u64>, maxretry: u32) -> u32 {
        let findtime = self.findtimes.get(usize::from(jail)).copied().unwrap_or(0);
        let oldest = self.now.saturating_sub(findtime);
        if weight == 1
            && distinct.is_none()
            && let Some(slots) = &mut self.slots
            && let Some(slot) = slots.here.iter_mut().find(|slot| slot.is_of(jail))
            && let Some(count) = slot.push_one(self.now, oldest, maxretry)
        {
            return count;
        }
        self.add_any(jail, weight, distinct, maxretry, oldest)
    }

    #[inline(never)]
    fn add_any(
        &mut self,
        jail: JailId,
        weight: u32,
        distinct: Option<u64>,
        maxretry: u32,
        oldest: u32,
    ) -> u32 {
        let Some(slots) = &mut self.slots else {
            return 0;
        };
        let slot = slots.of(jail);
        let before = slot.room();
        let count = match distinct {
            Some(value) => slot.see(jail, value, self.now, oldest, maxretry),
            None => slot.push(jail, weight.min(maxretry), self.now, oldest, maxretry),
        };
        *self.stamps = (*self.stamps + slot.room()).saturating_sub(before);
        count
    }

    /// After a ban: the window begins anew.
    pub fn forget(&mut self, jail: JailId) {
        let Some(slots) = &mut self.slots else { return };
        let slot = slots.of(jail);
        *self.stamps = self.stamps.saturating_sub(slot.room());
        *slot = Slot::few(jail);
    }
}

impl Slots {
    #[allow(
        clippy::indexing_slicing,
        reason = "the place was found or made on the line before"
    )]
    fn of(&mut self, jail: JailId) -> &mut Slot {
        let Self { here, more, .. } = self;
        if let Some(place) = here.iter().position(|slot| slot.jail() == Some(jail)) {
            return &mut here[place];
        }
        let found = more
            .as_ref()
            .and_then(|more| more.binary_search_by_key(&Some(jail), Slot::jail).ok());
        match (found, here.iter().position(|slot| slot.jail().is_none())) {
            (None, Some(place)) => &mut here[place],
            (found, _) => {
                let more = more.get_or_insert_default();
                let place = found.unwrap_or_else(|| {
                    let place = more.partition_point(|slot| slot.jail() < Some(jail));
                    more.insert(place, Slot::few(jail));
                    place
                });
                &mut more[place]
            }
        }
    }

    fn renew(&mut self, to: &[Option<JailId>]) {
        let renew = |slot: &mut Slot| {
            let new = slot.jail().and_then(|old| *to.get(usize::from(old))?);
            match (new, &mut *slot) {
                (
                    Some(new),
                    Slot::Few { jail, .. } | Slot::Many { jail, .. } | Slot::Distinct { jail, .. },
                ) => *jail = new,
                (None, _) | (_, Slot::Empty) => *slot = Slot::Empty,
            }
        };
        self.here.iter_mut().for_each(renew);
        if let Some(more) = &mut self.more {
            more.iter_mut().for_each(renew);
            more.retain(|slot| slot.jail().is_some());
            more.sort_unstable_by_key(Slot::jail);
        }
    }

    fn all(&self) -> impl Iterator<Item = &Slot> {
        self.here
            .iter()
            .chain(self.more.iter().flat_map(|more| more.iter()))
    }

    fn move_back(&mut self, back: u32) {
        for slot in self
            .here
            .iter_mut()
            .chain(self.more.iter_mut().flat_map(|more| more.iter_mut()))
        {
            match slot {
                Slot::Empty => {}
                Slot::Few { moments, .. } => moments.move_back(back),
                Slot::Many { ring, .. } => ring.move_back(back),
                Slot::Distinct { seen, .. } => seen
                    .iter_mut()
                    .for_each(|(at, _)| *at = at.saturating_sub(back)),
            }
        }
    }
}

impl Moments {
    fn latest(&self) -> Option<u32> {
        let [at, ..] = self.at;
        (self.count() > 0).then_some(at)
    }

    fn count(&self) -> u32 {
        let [sum, ..] = self.sums;
        sum.into()
    }

    fn has_before(&self, oldest: u32) -> bool {
        let [.., earliest] = self.at;
        earliest < oldest && self.count() > 0
    }

    fn drop_before(&mut self, oldest: u32) {
        if self.has_before(oldest) {
            let young = self.each().filter(|(at, _)| *at >= oldest);
            *self = young.fold(Self::default(), |mut left, (at, hits)| {
                left.add(hits, at);
                left
            });
        }
    }

    /// `None`: there is no room, and nothing was added.
    #[inline]
    fn add(&mut self, hits: u16, now: u32) -> Option<()> {
        let ([at, ..], [before, .., earliest]) = (self.at, self.sums);
        let sum = before.checked_add(hits)?;
        if before == 0 {
            self.at = [now; FEW];
        } else if at != now {
            if earliest > 0 {
                return None;
            }
            self.at.copy_within(..FEW - 1, 1);
            self.sums.copy_within(..FEW - 1, 1);
        }
        let ([at, ..], [latest, ..]) = (&mut self.at, &mut self.sums);
        (*at, *latest) = (now, sum);
        Some(())
    }

    /// When hits came and how many, the earliest first.
    fn each(&self) -> impl Iterator<Item = (u32, u16)> {
        let until = self.at.into_iter().zip(self.sums).rev();
        let mut before = 0;
        until.filter_map(move |(at, sum)| {
            let hits = sum - before;
            before = sum;
            (hits > 0).then_some((at, hits))
        })
    }

    fn move_back(&mut self, back: u32) {
        for at in &mut self.at {
            *at = at.saturating_sub(back);
        }
    }
}

impl Ring {
    /// At most `max` stamps, the latest.
    fn of(moments: &Moments, max: usize) -> Self {
        let mut ring = Self {
            first: 0,
            last: 0,
            head: 0,
            len: 0,
            stamps: vec![0; RING].into_boxed_slice(),
        };
        for (at, times) in moments.each() {
            for _ in 0..times {
                ring.push(at, 0, max);
            }
        }
        ring
    }

    /// Adds a stamp, after those older than `oldest` have fallen out, and at `max` the oldest.
    fn push(&mut self, now: u32, oldest: u32, max: usize) {
        while self.len > 0 && (self.first < oldest || self.len as usize >= max) {
            self.pop();
        }
        if self.len as usize == self.stamps.len() {
            self.grow();
        }
        if self.len == 0 {
            self.first = now;
        }
        let place = self.place(self.len);
        if let Some(stamp) = self.stamps.get_mut(place) {
            *stamp = now;
        }
        self.last = now;
        self.len += 1;
    }

    fn push_one(&mut self, now: u32, oldest: u32, max: u32) -> Option<u32> {
        let fits = self.len > 0 && self.first >= oldest && self.len < max;
        if !fits || self.len as usize == self.stamps.len() {
            return None;
        }
        let place = self.place(self.len);
        *self.stamps.get_mut(place)? = now;
        self.last = now;
        self.len += 1;
        Some(self.len)
    }

    fn pop(&mut self) {
        self.head = u32::try_from(self.place(1)).unwrap_or(0);
        self.len -= 1;
        self.first = self.stamps.get(self.head as usize).copied().unwrap_or(0);
    }

    /// Where the `n`th stands.
    fn place(&self, n: u32) -> usize {
        let place = self.head as usize + n as usize;
        if place < self.stamps.len() {
            place
        } else {
            place - self.stamps.len()
        }
    }

    fn grow(&mut self) {
        self.stamps.rotate_left(self.head as usize);
        self.head = 0;
        let mut larger = vec![0; self.stamps.len() * 2].into_boxed_slice();
        for (to, from) in larger.iter_mut().zip(&self.stamps) {
            *to = *from;
        }
        self.stamps = larger;
    }

    fn move_back(&mut self, back: u32) {
        for stamp in self
            .stamps
            .iter_mut()
            .chain([&mut self.first, &mut self.last])
        {
            *stamp = stamp.saturating_sub(back);
        }
    }
}

impl Slot {
    fn few(jail: JailId) -> Self {
        Self::Few {
            jail,
            moments: Moments::default(),
        }
    }

    #[inline]
    fn is_of(&self, id: JailId) -> bool {
        match self {
            Self::Empty => false,
            Self::Few { jail, .. } | Self::Many { jail, .. } | Self::Distinct { jail, .. } => {
                *jail == id
            }
        }
    }

    fn is_distinct(&self) -> bool {
        matches!(self, Self::Distinct { .. })
    }

    fn jail(&self) -> Option<JailId> {
        match self {
            Self::Empty => None,
            Self::Few { jail, .. } | Self::Many { jail, .. } | Self::Distinct { jail, .. } => {
                Some(*jail)
            }
        }
    }

    /// Room outside the table, in stamps.
    fn room(&self) -> usize {
        match self {
            Self::Empty | Self::Few { .. } => 0,
            Self::Many { ring, .. } => ring.stamps.len(),
            Self::Distinct { seen, .. } => seen.capacity() * STAMPS_A_VALUE,
        }
    }

    fn latest(&self) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::Few { moments, .. } => moments.latest(),
            Self::Many { ring, .. } => Some(ring.last),
            Self::Distinct { seen, .. } => seen.iter().map(|(at, _)| *at).max(),
        }
    }

    /// What nearly every hit is: one more, while nothing is too old and there is room. `None`: it is not so.
    #[inline]
    fn push_one(&mut self, now: u32, oldest: u32, maxretry: u32) -> Option<u32> {
        match self {
            Self::Few { moments, .. } => {
                if moments.has_before(oldest) {
                    return None;
                }
                moments.add(1, now)?;
                Some(moments.count().min(maxretry))
            }
            Self::Many { ring, .. } => ring.push_one(now, oldest, maxretry),
            Self::Empty | Self::Distinct { .. } => None,
        }
    }

    fn push(&mut self, jail: JailId, times: u32, now: u32, oldest: u32, maxretry: u32) -> u32 {
        if self.is_distinct() || self.latest().is_none_or(|latest| latest < oldest) {
            *self = Self::few(jail);
        }
        let max = maxretry as usize;
        if let Self::Few { moments, .. } = self {
            moments.drop_before(oldest);
            let added = u16::try_from(times)
                .ok()
                .and_then(|times| moments.add(times, now));
            if added.is_some() {
                return moments.count().min(maxretry);
            }
            *self = Self::Many {
                jail,
                ring: Ring::of(moments, max),
            };
        }
        let Self::Many { ring, .. } = self else {
            return 0;
        };
        for _ in 0..times {
            ring.push(now, oldest, max);
        }
        ring.len.min(maxretry)
    }

    fn see(&mut self, jail: JailId, value: u64, now: u32, oldest: u32, maxretry: u32) -> u32 {
        if !self.is_distinct() {
            *self = Self::Distinct {
                jail,
                seen: Box::new(Vec::with_capacity(1)),
            };
        }
        let Self::Distinct { seen, .. } = self else {
            return 0;
        };
        seen.retain(|(at, known)| *at >= oldest && *known != value);
        if seen.len() >= maxretry as usize {
            seen.remove(0);
        }
        seen.push((now, value));
        u32::try_from(seen.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(n: u32) -> Client {
        Client::new(std::net::Ipv4Addr::from_bits(n).into())
    }

    /// A hit in a batch of its own.
    fn add(
        counter: &mut Counter,
        client: Client,
        at: u64,
        jail: JailId,
        value: Option<u64>,
        max: u32,
    ) -> u32 {
        counter.settle();
        let place = counter.place(client, Arrival(at));
        counter.visit(place).add(jail, 1, value, max)
    }

    #[test]
    fn jails_with_new_numbers_keep_what_they_counted() {
        let mut counter = Counter::new(vec![60_000; 6], Bounds::default());
        let hit = |counter: &mut Counter, jail: JailId, value: Option<u64>| {
            let client = Client::parse(b"192.0.2.7").unwrap();
            let place = counter.place(client, Arrival(1));
            counter.visit(place).add(jail, 1, value, 100)
        };
        for jail in 0..5 {
            for _ in 0..=u32::from(jail) * 4 {
                hit(&mut counter, jail, None);
            }
        }
        hit(&mut counter, 5, Some(7));
        // The first is gone, the others are turned round, and one comes between.
        let to = [None, Some(5), Some(4), Some(3), Some(2), Some(0)];
        counter.renew(&to, vec![60_000; 6]);
        assert_eq!(hit(&mut counter, 0, Some(8)), 2);
        assert_eq!(hit(&mut counter, 1, None), 1);
        for (jail, before) in [(5, 5), (4, 9), (3, 13), (2, 17)] {
            assert_eq!(hit(&mut counter, jail, None), before + 1);
        }
    }

    #[test]
    fn a_jail_that_is_distinct_no_more_counts_at_once() {
        let mut counter = Counter::new(vec![1000], Bounds::default());
        let mut hit = |at, value| add(&mut counter, client(1), at, 0, value, 9);
        assert_eq!([hit(1, Some(7)), hit(2, Some(8))], [1, 2]);
        assert_eq!([hit(3, None), hit(4, None)], [1, 2]);
        assert_eq!([hit(5, Some(7)), hit(6, Some(8))], [1, 2]);
    }

    #[test]
    fn a_client_is_small() {
        assert_eq!(size_of::<Slot>(), 40);
        assert_eq!(size_of::<Slots>(), 128);
    }

    #[test]
    fn a_hit_exactly_findtime_old_still_counts() {
        let mut counter = Counter::new(vec![1000], Bounds::default());
        let mut at = |ms| add(&mut counter, client(1), ms, 0, None, 10);
        assert_eq!(
            [at(5000), at(5500), at(6000), at(6001), at(6501)],
            [1, 2, 3, 3, 3]
        );
    }

    #[test]
    fn distinct_values_count_once_and_stay_young() {
        let mut counter = Counter::new(vec![1000], Bounds::default());
        let mut at = |ms, value| add(&mut counter, client(1), ms, 0, Some(value), 3);
        assert_eq!([at(0, 7), at(1, 7), at(2, 8), at(900, 7)], [1, 1, 2, 2]);
        assert_eq!(at(1500, 9), 2, "8 is too old, 7 was seen again");
    }

    #[test]
    fn clients_beyond_the_bound_are_forgotten_and_those_that_mattered_counted() {
        let mut counter = Counter::new(
            vec![1000],
            Bounds {
                clients: 10,
                stamps: 1000,
            },
        );
        for n in 0..15 {
            add(&mut counter, client(n), u64::from(n), 0, None, 5);
        }
        assert_eq!((counter.clients(), counter.evicted()), (10, 5));
        add(&mut counter, client(99), 1_000_000, 0, None, 5);
        assert_eq!(
            (counter.clients(), counter.evicted()),
            (10, 5),
            "old hits do not matter"
        );
    }

    #[test]
    fn a_place_is_nobody_elses_before_the_batch_ends() {
        let mut counter = Counter::new(
            vec![1000],
            Bounds {
                clients: 1,
                stamps: 1000,
            },
        );
        let first = counter.place(client(1), Arrival(1));
        let second = counter.place(client(2), Arrival(1));
        assert_ne!(
            first, second,
            "client 1 was forgotten, and its hit must not be client 2's"
        );
        assert_eq!(counter.visit(first).add(0, 1, None, 9), 1);
        assert_eq!(counter.visit(second).add(0, 1, None, 9), 1);
        counter.settle();
        let third = counter.place(client(3), Arrival(2));
        assert_eq!(third, first);
        assert_eq!(
            counter.visit(third).add(0, 1, None, 9),
            1,
            "nothing is left of client 1"
        );
    }

    #[test]
    fn rings_are_bounded_over_all_clients() {
        let mut counter = Counter::new(
            vec![1000],
            Bounds {
                clients: 1000,
                stamps: 500,
            },
        );
        for n in 0..100 {
            for at in 0..20 {
                add(
                    &mut counter,
                    client(n),
                    u64::from(20 * n + at),
                    0,
                    None,
                    100,
                );
            }
            assert!(counter.stamps <= 500 + 64);
        }
        assert!(counter.evicted() > 50);
    }

    #[test]
    fn windows_survive_the_end_of_32_bits() {
        let day = 86_400_000;
        let mut counter = Counter::new(vec![u32::try_from(28 * day).unwrap()], Bounds::default());
        let mut at = |days: u64| add(&mut counter, client(1), days * day, 0, None, 10);
        assert_eq!(
            [at(1), at(20), at(40), at(49), at(51), at(68), at(200)],
            [1, 2, 2, 2, 3, 4, 1]
        );
    }

    proptest! {
        /// Against the simplest thing that can be right: all hits in a list.
        #[test]
        fn the_window_is_exact(
            hits in prop::collection::vec((prop_oneof![2 => Just(0), 1 => 0u64..700], 0u32..3, 0u16..4, 1u32..4, 0u64..6, any::<bool>()), 1..300),
            maxretry in 1u32..40,
        ) {
            const FINDTIME: u64 = 1000;
            let mut counter = Counter::new(vec![1000; 4], Bounds::default());
            let mut all: Vec<(u64, u32, u16, u64)> = Vec::new();
            let mut now = 12_345;
            for (pause, who, jail, weight, value, ban) in hits {
                now += pause;
                // Jail 3 counts distinct values.
                let distinct = (jail == 3).then_some(value);
                counter.settle();
                let place = counter.place(client(who), Arrival(now));
                let mut visit = counter.visit(place);
                let count = visit.add(jail, weight, distinct, maxretry);
                for _ in 0..if jail == 3 { 1 } else { weight } {
                    all.push((now, who, jail, value));
                }
                let mut window: Vec<u64> = all
                    .iter()
                    .filter(|(at, w, j, _)| *w == who && *j == jail && now - at <= FINDTIME)
                    .map(|(.., value)| *value)
                    .collect();
                if jail == 3 {
                    window.sort_unstable();
                    window.dedup();
                }
                prop_assert_eq!(count, u32::try_from(window.len()).unwrap().min(maxretry));
                if ban && count >= maxretry {
                    visit.forget(jail);
                    all.retain(|(_, w, j, _)| *w != who || *j != jail);
                }
            }
        }
    }
}

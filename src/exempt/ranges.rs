//! Many networks, one binary search.

use ipnet::IpNet;

use super::{Range, Spared, range_of};

/// Where [`range_of`] puts IPv4 addresses: `::ffff:0:0/96`.
const MAPPED: Range = (0xffff_0000_0000, 0xffff_ffff_ffff);
/// A range without an address.
const NOTHING: Range = (1, 0);

/// Networks sorted by their first address; one inside another is left out, so no two overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(Vec<(Range, Spared)>);

impl Ranges {
    /// The rule of a network that has an address in common with `range`.
    pub(super) fn find(&self, (first, last): Range) -> Option<&Spared> {
        let begin_before_its_end = self.0.partition_point(|((start, _), _)| *start <= last);
        let ((_, end), spared) = self.0.get(begin_before_its_end.checked_sub(1)?)?;
        (*end >= first).then_some(spared)
    }
}

impl FromIterator<(IpNet, Spared)> for Ranges {
    fn from_iter<T: IntoIterator<Item = (IpNet, Spared)>>(nets: T) -> Self {
        let mut ranges: Vec<(Range, Spared)> = nets
            .into_iter()
            .flat_map(|(net, spared)| {
                let (first, last) = range_of(net);
                // IPv4 clients stand among the IPv6 addresses, and are of no IPv6 network: `::/0` spares none of them.
                let parts = if net.addr().is_ipv6() && first <= MAPPED.0 && MAPPED.1 <= last {
                    [(first, MAPPED.0 - 1), (MAPPED.1 + 1, last)]
                } else {
                    [(first, last), NOTHING]
                };
                parts.map(|part| (part, spared.clone()))
            })
            .filter(|((first, last), _)| first <= last)
            .collect();
        // Networks are nested or apart, never half over each other: after its outer network comes whatever is inside.
        ranges.sort_by_key(|((first, last), _)| (*first, std::cmp::Reverse(*last)));
        let mut covered = None;
        ranges.retain(|((_, last), _)| {
            let inside = covered.is_some_and(|covered| *last <= covered);
            covered = covered.max(Some(*last));
            !inside
        });
        Self(ranges)
    }
}

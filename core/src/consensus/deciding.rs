//! What is to be done about a wish for one pin: pure functions of the state, the metrics and the wish.
//!
//! A pin may be wanted in two ways: by the pinning service, as long as it has requests, and by other means, as long as
//! nobody unpins it. Neither takes it from the other; what only requests keep goes with the last of them.

use std::collections::BTreeSet;

use cluster_types::{
    Cid, ErrorClass, PeerId, Pin, PinDepth, PinType, ReplicationFactor, RequestNumber, Timestamp, WireError,
};

use super::Request;
use super::apply::check_replacement;
use super::operation::{Operation, encode_pin};
use super::sequencer::{AllocationQuestion, AllocationSnapshot};
use crate::cluster::NOT_PINNED;
use crate::ports::StateError;

/// The largest pin accepted, in encoded bytes: names and metadata are for people, not for content.
pub const MAX_PIN_BYTES: usize = 64 * 1024;
/// How many seconds the clock of a peer that was asked for a pin may be off.
const MAX_CLOCK_SKEW: u64 = 60;
/// The most origins of a pin that come from requests of the pinning service; each request may have 20 by its specification.
const MAX_ORIGINS: usize = 20;

/// What is to be done about a wish.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Write(Operation),
    Nothing,
}

/// What a decision rests on.
pub(super) struct Context<'a> {
    /// The pins as they will stand once everything before is applied.
    pub(super) pin: &'a dyn Fn(&Cid) -> Result<Option<Pin>, StateError>,
    pub(super) allocation: &'a dyn AllocationSnapshot,
    pub(super) members: &'a [PeerId],
    pub(super) now: Timestamp,
}

impl Context<'_> {
    /// What is to be done about a wish for one pin.
    pub(super) fn decide(&self, request: &Request) -> Result<Decision, WireError> {
        match request {
            Request::Merge(_) => Ok(Decision::Nothing),
            Request::Pin(pin) => self.decide_pin(pin),
            Request::Unpin { cid } => Ok(Decision::Write(Operation::Remove { cid: *cid })),
            Request::UnpinPart { cid } => Ok(Decision::Write(Operation::RemovePart { cid: *cid })),
            Request::Expire { cid } => self.decide_expiry(cid),
            Request::Withdraw { cid, user, id } => self.decide_withdrawal(cid, user, id),
            Request::Reallocate { cid, exclude } => self.decide_reallocation(cid, exclude),
        }
    }

    fn decide_pin(&self, asked: &Pin) -> Result<Decision, WireError> {
        let expire_at = asked.options.expire_at;
        if !expire_at.is_zero() && expire_at < self.now {
            return Err(invalid("pin.ExpireAt set before current time"));
        }
        let mut pin = match asked.options.pin_update {
            _ if !asked.requests.is_empty() => self.requested(asked)?,
            Some(from) if from != asked.cid => self.unrequested(self.updated(asked, from)?)?,
            _ => self.unrequested(self.allocated(asked)?)?,
        };
        pin.timestamp = self.time_of(asked);
        pin.options.user_allocations.clear();
        let bytes = encode_pin(&pin).len();
        if bytes > MAX_PIN_BYTES {
            let what = if asked.requests.is_empty() { "name, metadata and origins" } else { "requests" };
            return Err(invalid(format!("the pin's {what} take {bytes} bytes; at most {MAX_PIN_BYTES} are kept")));
        }
        Ok(Decision::Write(Operation::Put(Box::new(pin))))
    }

    /// When a pin was asked for, as the peer that was asked says, unless its clock is far from this one's. It is that
    /// peer's word, so that it knows the record its request came to, even when it gets no answer.
    fn time_of(&self, asked: &Pin) -> Timestamp {
        let apart = asked.timestamp.unix_seconds().abs_diff(self.now.unix_seconds());
        if asked.timestamp.is_zero() || apart > MAX_CLOCK_SKEW { self.now } else { asked.timestamp }
    }

    /// The pin that takes the place of `from`: all of it, but what was asked to be different.
    fn updated(&self, asked: &Pin, from: Cid) -> Result<Pin, WireError> {
        let mut pin = self.pin(&from)?.ok_or_else(|| WireError::new(ErrorClass::NotFound, NOT_PINNED))?;
        if pin.kind != PinType::Data {
            return Err(invalid("this pin type cannot be updated"));
        }
        pin.cid = asked.cid;
        pin.options.pin_update = Some(from);
        if !asked.options.name.is_empty() {
            pin.options.name.clone_from(&asked.options.name);
        }
        if !asked.options.expire_at.is_zero() {
            pin.options.expire_at = asked.options.expire_at;
        }
        Ok(pin)
    }

    /// A pin that is wanted by other means than the pinning service, whose requests stay.
    fn unrequested(&self, mut pin: Pin) -> Result<Pin, WireError> {
        pin.requests = self.pin(&pin.cid)?.map(|pin| pin.requests).unwrap_or_default();
        pin.only_requested = false;
        Ok(pin)
    }

    /// A pin with more requests. What is pinned already stays as it is, but requests are for the whole DAG.
    fn requested(&self, asked: &Pin) -> Result<Pin, WireError> {
        let Some(mut pin) = self.pin(&asked.cid)? else {
            let mut pin = Pin { only_requested: true, ..self.allocated(asked)? };
            pin.show_newest_request();
            return Ok(pin);
        };
        if matches!(pin.kind, PinType::Shard | PinType::ClusterDag) {
            check_replacement(Some(&pin), asked)?;
        }
        if pin.kind == PinType::Data {
            pin.max_depth = PinDepth::RECURSIVE;
        }
        let known = pin.options.origins.len();
        let new = asked.options.origins.iter().filter(|origin| !pin.options.origins.contains(origin));
        let new: Vec<_> = new.take(MAX_ORIGINS.saturating_sub(known)).cloned().collect();
        pin.options.origins.extend(new);
        pin.unite_requests(asked.requests.iter().cloned());
        pin.show_newest_request();
        Ok(pin)
    }

    /// What is left of a pin without one of its requests.
    fn decide_withdrawal(&self, cid: &Cid, user: &str, id: &RequestNumber) -> Result<Decision, WireError> {
        let none = || WireError::new(ErrorClass::NotFound, NOT_PINNED);
        let mut pin = self.pin(cid)?.ok_or_else(none)?;
        let before = pin.requests.len();
        pin.requests.retain(|request| request.id != *id || request.user != user);
        if pin.requests.len() == before {
            return Err(none());
        }
        if pin.only_requested && pin.requests.is_empty() {
            return Ok(Decision::Write(Operation::Remove { cid: *cid }));
        }
        pin.show_newest_request();
        Ok(Decision::Write(Operation::Put(Box::new(pin))))
    }

    /// Whoever gave a pin an end wants it no longer then; requests of the pinning service go on.
    fn decide_expiry(&self, cid: &Cid) -> Result<Decision, WireError> {
        let is_over = |pin: &Pin| !pin.options.expire_at.is_zero() && pin.options.expire_at <= self.now;
        let requested = self.pin(cid)?.filter(|pin| !pin.requests.is_empty() && is_over(pin));
        Ok(Decision::Write(match requested {
            Some(mut pin) => {
                pin.options.expire_at = Timestamp::ZERO;
                pin.only_requested = true;
                pin.show_newest_request();
                Operation::Put(Box::new(pin))
            }
            None => Operation::Expire { cid: *cid },
        }))
    }

    fn allocated(&self, asked: &Pin) -> Result<Pin, WireError> {
        let mut pin = asked.clone();
        let options = &pin.options;
        let replication = ReplicationFactor::checked(options.replication_factor_min, options.replication_factor_max)
            .map_err(|error| WireError::from_error(ErrorClass::Invalid, &error))?;
        let everywhere = replication == ReplicationFactor::Everywhere;
        if pin.kind == PinType::Meta || everywhere {
            pin.allocations.clear();
        } else if !self.are_fit(&pin.allocations, replication) {
            let current = self.pin(&pin.cid)?.map(|pin| pin.allocations).unwrap_or_default();
            let preferred =
                if pin.allocations.is_empty() { &asked.options.user_allocations } else { &asked.allocations };
            pin.allocations = self.allocation.allocate(&AllocationQuestion {
                replication,
                current: &current,
                preferred,
                excluded: &[],
                keep_silent: false,
            })?;
        }
        Ok(pin)
    }

    /// Whether holders that came with a request can be taken as they are: members, each once, neither too few nor too
    /// many.
    fn are_fit(&self, holders: &[PeerId], replication: ReplicationFactor) -> bool {
        let ReplicationFactor::Between { min, max } = replication else { return true };
        let count = u32::try_from(holders.len()).unwrap_or(u32::MAX);
        let distinct = holders.iter().collect::<BTreeSet<_>>().len() == holders.len();
        distinct && (min..=max).contains(&count) && holders.iter().all(|holder| self.members.contains(holder))
    }

    fn decide_reallocation(&self, cid: &Cid, excluded: &[PeerId]) -> Result<Decision, WireError> {
        let Some(mut pin) = self.pin(cid)? else { return Ok(Decision::Nothing) };
        let options = &pin.options;
        let factor = ReplicationFactor::checked(options.replication_factor_min, options.replication_factor_max);
        let replication = factor.map_err(|error| WireError::from_error(ErrorClass::Invalid, &error))?;
        if replication == ReplicationFactor::Everywhere || pin.kind == PinType::Meta {
            return Ok(Decision::Nothing);
        }
        let was = pin.allocations.clone();
        let question = AllocationQuestion { replication, current: &was, preferred: &[], excluded, keep_silent: true };
        let allocations = self.allocation.allocate(&question)?;
        if allocations == was {
            return Ok(Decision::Nothing);
        }
        pin.allocations = allocations;
        Ok(Decision::Write(Operation::Reallocate { pin: Box::new(pin), was }))
    }

    fn pin(&self, cid: &Cid) -> Result<Option<Pin>, WireError> {
        (self.pin)(cid).map_err(|error| WireError::from_error(error.class(), &error))
    }
}

fn invalid(message: impl Into<String>) -> WireError {
    WireError::new(ErrorClass::Invalid, message)
}

#[cfg(test)]
mod tests {
    use cluster_types::{PinOptions, PinningRequest};
    use parking_lot::Mutex;

    use super::*;
    use crate::tracker::fakes::cid;

    /// Remembers of each question whether silent holders shall stay.
    #[derive(Default)]
    struct Asked(Mutex<Vec<bool>>);

    impl AllocationSnapshot for Asked {
        fn allocate(&self, question: &AllocationQuestion<'_>) -> Result<Vec<PeerId>, WireError> {
            self.0.lock().push(question.keep_silent);
            Ok(question.current.to_vec())
        }
    }

    fn request(number: u8, user: &str, name: &str) -> PinningRequest {
        PinningRequest {
            id: RequestNumber([number; 16]),
            user: user.to_owned(),
            name: name.to_owned(),
            meta: [].into(),
            origins: vec![format!("/ip4/1.2.3.{number}/tcp/4001").parse().unwrap()],
            created: Timestamp::from_unix_millis(number.into()),
        }
    }

    /// A wish for CID 1 by these requests.
    fn asked(requests: &[PinningRequest]) -> Request {
        let options = PinOptions {
            replication_factor_min: 2,
            replication_factor_max: 2,
            name: "of the request".to_owned(),
            origins: requests.iter().flat_map(|request| request.origins.clone()).collect(),
            ..PinOptions::default()
        };
        let pin = Pin::new(cid(1), options);
        Request::Pin(Box::new(Pin { requests: requests.to_vec(), only_requested: true, ..pin }))
    }

    /// A pin that somebody wants by other means.
    fn plain() -> Pin {
        let options = PinOptions {
            replication_factor_min: 1,
            replication_factor_max: 1,
            name: "plain".to_owned(),
            ..PinOptions::default()
        };
        Pin { allocations: vec![PeerId::random()], ..Pin::new(cid(1), options) }
    }

    /// What is decided about `request` where `known` is pinned, after ten seconds.
    fn decide(known: Option<&Pin>, request: &Request) -> Result<Operation, WireError> {
        let known = |asked: &Cid| Ok(known.filter(|pin| pin.cid == *asked).cloned());
        let now = Timestamp::from_unix_seconds(10);
        let context = Context { pin: &known, allocation: &Asked::default(), members: &[], now };
        match context.decide(request)? {
            Decision::Write(operation) => Ok(operation),
            Decision::Nothing => panic!("nothing is decided about {request:?}"),
        }
    }

    fn put(known: Option<&Pin>, request: &Request) -> Pin {
        let Operation::Put(pin) = decide(known, request).unwrap() else { panic!("{request:?} writes no pin") };
        *pin
    }

    fn withdraw(number: u8, user: &str) -> Request {
        Request::Withdraw { cid: cid(1), user: user.to_owned(), id: RequestNumber([number; 16]) }
    }

    #[test]
    fn a_pin_that_only_requests_keep_goes_with_the_last() {
        let (one, two) = (request(1, "ann", "one"), request(2, "bob", "two"));
        let first = put(None, &asked(std::slice::from_ref(&one)));
        assert!(first.only_requested);
        assert_eq!(first.options.name, "one");
        let both = put(Some(&first), &asked(std::slice::from_ref(&two)));
        assert_eq!(both.requests, [one.clone(), two.clone()]);
        assert_eq!((both.options.name.as_str(), both.options.origins.len()), ("two", 2));
        assert_eq!(put(Some(&both), &asked(&[two])).requests.len(), 2, "asked for twice, it is one");
        for stranger in [withdraw(1, "bob"), withdraw(9, "ann")] {
            assert_eq!(decide(Some(&both), &stranger).unwrap_err().message, NOT_PINNED);
        }
        assert_eq!(decide(None, &withdraw(1, "ann")).unwrap_err().message, NOT_PINNED);
        let left = put(Some(&both), &withdraw(2, "bob"));
        assert_eq!((left.requests.as_slice(), left.options.name.as_str()), ([one].as_slice(), "one"));
        assert_eq!(decide(Some(&left), &withdraw(1, "ann")).unwrap(), Operation::Remove { cid: cid(1) });
    }

    #[test]
    fn who_pins_by_other_means_and_who_asks_do_not_take_it_from_each_other() {
        let one = request(1, "ann", "one");
        let was = plain();
        let pin = put(Some(&was), &asked(std::slice::from_ref(&one)));
        assert_eq!((pin.options.name.as_str(), pin.only_requested), ("plain", false));
        assert_eq!((&pin.allocations, pin.options.replication_factor_max), (&was.allocations, 1));
        let rest = put(Some(&pin), &withdraw(1, "ann"));
        assert_eq!((rest.requests.len(), rest.options.name.as_str()), (0, "plain"));
        // The other way round: the request stays, and the pin no longer hangs on it.
        let requested = put(None, &asked(std::slice::from_ref(&one)));
        let pinned = put(Some(&requested), &Request::Pin(Box::new(plain())));
        assert_eq!((pinned.requests.as_slice(), pinned.only_requested), ([one].as_slice(), false));
        // A pin that is updated from another takes none of its requests.
        let mut update = plain();
        update.cid = cid(2);
        update.options.pin_update = Some(cid(1));
        assert_eq!(put(Some(&requested), &Request::Pin(Box::new(update))).requests, []);
    }

    #[test]
    fn a_request_is_for_the_whole_dag_and_for_no_part_of_a_sharded_pin() {
        let direct = Pin { max_depth: PinDepth::DIRECT, ..plain() };
        assert_eq!(put(Some(&direct), &asked(&[request(1, "ann", "")])).max_depth, PinDepth::RECURSIVE);
        let shard = Pin { kind: PinType::Shard, max_depth: PinDepth(1), ..plain() };
        assert_eq!(decide(Some(&shard), &asked(&[request(1, "ann", "")])).unwrap_err().class, ErrorClass::Conflict);
        let meta = Pin { kind: PinType::Meta, allocations: Vec::new(), ..plain() };
        let asked_for = put(Some(&meta), &asked(&[request(1, "ann", "")]));
        assert_eq!((asked_for.kind, asked_for.requests.len()), (PinType::Meta, 1));
    }

    #[test]
    fn requests_outlive_the_end_of_a_pin() {
        let mut pin = Pin { requests: vec![request(1, "ann", "one")], ..plain() };
        pin.options.expire_at = Timestamp::from_unix_seconds(10);
        let expire = Request::Expire { cid: cid(1) };
        let kept = put(Some(&pin), &expire);
        assert_eq!((kept.options.expire_at, kept.only_requested), (Timestamp::ZERO, true));
        assert_eq!(kept.options.name, "one");
        pin.options.expire_at = Timestamp::from_unix_seconds(11);
        assert_eq!(decide(Some(&pin), &expire).unwrap(), Operation::Expire { cid: cid(1) }, "the log judges");
        pin.options.expire_at = Timestamp::from_unix_seconds(10);
        pin.requests.clear();
        assert_eq!(decide(Some(&pin), &expire).unwrap(), Operation::Expire { cid: cid(1) });
    }

    #[test]
    fn a_pin_has_no_more_requests_than_its_record_may_hold() {
        let mut pin = Pin { only_requested: true, ..plain() };
        let large = |number: u32| PinningRequest {
            id: RequestNumber(u128::from(number).to_be_bytes()),
            name: "x".repeat(1000),
            ..request(1, "ann", "")
        };
        pin.requests = (0..60).map(large).collect();
        let refusal = decide(Some(&pin), &asked(&[large(61), large(62), large(63), large(64), large(65)])).unwrap_err();
        assert_eq!(refusal.class, ErrorClass::Invalid);
        assert!(refusal.message.starts_with("the pin's requests take "), "{refusal}");
    }

    #[test]
    fn a_repair_keeps_silent_holders_and_a_pin_by_a_user_does_not() {
        let options = PinOptions { replication_factor_min: 1, replication_factor_max: 1, ..PinOptions::default() };
        let pin = Pin { allocations: vec![PeerId::random()], ..Pin::new(cid(1), options.clone()) };
        let known = |asked: &Cid| Ok((*asked == pin.cid).then(|| pin.clone()));
        let asked = Asked::default();
        let context = Context { pin: &known, allocation: &asked, members: &[], now: Timestamp::ZERO };
        context.decide(&Request::Reallocate { cid: cid(1), exclude: vec![PeerId::random()] }).unwrap();
        context.decide(&Request::Pin(Box::new(Pin::new(cid(1), options)))).unwrap();
        assert_eq!(*asked.0.lock(), [true, false]);
    }
}

//! Conditional writes of lease rows as DynamoDB expressions.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::item;
use crate::lease::WorkerId;
use crate::lease::update::{Change, Requirement, Update};

/// An [`Update`] as DynamoDB expressions.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Expression {
    pub(super) condition: String,
    pub(super) update: String,
    pub(super) names: HashMap<String, String>,
    pub(super) values: HashMap<String, AttributeValue>,
}

impl Expression {
    pub(super) fn of(update: &Update) -> Self {
        let mut this = Self::default();
        let conditions: Vec<String> =
            update.requires.iter().map(|requirement| this.requirement(requirement)).collect();
        let (mut set, mut remove, mut add) = (Vec::new(), Vec::new(), Vec::new());
        for change in &update.changes {
            match change {
                Change::SetCounter(counter) => set.push(this.set(item::COUNTER, item::number(counter))),
                Change::BumpCounter => add.push(this.add(item::COUNTER)),
                Change::SetOwner(owner) => set.push(this.set(item::OWNER, item::text(owner.as_str()))),
                Change::ClearOwner => remove.push(this.name(item::OWNER)),
                Change::SetCheckpointOwner(owner) => {
                    set.push(this.set(item::CHECKPOINT_OWNER, item::text(owner.as_str())));
                }
                Change::SetThroughput(throughput) => {
                    set.push(this.set(item::THROUGHPUT, item::number(throughput.kilobytes())));
                }
                Change::ClearCheckpointOwner => remove.push(this.name(item::CHECKPOINT_OWNER)),
                Change::BumpOwnerSwitches => add.push(this.add(item::OWNER_SWITCHES)),
                Change::SetOwnerSwitches(switches) => {
                    set.push(this.set(item::OWNER_SWITCHES, item::number(switches)));
                }
                Change::SetCheckpoint(position) => {
                    set.push(this.set(item::CHECKPOINT, item::text(position.sequence.as_str())));
                    set.push(this.set(item::CHECKPOINT_SUB, item::number(position.sub)));
                }
                Change::ClearPending => {
                    remove.extend(
                        [item::PENDING, item::PENDING_SUB, item::PENDING_STATE].map(|name| this.name(name)),
                    );
                }
                Change::SetChildren(children) => set.push(this.set(item::CHILDREN, item::ids(children))),
                Change::SetRange(range) => {
                    set.push(this.set(item::RANGE_START, item::text(&range.start.to_string())));
                    set.push(this.set(item::RANGE_END, item::text(&range.end.to_string())));
                }
                Change::ClearChildren => remove.push(this.name(item::CHILDREN)),
                Change::SetParents(parents) if parents.is_empty() => remove.push(this.name(item::PARENTS)),
                Change::SetParents(parents) => set.push(this.set(item::PARENTS, item::ids(parents))),
                Change::SetStream(stream) => {
                    set.push(this.set(item::STREAM, item::text(&stream.to_string())))
                }
                Change::SetProcess(process) => {
                    set.push(this.set(item::PROCESS, item::text(&process.to_string())));
                }
                Change::SetLatestFrom(millis) => set.push(this.set(item::LATEST_FROM, item::number(millis))),
                Change::ClearLatestFrom => remove.push(this.name(item::LATEST_FROM)),
                Change::SetEarlier(earlier) => set.push(this.set(item::EARLIER, item::text(earlier))),
                Change::SetPark(park) => set.push(this.set(item::PARK, item::text(&park.to_string()))),
                Change::ClearPark => remove.push(this.name(item::PARK)),
                Change::SetPause(pause) => set.push(this.set(item::PAUSE, item::text(&pause.to_string()))),
            }
        }
        let clauses = [("SET", set), ("REMOVE", remove), ("ADD", add)].into_iter();
        let clauses = clauses.filter(|(_, parts)| !parts.is_empty());
        this.update =
            clauses.map(|(verb, parts)| format!("{verb} {}", parts.join(", "))).collect::<Vec<_>>().join(" ");
        this.condition = conditions.join(" AND ");
        this
    }

    /// A placeholder for an attribute name: DynamoDB has many reserved words.
    fn name(&mut self, attribute: &str) -> String {
        let name = format!("#{attribute}");
        self.names.insert(name.clone(), attribute.to_owned());
        name
    }

    fn value(&mut self, name: String, value: AttributeValue) -> String {
        self.values.insert(name.clone(), value);
        name
    }

    fn set(&mut self, attribute: &str, value: AttributeValue) -> String {
        let value = self.value(format!(":{attribute}"), value);
        format!("{} = {value}", self.name(attribute))
    }

    fn add(&mut self, attribute: &str) -> String {
        let one = self.value(":one".to_owned(), item::number(1));
        format!("{} {one}", self.name(attribute))
    }

    fn requirement(&mut self, requirement: &Requirement) -> String {
        match requirement {
            Requirement::Counter(counter) => {
                let value = self.value(":counterWas".to_owned(), item::number(counter));
                format!("{} = {value}", self.name(item::COUNTER))
            }
            Requirement::Owner(owner) => {
                self.text(item::OWNER, ":ownerWas", owner.as_ref().map(WorkerId::as_str))
            }
            Requirement::CheckpointOwner(owner) => {
                self.text(item::CHECKPOINT_OWNER, ":checkpointOwnerWas", owner.as_ref().map(WorkerId::as_str))
            }
            Requirement::Stream(stream) => {
                self.text(item::STREAM, ":streamWas", stream.as_ref().map(ToString::to_string).as_deref())
            }
            Requirement::Park(park) => {
                self.text(item::PARK, ":parkedWas", park.as_ref().map(ToString::to_string).as_deref())
            }
            Requirement::Pause(pause) => {
                self.text(item::PAUSE, ":pauseWas", pause.as_ref().map(ToString::to_string).as_deref())
            }
            Requirement::Undated => format!("attribute_not_exists({})", self.name(item::LATEST_FROM)),
            Requirement::Process(process) => {
                let value = self.value(":processWas".to_owned(), item::text(&process.to_string()));
                format!("{} = {value}", self.name(item::PROCESS))
            }
            Requirement::Exists => format!("attribute_exists({})", self.name(item::KEY)),
        }
    }

    /// An attribute has this text, or does not exist.
    fn text(&mut self, attribute: &str, value: &str, text: Option<&str>) -> String {
        let name = self.name(attribute);
        match text {
            None => format!("attribute_not_exists({name})"),
            Some(text) => {
                let value = self.value(value.to_owned(), item::text(text));
                format!("{name} = {value}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::{Lease, update};
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;
    use std::collections::BTreeSet;

    fn lease() -> Lease {
        let range = HashRange { start: 0, end: 9 };
        let mut lease = Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        (lease.owner, lease.counter) = (Some("me".into()), 4);
        lease
    }

    fn expressions(update: &Update) -> (String, String) {
        let expression = Expression::of(update);
        (expression.condition, expression.update)
    }

    fn strings(condition: &str, update: &str) -> (String, String) {
        (condition.to_owned(), update.to_owned())
    }

    #[test]
    fn each_lease_write_as_dynamodb_expressions() {
        let counter = "#leaseCounter = :counterWas";
        assert_eq!(
            expressions(&update::renew(&lease())),
            strings(
                &format!("{counter} AND attribute_not_exists(#checkpointOwner)"),
                "SET #leaseCounter = :leaseCounter"
            )
        );
        assert_eq!(
            expressions(&update::take(&lease(), &"other".into())),
            strings(
                &format!("{counter} AND attribute_not_exists(#checkpointOwner)"),
                "SET #leaseCounter = :leaseCounter, #leaseOwner = :leaseOwner REMOVE #checkpointOwner \
                 ADD #ownerSwitchesSinceCheckpoint :one"
            )
        );
        assert_eq!(
            expressions(&update::checkpoint(&lease(), &Position::shard_end())),
            strings(
                counter,
                "SET #leaseCounter = :leaseCounter, #checkpoint = :checkpoint, \
                 #checkpointSubSequenceNumber = :checkpointSubSequenceNumber, \
                 #ownerSwitchesSinceCheckpoint = :ownerSwitchesSinceCheckpoint \
                 REMOVE #pendingCheckpoint, #pendingCheckpointSubSequenceNumber, #pendingCheckpointState"
            )
        );
        assert_eq!(
            expressions(&update::release(&lease(), &update::Next::Nobody)),
            strings(
                "#leaseCounter = :counterWas AND #leaseOwner = :ownerWas AND attribute_not_exists(#checkpointOwner) \
                 AND attribute_exists(#leaseKey)",
                "REMOVE #checkpointOwner, #leaseOwner ADD #leaseCounter :one"
            )
        );
    }

    #[test]
    fn counter_is_compared_and_incremented() {
        let values = Expression::of(&update::renew(&lease())).values;
        assert_eq!(values[":counterWas"], item::number(4));
        assert_eq!(values[":leaseCounter"], item::number(5));
    }
}

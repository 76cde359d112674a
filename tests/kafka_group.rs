//! Group members against a real broker: who has which partition, and who may commit.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, outside their functions

#[path = "support/broker.rs"]
mod broker;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::{CAP, OwnBroker, TestTopic, became, shared, shared_servers, tool, unique, until};
use webmon::kafka::{
    Assignment, CommitError, GroupHandler, GroupOptions, KafkaOptions, Member, MemberHandle,
};
use webmon::runtime::{Stop, Threads, now};

/// The shortest session a broker takes by default.
const SESSION: Duration = Duration::from_secs(6);

fn group(name: &str, topic: &str) -> GroupOptions {
    GroupOptions {
        topic_when_absent: None,
        group: name.to_owned(),
        topic: topic.to_owned(),
        instance_id: None,
        session_timeout: SESSION,
        rebalance_timeout: Duration::from_secs(20),
        heartbeat_interval: Duration::from_millis(200),
    }
}

/// What the handler was told, in order.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Assigned(Assignment),
    Revoked { lost: bool },
}

type Log = Arc<Mutex<Vec<Told>>>;

struct Recorder {
    log: Log,
    /// `revoked` takes until this is asked to stop.
    busy: Option<Stop>,
}

impl GroupHandler for Recorder {
    fn assigned(&mut self, assignment: &Assignment) {
        self.log.lock().unwrap().push(Told::Assigned(assignment.clone()));
    }

    fn revoked(&mut self, lost: bool) {
        self.log.lock().unwrap().push(Told::Revoked { lost });
        if let Some(busy) = &self.busy {
            busy.wait_forever();
        }
    }
}

/// A running member that writes down what it is told.
struct Running {
    handle: MemberHandle,
    log: Log,
    stop: Stop,
    threads: Threads,
}

impl Running {
    fn start(options: KafkaOptions, group: GroupOptions) -> Self {
        Self::start_busy(options, group, None)
    }

    fn start_busy(options: KafkaOptions, group: GroupOptions, busy: Option<Stop>) -> Self {
        let (log, stop) = (Log::default(), Stop::new());
        let mut threads = Threads::new(stop.clone());
        let handler = Box::new(Recorder { log: log.clone(), busy });
        let handle = Member::start(options, group, handler, stop.clone(), &mut threads).unwrap();
        Self { handle, log, stop, threads }
    }

    /// The assignment it has now.
    fn assignment(&self) -> Option<Assignment> {
        match self.log.lock().unwrap().last() {
            Some(Told::Assigned(assignment)) => Some(assignment.clone()),
            _ => None,
        }
    }

    fn partitions(&self) -> Vec<i32> {
        self.assignment().map(|assignment| assignment.partitions).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for(&self, partitions: &[i32]) -> Assignment {
        let came = became(CAP, || self.partitions() == partitions && self.assignment().is_some());
        assert!(came, "{partitions:?} expected, told {:?}", self.log.lock().unwrap());
        self.assignment().unwrap()
    }

    fn end(self) -> Vec<Told> {
        self.stop.request();
        assert_eq!(self.threads.join(CAP), Vec::<String>::new());
        let log = self.log.lock().unwrap();
        log.clone()
    }
}

#[test]
fn members_share_the_partitions_and_offsets_survive_them() {
    let topic = TestTopic::new(shared(), "share");
    topic.create(4);
    let group = group(&unique("share"), &topic.name);
    let first = Running::start(shared(), group.clone());
    let alone = first.wait_for(&[0, 1, 2, 3]);
    // A leader that could not be asked yet is no reason to wait: the earliest is where it begins.
    let begins = |offset: &i64| [0, webmon::kafka::EARLIEST].contains(offset);
    assert!(alone.offsets.values().all(begins), "{alone:?}");
    let mut committer = first.handle.committer();
    committer.commit(&alone.generation, &[(0, 5), (3, 7)]).unwrap();

    let second = Running::start(shared(), group.clone());
    until("both have their share", || {
        let mut both = [first.partitions(), second.partitions()].concat();
        both.sort_unstable();
        both == [0, 1, 2, 3] && second.partitions().len() == 2
    });
    let offsets: Vec<_> = [&first, &second]
        .into_iter()
        .flat_map(|member| member.assignment().unwrap().offsets)
        .collect::<std::collections::BTreeMap<_, _>>()
        .into_iter()
        .collect();
    assert_eq!(offsets, [(0, 5), (1, 0), (2, 0), (3, 7)]);
    assert_eq!(first.handle.state().partitions, 2);
    assert!(first.handle.state().is_joined);

    // The first generation is over, whoever asks.
    let stale = committer.commit(&alone.generation, &[(0, 100)]);
    assert_eq!(stale, Err(CommitError::Stale));
    let stale = second.handle.committer().commit(&alone.generation, &[(0, 100)]);
    assert_eq!(stale, Err(CommitError::Stale));

    let output = tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &["--bootstrap-server", &shared_servers().join(","), "--describe", "--group", &group.group],
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.contains(&topic.name)).collect();
    assert_eq!(rows.len(), 4, "{text}");
    assert!(rows.iter().all(|row| row.contains("webmon-test")), "{text}");
    let committed = |partition: &str| {
        let fields: Vec<&str> = rows
            .iter()
            .map(|row| row.split_whitespace().collect::<Vec<_>>())
            .find_map(|row| (row[2] == partition).then(|| row[3..].to_vec()))
            .unwrap();
        fields[0].to_owned()
    };
    assert_eq!((committed("0").as_str(), committed("1").as_str()), ("5", "-"), "{text}");

    let told = first.end();
    assert_eq!(told.last(), Some(&Told::Revoked { lost: false }));
    let all = second.wait_for(&[0, 1, 2, 3]);
    assert_eq!(all.offsets[&0], 5, "the refused commits changed nothing");
    assert_eq!(all.offsets[&3], 7);
    second.end();

    let third = Running::start(shared(), group);
    let all = third.wait_for(&[0, 1, 2, 3]);
    assert_eq!((all.offsets[&0], all.offsets[&3]), (5, 7));
    third.end();
}

#[test]
fn a_member_waits_for_its_topic() {
    let topic = TestTopic::new(shared(), "late");
    let member = Running::start(shared(), group(&unique("late"), &topic.name));
    assert_eq!(member.wait_for(&[]).partitions, Vec::<i32>::new());
    topic.create(2);
    member.wait_for(&[0, 1]);
    assert!(member.end().contains(&Told::Revoked { lost: false }));
}

#[test]
fn a_leader_notices_new_partitions() {
    let topic = TestTopic::new(shared(), "grow");
    topic.create(1);
    let member = Running::start(shared(), group(&unique("grow"), &topic.name));
    member.wait_for(&[0]);
    topic.grow(3);
    assert_eq!(member.wait_for(&[0, 1, 2]).offsets.len(), 3);
    member.end();
}

/// A second process: see `a_killed_members_partitions_move_within_its_session`.
#[test]
fn member_process() {
    if std::env::var_os("TEST_GROUP").is_none() {
        // Not started by that test: there is nothing to be a member of.
        return;
    }
    let variable = |name: &str| std::env::var(name).unwrap();
    let group = group(&variable("TEST_GROUP"), &variable("TEST_TOPIC"));
    let member = Running::start(shared(), group);
    until("it has a share", || !member.partitions().is_empty());
    println!("joined");
    member.stop.wait_forever();
}

#[test]
fn a_killed_members_partitions_move_within_its_session() {
    let topic = TestTopic::new(shared(), "killed");
    topic.create(4);
    let group = group(&unique("killed"), &topic.name);
    let member = Running::start(shared(), group.clone());
    member.wait_for(&[0, 1, 2, 3]);
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "member_process", "--nocapture"])
        .env("TEST_GROUP", &group.group)
        .env("TEST_TOPIC", &topic.name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(process.stdout.take().unwrap());
    let joined = output.lines().any(|line| line.unwrap().contains("joined"));
    until("the share is halved", || member.partitions().len() == 2);
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(joined, "the other process had joined");
    let before = now().mono;
    member.wait_for(&[0, 1, 2, 3]);
    let took = now().mono - before;
    assert!(took > Duration::from_secs(2), "no leave was sent: {took:?}");
    assert!(took < SESSION + Duration::from_secs(4), "{took:?}");
    member.end();
}

#[test]
fn a_busy_member_is_kept_alive_and_commits_before_it_gives_up() {
    let topic = TestTopic::new(shared(), "busy");
    topic.create(2);
    let group = group(&unique("busy"), &topic.name);
    let release = Stop::new();
    let busy = Running::start_busy(shared(), group.clone(), Some(release.clone()));
    let mine = busy.wait_for(&[0, 1]);

    // Two more want in. One of them is stopped while it waits: that must not take long.
    let waiting = Running::start(shared(), group.clone());
    let impatient = Running::start(shared(), group);
    until("the busy one is asked to give up", || {
        busy.log.lock().unwrap().last() == Some(&Told::Revoked { lost: false })
    });
    let never = Stop::new();
    let asked = now().mono;
    let _ = never.wait(Duration::from_millis(300));
    let told = impatient.end();
    assert_eq!(told, []);
    assert!(now().mono - asked < Duration::from_secs(5), "{:?}", now().mono - asked);

    // Longer than its session: heartbeats go on, nobody gets its partitions.
    until("the session has passed", || now().mono - asked > SESSION + Duration::from_secs(1));
    assert_eq!(waiting.assignment(), None);
    busy.handle.committer().commit(&mine.generation, &[(0, 11), (1, 12)]).unwrap();
    release.request();
    until("both have one", || busy.partitions().len() == 1 && waiting.partitions().len() == 1);
    let offsets = [&busy, &waiting].map(|member| member.assignment().unwrap().offsets);
    let mut offsets: Vec<(i32, i64)> = offsets.into_iter().flatten().collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [(0, 11), (1, 12)]);
    waiting.end();
    busy.end();
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_a_twin_is_told() {
    let topic = TestTopic::new(shared(), "static");
    topic.create(4);
    let plain = group(&unique("static"), &topic.name);
    let named = |name: &str| GroupOptions { instance_id: Some(name.to_owned()), ..plain.clone() };
    let one = Running::start(shared(), named("one"));
    one.wait_for(&[0, 1, 2, 3]);
    let two = Running::start(shared(), named("two"));
    until("both have two", || one.partitions().len() == 2 && two.partitions().len() == 2);
    let (share, told) = (two.partitions(), one.log.lock().unwrap().len());
    let generation = one.handle.state().generation;
    two.end();
    let two = Running::start(shared(), named("two"));
    two.wait_for(&share);
    assert_eq!(two.handle.state().generation, generation);
    assert_eq!(one.log.lock().unwrap().len(), told, "nothing moved");

    let twin = Running::start(shared(), named("two"));
    twin.wait_for(&share);
    until("the older one ends", || two.handle.fault().is_some());
    let fault = two.handle.fault().unwrap().to_string();
    assert!(fault.contains("instance id two"), "{fault}");
    assert_eq!(two.end().last(), Some(&Told::Revoked { lost: true }));
    twin.end();
    one.end();
}

/// One own broker goes through it all, one after the other.
#[test]
fn a_lost_coordinator_takes_nothing_away() {
    let mut own = OwnBroker::start(&[], &[], &[]);
    let options = own.options();
    let topic = TestTopic::new(options.clone(), "coordinator");
    topic.create(3);
    let member = Running::start(options, group("coordinator", &topic.name));
    let before = member.wait_for(&[0, 1, 2]);
    let mut committer = member.handle.committer();
    committer.commit(&before.generation, &[(1, 4)]).unwrap();

    own.kill();
    until("the loss is noticed", || member.handle.state().problem.is_some());
    let unavailable = committer.commit(&before.generation, &[(1, 5)]);
    assert!(matches!(unavailable, Err(CommitError::Unavailable(_))), "{unavailable:?}");
    assert_eq!(member.assignment(), Some(before), "the assignment stays");
    own.restart();
    // The group may have survived the restart or not: either way it works again.
    until("commits work again", || {
        let Some(assignment) = member.assignment() else { return false };
        committer.commit(&assignment.generation, &[(1, 6)]).is_ok()
    });
    until("no problem is left", || {
        let state = member.handle.state();
        state.problem.is_none() && state.is_joined && state.partitions == 3
    });
    own.freeze();
    until("the freeze is noticed", || member.handle.state().problem.is_some());
    let before = now().mono;
    let generation = member.assignment().unwrap().generation;
    assert!(committer.commit(&generation, &[(1, 7)]).is_err());
    assert!(now().mono - before < Duration::from_secs(15), "{:?}", now().mono - before);
    own.thaw();
    until("it goes on", || {
        let state = member.handle.state();
        state.problem.is_none() && state.is_joined
    });
    member.end();
}

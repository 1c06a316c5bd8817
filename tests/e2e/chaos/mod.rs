//! A table of faults under load: how many calls were made, where each is found, and what is missing.
//! Whatever happens, no call is lost in silence, and none is there twice.
//!
//! `CHAOS_FAULT=text` plays only the faults whose names contain that text.

mod calls;
mod collectors;
mod envoys;
mod faults;
mod table;
mod trial;
mod updates;

use std::time::Duration;

use anyhow::ensure;
use futures_util::StreamExt;

use self::collectors::Answer;
use self::faults::Outage;
use self::table::{Row, Table};
use self::trial::End;
use self::updates::{FEW_MOMENTS, MOMENTS, Moment, Way};

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The collector answers so for a while.
    Collector(Answer),
    /// It refuses connections.
    Outage(Outage),
    /// Its disk is full.
    FullDisk,
    /// Another program holds its ledger for so many seconds.
    LockedLedger(u64),
    /// It is killed and started again, so many times.
    KilledCollector(u32),
    /// A VM dies: that of a worker, or the accountant's.
    Death(&'static str),
    /// Envoy ends so, with the collector up or down.
    End(End, bool),
    /// A new configuration comes, and Envoy ends, with the collector down.
    Update(Way, Moment),
    /// Two configurations run under one name, with the collector up or down.
    TwoConfigurations(bool),
    /// Another Envoy takes over, with the collector up or down.
    HotRestart(bool),
    /// Envoy's clock is set back.
    ClockBack,
    /// One tenant floods.
    TenantFlood,
}

fn up_or_down(is_up: bool) -> &'static str {
    if is_up { "collector up" } else { "collector down" }
}

impl Fault {
    /// As the table names it.
    fn name(self) -> String {
        match self {
            Fault::Collector(answer) => answer.name().to_owned(),
            Fault::Outage(outage) => outage.name(),
            Fault::FullDisk => "collector's disk full".to_owned(),
            Fault::LockedLedger(seconds) => format!("ledger locked for {seconds} s"),
            Fault::KilledCollector(times) => format!("collector killed with -9, {times} times"),
            Fault::Death("worker") => "VM of a worker dies".to_owned(),
            Fault::Death(_) => "VM of the accountant dies".to_owned(),
            Fault::End(end, is_up) => format!("{}, {}", end.name(), up_or_down(is_up)),
            Fault::Update(way, moment) => updates::name(way, moment),
            Fault::TwoConfigurations(is_up) => {
                format!("two configurations, SIGTERM, {}", up_or_down(is_up))
            }
            Fault::HotRestart(is_up) => format!("hot restart, {}", up_or_down(is_up)),
            Fault::ClockBack => "clock set back an hour, collector down".to_owned(),
            Fault::TenantFlood => "a tenant floods".to_owned(),
        }
    }

    async fn play(self) -> anyhow::Result<Row> {
        match self {
            Fault::Collector(answer) => faults::wrong_answers(answer).await,
            Fault::Outage(outage) => faults::outage(outage).await,
            Fault::FullDisk => faults::full_disk().await,
            Fault::LockedLedger(seconds) => {
                faults::locked_ledger(Duration::from_secs(seconds)).await
            }
            Fault::KilledCollector(times) => faults::killed_collector(times).await,
            Fault::Death(who) => faults::death(who).await,
            Fault::End(end, is_up) => faults::end(end, is_up).await,
            Fault::Update(way, moment) => updates::update(way, moment).await,
            Fault::TwoConfigurations(is_up) => updates::two_configurations(is_up).await,
            Fault::HotRestart(is_up) => envoys::hot_restart(is_up).await,
            Fault::ClockBack => envoys::clock_back().await,
            Fault::TenantFlood => envoys::tenant_flood().await,
        }
    }
}

/// The faults of both tables.
fn common() -> Vec<Fault> {
    let answers = [
        Answer::Error,
        Answer::Busy,
        Answer::LoginPage,
        Answer::Garbage,
        Answer::HalfTaken,
        Answer::CutBehindTaking,
        Answer::Slow,
    ];
    let ends = [
        (End::Term, true),
        (End::Term, false),
        (End::Interrupt, false),
        (End::Quit, false),
        (End::Kill, true),
        (End::Kill, false),
    ];
    let mut faults: Vec<Fault> = answers.into_iter().map(Fault::Collector).collect();
    faults.extend(["worker", "accountant=10"].map(Fault::Death));
    faults.extend(ends.map(|(end, is_up)| Fault::End(end, is_up)));
    faults.push(Fault::FullDisk);
    faults
}

fn updates(moments: &[Moment]) -> impl Iterator<Item = Fault> {
    let ways = [Way::Listener, Way::Extension].into_iter();
    ways.flat_map(|way| moments.iter().map(move |moment| Fault::Update(way, *moment)))
}

/// What `make test` plays: each kind of fault, as short as it can be, but for the flood, which takes
/// the machine from the other tests; `hostile.rs` has one of its own.
fn few() -> Vec<Fault> {
    let mut faults = common();
    let time = Duration::from_secs(6);
    faults.push(Fault::Outage(Outage { time, has_default_times: false }));
    faults.extend([Fault::LockedLedger(4), Fault::KilledCollector(2)]);
    faults.extend(updates(&FEW_MOMENTS));
    faults.extend([Fault::TwoConfigurations(false), Fault::HotRestart(true)]);
    faults.push(Fault::ClockBack);
    faults
}

/// What `make chaos` plays.
fn all() -> Vec<Fault> {
    let mut faults = common();
    let time = Duration::from_secs(60);
    faults.push(Fault::Outage(Outage { time, has_default_times: true }));
    faults.push(Fault::Outage(Outage { time, has_default_times: false }));
    faults.extend([Fault::LockedLedger(30), Fault::KilledCollector(10)]);
    faults.extend(updates(&MOMENTS));
    faults.extend([true, false].map(Fault::TwoConfigurations));
    faults.extend([true, false].map(Fault::HotRestart));
    faults.extend([Fault::ClockBack, Fault::TenantFlood]);
    faults
}

/// Plays the faults, so many at once, prints the table, and fails if a row is not as it must be.
async fn play(faults: Vec<Fault>, at_once: usize) -> anyhow::Result<()> {
    let mut table = Table::default();
    let wanted = std::env::var("CHAOS_FAULT").unwrap_or_default();
    let wanted = faults.into_iter().filter(|fault| fault.name().contains(&wanted));
    let rows = wanted.map(async |fault| (fault.name(), fault.play().await));
    let mut rows = futures_util::stream::iter(rows).buffered(at_once);
    while let Some((fault, row)) = rows.next().await {
        table.add(fault, row);
    }
    eprintln!("{table}");
    let bad = table.bad();
    ensure!(bad.is_empty(), "{}\n{table}", bad.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_loses_a_call_in_silence_or_counts_it_twice() -> anyhow::Result<()> {
    play(few(), 3).await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `make chaos` runs it"]
async fn no_longer_fault_does_so_either() -> anyhow::Result<()> {
    play(all(), 1).await
}

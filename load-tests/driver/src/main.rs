//! `causeway-load`: measures the gateway beside its peers and says which bars it meets. The method is in `load-tests/README.md`.

mod cluster;
mod crowd;
mod debian;
mod duel;
mod gateway;
mod gauge;
mod lab;
mod load;
mod net;
mod peers;
mod plot;
mod process;
mod redis;
mod report;
mod scenario;
mod service;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use lab::{Lab, Options};
use report::Circumstances;
use scenario::Scenario;

/// Measures Causeway beside its peers: memory, CPU per message, latency among bad neighbours.
#[derive(Debug, Parser)]
#[command(version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Cli {
    /// What to measure.
    #[arg(required = true)]
    scenarios: Vec<Scenario>,
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    itself: Option<Itself>,
}

/// How the driver starts parts of itself.
#[derive(Debug, Subcommand)]
enum Itself {
    /// Runs as one of the peers.
    #[command(subcommand, hide = true)]
    Peer(peers::Peer),
    /// Runs as a part of a crowd of sessions.
    #[command(hide = true)]
    Crowd,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.itself {
        Some(Itself::Peer(peer)) => peer.run().map(|()| 0),
        Some(Itself::Crowd) => crowd::run().map(|()| 0),
        None => measure(&cli.scenarios, cli.options),
    };
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("causeway-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the scenarios and reports; returns how many bars were not met.
fn measure(scenarios: &[Scenario], options: Options) -> Result<usize> {
    let mut lab = Lab::new(options)?;
    lab.report.circumstances = Circumstances {
        begun: OffsetDateTime::now_utc().truncate_to_second().format(&Rfc3339)?,
        machine: machine(),
        limits: limits(lab.open_files),
        pinning: lab.pins.describe(),
        gateway: lab.measured(),
        command: std::iter::once("causeway-load".to_owned())
            .chain(std::env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
    };
    for scenario in scenarios {
        scenario.run(&mut lab);
    }
    lab.finish();
    println!("{}\n{}", lab.report.preface(), lab.report.table());

    let out = &lab.options.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    lab.report.write_json(&out.join("results.json"))?;
    plot::draw(&lab.report, &out.join("results.svg"))?;
    if lab.options.write_readme {
        lab.report.write_readme(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    }
    Ok(lab.report.missed())
}

/// What the kernel allows one process and one listener.
fn limits(open_files: u64) -> String {
    let read = |path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join("–")
    };
    format!(
        "{open_files} open files a process, accept queue {}, ports {}",
        read("/proc/sys/net/core/somaxconn"),
        read("/proc/sys/net/ipv4/ip_local_port_range")
    )
}

/// Processor, memory, kernel.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let processors = cpu.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "{processors} × {}, {} of memory, Linux {}",
        after(&cpu, "model name"),
        after(&memory, "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

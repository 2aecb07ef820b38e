//! Bad neighbours: random bytes, half-open peers, abandoned handshakes, one byte at a time, floods of headers.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mio::net::TcpStream;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::paced::{self, Paced};
use crate::gauge::settled;
use crate::lab::{Lab, Like};
use crate::net::socket::{self, Tune};
use crate::net::ws::{self, Headers};
use crate::report::{Bar, Figure};
use crate::service::{Kind, Service};

/// Name of the scenario.
pub const NAME: &str = "fuzz";

/// Latency of others; memory afterwards.
pub const FIGURES: [Figure; 2] = [
    Figure { name: "p99 of 100 echoing sessions, µs", peer: "quiet", bar: Bar::Undisturbed },
    Figure { name: "growth of private memory afterwards, KiB", peer: "", bar: Bar::Recorded },
];

/// New bad neighbours per second, and how many stay.
const RATE: u32 = 500;
const STAY: usize = 2_000;
/// The same bytes in every run.
const SEED: u64 = 0x00c0_ffee;

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, 3);
    let mut service = lab.gateway(Like::Echo)?;
    let pid = service.process.pid();
    let duration = Duration::from_secs_f64(lab.options.neighbour_seconds);
    let mut paced = Paced::open(&service)?;
    paced.talk(paced::WARM_UP)?;
    let quiet = paced.talk(duration)?;
    let before = settled(pid, Duration::from_secs(5), |_| true)?;
    lab.step();
    let stop = AtomicBool::new(false);
    let (loud, came) = std::thread::scope(|scope| {
        let attack = scope.spawn(|| attack(&service, &stop));
        let loud = paced.talk(duration);
        stop.store(true, Ordering::Relaxed);
        let came = attack.join().map_err(|_| anyhow::anyhow!("the bad neighbours failed"));
        anyhow::Ok((loud?, came??))
    })?;
    service.process.alive().context("the server did not live through it")?;
    lab.step();
    paced::compare(lab, NAME, &FIGURES[0], &quiet, &loud, &format!("; {came} bad neighbours"));
    let after = settled(pid, Duration::from_secs(10), |now| now <= before + before / 10)?;
    let growth = (after as f64 - before as f64) / 1_024.0;
    lab.note(NAME, &FIGURES[1], growth, format!("{} KiB before", before / 1_024));
    lab.step();
    Ok(())
}

/// One bad neighbour: what it has still to say, and how slowly.
#[derive(Debug)]
struct Neighbour {
    stream: TcpStream,
    rest: Vec<u8>,
    at_once: usize,
}

impl Neighbour {
    /// Says some more and listens to whatever there is. `false`: it is over.
    fn go_on(&mut self) -> bool {
        let next = self.rest.len().min(self.at_once);
        let wrote = self.stream.write(&self.rest[..next]);
        match wrote {
            Ok(count) => drop(self.rest.drain(..count)),
            Err(error) if is_early(&error) => {}
            Err(_) => return false,
        }
        match self.stream.read(&mut [0; 2_048]) {
            Ok(count) => count > 0,
            Err(error) => is_early(&error),
        }
    }
}

fn is_early(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotConnected, WouldBlock};
    matches!(error.kind(), WouldBlock | NotConnected)
}

/// Sends bad neighbours until told to stop; returns how many.
fn attack(service: &Service, stop: &AtomicBool) -> Result<u32> {
    // What measures comes before what disturbs: both share a processor.
    rustix::process::setpriority_process(None, 10).context("cannot lower the priority")?;
    let mut random = SmallRng::seed_from_u64(SEED);
    let mut staying: VecDeque<Neighbour> = VecDeque::new();
    let (begun, mut came) = (Instant::now(), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
        while came < due {
            came += 1;
            let tune = Tune { narrow: false, subnet: 7 };
            let stream = socket::connect(service.plain, came as usize, tune)?;
            let (rest, at_once) = mischief(service, &mut random);
            let mut neighbour = Neighbour { stream, rest, at_once };
            // One in ten says what it has to say and leaves in the middle of it.
            if neighbour.go_on() && !random.random_ratio(1, 10) {
                staying.push_back(neighbour);
            }
        }
        let more = staying.len().saturating_sub(STAY);
        staying.drain(..more);
        staying.retain_mut(Neighbour::go_on);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(came)
}

/// Bytes to say, and how many at once.
fn mischief(service: &Service, random: &mut SmallRng) -> (Vec<u8>, usize) {
    let path = if service.kind == Kind::Gateway { "/load" } else { "/" };
    let hello = ws::handshake(service.plain, path, Headers::Browser);
    let mut noise = vec![0; random.random_range(1..4_096)];
    random.fill_bytes(&mut noise);
    let after_hello = |more: &[u8]| [&hello, more].concat();
    match random.random_range(0..12) {
        0 => (noise, usize::MAX),
        1 => (after_hello(&noise), usize::MAX),
        2 => (hello[..random.random_range(1..hello.len())].to_vec(), usize::MAX),
        3 => (Vec::new(), 1),
        4 => (hello, 1),
        // Half a frame that claims 32 KiB.
        5 => (after_hello(&ws::frame(1, &vec![b'x'; 32_000])[..9_000]), usize::MAX),
        6 => (flood(&hello), usize::MAX),
        7 => (after_hello(&ws::text(r#"{"action":"echo"}"#)), 1),
        // Unmasked; a reserved opcode; a frame that claims 2^62 bytes.
        8 => (after_hello(&[0x81, 2, b'h', b'i']), usize::MAX),
        9 => (after_hello(&ws::frame(0x0b, &noise)), usize::MAX),
        10 => (after_hello(&[0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]), usize::MAX),
        _ => (service.post("AAAAAAAAAAAAAAA=", &"y".repeat(noise.len())), usize::MAX),
    }
}

/// A request whose headers have no end in sight.
fn flood(hello: &[u8]) -> Vec<u8> {
    let mut out = hello[..hello.len() - 2].to_vec();
    for number in 0..2_000 {
        out.extend(format!("X-Flood-{number}: {}\r\n", "z".repeat(40)).bytes());
    }
    out
}

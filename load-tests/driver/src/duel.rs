//! Several servers under the same load in turn, round after round, so that what disturbs one disturbs the others.

use std::time::Duration;

use anyhow::Result;

use crate::gauge::median;

/// What one server did in one round.
#[derive(Debug, Clone, Copy)]
pub struct Taken {
    /// Its processor time.
    pub cpu: Duration,
    /// Wall time.
    pub wall: Duration,
    /// The driver's processor time.
    pub driver: Duration,
    /// Messages, deliveries, handshakes.
    pub units: u64,
}

impl Taken {
    /// Microseconds of the server's processor time per unit.
    fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.units.max(1) as f64
    }

    fn rate(&self) -> f64 {
        self.units as f64 / self.wall.as_secs_f64().max(1e-9)
    }
}

/// One server's medians over all rounds.
#[derive(Debug, Clone, Copy)]
pub struct Score {
    /// Microseconds of processor time per unit.
    pub cost: f64,
    /// Units per second.
    pub rate: f64,
    /// The first server's cost divided by this one's, round by round; the median.
    pub ratio: f64,
    /// The smallest and the largest of those.
    pub spread: (f64, f64),
    /// The first server's rate divided by this one's, round by round; the median.
    pub rates: f64,
    /// The share of a processor that the driver used; near 1 the rate is the driver's, not the server's.
    pub driver: f64,
}

/// A load on one server, for one round.
pub type Round<'a> = Box<dyn FnMut() -> Result<Taken> + 'a>;

/// Runs one round of each that does not count, then `rounds` of each in turn. The first one is the gateway.
pub fn run(rounds: usize, mut sides: Vec<Round<'_>>, step: &dyn Fn()) -> Result<Vec<Score>> {
    let mut taken: Vec<Vec<Taken>> = vec![Vec::new(); sides.len()];
    for round in 0..=rounds {
        for (side, taken) in sides.iter_mut().zip(&mut taken) {
            let result = side()?;
            step();
            if round > 0 {
                taken.push(result);
            }
        }
    }
    Ok(score(&taken))
}

fn score(taken: &[Vec<Taken>]) -> Vec<Score> {
    let first = taken.first().map_or(&[][..], Vec::as_slice);
    taken
        .iter()
        .map(|side| {
            let of = |what: &dyn Fn(&Taken) -> f64| side.iter().map(what).collect::<Vec<_>>();
            let ratios: Vec<f64> =
                first.iter().zip(side).map(|(a, b)| a.cost() / b.cost().max(1e-9)).collect();
            let rates: Vec<f64> =
                first.iter().zip(side).map(|(a, b)| a.rate() / b.rate().max(1e-9)).collect();
            Score {
                cost: median(&of(&Taken::cost)),
                rate: median(&of(&Taken::rate)),
                ratio: median(&ratios),
                spread: (
                    ratios.iter().copied().fold(f64::INFINITY, f64::min),
                    ratios.iter().copied().fold(0.0, f64::max),
                ),
                rates: median(&rates),
                driver: median(&of(&|one| one.driver.as_secs_f64() / one.wall.as_secs_f64())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(micros: u64) -> Taken {
        let wall = Duration::from_secs(1);
        Taken { cpu: Duration::from_micros(micros), wall, driver: wall / 2, units: 10 }
    }

    #[test]
    fn the_ratio_is_the_median_of_each_rounds_own() {
        // A disturbance that hits both sides of a round leaves that round's ratio alone.
        let gateway = vec![taken(10), taken(100), taken(12)];
        let peer = vec![taken(20), taken(200), taken(20)];
        let scores = score(&[gateway, peer]);
        assert!((scores[1].ratio - 0.5).abs() < 1e-9, "{scores:?}");
        assert!((scores[0].cost - 1.2).abs() < 1e-9, "{scores:?}");
        assert!((scores[1].driver - 0.5).abs() < 1e-9, "{scores:?}");
    }
}

//! Figures, their bars, one table, one JSON file.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

const BEGIN: &str = "<!-- results: begin -->";
const END: &str = "<!-- results: end -->";

/// What must be true of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Bar {
    /// The gateway's figure is at most this.
    AtMost(f64),
    /// The ratio to the peer's is at most this.
    RatioAtMost(f64),
    /// The ratio to the peer's is below this.
    RatioBelow(f64),
    /// The ratio to the peer's is at least this.
    RatioAtLeast(f64),
    /// At most twice the quiet figure (the "peer"), and at most 5 ms more.
    Undisturbed,
    /// Written down, without a bar.
    Recorded,
}

/// A figure that a scenario promises to take.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// What it is, unit included.
    pub name: &'static str,
    /// What it is measured beside.
    pub peer: &'static str,
    /// What must be true of it.
    pub bar: Bar,
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The bar is met.
    Met,
    /// It is not, or the figure could not be taken.
    Missed,
    /// There is no bar.
    Recorded,
}

/// A figure taken.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Scenario and figure.
    pub scenario: &'static str,
    /// Its name, unit included.
    pub figure: &'static str,
    /// The gateway's.
    pub gateway: Option<f64>,
    /// The peer's.
    pub peer: Option<f64>,
    /// Which peer.
    pub beside: &'static str,
    /// Gateway to peer.
    pub ratio: Option<f64>,
    /// What must be true.
    pub bar: Bar,
    /// Whether it is.
    pub verdict: Verdict,
    /// What else was seen, or why it could not be taken.
    pub note: String,
}

impl Row {
    /// The figure as a share of what the bar allows: 1 is just met.
    pub fn use_of_bar(&self) -> Option<f64> {
        match self.bar {
            Bar::AtMost(most) if most > 0.0 => Some(self.gateway? / most),
            Bar::RatioAtMost(most) | Bar::RatioBelow(most) => Some(self.ratio? / most),
            Bar::RatioAtLeast(least) => Some(least / self.ratio.filter(|ratio| *ratio > 0.0)?),
            Bar::Undisturbed => {
                let (loud, quiet) = (self.gateway?, self.peer?);
                Some((loud / (2.0 * quiet)).max(loud / (quiet + 5_000.0)))
            }
            Bar::AtMost(_) | Bar::Recorded => None,
        }
    }

    fn judge(&self) -> Verdict {
        let met = match self.bar {
            Bar::Recorded => return Verdict::Recorded,
            Bar::AtMost(most) => self.gateway.is_some_and(|figure| figure <= most),
            Bar::RatioAtMost(most) => self.ratio.is_some_and(|ratio| ratio <= most),
            Bar::RatioBelow(most) => self.ratio.is_some_and(|ratio| ratio < most),
            Bar::RatioAtLeast(least) => self.ratio.is_some_and(|ratio| ratio >= least),
            Bar::Undisturbed => self.use_of_bar().is_some_and(|share| share <= 1.0),
        };
        if met { Verdict::Met } else { Verdict::Missed }
    }
}

/// Under what circumstances.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Circumstances {
    /// When it was begun, UTC.
    pub begun: String,
    /// Kernel, processor, memory.
    pub machine: String,
    /// What the kernel allows.
    pub limits: String,
    /// Who ran where.
    pub pinning: String,
    /// What was measured.
    pub gateway: String,
    /// The command.
    pub command: String,
}

/// Everything a run found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Under what circumstances.
    pub circumstances: Circumstances,
    /// In the order they were taken.
    pub rows: Vec<Row>,
}

impl Report {
    /// Takes down a figure. Without a ratio of its own (a median of rounds) it is that of the two figures.
    pub fn take(
        &mut self,
        scenario: &'static str,
        figure: &Figure,
        gateway: Option<f64>,
        peer: Option<f64>,
        ratio: Option<f64>,
        note: String,
    ) {
        let ratio = ratio.or_else(|| Some(gateway? / peer.filter(|peer| *peer > 0.0)?));
        let mut row = Row {
            scenario,
            figure: figure.name,
            gateway,
            peer,
            beside: figure.peer,
            ratio,
            bar: figure.bar,
            verdict: Verdict::Recorded,
            note,
        };
        row.verdict = row.judge();
        self.rows.push(row);
    }

    /// Adds to the note of the figure taken last.
    pub fn remark(&mut self, more: &str) {
        if let Some(row) = self.rows.last_mut() {
            row.note.push_str(more);
        }
    }

    /// Takes down every figure that a scenario promised and did not deliver: missed, with the reason.
    pub fn fail(&mut self, scenario: &'static str, promised: &[Figure], reason: &str) {
        for figure in promised {
            let taken =
                self.rows.iter().any(|row| row.scenario == scenario && row.figure == figure.name);
            if !taken {
                self.take(scenario, figure, None, None, None, format!("not measured: {reason}"));
                if let Some(row) = self.rows.last_mut() {
                    row.verdict = Verdict::Missed;
                }
            }
        }
    }

    /// How many bars were not met.
    pub fn missed(&self) -> usize {
        self.rows.iter().filter(|row| row.verdict == Verdict::Missed).count()
    }

    /// The table, as Markdown, what else was seen below it.
    pub fn table(&self) -> String {
        let mut out = String::from(
            "| scenario | figure | gateway | peer | ratio | bar | |\n| --- | --- | ---: | ---: | ---: | --- | --- |\n",
        );
        let or_dash = |value: Option<f64>| value.map_or_else(|| "–".into(), number);
        for row in &self.rows {
            let peer = match row.peer {
                Some(peer) => format!("{} ({})", number(peer), row.beside),
                None => "–".into(),
            };
            let verdict = match row.verdict {
                Verdict::Met => "met",
                Verdict::Missed => "**MISSED**",
                Verdict::Recorded => "recorded",
            };
            let (gateway, ratio, bar) = (or_dash(row.gateway), or_dash(row.ratio), bar(row));
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "| {} | {} | {gateway} | {peer} | {ratio} | {bar} | {verdict} |",
                row.scenario, row.figure
            );
        }
        let noted = self.rows.iter().filter(|row| !row.note.is_empty());
        for (place, row) in noted.enumerate() {
            let gap = if place == 0 { "\n" } else { "" };
            let _ = writeln!(out, "{gap}- {} · {}: {}", row.scenario, row.figure, row.note);
        }
        out
    }

    /// Where and how, as Markdown.
    pub fn preface(&self) -> String {
        let Circumstances { begun, machine, limits, pinning, gateway, command } =
            &self.circumstances;
        format!(
            "Taken {begun} with `{command}` on {machine}; {limits}; {pinning}. Measured: {gateway}.\n"
        )
    }

    /// Writes the JSON file.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Replaces what stands between the two markers of a page.
    pub fn write_readme(&self, path: &Path) -> Result<()> {
        let page = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let body = format!("\n{}\n{}\n", self.preface(), self.table());
        let page = between(&page, &body)
            .with_context(|| format!("{} has no {BEGIN} … {END}", path.display()))?;
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn between(page: &str, body: &str) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{body}{END}{tail}"))
}

fn bar(row: &Row) -> String {
    match row.bar {
        Bar::AtMost(most) => format!("≤ {}", number(most)),
        Bar::RatioAtMost(most) => format!("ratio ≤ {most}"),
        Bar::RatioBelow(most) => format!("ratio < {most}"),
        Bar::RatioAtLeast(least) => format!("ratio ≥ {least}"),
        Bar::Undisturbed => "≤ 2 × and ≤ +5 ms".into(),
        Bar::Recorded => "–".into(),
    }
}

/// Three digits that count, thousands apart.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        small if small >= 100.0 || small == 0.0 => 0,
        small if small >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, part) = text.split_once('.').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |rest| ("-", rest));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    part.map_or_else(|| format!("{sign}{grouped}"), |part| format!("{sign}{grouped}.{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Figure = Figure { name: "bytes", peer: "", bar: Bar::AtMost(256.0) };
    const COST: Figure = Figure { name: "cost", peer: "nchan", bar: Bar::RatioBelow(1.0) };
    const RATE: Figure = Figure { name: "rate", peer: "one", bar: Bar::RatioAtLeast(0.7) };
    const P99: Figure = Figure { name: "p99", peer: "quiet", bar: Bar::Undisturbed };

    fn verdict(figure: &Figure, gateway: f64, peer: f64) -> Verdict {
        let mut report = Report::default();
        report.take("test", figure, Some(gateway), Some(peer), None, String::new());
        report.rows[0].verdict
    }

    #[test]
    fn a_bar_is_met_at_its_edge_and_missed_beyond() {
        assert_eq!(verdict(&BYTES, 256.0, 0.0), Verdict::Met);
        assert_eq!(verdict(&BYTES, 256.1, 0.0), Verdict::Missed);
        assert_eq!(verdict(&COST, 9.9, 10.0), Verdict::Met);
        assert_eq!(verdict(&COST, 10.0, 10.0), Verdict::Missed);
        assert_eq!(verdict(&RATE, 7.0, 10.0), Verdict::Met);
        assert_eq!(verdict(&RATE, 6.9, 10.0), Verdict::Missed);
    }

    #[test]
    fn both_halves_of_the_latency_bar_must_hold() {
        assert_eq!(verdict(&P99, 200.0, 100.0), Verdict::Met);
        assert_eq!(verdict(&P99, 201.0, 100.0), Verdict::Missed);
        assert_eq!(verdict(&P99, 15_001.0, 10_000.0), Verdict::Missed);
    }

    #[test]
    fn what_was_promised_and_not_measured_is_missed() {
        let mut report = Report::default();
        report.take("test", &BYTES, Some(1.0), None, None, String::new());
        report.fail("test", &[BYTES, COST], "no peer");
        assert_eq!(report.missed(), 1);
        assert!(report.table().contains("not measured: no peer"));
    }

    #[test]
    fn the_page_keeps_what_is_outside_the_markers() {
        let page = format!("method\n{BEGIN}\nold\n{END}\nend\n");
        let new = between(&page, "new\n").unwrap();
        assert_eq!(new, format!("method\n{BEGIN}\nnew\n{END}\nend\n"));
        assert_eq!(between("no markers", "new"), None);
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(0.504), "0.50");
        assert_eq!(number(-12.34), "-12.3");
        assert_eq!(number(100.0), "100");
    }
}

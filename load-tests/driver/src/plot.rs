//! One picture: every figure with a bar, as a share of what its bar allows.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Report, Row, Verdict};

const MET: RGBColor = RGBColor(46, 125, 90);
const MISSED: RGBColor = RGBColor(192, 57, 43);
const INK: RGBColor = RGBColor(40, 44, 52);
const LABELS: i32 = 470;
const LINE: i32 = 26;
const TOP: i32 = 60;
const WIDTH: i32 = 1_060;

/// Draws it as SVG. A figure that uses more than twice its bar is cut off there, with its number.
pub fn draw(report: &Report, path: &Path) -> Result<()> {
    let rows: Vec<(&Row, Option<f64>)> = report
        .rows
        .iter()
        .filter(|row| row.verdict != Verdict::Recorded)
        .map(|row| (row, row.use_of_bar()))
        .collect();
    let height = TOP + LINE * i32::try_from(rows.len())? + 50;
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    paint(&area, &rows, height).map_err(|error| anyhow!("cannot draw: {error}"))?;
    area.present().map_err(|error| anyhow!("cannot write {}: {error}", path.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn paint(area: &Area<'_>, rows: &[(&Row, Option<f64>)], height: i32) -> Drawn {
    area.fill(&WHITE)?;
    let style = |size: i32, right: bool| {
        let side = if right { HPos::Right } else { HPos::Left };
        ("sans-serif", size).into_font().color(&INK).pos(Pos::new(side, VPos::Center))
    };
    let title = "Causeway: each figure as a share of what its bar allows (1 = just met)";
    area.draw(&Text::new(title, (20, 24), style(18, false)))?;
    let unit = (WIDTH - LABELS - 80) / 2;
    let bottom = height - 40;
    for mark in 0..=4 {
        let x = LABELS + unit * mark / 2;
        let shade = if mark == 2 { INK.stroke_width(2) } else { INK.mix(0.15).stroke_width(1) };
        area.draw(&PathElement::new([(x, TOP - 10), (x, bottom)], shade))?;
        let label = format!("{:.1}", f64::from(mark) / 2.0);
        area.draw(&Text::new(label, (x - 8, bottom + 14), style(13, false)))?;
    }
    for (place, (row, share)) in (0..).zip(rows) {
        let middle = TOP + LINE * place + LINE / 2;
        let name = format!("{} · {}", row.scenario, row.figure);
        area.draw(&Text::new(name, (LABELS - 10, middle), style(13, true)))?;
        let colour = if row.verdict == Verdict::Met { MET } else { MISSED };
        let shown = share.unwrap_or(0.0).clamp(0.0, 2.0);
        let end = LABELS + (f64::from(unit) * shown) as i32;
        let box_of = [(LABELS, middle - 8), (end, middle + 8)];
        area.draw(&Rectangle::new(box_of, colour.filled()))?;
        let label = share.map_or_else(
            || if row.verdict == Verdict::Met { "met".into() } else { "missed".into() },
            |share| format!("{share:.2}"),
        );
        // Beside the line of 1, not across it.
        let crosses = share.is_some_and(|share| (0.88..1.0).contains(&share));
        let start = if crosses { LABELS + unit } else { end } + 6;
        area.draw(&Text::new(label, (start, middle), style(13, false)))?;
    }
    Ok(())
}

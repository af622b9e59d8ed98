//! Draws one plot as SVG: lines over two axes, a legend, units.
//!
//! Axes are mapped here (logarithms, percentiles) and drawn linearly, so that the ticks are where
//! people look for them. The background stays transparent and text is a middle grey: readable on
//! white and on black alike.

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;

use super::Error;

const SIZE: (u32, u32) = (900, 480);
const INK: RGBColor = RGBColor(128, 128, 128);
/// Told apart by eyes that see few colours, and legible on white and black; the first is ours.
const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 130, 200),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(190, 160, 20),
    RGBColor(86, 180, 233),
    RGBColor(150, 110, 220),
    RGBColor(140, 140, 140),
];
/// The percentile axis ends here: runs are too short to say more.
const PERCENTILE_MAX: f64 = 99.999;

/// How values become positions, and which ticks an axis has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// Powers of ten; values are above 0.
    Logarithmic,
    /// In percent; every further nine takes as much room as the last.
    Percentile,
}

/// An axis with its label, unit included.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Written beside it.
    pub label: &'static str,
    /// How it is divided.
    pub scale: Scale,
}

/// A line of a plot.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the legend.
    pub label: String,
    /// In the axes' units.
    pub points: Vec<(f64, f64)>,
}

impl Scale {
    fn position(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(f64::MIN_POSITIVE).log10(),
            Scale::Percentile => -(1.0 - value.clamp(0.0, PERCENTILE_MAX) / 100.0).log10(),
        }
    }

    /// Values marked on an axis that shows `least` to `greatest`.
    fn ticks(self, least: f64, greatest: f64) -> Vec<f64> {
        match self {
            Scale::Linear => {
                let step = 10f64.powf((greatest / 5.0).max(f64::MIN_POSITIVE).log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|part| part * step);
                let step = step.into_iter().find(|step| greatest / step <= 8.0).unwrap_or(greatest);
                (0..=8).map(|n| f64::from(n) * step).filter(|&tick| tick <= greatest).collect()
            }
            Scale::Logarithmic => (-3..=9)
                .flat_map(|power| [1.0, 2.0, 5.0].map(|part| part * 10f64.powi(power)))
                .filter(|&tick| least <= tick && tick <= greatest)
                .collect(),
            Scale::Percentile => [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999]
                .into_iter()
                .filter(|&tick| tick <= greatest)
                .collect(),
        }
    }

    fn format(self, value: f64) -> String {
        match self {
            Scale::Percentile => format!("{value}%"),
            _ if value >= 1e6 => format!("{}M", trimmed(value / 1e6)),
            _ if value >= 1e4 => format!("{}k", trimmed(value / 1e3)),
            _ => trimmed(value),
        }
    }
}

fn trimmed(value: f64) -> String {
    format!("{}", (value * 1e3).round() / 1e3)
}

/// One drawn axis: the range of positions, with ticks where we want them.
#[derive(Clone)]
struct Marked {
    range: (f64, f64),
    ticks: Vec<f64>,
}

impl Marked {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Marked {
        let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (least, greatest) = (least.min(value), greatest.max(value));
        }
        match scale {
            Scale::Linear => (least, greatest) = (0.0, greatest * 1.05),
            Scale::Logarithmic => (least, greatest) = (least * 0.8, greatest * 1.25),
            Scale::Percentile => (least, greatest) = (0.0, greatest.min(PERCENTILE_MAX)),
        }
        let ticks = scale.ticks(least, greatest).into_iter().map(|tick| scale.position(tick));
        Marked { ticks: ticks.collect(), range: (scale.position(least), scale.position(greatest)) }
    }
}

impl Ranged for Marked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.0) / (self.range.1 - self.range.0).max(f64::MIN_POSITIVE);
        let pixels = f64::from(limit.1 - limit.0) * share;
        #[expect(clippy::cast_possible_truncation, reason = "a place inside the picture")]
        let pixels = pixels.round() as i32;
        limit.0 + pixels
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Light grid lines are asked for with a bigger budget; the labelled ones are enough.
        let _ = hint;
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.0..self.range.1
    }
}

/// Draws `lines`, none of which may be empty, and gives the SVG.
pub fn draw(file: &str, title: &str, x: Axis, y: Axis, lines: &[Line]) -> Result<String, Error> {
    let mut svg = String::new();
    paint(&mut svg, title, x, y, lines)
        .map_err(|reason| Error::Plot { file: file.to_owned(), reason })?;
    Ok(svg)
}

fn paint(svg: &mut String, title: &str, x: Axis, y: Axis, lines: &[Line]) -> Result<(), String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x_axis = Marked::new(x.scale, points().map(|point| point.0));
    let y_axis = Marked::new(y.scale, points().map(|point| point.1));
    let text = |size: u32| ("sans-serif", size).into_font().color(&INK);
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, text(18))
        .margin(12)
        .margin_right(36)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(x_axis, y_axis)
        .map_err(|error| error.to_string())?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(INK.mix(0.3))
        .light_line_style(TRANSPARENT)
        .label_style(text(13))
        .axis_desc_style(text(14))
        .x_desc(x.label)
        .y_desc(y.label)
        .x_label_formatter(&|position| label(x.scale, *position))
        .y_label_formatter(&|position| label(y.scale, *position))
        .draw()
        .map_err(|error| error.to_string())?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let place = |point: &(f64, f64)| (x.scale.position(point.0), y.scale.position(point.1));
        chart
            .draw_series(LineSeries::new(line.points.iter().map(place), colour.stroke_width(2)))
            .map_err(|error| error.to_string())?
            .label(line.label.as_str())
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
        if x.scale != Scale::Percentile {
            let dots =
                line.points.iter().map(|point| Circle::new(place(point), 3, colour.filled()));
            chart.draw_series(dots).map_err(|error| error.to_string())?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(text(13))
        .background_style(TRANSPARENT)
        .draw()
        .map_err(|error| error.to_string())?;
    area.present().map_err(|error| error.to_string())
}

/// The text of the tick at `position`.
fn label(scale: Scale, position: f64) -> String {
    let value = match scale {
        Scale::Linear => position,
        Scale::Logarithmic => 10f64.powf(position),
        Scale::Percentile => 100.0 - 100.0 * 10f64.powf(-position),
    };
    scale.format((value * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERCENT: Axis = Axis { label: "percentile", scale: Scale::Percentile };
    const TIME: Axis = Axis { label: "latency, us", scale: Scale::Logarithmic };

    #[test]
    fn every_nine_takes_as_much_room_as_the_last() {
        let position = |percentile| Scale::Percentile.position(percentile);
        assert_eq!(position(0.0), 0.0);
        for (percentile, nines) in [(90.0, 1.0), (99.0, 2.0), (99.9, 3.0), (99.99, 4.0)] {
            assert!((position(percentile) - nines).abs() < 1e-9, "{percentile}");
        }
        assert!(position(100.0).is_finite());
    }

    #[test]
    fn ticks_carry_the_percentiles_they_stand_at() {
        let ticks = Marked::new(Scale::Percentile, [0.0, 99.95].into_iter()).ticks;
        let labels: Vec<String> =
            ticks.into_iter().map(|tick| label(Scale::Percentile, tick)).collect();
        assert_eq!(labels, ["0%", "50%", "90%", "99%", "99.9%"]);
    }

    #[test]
    fn a_logarithmic_axis_is_marked_at_one_two_and_five() {
        assert_eq!(Scale::Logarithmic.ticks(8.0, 130.0), [10.0, 20.0, 50.0, 100.0]);
        assert_eq!(Scale::Logarithmic.format(20_000.0), "20k");
    }

    #[test]
    fn a_plot_is_well_formed_and_names_lines_and_axes() {
        let line = |label: &str, factor: f64| Line {
            label: label.to_owned(),
            points: [0.0, 50.0, 90.0, 99.0, 100.0].map(|p| (p, factor * (10.0 + p))).to_vec(),
        };
        let lines = [line("ours <1 & only>", 1.0), line("theirs", 2.5)];
        let svg = draw("x.svg", "a \"title\" & more", PERCENT, TIME, &lines).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<&str> =
            document.descendants().filter_map(|node| node.text()).map(str::trim).collect();
        let expected = ["ours <1 & only>", "theirs", "percentile", "latency, us", "99%", "50"];
        for text in expected {
            assert!(texts.contains(&text), "{text} is not among {texts:?}");
        }
    }

    #[test]
    fn one_point_is_a_plot_too() {
        let line = Line { label: "one".to_owned(), points: vec![(1.0, 1.0)] };
        let svg = draw("x.svg", "one", TIME, TIME, &[line]).unwrap();
        roxmltree::Document::parse(&svg).unwrap();
    }
}

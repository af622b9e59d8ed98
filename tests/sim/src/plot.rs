//! Draws lines over the offered load as SVG. The background stays transparent and text is a middle
//! grey: readable on white and on black alike.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 480);
const INK: RGBColor = RGBColor(128, 128, 128);
/// Told apart by eyes that see few colours; the first is ours.
const COLOURS: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 130, 200),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(190, 160, 20),
    RGBColor(140, 140, 140),
];

/// How the vertical axis is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// From 0.
    Linear,
    /// Powers of ten; values are above 0.
    Logarithmic,
}

/// A line with its name in the legend.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the legend.
    pub label: String,
    /// Load and value.
    pub points: Vec<(f64, f64)>,
}

/// A plot that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("drawing {title:?}: {reason}")]
pub struct PlotError {
    title: String,
    reason: String,
}

/// Draws `lines` and gives the SVG. `y` names the vertical axis, unit included.
///
/// # Errors
/// When nothing can be drawn, of no points for example.
pub fn draw(title: &str, y: &str, scale: Scale, lines: &[Line]) -> Result<String, PlotError> {
    let values = || lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let most = values().fold(0.0, f64::max);
    let mut svg = String::new();
    let painted = match scale {
        Scale::Linear => paint(&mut svg, title, y, 0.0..most * 1.1, lines),
        Scale::Logarithmic => {
            let least = values().fold(most, f64::min);
            paint(&mut svg, title, y, (least * 0.8..most * 1.25).log_scale(), lines)
        }
    };
    painted.map_err(|reason| PlotError { title: title.to_owned(), reason })?;
    Ok(svg)
}

fn paint<Y>(svg: &mut String, title: &str, y: &str, axis: Y, lines: &[Line]) -> Result<(), String>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let text = |size: u32| ("sans-serif", size).into_font().color(&INK);
    let loads = lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
    let most = loads.fold(0.0, f64::max);
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, text(18))
        .margin(12)
        .margin_right(36)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..most, axis)
        .map_err(|error| error.to_string())?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(INK.mix(0.3))
        .light_line_style(TRANSPARENT)
        .label_style(text(13))
        .axis_desc_style(text(14))
        .x_desc("offered load, share of capacity")
        .y_desc(y)
        .draw()
        .map_err(|error| error.to_string())?;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))
            .map_err(|error| error.to_string())?
            .label(line.label.as_str())
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_its_lines_and_axes() {
        let line = |label: &str, factor: f64| Line {
            label: label.to_owned(),
            points: [0.1, 1.0, 3.0].map(|load| (load, factor * load)).to_vec(),
        };
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let lines = [line("ours", 1.0), line("theirs", 200.0)];
            let svg = draw("a title", "calls/s", scale, &lines).unwrap();
            for text in ["a title", "calls/s", "ours", "theirs", "offered load"] {
                assert!(svg.contains(text), "{text} is missing");
            }
            assert!(svg.matches("<polyline").count() >= 4, "two lines and two legends");
        }
    }
}

//! Charts for the HTML page, as inline SVG without scripts: columns over time, one colour for each of the largest series.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use key_broker_trail::record::record_time;
use key_broker_trail::verify::{Report, Uses};
use time::OffsetDateTime;

use super::markup::escaped;

/// What was counted, of all trails together: by the hour, the principal and the key.
pub(super) type Counts = BTreeMap<(i64, String, Option<String>), Uses>;

/// All pictures, each with its heading.
pub(super) fn pictures_of(counts: &Counts, trails: &[(String, Report)]) -> String {
    let hours = counts.keys().map(|(hour, ..)| *hour);
    let Some(span) = Span::of(hours.chain(trails.iter().flat_map(|(_, report)| lifetime(report)))) else {
        return String::new();
    };
    let uses = |uses: &Uses| uses.hits + uses.misses;
    let mut saved = Picture::new("Uses served from the cache, and calls to KMS", span);
    let mut denials = Picture::new("Denials by principal", span);
    let mut keys = Picture::new("Uses by key", span);
    let mut principals = Picture::new("Uses by principal", span);
    for ((hour, principal, key), count) in counts {
        saved.add("served from the cache", *hour, count.hits);
        saved.add("calls to KMS", *hour, count.kms_calls);
        denials.add(principal, *hour, count.denials);
        keys.add(key.as_deref().unwrap_or("(no key)"), *hour, uses(count));
        principals.add(principal, *hour, uses(count));
    }
    let mut alive = Picture::new("Trails by their state now, in the time that they vouch for", span);
    for (_, report) in trails {
        let state = report.state.map_or_else(|| "unknown".to_owned(), |state| state.to_string());
        if let [from, to] = lifetime(report)[..] {
            alive.add_span(&state, from, to);
        }
    }
    [alive, keys, principals, saved, denials].iter().map(Picture::draw).collect()
}

/// The hours of the first and the last moment that a trail vouches for.
fn lifetime(report: &Report) -> Vec<i64> {
    let hour = |at: OffsetDateTime| at.unix_timestamp().div_euclid(3_600);
    report.from.zip(report.to).map_or_else(Vec::new, |(from, to)| vec![hour(from), hour(to)])
}

/// The time axis of all charts, in columns of this many hours.
#[derive(Clone, Copy)]
struct Span {
    begin: i64,
    columns: usize,
    hours_each: i64,
}

impl Span {
    fn of(hours: impl Iterator<Item = i64>) -> Option<Self> {
        let (first, last) = hours.fold(None, |range: Option<(i64, i64)>, hour| {
            Some(range.map_or((hour, hour), |(first, last)| (first.min(hour), last.max(hour))))
        })?;
        let hours = last.saturating_sub(first).saturating_add(1);
        let hours_each = hours.saturating_add(MOST_COLUMNS - 1) / MOST_COLUMNS;
        let columns = usize::try_from(hours.saturating_add(hours_each - 1) / hours_each).ok()?;
        Some(Self { begin: first, columns, hours_each })
    }

    fn column(&self, hour: i64) -> usize {
        let column = usize::try_from((hour - self.begin) / self.hours_each).unwrap_or_default();
        column.min(self.columns - 1)
    }

    /// When a column begins.
    fn time(&self, column: usize) -> String {
        let hour = self.begin + i64::try_from(column).unwrap_or_default() * self.hours_each;
        OffsetDateTime::from_unix_timestamp(hour.saturating_mul(3_600))
            .map_or_else(|_| "?".into(), record_time)
    }
}

struct Picture {
    title: &'static str,
    span: Span,
    series: HashMap<String, Series>,
}

/// The values drawn in one colour.
#[derive(Clone)]
struct Series {
    total: u64,
    columns: Vec<u64>,
}

impl Picture {
    fn new(title: &'static str, span: Span) -> Self {
        Self { title, span, series: HashMap::new() }
    }

    fn add(&mut self, name: &str, hour: i64, count: u64) {
        if count > 0 {
            let column = self.span.column(hour);
            let series = self.series_of(name);
            series.total += count;
            series.columns[column] += count;
        }
    }

    /// One, and to be seen in each column from one hour to another.
    fn add_span(&mut self, name: &str, from: i64, to: i64) {
        let (from, to) = (self.span.column(from), self.span.column(to));
        let series = self.series_of(name);
        series.total += 1;
        for column in &mut series.columns[from..=to] {
            *column += 1;
        }
    }

    fn series_of(&mut self, name: &str) -> &mut Series {
        let columns = self.span.columns;
        let empty = || Series { total: 0, columns: vec![0; columns] };
        self.series.entry(name.to_owned()).or_insert_with(empty)
    }

    /// The largest, and all others together.
    fn shown(&self) -> Vec<(String, Series)> {
        let mut all: Vec<_> =
            self.series.iter().map(|(name, series)| (name.clone(), series.clone())).collect();
        all.sort_by(|one, other| other.1.total.cmp(&one.1.total).then_with(|| one.0.cmp(&other.0)));
        if all.len() > COLOURS {
            let rest = all.split_off(COLOURS - 1);
            let name = format!("{} others", rest.len());
            let mut others = Series { total: 0, columns: vec![0; self.span.columns] };
            for (_, series) in rest {
                others.total += series.total;
                others.columns.iter_mut().zip(series.columns).for_each(|(sum, count)| *sum += count);
            }
            all.push((name, others));
        }
        all
    }

    fn draw(&self) -> String {
        let shown = self.shown();
        let Span { columns, .. } = self.span;
        let highest = (0..columns)
            .map(|column| shown.iter().map(|(_, series)| series.columns[column]).sum::<u64>())
            .max()
            .unwrap_or_default();
        let mut text = format!("<h2>{}</h2>\n", self.title);
        if highest == 0 {
            text.push_str("<p>None.</p>\n");
            return text;
        }
        let _ = writeln!(
            text,
            "<figure>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n\
             <line x1=\"0\" y1=\"{BASE}\" x2=\"{WIDTH}\" y2=\"{BASE}\"></line>\n\
             <text x=\"0\" y=\"12\">{highest}</text>\n<text x=\"0\" y=\"{LABELS}\">{}</text>\n\
             <text x=\"{WIDTH}\" y=\"{LABELS}\" text-anchor=\"end\">{}</text>",
            self.title,
            self.span.time(0),
            self.span.time(columns),
        );
        for column in 0..columns {
            self.draw_column(column, &shown, highest, &mut text);
        }
        text.push_str("</svg>\n<figcaption>\n<ul>\n");
        for (place, (name, Series { total, .. })) in shown.iter().enumerate() {
            let _ = writeln!(text, "<li class=\"k{place}\"><b>{}</b> {total}</li>", escaped(name));
        }
        text.push_str("</ul>\n</figcaption>\n</figure>\n");
        text
    }

    fn draw_column(&self, column: usize, shown: &[(String, Series)], highest: u64, text: &mut String) {
        let x = |column: usize| column as u64 * WIDTH / self.span.columns as u64;
        let width = (x(column + 1) - x(column)).saturating_sub(1).max(1);
        let height =
            |count: u64| u64::try_from(u128::from(count) * u128::from(BASE - TOP) / u128::from(highest));
        let mut sum = 0;
        for (place, (name, series)) in shown.iter().enumerate() {
            let count = series.columns[column];
            if count == 0 {
                continue;
            }
            let below = height(sum).unwrap_or_default();
            sum += count;
            // Even the smallest value is visible.
            let tall = height(sum).unwrap_or_default().saturating_sub(below).max(1);
            let _ = writeln!(
                text,
                "<rect class=\"k{place}\" x=\"{}\" y=\"{}\" width=\"{width}\" height=\"{tall}\"><title>{}, {}: {count}</title></rect>",
                x(column),
                BASE.saturating_sub(below + tall),
                escaped(name),
                self.span.time(column),
            );
        }
    }
}

/// The charts' style: eight colours that colour-blind people can tell apart (Okabe and Ito).
pub(super) const STYLE: &str = "svg{width:100%;max-width:60em;height:auto}svg text{font:12px sans-serif;fill:#444}svg line{stroke:#888}\
    figure{margin:0 0 2em}figcaption ul{list-style:none;padding:0;margin:.4em 0;max-width:60em}\
    figcaption li{border-left:1em solid;padding-left:.5em;margin:.2em 0;overflow-wrap:anywhere}figcaption b{font-weight:normal;color:#222}\
    .k0{fill:#0072b2;border-color:#0072b2}.k1{fill:#e69f00;border-color:#e69f00}.k2{fill:#009e73;border-color:#009e73}\
    .k3{fill:#cc79a7;border-color:#cc79a7}.k4{fill:#56b4e9;border-color:#56b4e9}.k5{fill:#d55e00;border-color:#d55e00}\
    .k6{fill:#f0e442;border-color:#f0e442}.k7{fill:#999999;border-color:#999999}";
const COLOURS: usize = 8;
/// Of a picture, in its own units.
const WIDTH: u64 = 960;
const HEIGHT: u64 = 220;
/// Where columns stand, where the highest one ends, and where their times are written.
const BASE: u64 = 200;
const TOP: u64 = 18;
const LABELS: u64 = 216;
/// A week by the hour and a half.
const MOST_COLUMNS: i64 = 120;

#[cfg(test)]
mod tests {
    //! Charts fit any time and any number of names, and show small values, too.

    use super::*;

    fn of(hour: i64, principal: &str, key: Option<&str>) -> (i64, String, Option<String>) {
        (hour, principal.to_owned(), key.map(str::to_owned))
    }

    /// Beyond eight names, the smallest are drawn together, and nothing is lost of the sums.
    #[test]
    fn many_names_share_the_last_colour() {
        let counts: Counts = (0..20)
            .map(|n: i64| {
                let uses = Uses { hits: 10 + n.unsigned_abs(), ..Uses::default() };
                (of(500_000 + n, &format!("unix:uid/{n}"), Some("arn:k")), uses)
            })
            .collect();
        let page = pictures_of(&counts, &[]);
        assert!(
            page.contains("<b>unix:uid/19</b> 29</li>") && page.contains("<b>13 others</b> 208</li>"),
            "{page}"
        );
        assert!(page.contains("<b>arn:k</b> 390</li>"), "{page}");
    }

    /// A trail is one, however many columns it is seen in.
    #[test]
    fn a_trail_is_counted_once() {
        let hour = |hour: i64| OffsetDateTime::from_unix_timestamp(hour * 3_600).ok();
        let trail =
            |from, to| ("t".to_owned(), Report { from: hour(from), to: hour(to), ..Report::default() });
        let page = pictures_of(&Counts::new(), &[trail(0, 9), trail(5, 7)]);
        assert!(page.contains("<b>unknown</b> 2</li>") && page.contains(">2</text>"), "{page}");
    }

    /// A record of the year 1 and one of 9999 are two columns of one picture, and not a page of a gigabyte.
    #[test]
    fn any_time_fits() {
        let counts: Counts = [of(-17_259_888, "a", None), of(70_389_527, "b", None), of(0, "c", None)]
            .map(|of| (of, Uses { misses: 1, denials: u64::MAX / 4, ..Uses::default() }))
            .into();
        let page = pictures_of(&counts, &[]);
        assert!(page.len() < 20_000 && page.matches("<rect").count() >= 9, "{page}");
        assert_eq!(pictures_of(&Counts::new(), &[]), "");
    }
}

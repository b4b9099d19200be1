//! The measurements as a picture: two bars for each contender, whose length is the logarithm of its calls per second.

use std::fmt::{self, Write as _};

use crate::contenders::What;
use crate::report::rate;
use crate::rounds::{Figures, IN_FLIGHT, Row};

/// An SVG, 800 wide, on white.
pub(crate) fn draw(rows: &[Row]) -> String {
    let mut picture = Picture { text: String::new(), below: TOP };
    // Nothing can go wrong when text is added to text.
    let drawn = What::ALL.into_iter().try_for_each(|what| picture.group(what, rows));
    debug_assert!(drawn.is_ok());
    let bottom = picture.below + 6;
    let mut axis = String::new();
    let marked = DECADES.into_iter().try_for_each(|(calls, label)| {
        let x = x(calls);
        writeln!(
            axis,
            r##"<line x1="{x:.0}" y1="{}" x2="{x:.0}" y2="{bottom}" stroke="#e3e3e3"/><text x="{x:.0}" y="{}" text-anchor="middle" fill="#555">{label}</text>"##,
            TOP - 4,
            bottom + 16
        )
    });
    debug_assert!(marked.is_ok());
    let height = bottom + 84;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="Helvetica, Arial, sans-serif" font-size="12">
<title>Calls per second of key-broker and of what one would take instead</title>
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
<text x="16" y="26" font-size="16" font-weight="bold" fill="#111">Calls per second, and the median time of a call</text>
<rect x="16" y="40" width="12" height="9" fill="{}"/><rect x="30" y="40" width="12" height="9" fill="{}"/><text x="48" y="49" fill="#333">{} call in flight</text>
<rect x="166" y="40" width="12" height="9" fill="{}"/><rect x="180" y="40" width="12" height="9" fill="{}"/><text x="198" y="49" fill="#333">{} calls in flight</text>
<text x="330" y="49" fill="#333">blue: key-broker</text>
{axis}{}<text x="{:.0}" y="{}" text-anchor="middle" fill="#555">calls per second, logarithmic</text>
<text x="16" y="{}" font-size="11" fill="#333">KMS is an emulator on loopback here; the real one is milliseconds away. Records: key-broker's are on disk before the reply (write: in the</text>
<text x="16" y="{}" font-size="11" fill="#333">file); OpenBao's are in the file, never synced; those of KMS are in CloudTrail, minutes later; the Encryption SDK leaves none.</text>
</svg>
"##,
        OURS[0],
        OTHERS[0],
        IN_FLIGHT[0],
        OURS[1],
        OTHERS[1],
        IN_FLIGHT[1],
        picture.text,
        f64::midpoint(LEFT, RIGHT),
        bottom + 34,
        bottom + 58,
        bottom + 73,
    )
}

struct Picture {
    text: String,
    below: u32,
}

impl Picture {
    fn group(&mut self, what: What, rows: &[Row]) -> fmt::Result {
        self.below += 20;
        let title = what.title();
        writeln!(
            self.text,
            r##"<text x="16" y="{}" font-weight="bold" fill="#111">{title}</text>"##,
            self.below
        )?;
        self.below += 8;
        rows.iter().filter(|row| row.what == what).try_for_each(|row| self.row(row))
    }

    fn row(&mut self, row: &Row) -> fmt::Result {
        let is_ours = row.name.starts_with("key-broker");
        let (colours, weight) = if is_ours { (OURS, "bold") } else { (OTHERS, "normal") };
        let name = row.name.replace('`', "");
        writeln!(
            self.text,
            r##"<text x="{:.0}" y="{}" text-anchor="end" font-weight="{weight}" fill="#222">{name}</text>"##,
            LEFT - 8.0,
            self.below + 16
        )?;
        match &row.measured {
            Ok(all) => {
                for (place, (figures, colour)) in all.iter().zip(colours).enumerate() {
                    let y = self.below + if place == 0 { 0 } else { BAR };
                    bar(&mut self.text, *figures, colour, y)?;
                }
            }
            Err(_) => writeln!(
                self.text,
                r##"<text x="{:.0}" y="{}" fill="#b00">not measured</text>"##,
                LEFT + 6.0,
                self.below + 16
            )?,
        }
        self.below += 2 * BAR + 8;
        Ok(())
    }
}

fn bar(text: &mut String, figures: Figures, colour: &str, y: u32) -> fmt::Result {
    let end = x(figures.calls_per_second);
    let calls = rate(figures.calls_per_second);
    let p50 = figures.p50.as_secs_f64() * 1e3;
    writeln!(
        text,
        r##"<rect x="{LEFT:.0}" y="{y}" width="{:.1}" height="{}" fill="{colour}"/><text x="{:.1}" y="{}" font-size="11" fill="#333">{calls} · {p50:.2} ms</text>"##,
        end - LEFT,
        BAR - 1,
        end + 5.0,
        y + 10
    )
}

/// Where so many calls a second are.
fn x(calls: f64) -> f64 {
    let (least, most) = (DECADES[0].0.log10(), DECADES[DECADES.len() - 1].0.log10());
    LEFT + (RIGHT - LEFT) * ((calls.log10() - least) / (most - least)).clamp(0.0, 1.0)
}

const WIDTH: u32 = 800;
const TOP: u32 = 64;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 670.0;
const BAR: u32 = 12;
/// For one call in flight, and for many.
const OURS: [&str; 2] = ["#8ab8f0", "#1f5fbf"];
const OTHERS: [&str; 2] = ["#c9ccd1", "#7d848c"];
const DECADES: [(f64, &str); 4] =
    [(100.0, "100"), (1_000.0, "1,000"), (10_000.0, "10,000"), (100_000.0, "100,000")];

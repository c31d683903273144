//! What was measured: as text and as JSON.

use serde_json::{Value, json};

/// One row of the table.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: &'static str,
    /// The median.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Against what, and its median in the same unit.
    pub(crate) peer: Option<(&'static str, f64)>,
    /// Value over peer, or over the bar where there is no peer.
    pub(crate) ratio: Option<f64>,
    /// What is demanded.
    pub(crate) bar: &'static str,
    /// Is it so? Nothing where it was not measured.
    pub(crate) met: Option<bool>,
    /// How it was measured, what it leaves out.
    pub(crate) note: String,
    /// What the time goes to, by name and unit.
    pub(crate) parts: Vec<(&'static str, f64)>,
}

/// The middle one; of an even number, the upper.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

impl Row {
    fn json(&self) -> Value {
        let parts: serde_json::Map<String, Value> = self
            .parts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        json!({
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "peer": self.peer.map(|(name, _)| name),
            "peer_value": self.peer.map(|(_, value)| value),
            "ratio": self.ratio,
            "bar": self.bar,
            "met": self.met,
            "note": self.note,
            "parts": parts,
        })
    }
}

/// All rows as JSON.
pub(crate) fn json(rows: &[Row], quick: bool) -> Value {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "v": 1,
        "quick": quick,
        "cores": cores,
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    })
}

/// All rows for a person's terminal.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<46} {:>20}  {:<38} {:>7}  {:<18} met\n",
        "what", "value", "peer", "ratio", "bar"
    );
    for row in rows {
        let peer = row.peer.map_or("-".to_owned(), |(name, value)| {
            format!("{name}: {}", number(value))
        });
        let met = match row.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "?",
        };
        out.push_str(&format!(
            "{:<46} {:>20}  {:<38} {:>7}  {:<18} {met}\n",
            row.what,
            format!("{} {}", number(row.value), row.unit),
            peer,
            row.ratio.map_or("-".to_owned(), |r| format!("{r:.3}")),
            row.bar,
        ));
    }
    out.push('\n');
    let mut last = "";
    for row in rows {
        if row.what == last {
            continue;
        }
        last = row.what;
        out.push_str(&format!("{}: {}\n", row.what, row.note));
        for (name, value) in &row.parts {
            out.push_str(&format!("    {name}: {}\n", number(*value)));
        }
    }
    out
}

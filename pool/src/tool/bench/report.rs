//! What is shown: a line a case as it is done, or one document at the end.

use super::run::{Case, Measured};
use crate::tool::units::{count, size, time};
use serde_json::{Value, json};

pub(crate) struct Report {
    json: bool,
    results: Vec<Value>,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Self { json, results: Vec::new() }
    }

    /// Adds what was measured on memory of the kind `on`, of which a part is `remote`.
    pub fn add(&mut self, on: &str, case: &Case, remote: f64, measured: &Measured) {
        let quantile = |q: f64| measured.histogram.value_at_quantile(q);
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(quantile);
        if !self.json && self.results.is_empty() {
            println!(
                "{:<10} {:<15} {:<8} {:>6} {:>7} {:>9} {:>10} {:>10} {:>10} {:>10} {:>10}",
                "memory",
                "operation",
                "pattern",
                "bytes",
                "threads",
                "ops/s",
                "bytes/s",
                "mean",
                "p50",
                "p99",
                "p99.9"
            );
        }
        if !self.json {
            println!(
                "{on:<10} {:<15} {:<8} {:>6} {:>7} {:>9} {:>10} {:>10} {:>10} {:>10} {:>10}",
                case.act(),
                case.pattern.name(),
                case.payload,
                case.threads,
                count(measured.rate),
                size((measured.rate * case.payload as f64) as u64),
                time(measured.mean),
                time(p50 as f64),
                time(p99 as f64),
                time(p999 as f64)
            );
        }
        self.results.push(json!({
            "on": on,
            "operation": case.act(),
            "pattern": case.pattern.name(),
            "payload": case.payload,
            "threads": case.threads,
            "remote": remote,
            "operations": measured.operations,
            "per_second": measured.rate,
            "mean_ns": measured.mean,
            "p50_ns": p50,
            "p99_ns": p99,
            "p999_ns": p999,
            "max_ns": measured.histogram.max(),
        }));
    }

    /// Prints the document, if one was asked for.
    pub fn finish(self) {
        if self.json {
            // One result a line, which line-oriented tools can read too.
            let lines: Vec<_> = self.results.iter().map(Value::to_string).collect();
            println!("{{\"results\": [\n{}\n]}}", lines.join(",\n"));
        }
    }
}

//! `rcmp status`: what the master knows of the racks.

use super::link::Master;
use super::units::{count, size};
use super::{MasterArg, ToolError};
use crate::proto::cluster::{Cluster, Rack, RackStats};
use clap::Args;
use serde_json::{Value, json};
use std::io::{IsTerminal, stdout};
use std::thread::sleep;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    master: MasterArg,
    /// Show it again every so many seconds (1 unless said), with counts as rates.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    watch: Option<f64>,
    /// One JSON document; with --watch one a line.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &StatusArgs) -> Result<(), ToolError> {
    let master = Master::connect(&arguments.master.master)?;
    let Some(seconds) = arguments.watch else {
        let (cluster, racks) = (master.describe()?, master.racks()?);
        if arguments.json {
            println!("{:#}", as_json(&cluster, &racks));
        } else {
            print!("{}", as_table(&cluster, &racks, None));
        }
        return Ok(());
    };
    let pause = Duration::try_from_secs_f64(seconds)
        .map_err(|_| ToolError::Usage(format!("--watch {seconds} is no time")))?
        .max(Duration::from_millis(50));
    let mut before: Option<(Vec<Rack>, Instant)> = None;
    loop {
        let (cluster, racks, now) = (master.describe()?, master.racks()?, Instant::now());
        if arguments.json {
            println!("{}", as_json(&cluster, &racks));
        } else {
            let clear = if stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
            let before = before.as_ref().map(|(racks, at)| (&racks[..], (now - *at).as_secs_f64()));
            print!("{clear}{}", as_table(&cluster, &racks, before));
        }
        before = Some((racks, now));
        sleep(pause);
    }
}

/// The numbers of a rack that only grow, with their names.
fn counts(stats: &RackStats) -> [(&'static str, u64); 8] {
    [
        ("hits", stats.hits),
        ("misses", stats.misses),
        ("direct", stats.direct),
        ("swaps_in", stats.swaps_in),
        ("swaps_out", stats.swaps_out),
        ("swaps_refused", stats.swaps_refused),
        ("bytes_in", stats.bytes_in),
        ("bytes_out", stats.bytes_out),
    ]
}

fn as_json(cluster: &Cluster, racks: &[Rack]) -> Value {
    let page = cluster.page_size.bytes();
    let rack = |rack: &Rack| {
        let Rack { join, cas, alive, stats } = rack;
        let mut value = json!({
            "rack": join.rack.0,
            "addr": join.addr,
            "alive": alive,
            "transport": join.transport,
            "cas": cas,
            "region": join.region,
            "pages": stats.total,
            "pages_free": stats.free,
            "capacity": stats.total * page,
            "used": stats.total.saturating_sub(stats.free) * page,
            "clients": stats.clients,
            "clients_without_cxl": stats.far_clients,
        });
        for (name, count) in counts(stats) {
            value[name] = count.into();
        }
        value
    };
    json!({
        "cluster": format!("{:032x}", cluster.id),
        "page_size": page,
        "term": cluster.term,
        "racks": racks.iter().map(rack).collect::<Vec<_>>(),
    })
}

const TITLES: [&str; 15] = [
    "rack",
    "address",
    "state",
    "via",
    "cas by",
    "capacity",
    "used",
    "clients",
    "hits",
    "misses",
    "direct",
    "swaps in",
    "out",
    "refused",
    "bytes in/out",
];

fn as_table(cluster: &Cluster, racks: &[Rack], before: Option<(&[Rack], f64)>) -> String {
    let mut rows = vec![TITLES.map(String::from)];
    rows.extend(racks.iter().map(|rack| row(cluster, rack, before)));
    let widths: Vec<usize> =
        (0..TITLES.len()).map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0)).collect();
    let mut text =
        format!("cluster {:032x}, pages of {}, term {}", cluster.id, cluster.page_size, cluster.term);
    text.push_str(if before.is_some() { "; counts a second\n" } else { "\n" });
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        // Words to the left, numbers to the right.
        let cells = cells.map(|(i, (cell, width))| match i {
            0..5 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    if racks.is_empty() {
        text.push_str(
            "no rack has joined; start an rcmp-daemon with --master and the address of this master\n",
        );
    }
    text
}

fn row(cluster: &Cluster, rack: &Rack, before: Option<(&[Rack], f64)>) -> [String; 15] {
    let Rack { join, cas, alive, stats } = rack;
    let page = cluster.page_size.bytes();
    let past = before.and_then(|(racks, seconds)| {
        // Counts of another start of the daemon are no past of these.
        let same = |other: &&Rack| other.join.rack == join.rack && other.join.incarnation == join.incarnation;
        Some((counts(&racks.iter().find(same)?.stats), seconds))
    });
    let mut shown = counts(stats).map(|(_, count)| count as f64);
    if let Some((past, seconds)) = past {
        for (now, (_, before)) in shown.iter_mut().zip(past) {
            *now = (*now - before as f64).max(0.0) / seconds.max(1e-3);
        }
    }
    let [hits, misses, direct, swaps_in, swaps_out, refused, bytes_in, bytes_out] = shown;
    [
        join.rack.to_string(),
        join.addr.clone(),
        if *alive { "alive" } else { "dead" }.into(),
        join.transport.clone(),
        if cas.is_empty() { "-" } else { cas }.into(),
        size(stats.total * page),
        size(stats.total.saturating_sub(stats.free) * page),
        clients(stats),
        count(hits),
        count(misses),
        count(direct),
        count(swaps_in),
        count(swaps_out),
        count(refused),
        format!("{}/{}", size(bytes_in as u64), size(bytes_out as u64)),
    ]
}

/// How many clients have mapped the memory, and how many have not, if there are any: `2+1`.
fn clients(stats: &RackStats) -> String {
    match (stats.clients.saturating_sub(stats.far_clients), stats.far_clients) {
        (mapped, 0) => mapped.to_string(),
        (mapped, far) => format!("{mapped}+{far}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{PageSize, RackId};
    use crate::proto::cluster::RackJoin;

    fn rack(number: u16, incarnation: u64, hits: u64) -> Rack {
        let join = RackJoin {
            rack: RackId(number),
            cluster: 7,
            page_size: PageSize::MIN,
            incarnation,
            addr: "127.0.0.1:4000".into(),
            region: "/dev/shm/r".into(),
            region_id: 1,
            transport: "tcp".into(),
        };
        let stats = RackStats { total: 1024, free: 256, hits, ..RackStats::default() };
        Rack { join, cas: "home CPU (device: HCA)".into(), alive: true, stats }
    }

    fn cluster() -> Cluster {
        Cluster { id: 7, page_size: PageSize::MIN, term: 2 }
    }

    #[test]
    fn the_document_has_bytes_and_counts_of_each_rack() {
        let value = as_json(&cluster(), &[rack(0, 1, 5), rack(1, 1, 0)]);
        let first = &value["racks"][0];
        assert_eq!((first["capacity"].as_u64(), first["used"].as_u64()), (Some(4 << 20), Some(3 << 20)));
        assert_eq!((first["hits"].as_u64(), value["racks"][1]["rack"].as_u64()), (Some(5), Some(1)));
    }

    #[test]
    fn rates_are_of_one_start_of_a_daemon() {
        let before = [rack(0, 1, 100), rack(1, 1, 100)];
        let text = as_table(&cluster(), &[rack(0, 1, 300), rack(1, 2, 40)], Some((&before, 2.0)));
        let hits: Vec<_> = text
            .lines()
            .skip(2)
            .filter_map(|line| line.split("  ").filter(|c| !c.is_empty()).nth(8))
            .map(str::trim)
            .collect();
        assert_eq!(hits, ["100", "40"], "{text}");
    }

    #[test]
    fn who_compares_and_swaps_is_said_of_each_rack() {
        let mut silent = rack(1, 1, 0);
        silent.cas.clear();
        let racks = [rack(0, 1, 0), silent];
        let text = as_table(&cluster(), &racks, None);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let at = lines[0].find("cas by").unwrap();
        assert!(lines[1][at..].starts_with("home CPU (device: HCA)  "), "{text}");
        assert!(lines[2][at..].starts_with("- "), "{text}");
        assert_eq!(as_json(&cluster(), &racks)["racks"][0]["cas"], "home CPU (device: HCA)");
    }

    #[test]
    fn a_cluster_without_racks_says_what_to_do() {
        assert!(as_table(&cluster(), &[], None).contains("rcmp-daemon"));
    }
}

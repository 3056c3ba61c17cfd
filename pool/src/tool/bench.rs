//! `rcmp bench`: the accesses of the prototype's benchmark, on the pool and on bare memory.
//!
//! A case is one pattern of accesses with one payload by so many threads. `--floor` measures each case on
//! bare memory too, directly after the pool, because the noise of a machine is larger than most
//! differences of interest unless the two are measured side by side.
//!
//! Data lie in this client's rack, but for the part `--remote`, which lies in another rack, page by page
//! between the rest. It is allocated by a second client, of that rack, in this process, or by
//! `rcmp bench fill` on a host of that rack if its region cannot be mapped here. All of it is given back in
//! the end, unless this process is killed.

mod args;
mod bare;
mod data;
mod memory;
mod pattern;
mod report;
mod run;
mod ycsb;

pub(super) use args::BenchArgs;

use super::ToolError;
use super::link::Master;
use crate::addr::RackId;
use args::{Act, CaseArgs, FillArgs, PoolArgs, Which};
use bare::Bare;
use data::Data;
use indicatif::{ProgressBar, ProgressStyle};
use pattern::Sequence;
use report::Report;
use run::{Case, Timing};
use std::io::{IsTerminal, stdout};
use std::time::Duration;

/// How long a process waits at a barrier for the others.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn run(arguments: &BenchArgs) -> Result<(), ToolError> {
    match &arguments.which {
        None => pool(&arguments.pool, &arguments.cases),
        Some(Which::Floor(cases)) => floor(cases),
        Some(Which::Fill(fill_arguments)) => fill(fill_arguments),
        Some(Which::Ycsb(ycsb_arguments)) => ycsb::run(ycsb_arguments),
    }
}

fn pool(arguments: &PoolArgs, case_arguments: &CaseArgs) -> Result<(), ToolError> {
    let master = Master::connect(&arguments.master.master)?;
    let pool = arguments.master.pool(RackId(arguments.rack))?;
    let data = Data::make(&pool, arguments, case_arguments.span)?;
    let bare = if arguments.floor { Some(Bare::small(case_arguments.span)?) } else { None };
    let huge = if arguments.floor { Bare::huge(case_arguments.span).ok() } else { None };
    let meet = |case: usize| match arguments.parties {
        0 | 1 => Ok(()),
        parties => master.meet(&format!("{}/{case}", arguments.barrier), parties, PATIENCE),
    };
    let mut report = Report::new(case_arguments.json);
    let result = each_case(case_arguments, |number, case, timing| {
        let sequence = Sequence::new(case.pattern, case_arguments.span, case.payload, arguments.rack.into());
        let addresses = sequence.addresses(|at| data.address(at));
        meet(number)?;
        report.add("pool", case, arguments.remote, &run::measure(&pool, &addresses, case, timing)?);
        let offsets = sequence.addresses(|at| at);
        for (name, bare) in [("bare", &bare), ("bare-huge", &huge)] {
            if let Some(bare) = bare.as_ref().filter(|_| case.act != Act::Message) {
                report.add(name, case, 0.0, &run::measure(bare, &offsets, case, timing)?);
            }
        }
        Ok(())
    });
    // Pages are given back also after an error.
    let freed = data.free();
    result?;
    freed?;
    report.finish();
    Ok(())
}

fn floor(arguments: &CaseArgs) -> Result<(), ToolError> {
    let small = Bare::small(arguments.span)?;
    let huge = Bare::huge(arguments.span);
    if let Err(why) = &huge {
        eprintln!("rcmp: without huge pages: {why}");
    }
    let mut report = Report::new(arguments.json);
    each_case(arguments, |_, case, timing| {
        let sequence = Sequence::new(case.pattern, arguments.span, case.payload, 0);
        let offsets = sequence.addresses(|at| at);
        report.add("bare", case, 0.0, &run::measure(&small, &offsets, case, timing)?);
        if let Ok(huge) = &huge {
            report.add("bare-huge", case, 0.0, &run::measure(huge, &offsets, case, timing)?);
        }
        Ok(())
    })?;
    report.finish();
    Ok(())
}

fn fill(arguments: &FillArgs) -> Result<(), ToolError> {
    let pool = arguments.master.pool(RackId(arguments.rack))?;
    for page in data::allocate(&pool, arguments.span)?.iter().flat_map(|run| run.iter()) {
        println!("{}", page.raw());
    }
    Ok(())
}

/// Calls `measure` with every case that the command line asks for, and its number.
fn each_case(
    arguments: &CaseArgs,
    mut measure: impl FnMut(usize, &Case, &Timing) -> Result<(), ToolError>,
) -> Result<(), ToolError> {
    let cases = arguments.cases()?;
    let timing = arguments.timing()?;
    // Where the table itself appears line by line it shows how far this is.
    let is_shown = !arguments.json && stdout().is_terminal();
    let bar = if is_shown { ProgressBar::hidden() } else { ProgressBar::new(cases.len() as u64) };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    for (number, case) in cases.iter().enumerate() {
        bar.set_message(case.to_string());
        bar.tick();
        measure(number, case, &timing)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

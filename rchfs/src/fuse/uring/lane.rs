//! A lane: a thread that answers the requests of one entry, on the processor that its queue is for, so that
//! a request never wakes another processor.

use super::answer::answer;
use super::crew::Crew;
use super::entry::{Ended, Entry};
use super::wire::{self, Header};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps this thread on processor `queue`. Where that is not allowed, or it is switched off, it runs
/// wherever it may.
pub fn pin(queue: u16) {
    let mut set = CpuSet::new();
    let pinned = set.set(usize::from(queue)).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(e) = pinned {
        log::debug!("ring {queue} is served by any processor: {e}");
    }
}

/// Answers requests until the mount is gone.
pub fn run(crew: &Crew, queue: u16, mut entry: Entry) {
    loop {
        match serve_one(crew, queue, &mut entry) {
            Ok(()) => {}
            Err(Ended::Unmounted) => return,
            Err(Ended::Failed(e)) => {
                // Whoever waits for an answer of this lane would wait for ever. The end of the process gives
                // them an error.
                log::error!("ring {queue} failed: {e}");
                std::process::abort();
            }
        }
    }
}

fn serve_one(crew: &Crew, queue: u16, entry: &mut Entry) -> Result<(), Ended> {
    entry.wait()?;
    crew.took(queue);
    let Some((bytes, payload)) = entry.buffers() else { return Ok(()) };
    let malformed = |_| Ended::Failed(std::io::Error::other("the kernel wrote no request"));
    let header = Header::parse(bytes).map_err(malformed)?;
    if let Some(file) = header.file() {
        crew.uses(queue, file);
    }
    let answered = answer(&crew.decider, crew.owner, &header, bytes, payload);
    let (error, len) = match answered {
        Ok(len) => (0, len as u32),
        Err(error) => (error, 0),
    };
    wire::write_answer(bytes, header.unique, error, len).map_err(malformed)?;
    entry.commit(header.commit_id)?;
    crew.answered(queue);
    Ok(())
}

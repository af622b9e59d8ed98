//! Takes its container down, in the way asked for: `{"how": "segv"}`. Calls in flight there fail;
//! the runtime starts the container again.

use std::hint;
use std::ptr;

use nightcore::Error;
use serde::Deserialize;

/// Where `oom` stops: a container without a memory limit shall not take the machine down.
const OOM_MAX: usize = 4 << 30;
const STEP: usize = 16 << 20;
const PAGE: usize = 4096;

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum How {
    #[default]
    Segv,
    Abort,
    Exit,
    Stack,
    Oom,
    None,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Arguments {
    how: How,
}

#[nightcore::function]
fn crash(input: &[u8]) -> Result<&'static str, Error> {
    let Arguments { how } = match input {
        // An empty input stands for the defaults.
        [] => Arguments::default(),
        input => serde_json::from_slice(input).map_err(|e| Error::bad_request(e.to_string()))?,
    };
    match how {
        How::None => Ok("still here\n"),
        How::Abort => std::process::abort(),
        How::Exit => std::process::exit(3),
        How::Segv => Ok(segv()),
        How::Stack => Ok(if stack(0) == 0 { "" } else { "the stack has no end\n" }),
        How::Oom => Err(oom()),
    }
}

fn segv() -> &'static str {
    // Not null: that one is caught by a check in debug builds.
    let nowhere = ptr::without_provenance_mut::<u8>(16);
    // SAFETY: none; this is the point. The first page is never mapped, so the write cannot hit
    // anything and the kernel ends the process.
    unsafe { nowhere.write_volatile(1) };
    "survived a write to nowhere\n"
}

#[allow(unconditional_recursion)]
fn stack(depth: u64) -> u64 {
    let frame = hint::black_box([depth; 64]);
    stack(depth + 1) + frame[0]
}

/// Allocates and touches memory until the container's limit ends it.
fn oom() -> Error {
    let mut blocks = Vec::new();
    while blocks.len() * STEP < OOM_MAX {
        let mut block = vec![0_u8; STEP];
        block.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        blocks.push(hint::black_box(block));
    }
    Error::failed(format!("took {OOM_MAX} bytes and no limit stopped it"))
}

//! Loads the programs whose attach types the library does not know: has it parse the embedded object and put the maps in,
//! and gives the instructions to the kernel itself. A kernel without such a hook is no error.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::{Ebpf, maps::Map};
use aya_obj::Object;

use super::{EnforceError, KernelProgram, engine::verifier_error, object::OBJECT, sys};

/// Loads those of `programs` whose hooks the kernel has, over the maps that `ebpf` made.
///
/// # Errors
/// [`EnforceError`], but not for a missing hook.
pub(super) fn load(
    ebpf: &Ebpf,
    programs: &[KernelProgram],
) -> Result<Vec<(KernelProgram, OwnedFd)>, EnforceError> {
    let mut object = Object::parse(OBJECT).map_err(|error| EnforceError::other("read the object", error))?;
    object.programs.retain(|name, _| programs.iter().any(|program| program.name() == name));
    let maps = std::mem::take(&mut object.maps);
    let made: Vec<_> = maps
        .iter()
        .filter_map(|(name, map)| Some((name.as_str(), descriptor(ebpf.map(name)?)?.as_raw_fd(), map)))
        .collect();
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    object
        .relocate_maps(made.into_iter(), &sections)
        .map_err(|error| EnforceError::other("put the maps in", error))?;
    object.relocate_calls(&sections).map_err(|error| EnforceError::other("put the calls in", error))?;
    let mut loaded = Vec::new();
    for &program in programs {
        let missing = || EnforceError::other("find a program in the embedded object", program.name());
        let declared = object.programs.get(program.name()).ok_or_else(missing)?;
        let function = object.functions.get(&declared.function_key()).ok_or_else(missing)?;
        match load_one(program, &function.instructions) {
            Ok(descriptor) => loaded.push((program, descriptor)),
            Err(EnforceError::MissingHook { .. }) if !program.required() => {
                tracing::debug!(program = program.name(), "this kernel has no such hook");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(loaded)
}

fn load_one(
    program: KernelProgram,
    instructions: &[aya_obj::generated::bpf_insn],
) -> Result<OwnedFd, EnforceError> {
    let mut log = Vec::new();
    let load = |log: &mut [u8]| {
        sys::load_sock_addr(program.name(), program.attach_type(), instructions, c"GPL", log)
    };
    load(&mut log).or_else(|_| {
        log.resize(1 << 16, 0_u8);
        load(&mut log).map_err(|error| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            verifier_error(program, error, &String::from_utf8_lossy(&log[..end]))
        })
    })
}

/// The kinds of maps that there are.
fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::PerCpuHashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::CgroupStorage(data)
        | Map::PerCpuCgroupStorage(data)
        | Map::SkStorage(data)
        | Map::RingBuf(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}

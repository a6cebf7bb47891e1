//! The system call filter: the rows of a plan as a program for the kernel, and the same judgement for what it hands over.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_USER_NOTIF, sock_filter, sock_fprog};

use super::{
    calls::{Call, FOREIGN_NUMBERS, Fate, NATIVE, SKIPPED, Test},
    program::{Program, To, TooFar},
};

/// Offsets in `seccomp_data`; both architectures are little endian.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// Calls of another architecture's numbering get this.
pub(super) const FOREIGN_ERRNO: i32 = libc::ENOSYS;

/// What is taken away, as a filter. An empty one is not installed.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Rows, the first that fits counts.
    pub(super) calls: Vec<Call>,
    /// Also all calls of another architecture's numbering.
    pub(super) foreign: bool,
    /// Denials are handed to the supervisor, which tells of them.
    pub(super) told: bool,
}

/// What a call that was handed over is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Judged<'a> {
    /// Of another architecture's numbering.
    Foreign,
    /// Of this row.
    Row(&'a Call),
    /// Of no row.
    Free,
}

impl Filter {
    /// Whether there is nothing to filter.
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && !self.foreign
    }

    /// Judges a call as the program does.
    pub(super) fn judge(&self, arch: u32, nr: i32, args: &[u64; 6]) -> Judged<'_> {
        let nr = nr.cast_unsigned();
        let foreign = arch != NATIVE || FOREIGN_NUMBERS.is_some_and(|first| nr >= first && nr != SKIPPED);
        if foreign {
            return if self.foreign { Judged::Foreign } else { Judged::Free };
        }
        let fits = |call: &&Call| call.nr == nr && call.tests.iter().all(|test| test.holds(args));
        self.calls.iter().find(fits).map_or(Judged::Free, Judged::Row)
    }

    /// The program.
    pub(super) fn program(&self) -> Result<Vec<sock_filter>, TooFar> {
        let mut program = Program::default();
        self.foreign_part(&mut program);
        let mut numbers: Vec<u32> = self.calls.iter().map(|call| call.nr).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for nr in numbers {
            let other = program.label();
            program.equals(nr, To::Next, To::Label(other));
            for call in self.calls.iter().filter(|call| call.nr == nr) {
                let unlike = program.label();
                for test in &call.tests {
                    write_test(&mut program, test, To::Label(unlike));
                }
                program.give(self.action(call.fate));
                program.place(unlike);
            }
            program.give(SECCOMP_RET_ALLOW);
            program.place(other);
        }
        program.give(SECCOMP_RET_ALLOW);
        program.assemble()
    }

    /// Leaves the number loaded.
    fn foreign_part(&self, program: &mut Program) {
        let action = if self.foreign { self.action(Fate::Denied(FOREIGN_ERRNO)) } else { SECCOMP_RET_ALLOW };
        let native = program.label();
        program.load(ARCH);
        program.equals(NATIVE, To::Label(native), To::Next);
        program.give(action);
        program.place(native);
        program.load(NUMBER);
        if let Some(first) = FOREIGN_NUMBERS {
            let (foreign, own) = (program.label(), program.label());
            program.at_least(first, To::Next, To::Label(own));
            program.equals(SKIPPED, To::Label(own), To::Label(foreign));
            program.place(foreign);
            program.give(action);
            program.place(own);
        }
    }

    fn action(&self, fate: Fate) -> u32 {
        let errno = |errno: i32| SECCOMP_RET_ERRNO | (errno.cast_unsigned() & libc::SECCOMP_RET_DATA);
        match fate {
            Fate::Quiet(number) => errno(number),
            Fate::Denied(_) | Fate::DeniedOutside(_) | Fate::Brokered if self.told => SECCOMP_RET_USER_NOTIF,
            Fate::Denied(number) => errno(number),
            // Nobody could tell, or broker; the hooks and the domain judge.
            Fate::DeniedOutside(_) | Fate::Brokered => SECCOMP_RET_ALLOW,
        }
    }

    /// Puts the filter on this thread, for good. Gives the supervisor's end, if denials are told.
    ///
    /// # Errors
    /// As `seccomp(2)`.
    pub(super) fn install(&self) -> io::Result<Option<OwnedFd>> {
        if self.is_empty() {
            return Ok(None);
        }
        let program = self.program().map_err(io::Error::other)?;
        if !self.told {
            return install(&program, 0).map(|_| None);
        }
        let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        // A caller that is being answered should not start over because of a signal: Linux 5.19.
        let descriptor = install(&program, listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
            .or_else(|_| install(&program, listener))?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }
}

fn install(program: &[sock_filter], flags: libc::c_ulong) -> io::Result<i32> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let description = sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which lives through the call, and does not write to it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const description)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

/// Goes on if the test holds.
fn write_test(program: &mut Program, test: &Test, unlike: To) {
    let lower = |arg: &u8| ARGS + 8 * u32::from(*arg);
    match test {
        Test::Is(arg, mask, values) => {
            load_masked(program, lower(arg), *mask);
            let like = program.label();
            for value in values {
                program.equals(*value, To::Label(like), To::Next);
            }
            always(program, unlike);
            program.place(like);
        }
        Test::IsNot(arg, mask, values) => {
            load_masked(program, lower(arg), *mask);
            for value in values {
                program.equals(*value, unlike, To::Next);
            }
        }
        Test::Given(arg) => {
            let given = program.label();
            program.load(lower(arg));
            program.equals(0, To::Next, To::Label(given));
            program.load(lower(arg) + 4);
            program.equals(0, unlike, To::Next);
            program.place(given);
        }
    }
}

fn load_masked(program: &mut Program, offset: u32, mask: u32) {
    program.load(offset);
    if mask != u32::MAX {
        program.and(mask);
    }
}

fn always(program: &mut Program, to: To) {
    program.at_least(0, to, to);
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            calls::{brokered, reaching, rows},
            program::tests::interpret,
        },
        *,
    };
    use crate::policy::Restriction;

    fn words(arch: u32, nr: u32, args: &[u64; 6]) -> [u32; 16] {
        let mut data = [0; 16];
        data[0] = nr;
        data[1] = arch;
        for (index, arg) in args.iter().enumerate() {
            data[4 + 2 * index] = u32::try_from(arg & 0xffff_ffff).unwrap();
            data[5 + 2 * index] = u32::try_from(arg >> 32).unwrap();
        }
        data
    }

    fn full(told: bool) -> Filter {
        let mut calls: Vec<Call> = Restriction::ALL.into_iter().flat_map(rows).collect();
        calls.extend(reaching());
        calls.extend(brokered());
        Filter { calls, foreign: true, told }
    }

    /// Each value a test speaks of, its neighbours, and the same in the upper half of the register.
    fn edges(filter: &Filter) -> Vec<u64> {
        let mut values = vec![0, 1, 0xf, 0x7fff_ffff, 0xffff_ffff];
        for test in filter.calls.iter().flat_map(|call| &call.tests) {
            if let Test::Is(_, _, these) | Test::IsNot(_, _, these) = test {
                for value in these {
                    values.extend([value.wrapping_sub(1), *value, value.wrapping_add(1), value | 0x80800]);
                }
            }
        }
        // What was loaded last must not be taken for a number of a call.
        values.extend(filter.calls.iter().map(|call| call.nr));
        values.sort_unstable();
        values.dedup();
        let lower: Vec<u64> = values.into_iter().map(u64::from).collect();
        lower.iter().flat_map(|value| [*value, *value << 32, *value | 1 << 32]).collect()
    }

    /// The program and [`Filter::judge`] say the same for every row's number and its neighbours, over all edges of each argument.
    /// Mutations seen to fail here: `IsNot` written as `Is`; the upper half of a pointer left out; a row's end that
    /// falls through to the next number; the mask left out.
    #[test]
    fn the_program_does_what_the_table_says() {
        for told in [false, true] {
            let filter = full(told);
            let program = filter.program().unwrap();
            let edges = edges(&filter);
            let numbers: Vec<u32> =
                filter.calls.iter().flat_map(|call| [call.nr - 1, call.nr, call.nr + 1]).collect();
            for nr in numbers {
                for first in 0..6 {
                    for value in &edges {
                        for other in [0, 1, 2, 16] {
                            let mut args = [other; 6];
                            args[first] = *value;
                            let expected = match filter.judge(NATIVE, nr.cast_signed(), &args) {
                                Judged::Row(call) => filter.action(call.fate),
                                Judged::Free => SECCOMP_RET_ALLOW,
                                Judged::Foreign => panic!("{nr} is native"),
                            };
                            let given = interpret(&program, &words(NATIVE, nr, &args));
                            assert_eq!(given, expected, "{nr} {args:x?} told {told}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn other_numberings_are_told_apart() {
        let program = full(true).program().unwrap();
        let none = [0; 6];
        let foreign = if cfg!(target_arch = "x86_64") { SECCOMP_RET_USER_NOTIF } else { SECCOMP_RET_ALLOW };
        for (arch, nr, expected) in [
            (NATIVE, 0, SECCOMP_RET_ALLOW),
            (NATIVE, 0x3fff_ffff, SECCOMP_RET_ALLOW),
            (NATIVE, 0x4000_0000, foreign),
            (NATIVE, 0x4000_0029, foreign),
            (NATIVE, 0xffff_fffe, foreign),
            (NATIVE, SKIPPED, SECCOMP_RET_ALLOW),
            (0x4000_0003, 0, SECCOMP_RET_USER_NOTIF),
            (0x4000_0028, SKIPPED, SECCOMP_RET_USER_NOTIF),
        ] {
            assert_eq!(interpret(&program, &words(arch, nr, &none)), expected, "{arch:x} {nr:x}");
        }
        let permitted = Filter { foreign: false, ..full(true) }.program().unwrap();
        assert_eq!(interpret(&permitted, &words(0x4000_0003, 0, &none)), SECCOMP_RET_ALLOW);
    }

    #[test]
    fn without_a_listener_denials_are_errnos_and_questions_pass() {
        let filter = full(false);
        let io_uring = u32::try_from(libc::SYS_io_uring_setup).unwrap();
        let connect = u32::try_from(libc::SYS_connect).unwrap();
        let program = filter.program().unwrap();
        let errno = SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        assert_eq!(interpret(&program, &words(NATIVE, io_uring, &[0; 6])), errno);
        assert_eq!(interpret(&program, &words(NATIVE, connect, &[3, 1, 110, 0, 0, 0])), SECCOMP_RET_ALLOW);
    }
}

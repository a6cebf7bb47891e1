//! A small assembler for the kernel's classic filter language, as seccomp takes it: jumps to labels, forward only.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter,
};

/// A place in a program that is not written yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Label(usize);

/// Where a jump leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum To {
    /// The next instruction.
    Next,
    /// A label.
    Label(Label),
}

/// A jump leads further than the language can say: its offsets are bytes.
#[derive(Debug, thiserror::Error)]
#[error("a jump of the system call filter is too far")]
pub(super) struct TooFar;

#[derive(Clone, Copy, Debug)]
enum Item {
    Plain { code: u32, k: u32 },
    Jump { code: u32, k: u32, yes: To, no: To },
}

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Program {
    items: Vec<Item>,
    /// Position of each label, once it is placed.
    labels: Vec<Option<usize>>,
}

impl Program {
    /// Loads the word at an offset of `seccomp_data`.
    pub(super) fn load(&mut self, offset: u32) {
        self.items.push(Item::Plain { code: BPF_LD | BPF_W | BPF_ABS, k: offset });
    }

    /// Keeps the bits of a mask.
    pub(super) fn and(&mut self, mask: u32) {
        self.items.push(Item::Plain { code: BPF_ALU | BPF_AND | BPF_K, k: mask });
    }

    /// Ends with an action.
    pub(super) fn give(&mut self, action: u32) {
        self.items.push(Item::Plain { code: BPF_RET | BPF_K, k: action });
    }

    /// Whether what was loaded equals a number.
    pub(super) fn equals(&mut self, k: u32, yes: To, no: To) {
        self.items.push(Item::Jump { code: BPF_JMP | BPF_JEQ | BPF_K, k, yes, no });
    }

    /// Whether what was loaded is a number or more.
    pub(super) fn at_least(&mut self, k: u32, yes: To, no: To) {
        self.items.push(Item::Jump { code: BPF_JMP | BPF_JGE | BPF_K, k, yes, no });
    }

    /// A label to jump to before it is placed.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places a label at the next instruction.
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.items.len());
    }

    /// The program as the kernel takes it.
    pub(super) fn assemble(&self) -> Result<Vec<sock_filter>, TooFar> {
        self.items.iter().enumerate().map(|(at, item)| self.instruction(at, *item)).collect()
    }

    fn instruction(&self, at: usize, item: Item) -> Result<sock_filter, TooFar> {
        let (code, k, yes, no) = match item {
            Item::Plain { code, k } => (code, k, 0, 0),
            Item::Jump { code, k, yes, no } => (code, k, self.offset(at, yes)?, self.offset(at, no)?),
        };
        Ok(sock_filter { code: u16::try_from(code).map_err(|_| TooFar)?, jt: yes, jf: no, k })
    }

    fn offset(&self, at: usize, to: To) -> Result<u8, TooFar> {
        let To::Label(label) = to else { return Ok(0) };
        let place = self.labels[label.0].ok_or(TooFar)?;
        u8::try_from(place.checked_sub(at + 1).ok_or(TooFar)?).map_err(|_| TooFar)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Runs a program as the kernel would, over the words of `seccomp_data`; panics on what the kernel would refuse.
    pub(in super::super) fn interpret(program: &[sock_filter], data: &[u32; 16]) -> u32 {
        let mut accumulator = 0_u32;
        let mut at = 0;
        loop {
            let insn = program[at];
            let code = u32::from(insn.code);
            at += 1;
            let jump = |holds: bool| usize::from(if holds { insn.jt } else { insn.jf });
            if code == BPF_LD | BPF_W | BPF_ABS {
                assert!(insn.k.is_multiple_of(4) && insn.k < 64, "load at {}", insn.k);
                accumulator = data[usize::try_from(insn.k / 4).unwrap()];
            } else if code == BPF_ALU | BPF_AND | BPF_K {
                accumulator &= insn.k;
            } else if code == BPF_JMP | BPF_JEQ | BPF_K {
                at += jump(accumulator == insn.k);
            } else if code == BPF_JMP | BPF_JGE | BPF_K {
                at += jump(accumulator >= insn.k);
            } else if code == BPF_RET | BPF_K {
                return insn.k;
            } else {
                panic!("instruction {code:#x} at {}", at - 1);
            }
        }
    }

    #[test]
    fn jumps_lead_to_their_labels() {
        let mut program = Program::default();
        let (small, end) = (program.label(), program.label());
        program.load(0);
        program.at_least(10, To::Next, To::Label(small));
        program.and(1);
        program.equals(1, To::Label(end), To::Next);
        program.give(2);
        program.place(small);
        program.give(3);
        program.place(end);
        program.give(4);
        let program = program.assemble().unwrap();
        let run = |first| {
            let mut data = [0; 16];
            data[0] = first;
            interpret(&program, &data)
        };
        // Mutation seen to fail here: offsets counted from the jump itself.
        assert_eq!([0, 9, 10, 11, u32::MAX].map(run), [3, 3, 2, 4, 4]);
    }

    #[test]
    fn a_jump_that_is_too_far_is_an_error() {
        for (between, fits) in [(254, true), (255, true), (256, false)] {
            let mut program = Program::default();
            let end = program.label();
            program.equals(0, To::Label(end), To::Next);
            for _ in 0..between {
                program.and(u32::MAX);
            }
            program.place(end);
            program.give(0);
            assert_eq!(program.assemble().is_ok(), fits, "{between}");
        }
    }
}

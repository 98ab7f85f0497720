//! From a policy to the kernel's program: a search tree over call numbers for each instruction set. Pure.
//!
//! The tree needs some eight comparisons a call however many are listed. Instructions are those of classic BPF
//! (linux/filter.h), packed as `linux::seccomp::load` takes them.

use std::collections::BTreeMap;

use super::syscalls::Arch;

/// What happens to a call: the kernel's return values (linux/seccomp.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(pub u32);

impl Action {
    pub const ALLOW: Action = Action(0x7fff_0000);
    pub const LOG: Action = Action(0x7ffc_0000);
    pub const KILL_PROCESS: Action = Action(0x8000_0000);
    pub const KILL_THREAD: Action = Action(0);

    /// The call fails with this error number.
    pub fn errno(number: u32) -> Action {
        Action(0x0005_0000 | (number & 0xffff))
    }

    /// The thread gets SIGSYS.
    pub fn trap() -> Action {
        Action(0x0003_0000)
    }

    /// A tracer decides.
    pub fn trace(message: u32) -> Action {
        Action(0x7ff0_0000 | (message & 0xffff))
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    /// `argument & mask == value`.
    Masked(u64),
}

/// One condition on an argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u32,
    pub compare: Compare,
    pub value: u64,
}

/// What happens when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub conditions: Vec<Condition>,
    pub action: Action,
}

/// The rules of one instruction set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub arch: Arch,
    /// By call number; the first rule that holds counts, else the default.
    pub rules: BTreeMap<u32, Vec<Rule>>,
    /// For calls above the highest number known.
    pub unknown: Option<Action>,
}

/// A whole filter. Calls of other instruction sets kill the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub default: Action,
    pub sections: Vec<Section>,
}

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
/// The x32 calls of x86-64 have this bit in their number; no profile knows them.
const X32_BIT: u32 = 0x4000_0000;
const ENOSYS: u32 = 38;

/// A place in the program that is filled in later.
#[derive(Clone, Copy)]
struct Label(usize);

#[derive(Default)]
struct Assembler {
    code: Vec<u64>,
    /// Where each label is.
    labels: Vec<Option<usize>>,
    /// Jumps to be filled in: instruction, label.
    open: Vec<(usize, Label)>,
}

impl Assembler {
    fn emit(&mut self, code: u16, k: u32) {
        self.branch(code, k, 0, 0);
    }

    fn branch(&mut self, code: u16, k: u32, yes: u8, no: u8) {
        self.code.push(u64::from(code) | u64::from(yes) << 16 | u64::from(no) << 24 | u64::from(k) << 32);
    }

    fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    fn jump(&mut self, to: Label) {
        self.open.push((self.code.len(), to));
        self.emit(JUMP, 0);
    }

    /// Jumps when the comparison holds; goes on otherwise. Conditional jumps reach 255 instructions only, so each goes
    /// over a plain one.
    fn jump_if(&mut self, code: u16, k: u32, to: Label) {
        self.branch(code, k, 0, 1);
        self.jump(to);
    }

    fn jump_unless(&mut self, code: u16, k: u32, to: Label) {
        self.branch(code, k, 1, 0);
        self.jump(to);
    }

    fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.open {
            let target = self.labels[label.0].unwrap_or(self.code.len());
            let distance = (target - at - 1) as u64;
            self.code[at] = u64::from(JUMP) | distance << 32;
        }
        self.code
    }
}

/// Makes the program.
///
/// # Errors
/// When it would be longer than the kernel takes.
pub fn compile(policy: &Policy) -> Result<Vec<u64>, String> {
    let mut asm = Assembler::default();
    asm.emit(LOAD, ARCH);
    let starts: Vec<Label> = policy.sections.iter().map(|_| asm.label()).collect();
    for (section, start) in policy.sections.iter().zip(&starts) {
        asm.jump_if(JUMP_EQ, section.arch.audit(), *start);
    }
    asm.emit(RETURN, Action::KILL_PROCESS.0);
    for (section, start) in policy.sections.iter().zip(&starts) {
        asm.place(*start);
        asm.emit(LOAD, NUMBER);
        search(&mut asm, &ranges(policy, section));
    }
    let code = asm.finish();
    let limit = linux::seccomp::MAX_INSTRUCTIONS;
    if code.len() > limit {
        return Err(format!("the seccomp profile needs {} instructions; the kernel takes {limit}", code.len()));
    }
    Ok(code)
}

/// What happens from a call number on, up to the next range.
#[derive(Clone, PartialEq)]
struct Range {
    from: u32,
    rules: Vec<Rule>,
}

fn ranges(policy: &Policy, section: &Section) -> Vec<Range> {
    let always = |action: Action| vec![Rule { conditions: vec![], action }];
    let above = section.arch.highest() + 1;
    let unknown = section.unknown.unwrap_or(policy.default);
    let mut ranges = vec![Range { from: 0, rules: always(policy.default) }];
    let mut push = |from: u32, rules: Vec<Rule>| match ranges.last_mut() {
        Some(last) if last.rules == rules => {}
        Some(last) if last.from == from => last.rules = rules,
        _ => ranges.push(Range { from, rules }),
    };
    for (number, rules) in &section.rules {
        let mut rules = rules.clone();
        let whole = rules.iter().position(|r| r.conditions.is_empty());
        match whole {
            Some(at) => rules.truncate(at + 1),
            None => rules.extend(always(policy.default)),
        }
        push(*number, rules);
        push(*number + 1, always(if *number + 1 >= above { unknown } else { policy.default }));
    }
    if section.rules.keys().next_back().is_none_or(|last| *last + 1 < above) {
        push(above, always(unknown));
    }
    if section.arch == Arch::X86_64 {
        push(X32_BIT, always(Action::errno(ENOSYS)));
    }
    ranges
}

fn search(asm: &mut Assembler, ranges: &[Range]) {
    if let [one] = ranges {
        return decide(asm, &one.rules);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let upper = asm.label();
    asm.jump_if(JUMP_GE, high[0].from, upper);
    search(asm, low);
    asm.place(upper);
    search(asm, high);
}

fn decide(asm: &mut Assembler, rules: &[Rule]) {
    for rule in rules {
        let next = asm.label();
        for condition in &rule.conditions {
            test(asm, condition, next);
        }
        asm.emit(RETURN, rule.action.0);
        asm.place(next);
    }
}

/// Goes on when the condition holds, jumps to `fail` otherwise. Arguments have 64 bits, the machine 32.
fn test(asm: &mut Assembler, condition: &Condition, fail: Label) {
    let low_at = ARGUMENTS + 8 * condition.argument;
    let (low, high) = (condition.value as u32, (condition.value >> 32) as u32);
    let hold = asm.label();
    match condition.compare {
        Compare::Equal => {
            asm.emit(LOAD, low_at + 4);
            asm.jump_unless(JUMP_EQ, high, fail);
            asm.emit(LOAD, low_at);
            asm.jump_unless(JUMP_EQ, low, fail);
        }
        Compare::NotEqual => {
            asm.emit(LOAD, low_at + 4);
            asm.jump_unless(JUMP_EQ, high, hold);
            asm.emit(LOAD, low_at);
            asm.jump_if(JUMP_EQ, low, fail);
        }
        Compare::Masked(mask) => {
            asm.emit(LOAD, low_at + 4);
            asm.emit(AND, (mask >> 32) as u32);
            asm.jump_unless(JUMP_EQ, high, fail);
            asm.emit(LOAD, low_at);
            asm.emit(AND, mask as u32);
            asm.jump_unless(JUMP_EQ, low, fail);
        }
        Compare::Greater | Compare::GreaterEqual => {
            let code = if condition.compare == Compare::Greater { JUMP_GT } else { JUMP_GE };
            asm.emit(LOAD, low_at + 4);
            asm.jump_if(JUMP_GT, high, hold);
            asm.jump_unless(JUMP_EQ, high, fail);
            asm.emit(LOAD, low_at);
            asm.jump_unless(code, low, fail);
        }
        Compare::Less | Compare::LessEqual => {
            let code = if condition.compare == Compare::Less { JUMP_GE } else { JUMP_GT };
            asm.emit(LOAD, low_at + 4);
            asm.jump_if(JUMP_GT, high, fail);
            asm.jump_unless(JUMP_EQ, high, hold);
            asm.emit(LOAD, low_at);
            asm.jump_if(code, low, fail);
        }
    }
    asm.place(hold);
}

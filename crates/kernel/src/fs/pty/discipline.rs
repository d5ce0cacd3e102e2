//! The line discipline: what a terminal makes of the bytes typed and of the bytes printed (N_TTY).
//!
//! It has no locks and no I/O: what is typed goes in byte by byte, with the echo as the result; complete
//! input waits in `ready` for the reader.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::termios::*;
use crate::signal::Signal;
use crate::vfs::Sink;

/// Longest line that can be edited; what is typed beyond it is lost.
const LINE_MAX: usize = 4095;
/// Typed bytes that nobody has read.
const READY_MAX: usize = 64 << 10;

pub struct Discipline {
    pub termios: Termios,
    /// Input for readers.
    ready: VecDeque<u8>,
    /// Canonical mode: the lines at the front of `ready`.
    lines: VecDeque<Line>,
    /// The line being typed.
    edit: Vec<u8>,
    is_literal_next: bool,
    /// Where the cursor is, and where it was when the line began.
    column: usize,
    edit_column: usize,
    /// Output is stopped (Ctrl-S).
    pub is_stopped: bool,
}

/// A complete line.
struct Line {
    /// Bytes of it that were not read yet.
    size: usize,
}

impl Discipline {
    pub fn new() -> Discipline {
        Discipline {
            termios: Termios::initial(),
            ready: VecDeque::new(),
            lines: VecDeque::new(),
            edit: Vec::new(),
            is_literal_next: false,
            column: 0,
            edit_column: 0,
            is_stopped: false,
        }
    }

    /// Whether more can be typed.
    pub fn has_room(&self) -> bool {
        self.ready.len() + self.edit.len() < READY_MAX
    }

    /// Bytes a read can give now.
    pub fn readable(&self) -> usize {
        match self.lines.front() {
            _ if !self.termios.is_canonical() => self.ready.len(),
            Some(line) => line.size,
            None => 0,
        }
    }

    /// Whether a read in canonical mode has something to give, be it the end.
    pub fn has_line(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Puts a line, or what there is in raw mode, into `sink`.
    pub fn read(&mut self, sink: &mut Sink<'_>) {
        let limit = self.readable();
        let mut count = 0;
        let (first, second) = self.ready.as_slices();
        for part in [first, second] {
            let part = &part[..part.len().min(limit - count)];
            let copied = sink.put(part);
            count += copied;
            if copied < part.len() {
                break;
            }
        }
        self.ready.drain(..count);
        if !self.termios.is_canonical() {
            return;
        }
        if let Some(line) = self.lines.front_mut() {
            line.size -= count;
            if line.size == 0 {
                self.lines.pop_front();
            }
        }
    }

    /// Changes the settings; what was typed stays readable when the mode changes.
    pub fn set_termios(&mut self, new: Termios) {
        let was_canonical = self.termios.is_canonical();
        self.termios = new;
        if !new.input(IXON) {
            self.is_stopped = false;
        }
        if was_canonical == new.is_canonical() {
            return;
        }
        self.ready.extend(self.edit.drain(..));
        self.lines.clear();
        if new.is_canonical() && !self.ready.is_empty() {
            self.lines.push_back(Line { size: self.ready.len() });
        }
    }

    /// Forgets input that was not read (TCIFLUSH).
    pub fn flush_input(&mut self) {
        self.ready.clear();
        self.lines.clear();
        self.edit.clear();
    }

    /// Takes a byte that was typed, appends the echo, and says which signal it means.
    pub fn input(&mut self, byte: u8, echo: &mut Vec<u8>) -> Option<Signal> {
        let byte = if self.termios.input(ISTRIP) { byte & 0x7f } else { byte };
        if core::mem::take(&mut self.is_literal_next) {
            self.put(byte, echo);
            return None;
        }
        if self.is_flow_control(byte) {
            return None;
        }
        if let Some(signal) = self.signal(byte) {
            if !self.termios.local(NOFLSH) {
                self.flush_input();
            }
            self.is_stopped = false;
            self.echo(byte, echo);
            return Some(signal);
        }
        let byte = match byte {
            b'\r' if self.termios.input(IGNCR) => return None,
            b'\r' if self.termios.input(ICRNL) => b'\n',
            b'\n' if self.termios.input(INLCR) => b'\r',
            byte => byte,
        };
        if self.termios.is_canonical() {
            self.edit_with(byte, echo);
        } else {
            self.put(byte, echo);
        }
        None
    }

    fn is_flow_control(&mut self, byte: u8) -> bool {
        if !self.termios.input(IXON) {
            return false;
        }
        if self.termios.is(byte, VSTOP) {
            self.is_stopped = true;
            return true;
        }
        if self.termios.is(byte, VSTART) {
            self.is_stopped = false;
            return true;
        }
        if self.termios.input(IXANY) {
            self.is_stopped = false;
        }
        false
    }

    fn signal(&self, byte: u8) -> Option<Signal> {
        let signals = [(VINTR, Signal::INT), (VQUIT, Signal::QUIT), (VSUSP, Signal::TSTP)];
        let is_sent = |&&(index, _): &&(usize, Signal)| self.termios.is(byte, index);
        let found = signals.iter().find(is_sent).map(|&(_, signal)| signal);
        found.filter(|_| self.termios.local(ISIG))
    }

    /// Canonical mode: control characters edit the line, a newline completes it.
    fn edit_with(&mut self, byte: u8, echo: &mut Vec<u8>) {
        let termios = self.termios;
        let is_extended = |index| termios.local(IEXTEN) && termios.is(byte, index);
        if termios.is(byte, VERASE) {
            self.erase(Erase::One, byte, echo);
        } else if termios.is(byte, VKILL) {
            self.kill(byte, echo);
        } else if is_extended(VWERASE) {
            self.erase(Erase::Word, byte, echo);
        } else if is_extended(VLNEXT) {
            self.is_literal_next = true;
            if termios.local(ECHO) && termios.local(ECHOCTL) {
                echo.extend_from_slice(b"^\x08");
            }
        } else if is_extended(VREPRINT) && termios.local(ECHO) {
            self.reprint(byte, echo);
        } else if termios.is(byte, VEOF) {
            self.complete();
        } else if byte == b'\n' {
            self.edit.push(byte);
            if termios.local(ECHO) || termios.local(ECHONL) {
                self.output(byte, echo);
            }
            self.complete();
        } else {
            self.put(byte, echo);
            if termios.is(byte, VEOL) || is_extended(VEOL2) {
                self.complete();
            }
        }
    }

    /// Adds a byte that means itself.
    fn put(&mut self, byte: u8, echo: &mut Vec<u8>) {
        if !self.termios.is_canonical() {
            self.ready.push_back(byte);
        } else if self.edit.len() < LINE_MAX {
            if self.edit.is_empty() {
                self.edit_column = self.column;
            }
            self.edit.push(byte);
        } else {
            if self.termios.input(IMAXBEL) {
                echo.push(0x07);
            }
            return;
        }
        self.echo(byte, echo);
    }

    fn complete(&mut self) {
        self.lines.push_back(Line { size: self.edit.len() });
        self.ready.extend(self.edit.drain(..));
    }

    fn echo(&mut self, byte: u8, echo: &mut Vec<u8>) {
        if !self.termios.local(ECHO) {
            return;
        }
        if is_control(byte) && self.termios.local(ECHOCTL) && !matches!(byte, b'\t' | b'\n') {
            echo.extend_from_slice(&[b'^', byte ^ 0x40]);
            self.column += 2;
        } else {
            self.output(byte, echo);
        }
    }

    fn erase(&mut self, what: Erase, key: u8, echo: &mut Vec<u8>) {
        let mut has_word = false;
        while let Some(&last) = self.edit.last() {
            let is_word = last.is_ascii_alphanumeric() || last == b'_';
            if what == Erase::Word && has_word && !is_word {
                break;
            }
            has_word |= is_word;
            self.erase_last(key, echo);
            if what == Erase::One {
                break;
            }
        }
    }

    fn erase_last(&mut self, key: u8, echo: &mut Vec<u8>) {
        let Some(mut last) = self.edit.pop() else { return };
        while self.termios.input(IUTF8) && last & 0xc0 == 0x80 {
            match self.edit.pop() {
                Some(byte) => last = byte,
                None => break,
            }
        }
        if !self.termios.local(ECHO) {
            return;
        }
        if !self.termios.local(ECHOE) {
            return self.echo(key, echo);
        }
        let before = self.edit.iter().fold(self.edit_column, |column, &byte| self.advance(column, byte));
        let width = self.advance(before, last) - before;
        for _ in 0..width {
            echo.extend_from_slice(if last == b'\t' { b"\x08" } else { b"\x08 \x08" });
        }
        self.column = before;
    }

    /// The column after the echo of `byte`.
    fn advance(&self, column: usize, byte: u8) -> usize {
        match byte {
            b'\t' => (column | 7) + 1,
            _ if is_control(byte) => column + if self.termios.local(ECHOCTL) { 2 } else { 0 },
            _ if self.termios.input(IUTF8) && byte & 0xc0 == 0x80 => column,
            _ => column + 1,
        }
    }

    fn kill(&mut self, key: u8, echo: &mut Vec<u8>) {
        let shows_erasure = [ECHOK, ECHOKE, ECHOE].iter().all(|&flag| self.termios.local(flag));
        if shows_erasure && self.termios.local(ECHO) {
            return self.erase(Erase::All, key, echo);
        }
        self.edit.clear();
        self.echo(key, echo);
        if self.termios.local(ECHO) && self.termios.local(ECHOK) {
            self.output(b'\n', echo);
        }
    }

    fn reprint(&mut self, key: u8, echo: &mut Vec<u8>) {
        self.echo(key, echo);
        self.output(b'\n', echo);
        for at in 0..self.edit.len() {
            self.echo(self.edit[at], echo);
        }
    }

    /// Appends what a printed byte becomes on the terminal.
    pub fn output(&mut self, byte: u8, out: &mut Vec<u8>) {
        let termios = self.termios;
        if !termios.output(OPOST) {
            out.push(byte);
            return;
        }
        match byte {
            b'\n' => {
                if termios.output(ONLCR) {
                    out.push(b'\r');
                }
                if termios.output(ONLCR) || termios.output(ONLRET) {
                    self.column = 0;
                }
                out.push(b'\n');
            }
            b'\r' if termios.output(ONOCR) && self.column == 0 => {}
            b'\r' => {
                out.push(if termios.output(OCRNL) { b'\n' } else { b'\r' });
                self.column = 0;
            }
            b'\t' => {
                let next = (self.column | 7) + 1;
                if termios.oflag & XTABS == XTABS {
                    out.resize(out.len() + next - self.column, b' ');
                } else {
                    out.push(b'\t');
                }
                self.column = next;
            }
            0x08 => {
                self.column = self.column.saturating_sub(1);
                out.push(byte);
            }
            byte => {
                if !is_control(byte) && (byte & 0xc0 != 0x80 || !termios.input(IUTF8)) {
                    self.column += 1;
                }
                out.push(byte);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Erase {
    One,
    Word,
    All,
}

fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

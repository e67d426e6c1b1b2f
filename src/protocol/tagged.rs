//! Requests and replies that are messages: each may be lost, doubled or overtaken by others. A request is found by its
//! sequence number and given up alone; what comes late or twice answers nothing.

use super::ask::Ask;
use super::client::{Cancelled, Client, Context, End, Ended, Event};
use super::sequence::{Sequences, Tag, Unawaited};
use super::ticket::{Order, Ticket};
use super::{ClientState, Codec, Outcome};
use crate::time::NS_PER_MS;

/// How long a message may be on its way for the second time.
const LINGER_NS: u64 = 100 * NS_PER_MS;

/// The client half of a protocol whose messages say which request they are.
#[derive(Debug)]
pub struct Tagged<C> {
    codec: C,
    sequences: Sequences,
    /// By ticket: the sequence number of its request, plus 1; 0: it is not awaited.
    numbers: Vec<u64>,
    depth: usize,
    worker: (u64, u64),
    run: u64,
}

impl<C: Codec + 'static> Tagged<C> {
    /// As an entry of the table has it.
    pub fn boxed(codec: C) -> Box<dyn Client> {
        let sequences = Sequences::new(0);
        Box::new(Self { codec, sequences, numbers: Vec::new(), depth: 1, worker: (0, 1), run: 0 })
    }

    /// By which replies are told from those to others.
    fn connection(&self, slot: u32) -> u64 {
        let (index, workers) = self.worker;
        self.run | (u64::from(slot) * workers + index)
    }

    /// The request of that number, if it is awaited. They are looked for from where the numbers of a connection whose
    /// replies keep their order have it.
    fn awaited(&self, slot: u32, sequence: u64) -> Option<Ticket> {
        let first = slot as usize * self.depth;
        let numbers = &self.numbers[first..first + self.depth];
        let guess = (sequence % self.depth as u64) as usize;
        let found = (guess..self.depth).chain(0..guess).find(|at| numbers[*at] == sequence + 1)?;
        Some((first + found) as Ticket)
    }
}

impl<C: Codec + 'static> Client for Tagged<C> {
    fn make_room(&mut self, slots: usize, depth: usize, worker: (u64, u64), run: u64) {
        self.sequences = Sequences::new(slots);
        self.depth = depth.max(1);
        self.numbers = vec![0; slots * self.depth];
        (self.worker, self.run) = (worker, run << 32);
    }

    fn request(&self) -> &[u8] {
        self.codec.request()
    }

    fn shares(&self) -> bool {
        false
    }

    fn kinds(&self) -> &[String] {
        self.codec.kinds()
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.codec.counts()
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn lingers_ns(&self) -> u64 {
        LINGER_NS
    }

    fn connected(&mut self, _slot: u32, cx: &mut Context<'_>) -> Result<(), Ended> {
        cx.events.push(Event::Ready);
        Ok(())
    }

    fn start(&mut self, slot: u32, ticket: Ticket, _ask: &mut Ask, cx: &mut Context<'_>) -> u16 {
        let tag = Tag { connection: self.connection(slot), sequence: self.sequences.next(slot) };
        self.sequences.sent(slot);
        self.numbers[ticket as usize] = tag.sequence + 1;
        cx.out.begin(ticket);
        let buffer = cx.out.buffer();
        let from = buffer.len();
        buffer.extend_from_slice(self.codec.request());
        self.codec.mark(&mut buffer[from..], tag);
        0
    }

    fn received(&mut self, slot: u32, message: &[u8], cx: &mut Context<'_>) -> Result<usize, Ended> {
        let connection = self.connection(slot);
        let Some(Tag { sequence, .. }) = self.codec.tag_of(message).filter(|tag| tag.connection == connection) else {
            cx.events.push(Event::Stray(Unawaited::Unasked));
            return Ok(message.len());
        };
        let Some(ticket) = self.awaited(slot, sequence) else {
            cx.events.push(Event::Stray(self.sequences.unawaited(slot, sequence)));
            return Ok(message.len());
        };
        self.numbers[ticket as usize] = 0;
        match self.codec.consume(&mut ClientState::default(), message) {
            Ok(consumed) => {
                if self.sequences.answered(slot, sequence) {
                    cx.events.push(Event::Overtaken);
                }
                let outcome = consumed.reply.map_or(Outcome::Ok, |reply| reply.outcome);
                cx.events.complete(ticket, outcome);
            }
            Err(error) => {
                self.sequences.gave_up(slot, sequence);
                cx.events.push(Event::Failed(ticket, error.kind.name(), error.describe(message)));
            }
        }
        Ok(message.len())
    }

    fn stream_ended(&mut self, _slot: u32, _kept: &[u8], _whole: bool, _cx: &mut Context<'_>) -> Result<(), Ended> {
        Err(End::broken(["closed"; 2], "the socket was closed".to_owned()))
    }

    fn cancel(&mut self, slot: u32, ticket: Ticket, cx: &mut Context<'_>) -> Cancelled {
        if let Some(sequence) = std::mem::take(&mut self.numbers[ticket as usize]).checked_sub(1) {
            self.sequences.gave_up(slot, sequence);
        }
        cx.out.withdraw(ticket);
        Cancelled::Alone
    }

    /// What is still on its way to a connection that is no more comes late.
    fn disconnected(&mut self, slot: u32) {
        let first = slot as usize * self.depth;
        for number in &mut self.numbers[first..first + self.depth] {
            if let Some(sequence) = std::mem::take(number).checked_sub(1) {
                self.sequences.gave_up(slot, sequence);
            }
        }
    }

    fn into_codec(self: Box<Self>) -> Option<Box<dyn Codec>> {
        Some(Box::new(self.codec))
    }
}

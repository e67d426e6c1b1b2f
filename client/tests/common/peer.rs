//! A peer that misbehaves as it is told to, on plain blocking sockets, and counts what it does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes of an echo request, the default of `--size`.
pub(crate) const ECHO: usize = 64;

/// A listener with a thread for each connection.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a peer did.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    good: AtomicU64,
    faults: AtomicU64,
}

/// One connection as a peer sees it.
pub(crate) struct Talk {
    pub(crate) stream: TcpStream,
    counts: Arc<Counts>,
}

impl Peer {
    /// Has `behave` deal with each connection; it is closed (with FIN) when that returns.
    pub(crate) fn start(behave: impl Fn(&mut Talk) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let behave = Arc::new(behave);
        let thread = thread::spawn({
            let (counts, stop) = (Arc::clone(&counts), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let stream = stream.unwrap();
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    counts.accepted.fetch_add(1, Ordering::Relaxed);
                    let mut talk = Talk { stream, counts: Arc::clone(&counts) };
                    let behave = Arc::clone(&behave);
                    thread::spawn(move || behave(&mut talk));
                }
            }
        });
        Self { address, counts, stop, thread: Some(thread) }
    }

    pub(crate) fn target(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Requests that were answered well.
    pub(crate) fn good(&self) -> u64 {
        self.counts.good.load(Ordering::Relaxed)
    }

    /// Faults that were committed.
    pub(crate) fn faults(&self) -> u64 {
        self.counts.faults.load(Ordering::Relaxed)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Talk {
    /// Receives one echo request; `None` at the end of the stream.
    pub(crate) fn request(&mut self) -> Option<[u8; ECHO]> {
        let mut request = [0; ECHO];
        self.stream.read_exact(&mut request).ok().map(|()| request)
    }

    /// Receives the head of one HTTP request, byte by byte so that nothing behind it is taken.
    pub(crate) fn head(&mut self) -> Option<Vec<u8>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        Some(head)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a valid reply.
    pub(crate) fn good(&mut self, bytes: &[u8]) -> bool {
        self.counts.good.fetch_add(1, Ordering::Relaxed);
        self.send(bytes)
    }

    /// To be told before the fault can be seen. Answers how many there were before it.
    pub(crate) fn fault(&self) -> u64 {
        self.counts.faults.fetch_add(1, Ordering::Relaxed)
    }

    /// How many good replies all connections have had.
    pub(crate) fn goods(&self) -> u64 {
        self.counts.good.load(Ordering::Relaxed)
    }

    /// Ends the stream and waits until the other side has, so that the end is a FIN and never a reset.
    pub(crate) fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        self.ignore();
    }

    /// Reads to the end of the stream and does nothing.
    pub(crate) fn ignore(&mut self) {
        let mut buffer = [0; 4096];
        while self.stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
    }

    /// Makes the coming close a reset.
    pub(crate) fn reset(&mut self) {
        loadgen_core::sys::socket::reset_on_close(self.stream.as_fd()).unwrap();
    }
}

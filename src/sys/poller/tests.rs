//! One walk over all pollers: what holds for one holds for each.

use super::epoll::{Epoll, EpollEdge};
use super::poll::Poll;
use super::select::Select;
use super::{Event, Interest, Poller};
use crate::sys::{seccomp, socket};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const SOON: Option<Duration> = Some(Duration::from_millis(20));

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let far = listener.accept().unwrap().0;
    near.set_nonblocking(true).unwrap();
    (near, far)
}

fn wait<P: Poller>(poller: &mut P) -> Vec<Event> {
    let mut events = Vec::new();
    poller.wait(&mut events, SOON).unwrap();
    events
}

/// The next event of `token` for which `is` holds, within a second.
fn expect<P: Poller>(poller: &mut P, token: u64, is: impl Fn(&Event) -> bool) -> Event {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        if let Some(event) = wait(poller).into_iter().find(|e| e.token == token && is(e)) {
            return event;
        }
    }
    panic!("no such event from {poller:?}");
}

fn walk<P: Poller>() {
    reads_and_ends::<P>();
    follows_interest::<P>();
    removes::<P>();
    keeps_time::<P>();
    differs_only_in_repetition::<P>();
    tells_of_a_reset::<P>();
}

fn reads_and_ends<P: Poller>() {
    let (mut near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(near.as_fd(), 7, Interest::READ).unwrap();
    assert!(!wait(&mut poller).iter().any(|e| e.readable));

    far.write_all(b"x").unwrap();
    assert!(!expect(&mut poller, 7, |e| e.readable).closing);
    assert_eq!(near.read(&mut [0; 8]).unwrap(), 1);

    far.shutdown(Shutdown::Write).unwrap();
    expect(&mut poller, 7, |e| e.readable);
    assert_eq!(near.read(&mut [0; 8]).unwrap(), 0);
    assert!(poller.calls().wait >= 3);
}

fn follows_interest<P: Poller>() {
    let (mut near, far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(near.as_fd(), 1 << 40, Interest::READ).unwrap();
    if !P::EDGE {
        assert!(wait(&mut poller).is_empty());
    }
    poller.modify(near.as_fd(), 1 << 40, Interest::WRITE).unwrap();
    expect(&mut poller, 1 << 40, |e| e.writable);

    // Filled to the brim it is not writable, and read empty it is again.
    let block = vec![0; 1 << 20];
    while near.write(&block).is_ok() {}
    std::thread::sleep(Duration::from_millis(20));
    while near.write(&block).is_ok() {}
    assert!(!wait(&mut poller).iter().any(|e| e.writable && !P::EDGE));
    far.set_nonblocking(true).unwrap();
    let mut sink = vec![0; 1 << 20];
    let start = Instant::now();
    let mut writable = false;
    while !writable && start.elapsed() < Duration::from_secs(2) {
        while (&far).read(&mut sink).is_ok() {}
        writable = wait(&mut poller).iter().any(|e| e.writable);
    }
    assert!(writable);

    poller.modify(near.as_fd(), 1 << 40, Interest::NONE).unwrap();
    if !P::EDGE {
        assert!(wait(&mut poller).is_empty());
    }
}

fn removes<P: Poller>() {
    let pairs: Vec<_> = (0..3).map(|_| pair()).collect();
    let mut poller = P::new().unwrap();
    for (token, (near, far)) in pairs.iter().enumerate() {
        poller.add(near.as_fd(), token as u64, Interest::READ).unwrap();
        (&*far).write_all(b"x").unwrap();
    }
    poller.remove(pairs[0].0.as_fd()).unwrap();
    assert!(poller.remove(pairs[0].0.as_fd()).is_err(), "removed twice");
    let mut tokens: Vec<u64> = Vec::new();
    let start = Instant::now();
    while tokens.len() < 2 && start.elapsed() < Duration::from_secs(1) {
        tokens.extend(wait(&mut poller).iter().filter(|e| e.readable).map(|e| e.token));
        tokens.sort_unstable();
        tokens.dedup();
    }
    assert_eq!(tokens, [1, 2]);
    poller.add(pairs[0].0.as_fd(), 9, Interest::READ).unwrap();
    expect(&mut poller, 9, |e| e.readable);
    assert!(poller.add(pairs[0].0.as_fd(), 9, Interest::READ).is_err(), "added twice");

    // A socket that was forgotten and closed leaves its number to another.
    for (near, far) in pairs {
        poller.forget(near.as_fd());
        drop((near, far));
    }
    let (near, mut far) = pair();
    poller.add(near.as_fd(), 11, Interest::READ).unwrap();
    far.write_all(b"x").unwrap();
    expect(&mut poller, 11, |e| e.readable);
}

fn keeps_time<P: Poller>() {
    let (near, _far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(near.as_fd(), 1, Interest::READ).unwrap();
    wait(&mut poller);
    let mut events = Vec::new();
    let start = Instant::now();
    poller.wait(&mut events, Some(Duration::from_millis(30))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(29), "{:?}", start.elapsed());
    let start = Instant::now();
    poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
    assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());
    assert!(events.is_empty());
}

fn differs_only_in_repetition<P: Poller>() {
    let (near, mut far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(near.as_fd(), 1, Interest::READ).unwrap();
    wait(&mut poller);
    far.write_all(b"x").unwrap();
    expect(&mut poller, 1, |e| e.readable);
    let again = wait(&mut poller).iter().any(|e| e.readable);
    assert_eq!(again, !P::EDGE, "an edge is told once, a level for as long as it holds");
}

fn tells_of_a_reset<P: Poller>() {
    let (mut near, far) = pair();
    let mut poller = P::new().unwrap();
    poller.add(near.as_fd(), 1, Interest::READ).unwrap();
    socket::reset_on_close(far.as_fd()).unwrap();
    drop(far);
    expect(&mut poller, 1, |e| e.readable);
    assert_eq!(near.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn poll_keeps_the_contract() {
    walk::<Poll>();
}

#[test]
fn epoll_keeps_the_contract() {
    walk::<Epoll>();
}

#[test]
fn edge_triggered_epoll_keeps_the_contract() {
    walk::<EpollEdge>();
}

#[test]
fn select_keeps_the_contract_and_refuses_what_its_sets_cannot_name() {
    // One after the other: the second part takes the low descriptors away, and all tests share them.
    walk::<Select>();
    crate::sys::limits::raise_descriptors().unwrap();
    let (near, _far) = pair();
    let mut high = Vec::new();
    while high.last().is_none_or(|fd| std::os::fd::AsRawFd::as_raw_fd(fd) < 1024) {
        high.push(near.try_clone().unwrap());
    }
    let error = Select::new().unwrap().add(high.last().unwrap().as_fd(), 1, Interest::READ).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("use poll or epoll"), "{error}");
}

/// As before Linux 5.11, and under some sandboxes. The filter is this thread's, and ends with it.
#[test]
fn epoll_waits_as_precisely_without_epoll_pwait2() {
    for error in [libc::ENOSYS, libc::EPERM] {
        let trial = std::thread::spawn(move || {
            if let Err(error) = seccomp::refuse(&[seccomp::Call::EpollPwait2], error) {
                println!("skipped: seccomp: {error}");
                return;
            }
            walk::<Epoll>();
            walk::<EpollEdge>();
            let mut poller = Epoll::new().unwrap();
            assert!(Epoll::fallback().is_some());
            // In whole milliseconds it would come back at once, or wait for 1 ms at least; being woken takes a while.
            let mut shortest = Duration::MAX;
            for _ in 0..50 {
                let began = Instant::now();
                poller.wait(&mut Vec::new(), Some(Duration::from_micros(300))).unwrap();
                let took = began.elapsed();
                assert!(took >= Duration::from_micros(300), "{took:?}");
                shortest = shortest.min(took);
            }
            println!("300 us took {shortest:?} at least");
            assert_eq!((poller.calls().wait, poller.calls().timer), (50, 50));
        });
        trial.join().unwrap();
    }
}

//! Both engines io_uring with too little of everything: queues that overflow, buffers that are used up, several rings
//! for want of descriptors. The ledger agrees with the server's counters all the same.

mod common;

use common::{LOADGEN, Running, SHORT, Server, agrees, agrees_with_embedded, brief, clean, loadgen, scratch, whole};
use loadgen_core::protocol::PROTOCOLS;

const TINY: &str = "cq=16,buffers=8x64,sq=8";

#[test]
fn every_protocol_agrees_with_too_little_of_everything() {
    for protocol in PROTOCOLS {
        let (exchange, lossy) = (protocol.shape.has_replies(), protocol.transport.may_lose());
        // Of those no more may be on their way than the kernel keeps: the others would be lost. A store of ours
        // takes requests of up to 64 KiB.
        let large = match (lossy, protocol.store) {
            (true, _) => "2000",
            (_, true) => "40000",
            _ => "64KiB",
        };
        for (size, work) in [("64", &SHORT[..]), (large, &["--requests", "40"])] {
            for churn in [None, Some("3")].into_iter().filter(|churn| churn.is_none() || exchange && !lossy) {
                eprintln!("{}, {size} bytes, churn {churn:?}", protocol.name);
                // What is on its way in the kernel has to pass through all those small buffers too.
                let conns = match (exchange, size) {
                    (true, "64") if lossy => "10",
                    (true, _) if lossy => "4",
                    (true, "64") => "60",
                    (true, _) => "10",
                    (false, _) => "2",
                };
                let mut args = vec!["--engine", "io_uring", "--server-engine", "io_uring", "--conns", conns];
                args.extend(["--ring", TINY, "--server-ring", TINY, "--protocol", protocol.name, "--size", size]);
                args.extend(["--timeout", "20s"]);
                args.extend(if exchange { &["--pipeline", "16"][..] } else { &[] });
                let work = if exchange { work } else { &SHORT };
                args.extend(churn.iter().flat_map(|n| ["--requests-per-conn", n]));
                let ended = loadgen(&[&args[..], work].concat());
                let report = ended.expect(0);
                clean(report);
                agrees_with_embedded(report);
                assert_eq!(whole(report).ok > 0, exchange, "{}", brief(report));
                let server = report.server.as_ref().unwrap();
                // A request of Redis is small at any size of values.
                let few = conns == "2" || lossy || protocol.store && size != "64";
                assert!(server.ring.as_ref().is_some_and(|ring| few || ring.overflows > 0), "{}", brief(report));
            }
        }
    }
}

/// A client that may have 64 descriptors, and has 300 connections.
fn few_descriptors(args: &[&str]) -> Running {
    let mut command = common::command("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" run --engine io_uring \"$@\" -o report.json", LOADGEN]).args(args);
    Running::launch(command, scratch())
}

#[test]
fn connections_beyond_the_descriptor_limit_have_several_rings() {
    for server in [&["--engine", "epoll"][..], &["--engine", "io_uring"]] {
        for more in [&[][..], &["--requests-per-conn", "3"], &["--threads", "2", "--ring", TINY]] {
            eprintln!("{server:?} {more:?}");
            let server = Server::start(server);
            let args = ["--target", &server.target(), "--conns", "300", "--pipeline", "4"];
            let ended = few_descriptors(&[&args[..], more, &SHORT].concat()).wait();
            let report = ended.expect(0);
            clean(report);
            let ring = report.engine.ring.as_ref().unwrap();
            assert!(ring.rings >= 5, "{ring:?}");
            agrees(report, &server.stop());
        }
    }
}

#[test]
fn more_rings_than_descriptors_are_refused() {
    let server = Server::start(&[]);
    let ended = few_descriptors(&["--target", &server.target(), "--conns", "5000", "--duration", "1s"]).wait();
    assert_eq!(ended.code, 7, "{}", ended.stderr);
    assert!(ended.stderr.contains("79 rings") && ended.stderr.contains("ulimit -Hn"), "{}", ended.stderr);
}

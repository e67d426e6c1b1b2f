"""Checks of counts, rates and verdicts: was everything counted, and does loadgen notice what it should? (GT-07 to
GT-11, GT-13 to GT-15, GT-17, GT-18, GT-20)"""

import concurrent.futures
import statistics
import subprocess
import sys

from truth import evidence, mutants, oracle
from truth.check_time import MS, S, loaded, reason_codes, unlogged, us, within


def rate_fidelity(rig):
    """GT-07."""
    seconds = rig.pick(30, 3)
    for engine in rig.engines:
        for rate in (100, 2_000, 20_000):
            run = rig.against_truth(engine, (), "--rate", rate, "--duration", f"{seconds}s", "--warmup", "0s",
                                    conns=100, log=True)
            asked, what, ledger = loaded(run), f"{rate:,}/s for {seconds} s", run.report["ledger"]
            truth, latency = rate * seconds, run.report["latency"]
            logged = len(asked) + len(unlogged(run, rate))
            rig.exact(f"{what}: scheduled, in the report and in the log (and those that never left)", f"{truth:,}",
                      f"{ledger['scheduled']:,}, {logged:,}", "equal", ledger["scheduled"] == logged == truth, engine)
            rig.problems(f"{what}: the k-th is due k/R after the first",
                         evidence.constant_schedule([row.due for row in asked], rate), "exact", engine)
            on_time = sum(row.sent and row.sent - row.due <= MS for row in asked) / len(asked) * 100
            rig.timing(f"{what}: left within 1 ms", "100 %", f"{on_time:.3f} %", ">= 99.95 %", on_time >= 99.95,
                       run.noise, engine)
            lag, codes = latency["generator_lag"]["quantiles_ns"]["0.99"], reason_codes(run)
            rig.exact(f"{what}: generator lag p99 beyond 1 ms is flagged", "flagged, or not beyond",
                      f"{us(lag)}, {', '.join(codes) or run.report['verdict']['state']}", "",
                      lag <= MS or run.report["verdict"]["state"] == "invalid", engine)
            rx = [row.rx for row in run.served if row.fate == "ok"]
            seen = (len(rx) - 1) * S / (rx[-1] - rx[0])
            rig.timing(f"{what}: rate at the server", f"{rate:,}", f"{seen:,.3f}", "0.01 %",
                       within(seen, rate, rate * 1e-4), run.noise, engine)


def poisson(rig):
    """GT-08: on the server's stamps. A server that has to wake up is 30 to 60 us late, and so are some of its stamps and not
    others: at 200/s that is a hundredth of a gap, at 500/s it is seen by the test."""
    seeds, seconds, rate = rig.pick(20, 4), 5, 200
    for engine in rig.engines:
        noise, statistics_seen, ours, indices = [], [], [], {10: [], 100: []}
        for seed in range(1, seeds + 1):
            run = rig.against_truth(engine, (), "--rate", rate, "--arrival", "poisson", "--seed", seed, "--duration",
                                    f"{seconds}s", "--warmup", "0s", "--spin", "10ms", conns=50, log=True)
            rx = [row.rx for row in run.served if row.fate == "ok"]
            due = [row.due for row in loaded(run)]
            statistics_seen.append(oracle.anderson_darling_exponential([b - a for a, b in zip(rx, rx[1:])]))
            ours.append(oracle.anderson_darling_exponential([b - a for a, b in zip(due, due[1:])]))
            for width in indices:
                indices[width].append(oracle.dispersion_index(rx, width * MS, rx[0], rx[0] + seconds * S))
            noise += run.noise
        what = f"Poisson, {seeds} seeds of {rate * seconds:,}"
        for whose, values in (("the server's arrivals", statistics_seen), ("the client's due times", ours)):
            failed = sum(value > oracle.AD_CRITICAL_1_PERCENT for value in values)
            rig.timing(f"{what}: Anderson-Darling at 1 % on {whose}, seeds that fail", "exponential",
                       f"{failed} (A2 up to {max(values):.2f})", f"<= 1 beyond {oracle.AD_CRITICAL_1_PERCENT}",
                       failed <= 1, noise if values is statistics_seen else [], engine)
        for width, values in indices.items():
            mean = statistics.fmean(value for value, _ in values)
            error = values[0][1] / len(values) ** 0.5
            limit = max(0.05, 3 * error)
            rig.timing(f"{what}: dispersion index at {width} ms", "1", f"{mean:.3f}",
                       f"{limit:.3f} (the larger of 0.05 and 3 SE of so many windows)", within(mean, 1, limit), noise,
                       engine)


def conservation(rig):
    """GT-09 and GT-10: every pair of engines, then faults whose number the ground truth knows."""
    for engine in rig.engines:
        for server in rig.server_engines:
            run = rig.client(engine, "--server-engine", server, "--conns", 100, "--duration", rig.pick("1s", "500ms"),
                             "--warmup", "100ms", "--no-pin", *threads_of(rig))
            problems = evidence.report_problems(run.report)
            problems += evidence.conservation_problems(run.report, run.report["server"])
            rig.problems("two threads: ledgers close; requests, replies, bytes, connections equal the server's",
                         problems, "exact", engine, server,
                         of=f"{run.report['ledger']['whole_run']['sent']:,} requests")
        for fault, kind in (("drop", "timeout"), ("corrupt", "mismatch"), ("reset", "reset")):
            run = rig.against_truth(engine, (f"--{fault}", 0.01, "--seed", 5), "--requests", rig.pick(20_000, 5_000),
                                    "--timeout", "300ms", conns=50, prove_first=False)
            faults(rig, engine, run, fault, kind, "closed loop")
            if rig.has("--rate"):
                run = rig.against_truth(engine, (f"--{fault}", 0.01, "--seed", 5), "--rate", 2000, "--duration",
                                        rig.pick("5s", "2s"), "--warmup", "0s", "--timeout", "300ms", conns=50,
                                        prove_first=False)
                faults(rig, engine, run, fault, kind, "open loop")


def threads_of(rig):
    return ("--threads", 2, *(("--no-floor",) if rig.has("--no-floor") else ()))


def faults(rig, engine, run, fault, kind, loop):
    truth = {"drop": "dropped", "corrupt": "corrupted", "reset": "reset"}[fault]
    whole = run.report["ledger"]["whole_run"]
    problems = evidence.report_problems(run.report) + evidence.conservation_problems(run.report, run.server)
    if whole["errors"] != {kind: run.server[truth]}:
        problems.append(f"the server {truth} {run.server[truth]}, the ledger has {whole['errors']}")
    if run.exit != 4:
        problems.append(f"exit status {run.exit}, should be 4: requests failed")
    rig.problems(f"1 % {truth}, {loop}: counted one by one, as {kind}", problems, "exact", engine,
                 of=f"{whole['sent']:,} requests, {run.server[truth]} {truth}")


def byte_conservation(rig):
    """GT-10: client, server and the kernel's own count of the server's sockets."""
    for engine in rig.engines:
        for size in (1, 64, 1500, 65536):
            requests = 2_000 if size > 10_000 else rig.pick(50_000, 10_000)
            run = rig.against_truth(engine, ("--size", size), "--size", size, "--requests", requests, conns=20,
                                    prove_first=False)
            problems = evidence.report_problems(run.report) + evidence.conservation_problems(run.report, run.server)
            rig.problems(f"{size} B: client = server = kernel (tcpi_bytes_received less FIN, tcpi_bytes_acked)",
                         problems, "exact", engine,
                         of=f"{run.server['received_bytes']:,} + {run.server['sent_bytes']:,} bytes")


INSIDE = """
import pathlib, subprocess, sys
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
code = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL).returncode
out = []
for name in ("snmp", "netstat"):
    out.append(pathlib.Path(f"/proc/net/{name}").read_text())
pathlib.Path(sys.argv[1]).write_text("".join(out))
sys.exit(code)
"""


def kernel_ledger(rig):
    """GT-11: in a network namespace of its own, where all counters begin at 0 and nobody else has connections."""
    if subprocess.run(["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode:
        return rig.not_run("kernel's connection ledger", "no network namespaces here (unshare -n, ip)")
    for engine in rig.engines:
        for server in rig.server_engines:
            counters = rig.scratch(".counters")
            run = rig.client(engine, "--server-engine", server, "--conns", 200, "--duration", "500ms", "--warmup",
                             "100ms", "--requests-per-conn", 50, *threads_of(rig)[2:],
                             prefix=("unshare", "-n", sys.executable, "-c", INSIDE, counters))
            seen, connections = kernel_counters(counters.read_text()), run.report["connections"]
            problems = []
            attempts, opened, accepts = connections["attempts"], connections["opened"], run.report["server"]["accepts"]
            # Each program that uses io_uring first tries it out, with one connection to itself (sys/ring/smoke.rs).
            trials = (engine == "io_uring") + (server == "io_uring")
            active, passive = seen["Tcp.ActiveOpens"] - trials, seen["Tcp.PassiveOpens"] - trials
            # The end of the run may cut an attempt off before or after the kernel has begun it.
            if not opened <= active <= attempts or opened + connections["unfinished"] != attempts:
                problems.append(f"ActiveOpens {active}, {attempts} attempts, {opened} opened, "
                                f"{connections['unfinished']} unfinished")
            if passive != accepts or not opened <= accepts <= opened + connections["unfinished"]:
                problems.append(f"PassiveOpens {passive}, {accepts} accepts, {opened} opened")
            for name in ("Tcp.RetransSegs", "TcpExt.ListenOverflows"):
                if seen[name] != run.report["kernel"].get(name, 0):
                    problems.append(f"{name} {seen[name]}, the report says {run.report['kernel'].get(name, 0)}")
            rig.problems("ActiveOpens = attempts = opened, PassiveOpens = accepts (but for those cut off at the "
                         "end); RetransSegs, ListenOverflows as reported", problems, "exact", engine, server,
                         of=f"{attempts:,} connections, {seen['Tcp.RetransSegs']} retransmissions, "
                            f"{seen['TcpExt.ListenOverflows']} overflows")
    return None


def kernel_counters(text):
    counters = {}
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2]):
        head, *words = names.split()
        counters |= {head.rstrip(":") + "." + word: int(value) for word, value in zip(words, values.split()[1:])}
    return counters


def drift(rig):
    """GT-13: 20 runs each, some beside each other: their requests are few, and the change is large."""
    runs, seconds = rig.pick(20, 5), rig.pick(7, 6)
    cases = (("service 1 to 3 ms, evenly", f"drift:1ms,3ms,{seconds}s", True),
             ("service 1 ms, 3 ms from half-time", f"step:1ms,3ms,{seconds / 2}s", True),
             ("service 2 ms throughout", "fixed:2ms", False))
    for engine in rig.engines:
        for what, times, flagged in cases:
            def one(_, times=times, engine=engine):
                return rig.against_truth(engine, ("--delay", times), "--rate", 200, "--duration", f"{seconds}s",
                                         "--warmup", "0s", conns=20)
            with concurrent.futures.ThreadPoolExecutor(5) as pool:
                done = list(pool.map(one, range(runs)))
            found, allowed = sum("not_steady" in reason_codes(run) for run in done), runs // 20
            # Five beside each other are each other's noise, so whose CPU time it was is not asked.
            noise = [reason for run in done for reason in run.noise if "timer" in reason or "host" in reason]
            rig.timing(f"{what}: flagged not_steady", f"{runs if flagged else 0} of {runs}", found,
                       f"= {runs}" if flagged else f"<= {allowed}",
                       found == runs if flagged else found <= allowed, noise[:1], engine,
                       note="suppressed by other reasons to be invalid: " + str(sum(
                           not run.report["confidence"]["drift"]["steady"] for run in done
                           if "not_steady" not in reason_codes(run) and run.report["confidence"]["drift"])))


def little(rig):
    """GT-14."""
    for engine in rig.engines:
        for what, words in (("no delay", ()), ("1 ms", ("--delay", "fixed:1ms")), ("exp 2 ms", ("--delay", "exp:2ms"))):
            run = rig.against_truth(engine, words, "--duration", rig.pick("4s", "2s"), "--warmup", "200ms", conns=50)
            coverage = evidence.little(run.report)
            rig.exact(f"closed loop, {what}: sum of response times / (connections x window)", "at most 1",
                      f"{coverage:.5f}", "1.000", coverage <= 1, engine)
            # A pause at the moment when the window opens belongs to requests that were due before it.
            rig.timing(f"closed loop, {what}: the same, not much below", "just below 1", f"{coverage:.5f}", "0.995",
                       coverage >= 0.995, run.noise, engine)
            throughput, response = run.report["throughput"], run.report["latency"]["response"]
            product = throughput["replies"] / throughput["window_ns"] * response["mean_ns"] / 50
            rig.timing(f"closed loop, {what}: rate x mean / connections", "1", f"{product:.5f}", "0.5 %",
                       within(product, 1, 0.005), run.noise, engine)


def floor(rig):
    """GT-15: what the generator itself adds, measured before each run: five times the same?"""
    for engine in rig.engines:
        runs = [rig.client(engine, "--conns", 1, "--duration", "300ms", "--warmup", "100ms") for _ in range(5)]
        if not runs[0].report.get("floor"):
            rig.not_run("floor, 5 repeats", "the report has no floor")
            continue
        values = [run.report["floor"]["response_p50_ns"] for run in runs if run.report["floor"]["response_p50_ns"]]
        middle = statistics.median(values)
        noise = [reason for run in runs for reason in run.noise]
        rig.timing("floor: response p50, 5 repeats", "equal", ", ".join(us(value) for value in values), "10 %",
                   all(within(value, middle, middle / 10) for value in values), noise, engine)
        rig.exact("floor: stored in each report", 5, sum(bool(run.report.get("floor")) for run in runs), "equal",
                  all(run.report.get("floor") for run in runs), engine)


def plausibility(rig):
    """GT-17: one thread or three, the same; and everything that any report of this command has to keep."""
    for engine in rig.engines:
        counted = {}
        for threads in (1, 3):
            run = rig.client(engine, "--conns", 30, "--requests", 3_000, "--threads", threads, "--no-pin")
            whole = run.report["ledger"]["whole_run"]
            counted[threads] = (whole["sent"], whole["ok"], run.report["throughput"]["whole_run_received_bytes"],
                                run.report["connections"]["opened"], run.report["latency"]["response"]["count"])
        rig.exact("one thread and three: requests, replies, bytes, connections, response times", counted[1], counted[3],
                  "equal", counted[1] == counted[3], engine)
    found = [f"{check}, {engine}: {problem}" for check, engine, report in rig.reports
             for problem in evidence.report_problems(report)]
    rig.problems("every report of this command: orders, sums, rates, ledgers, series, Little", found, "none",
                 of=f"{len(rig.reports)} reports")
    rig.exact("planted mistakes that the oracle notices", len(mutants.MUTANTS), len(mutants.caught()), "all",
              len(mutants.caught()) == len(mutants.MUTANTS))


def histograms(rig):
    """GT-18: another implementation of the buckets, on a million values with every edge."""
    edges = [edge for shift in range(42) for value in (1 << shift, 2047 << max(0, shift - 11))
             for edge in (value - 1, value, value + 1) if 0 <= edge <= 3_600_000_000_000]
    wrong = sum(not low <= value <= high or (high - low) * 1000 > max(low, 1000)
                for value in edges for low, high in [oracle.bucket_range(oracle.bucket_of(value))])
    rig.exact("the oracle's own buckets: each value in its bucket, no wider than 0.1 %", 0, f"{wrong} of {len(edges)}",
              "none", wrong == 0)
    rig.line("loadgen's histogram against an exact sort", "", "", "", "not run",
             note="held by cargo test: quantiles_are_within_a_thousandth_of_the_exact_ones in src/histogram.rs; whole "
                  "reports against this oracle's buckets: GT-01, GT-17")


def compare_gate(rig):
    """GT-20."""
    rig.not_run("300 A/A pairs, 5 % slower, 5 % faster", "loadgen has no compare yet")


CHECKS = {
    "GT-07": (rate_fidelity, ("--rate", "--request-log")),
    "GT-08": (poisson, ("--rate", "--request-log")),
    "GT-09": (conservation, ()),
    "GT-10": (byte_conservation, ()),
    "GT-11": (kernel_ledger, ()),
    "GT-13": (drift, ("--rate",)),
    "GT-14": (little, ()),
    "GT-15": (floor, ()),
    "GT-18": (histograms, ()),
    "GT-20": (compare_gate, ()),
    # Last: it looks at the reports of all others.
    "GT-17": (plausibility, ()),
}

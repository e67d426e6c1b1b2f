"""The apparatus of bench/trust: the C programs, runs of loadgen against them, the noise guard, the table's lines."""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import time

from common import CLIENT_CPU, SERVER_CPU, pinned
from truth import evidence

SOURCES = pathlib.Path(__file__).resolve().parent
# The noise guard. Beyond any of these a statement about time says nothing, whichever way it came out.
OVERRUN_P99_MAX_NS = 500_000
OTHERS_MAX_PERCENT = 5
STEAL_MAX_PERCENT = 2
# Time that a thread of the client could run and did not, as others had its CPU, beyond what waking up takes anyway. Less
# than this cannot move a 99th percentile, and the kernel's own threads take 0.1 % from a client that never sleeps.
RUN_DELAY_MAX_PERCENT = 0.5
LOOK_S = 0.1
TICK_S = 1 / os.sysconf("SC_CLK_TCK")

Line = collections.namedtuple("Line", "check what engine server truth measured limit verdict note")


def compile_tools(folder):
    """The C programs, built anew: they are small."""
    tools = {}
    for name, flags in (("gtserver", ["-lm"]), ("observer", []), ("bareclient", []),
                        ("clockstep.so", ["-shared", "-fPIC"])):
        source = SOURCES / f"{name.removesuffix('.so')}.c"
        tools[name] = folder / name
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", tools[name], source, *flags], check=True)
    return tools


@dataclasses.dataclass
class Run:
    """One run of loadgen and what was seen of it."""
    exit: int
    report: dict
    stderr: str
    noise: list
    asked: list = None
    served: list = None
    server: dict = None
    # Moments (CLOCK_MONOTONIC, ns) at which something was done to it from outside.
    moments: list = dataclasses.field(default_factory=list)
    delayed: list = None


def busy_and_stolen():
    """CPU time of everybody, and what the host took, in seconds."""
    words = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq) * TICK_S, steal * TICK_S


class Noise:
    """What else ran on this machine meanwhile: all CPU time, less that of processes of ours."""

    def __init__(self, beside=lambda: 0):
        """`beside`: CPU seconds of a program that is ours, but nobody's child."""
        self.beside = beside
        self.began, (self.busy, self.stolen), self.ours = time.monotonic(), busy_and_stolen(), own_cpu_s() + beside()

    def reasons(self, server=None):
        seconds = max(time.monotonic() - self.began, 1e-3)
        busy, stolen = busy_and_stolen()
        others = (busy - self.busy - (own_cpu_s() + self.beside() - self.ours)) / seconds * 100
        steal = (stolen - self.stolen) / seconds * 100
        reasons = []
        if others > OTHERS_MAX_PERCENT:
            reasons.append(f"others used {others:.0f} % of a CPU")
        if steal > STEAL_MAX_PERCENT:
            reasons.append(f"the host took {steal:.0f} %")
        if server and server["overrun_p99_ns"] > OVERRUN_P99_MAX_NS:
            reasons.append(f"the server's own timer was late by {server['overrun_p99_ns'] / 1000:.0f} us (p99)")
        return reasons


def run_delay(process, wait_s):
    """Waits for loadgen to end. For how much of the time its worst thread waited for a CPU, in percent, as the kernel
    has it (schedstat); and its standard error. Every wake-up waits a little, so what counts is what an interval has
    beyond twice the median of all intervals."""
    began, seen = time.monotonic(), {}
    while True:
        try:
            _, stderr = process.communicate(timeout=LOOK_S)
            break
        except subprocess.TimeoutExpired:
            if time.monotonic() - began > wait_s:
                raise
        for task in pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError, IndexError):
                seen.setdefault(task, []).append(int(task.read_text().split()[1]))
    worst = 0
    for waited in seen.values():
        # From the first look on: before, there are set-up and the floor's calibration.
        steps = [later - earlier for earlier, later in zip(waited, waited[1:])]
        usual = 2 * statistics.median(steps) if steps else 0
        worst = max(worst, sum(step - usual for step in steps if step > usual))
    return worst / 1e9 / max(time.monotonic() - began, 1e-3) * 100, stderr


def own_cpu_s():
    """This process and all that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class GroundTruth:
    """A running gtserver on the server's CPU."""

    def __init__(self, rig, *words):
        self.rig, self.log = rig, rig.scratch()
        command = [rig.tools["gtserver"], "--log", self.log, *words]
        self.process = subprocess.Popen(pinned(SERVER_CPU, command), stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().split()[-1]
        self.stats = self.served = None

    def __enter__(self):
        return self

    def finish(self):
        """Ends it, and reads what it wrote."""
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGCONT)
        output, _ = self.process.communicate(timeout=60)
        self.stats = json.loads(output)
        if self.stats["log_lost"]:
            raise RuntimeError(f"gtserver's log was too small by {self.stats['log_lost']}: give it more --capacity")
        self.served = evidence.read_served(self.log)
        return self.stats

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.unlink(missing_ok=True)


class Rig:
    """Where a check finds all that it needs, and leaves its lines."""

    def __init__(self, loadgen, server, folder, args):
        self.loadgen, self.loadgen_server, self.folder, self.quick = loadgen, server, folder, args.quick
        self.keep = args.keep
        self.engines = args.engines.split(",")
        self.server_engines = args.server_engines.split(",")
        self.tools = compile_tools(folder)
        self.lines, self.reports, self.started = [], [], time.monotonic()
        self.files = itertools.count(1)
        self.check = None
        self.help = subprocess.run([loadgen, "run", "--help"], capture_output=True, text=True, check=True).stdout
        self.server_help = subprocess.run([server, "--help"], capture_output=True, text=True, check=True).stdout

    def has(self, *flags):
        """Whether this loadgen knows these flags."""
        return all(re.search(rf"{flag}\b", self.help) for flag in flags)

    def pick(self, full, quick):
        return quick if self.quick else full

    def scratch(self, ending=""):
        # Checks may run things beside each other.
        return self.folder / f"{next(self.files):04}-{self.check}{ending}"

    # Lines.

    def line(self, what, truth, measured, limit, verdict, engine="", server="", note=""):
        self.lines.append(Line(self.check, what, engine, server, truth, measured, limit, verdict, note))
        print(f"{verdict:>12}  {self.check}  {' / '.join(filter(None, (engine, server)))}  {what}: {measured} "
              f"(truth {truth}; limit {limit}) {note}", flush=True)

    def exact(self, what, truth, measured, limit, good, engine="", server="", note=""):
        """A statement that noise cannot make wrong."""
        self.line(what, truth, measured, limit, "pass" if good else "FAIL", engine, server, note)

    def timing(self, what, truth, measured, limit, good, noise, engine="", server="", note=""):
        """A statement about time: on a noisy machine it is inconclusive, whether it would have held or not."""
        verdict = "pass" if good else "FAIL"
        if noise:
            # One of each kind: of many runs the reasons differ only in their figures.
            kinds = {" ".join(reason.split()[:2]): reason for reason in noise}
            note = "; ".join([*sorted(kinds.values()), f"would be {verdict}", *filter(None, [note])])
            verdict = "inconclusive"
        self.line(what, truth, measured, limit, verdict, engine, server, note)

    def figure(self, what, measured, engine="", server="", note=""):
        """Measured, without a limit."""
        self.line(what, "", measured, "", "figure", engine, server, note)

    def not_run(self, what, why):
        self.line(what, "", "", "", "not run", note=why)

    def problems(self, what, problems, limit="none", engine="", server="", of=""):
        """A list of problems, which should be empty."""
        measured = f"{len(problems)} problems" + (f" in {of}" if of else "")
        self.exact(what, "no problem", measured, limit, not problems, engine, server, "; ".join(problems[:3]))

    # Runs.

    def client(self, engine, *words, log=False, env=None, disturb=None, wait_s=300, prefix=()):
        """Runs loadgen on the client's CPU; `disturb(process)` may do something to it, and returns moments."""
        report, asked = self.scratch(".json"), self.scratch(".csv")
        command = [*prefix, self.loadgen, "run", "--engine", engine, "--quiet", "--output", report, *words]
        if log:
            command += ["--request-log", asked]
        noise = Noise()
        process = subprocess.Popen(pinned(CLIENT_CPU, command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True, env=os.environ | (env or {}))
        try:
            moments = disturb(process) if disturb else []
            delayed, stderr = run_delay(process, wait_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if not report.exists():
            raise RuntimeError(f"loadgen {' '.join(map(str, words))}: exit {process.returncode}: {stderr.strip()}")
        run = Run(process.returncode, evidence.read_report(report), stderr, noise.reasons(), moments=moments or [])
        late = f"loadgen waited for its CPU for {delayed:.2f} % of the time"
        run.delayed = [late] if delayed > RUN_DELAY_MAX_PERCENT else []
        run.noise += run.delayed
        if log:
            run.asked = evidence.read_asked(asked)
        self.reports.append((self.check, engine, run.report))
        if not self.keep:
            report.unlink()
            asked.unlink(missing_ok=True)
        return run

    def bare(self, rate, requests):
        """The least that a client can do, in place of loadgen: its pairs and the noise meanwhile."""
        noise, log = Noise(), self.scratch(".csv")
        with GroundTruth(self, "--service", "fixed:700us") as server, open(log, "w", encoding="ascii") as out:
            words = [self.tools["bareclient"], server.address.split(":")[1], rate, requests, 64]
            subprocess.run(pinned(CLIENT_CPU, words), stdout=out, check=True, timeout=300)
            stats = server.finish()
            pairs, problems = evidence.match(evidence.read_asked(log), server.served)
        if problems:
            raise RuntimeError(problems[0])
        return pairs, noise.reasons(stats)

    def against_truth(self, engine, truth, *words, conns, log=False, prove_first=True, **more):
        """A run against a gtserver. The requests that prove the connections are not of the load."""
        conns_first = ["--skip", conns] if prove_first else []
        noise = Noise()
        with GroundTruth(self, *conns_first, *truth) as server:
            if disturb := more.pop("disturb_server", None):
                more["disturb"] = lambda client: disturb(client, server.process)
            run = self.client(engine, "--target", server.address, "--conns", conns, "--max-unproven", 1, *words,
                              log=log, **more)
            run.server = server.finish()
            run.served = server.served
        run.noise = noise.reasons(run.server) + run.delayed
        return run


@contextlib.contextmanager
def server_of_ours(rig, engine, *words):
    """A loadgen-server on the server's CPU: its address, and where its counters will be once it has ended."""
    stats = rig.scratch(".stats")
    command = [rig.loadgen_server, "--listen", "127.0.0.1:0", "--engine", engine, "--stats", stats, *words]
    process = subprocess.Popen(pinned(SERVER_CPU, command), stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().split()[-1], stats
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


def table(lines):
    """Markdown."""
    rows = ["| check | what | client | server | truth | measured | limit | verdict | note |",
            "|---|---|---|---|---|---|---|---|---|"]
    for line in lines:
        cells = [line.check, line.what, line.engine, line.server, line.truth, line.measured, line.limit,
                 f"**{line.verdict}**" if line.verdict == "FAIL" else line.verdict, line.note]
        rows.append("| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(rows)


def save(folder, lines, about):
    plain = {"schema": "loadgen.trust/1", **about, "lines": [line._asdict() for line in lines]}
    (folder / "trust.json").write_text(json.dumps(plain, indent=1) + "\n")

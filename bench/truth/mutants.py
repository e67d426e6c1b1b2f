"""Planted mistakes: a check that cannot fail is worth nothing.

A sound run is made up here from the oracle alone (logs of both sides and a report), so that no program is needed. Then
it is spoilt in one way after the other, and each time the judge in question has to object. `bench/trust --self-test`.
"""

import base64
import copy
import random
import struct
import sys
import zlib

from truth import evidence, oracle

RATE, REQUESTS, CONNS, DELAY = 1000, 2000, 20, 500_000


def logs():
    """Twenty connections in turn; exponential service, FIFO; 20 us there, 15 us back."""
    rng, served, asked, busy = random.Random(1), [], [], 0
    for k in range(REQUESTS):
        slot, index, due = k % CONNS, k // CONNS, 10**12 + k * 10**9 // RATE
        sent = due + rng.randrange(1_000, 5_000)
        rx, service = sent + 20_000, max(1, round(rng.expovariate(1 / 300_000)))
        start = max(rx, busy)
        busy = start + service
        tx = busy + rng.randrange(1, 3_000)
        served.append(evidence.Served(slot, index, rx, start, busy, tx, service, "ok"))
        asked.append(evidence.Asked(slot, due, sent, tx + 15_000 + rng.randrange(5_000), "ok"))
    return asked, served


def encode_hdr(buckets):
    """The other direction of `evidence.decode_hdr`."""
    payload, at = bytearray(), 0

    def put(number):
        word = (number << 1) ^ (number >> 63)
        while word >= 0x80:
            payload.append(word & 0x7F | 0x80)
            word >>= 7
        payload.append(word)
    for index in sorted(buckets):
        if index > at:
            put(at - index)
        put(buckets[index])
        at = index + 1
    plain = struct.pack(">IIIIQQd", 0x1C849313, len(payload), 0, 3, 1, 3_600_000_000_000, 1.0) + payload
    packed = zlib.compress(plain)
    return base64.b64encode(struct.pack(">II", 0x1C849314, len(packed)) + packed).decode()


def histogram(values):
    buckets = evidence.buckets_of(values)
    return {"count": len(values), "min_ns": min(values), "mean_ns": sum(values) // len(values), "max_ns": max(values),
            "sum_ns": sum(values), "hdr": encode_hdr(buckets),
            "quantiles_ns": {q: min(max(evidence.hdr_quantile(buckets, len(values), float(q)), min(values)),
                                    max(values)) for q in ("0.5", "0.9", "0.95", "0.99", "0.999", "0.9999")}}


def report(asked):
    seconds = REQUESTS // RATE
    ledger = {"scheduled": REQUESTS, "unsent": 0, "sent": REQUESTS, "ok": REQUESTS, "errors": {}, "in_flight_at_end": 0}
    return {
        "ledger": ledger | {"whole_run": dict(ledger)},
        "throughput": {"requests_per_s": RATE, "replies": REQUESTS, "window_ns": seconds * 10**9,
                       "whole_run_sent_bytes": 64 * REQUESTS, "whole_run_received_bytes": 64 * REQUESTS},
        "scenario": {"mode": "open", "connections": CONNS, "pipeline": 1},
        "connections": {"opened": CONNS, "unfinished": 0, "lost": 0},
        "kernel": {},
        "series": {"columns": ["ok", "errors", "sent_bytes", "received_bytes"],
                   "rows": [[RATE, 0, 64 * RATE, 64 * RATE] for _ in range(seconds)]},
        "latency": {"response": histogram([row.received - row.due for row in asked]),
                    "service": histogram([row.received - row.sent for row in asked]),
                    "connect": histogram([40_000 + n for n in range(CONNS)]), "censored": 0}}


def server():
    return {"accepts": CONNS, "requests": REQUESTS, "replies": REQUESTS, "received_bytes": 64 * REQUESTS,
            "sent_bytes": 64 * REQUESTS, "kernel_received_bytes": 64 * REQUESTS + CONNS, "fins": CONNS, "reset": 0,
            "gone": 0, "kernel_acked_bytes": 64 * REQUESTS, "kernel_retransmissions": 0}


class Evidence:
    """A run, and all judges over it."""

    def __init__(self):
        self.asked, self.served = logs()
        self.report, self.server = report(self.asked), server()

    def problems(self):
        pairs, problems = evidence.match(self.asked, self.served)
        if abs(scale := evidence.scale_error(pairs)) > evidence.SCALE_ERROR_MAX:
            problems.append(f"the residual grows by {scale:.2%} of the latency")
        problems += evidence.causality(pairs) + evidence.fates_agree(pairs)
        problems += evidence.server_is_true(self.served, queued=True)
        problems += evidence.constant_schedule([row.due for row in self.asked], RATE)
        problems += evidence.log_is_histogram(self.report["latency"]["response"], [row.received - row.due for row
                                              in self.asked], "response")
        problems += evidence.log_is_histogram(self.report["latency"]["service"], [row.received - row.sent for row
                                              in self.asked], "service")
        problems += evidence.report_problems(self.report)
        return problems + evidence.conservation_problems(self.report, self.server)


def replaced(rows, change):
    return [row._replace(**change(n, row)) for n, row in enumerate(rows)]


def in_log(change):
    """Spoils the client's log, and makes the report fit it: only the server can tell."""
    def spoil(run):
        run.asked = change(run.asked)
        run.report = report(run.asked)
    return spoil


def in_report(*path, by):
    def spoil(run):
        place = run.report
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = by(place[path[-1]])
    return spoil


def swap(rows):
    """Two requests of one connection exchange their times."""
    rows = list(rows)
    one, other = rows[100], rows[100 + CONNS]
    rows[100] = one._replace(received=other.received)
    rows[100 + CONNS] = other._replace(received=one.received)
    return rows


def scaled_histogram(factor, shift=0):
    return lambda h: histogram([round(oracle.bucket_range(index)[0] * factor) + shift for index, n in
                                evidence.decode_hdr(h["hdr"]).items() for _ in range(n)])


def with_buckets(change):
    def by(text):
        buckets = evidence.decode_hdr(text)
        change(buckets)
        return encode_hdr(buckets)
    return by


def move_one(buckets):
    """One value a bucket lower: the least mistake there is."""
    index = sorted(buckets)[len(buckets) // 2]
    buckets[index] -= 1
    buckets[index - 1] = buckets.get(index - 1, 0) + 1


def drop_last(buckets):
    del buckets[max(buckets)]


def spoil_server(key, by):
    def spoil(run):
        run.server[key] += by
    return spoil


def served_early(run):
    run.served = replaced(run.served, lambda n, row: {"tx": row.done - 1} if n == 7 else {})


def not_fifo(run):
    run.served = replaced(run.served, lambda n, row: {"start": row.start + 1_000} if n == 7 else {})


# Name: what spoils the evidence.
MUTANTS = {
    "received 40 us early": in_log(lambda rows: replaced(rows, lambda _, row: {"received": row.received - 40_000})),
    "one reply received 1 us before it was sent": in_log(lambda rows: replaced(
        rows, lambda n, row: {"received": 10**12} if n == 50 else {})),
    "latencies 5 % short": in_log(lambda rows: replaced(
        rows, lambda _, row: {"received": row.due + (row.received - row.due) * 95 // 100})),
    "latency counted from the send, not from due": in_log(lambda rows: replaced(
        rows, lambda _, row: {"due": row.sent})),
    "latencies 5 % long": in_log(lambda rows: replaced(
        rows, lambda _, row: {"received": row.due + (row.received - row.due) * 105 // 100})),
    "two requests exchanged": in_log(swap),
    "a request missing in the log": in_log(lambda rows: rows[:99] + rows[100:]),
    "a request twice in the log": in_log(lambda rows: rows[:100] + rows[99:]),
    "two connections exchanged": in_log(lambda rows: replaced(
        rows, lambda _, row: {"slot": {3: 4, 4: 3}.get(row.slot, row.slot)})),
    "one due time 1 ns late": in_log(lambda rows: replaced(rows, lambda n, row: {"due": row.due + (n == 500)})),
    "rate 0.01 % low": in_log(lambda rows: replaced(rows, lambda n, row: {"due": row.due + n * 100})),
    "a failed request called ok": lambda run: setattr(run, "served", replaced(
        run.served, lambda n, row: {"fate": "corrupted"} if n == 9 else {})),
    "the server answered early": served_early,
    "the server did not keep the order": not_fifo,
    "histogram scaled by 1.05": in_report("latency", "response", by=scaled_histogram(1.05)),
    "histogram shifted by -1 us": in_report("latency", "response", by=scaled_histogram(1, -1_000)),
    "histogram in microseconds": in_report("latency", "response", by=scaled_histogram(0.001)),
    "one value in the next bucket": in_report("latency", "response", "hdr", by=with_buckets(move_one)),
    "the last bucket dropped": in_report("latency", "response", "hdr", by=with_buckets(drop_last)),
    "p99 of another rank": in_report("latency", "response", "quantiles_ns", "0.99",
                                     by=lambda value: value * 101 // 100),
    "mean in microseconds": in_report("latency", "response", "mean_ns", by=lambda value: value // 1000),
    "maximum 1 ns short": in_report("latency", "response", "max_ns", by=lambda value: value - 1),
    "sum counted twice": in_report("latency", "response", "sum_ns", by=lambda value: 2 * value),
    "service time taken for response time": lambda run: run.report["latency"].update(
        response=copy.deepcopy(run.report["latency"]["service"])),
    "a request lost from the ledger": in_report("ledger", "whole_run", "ok", by=lambda value: value - 1),
    "a request counted twice": lambda run: run.report["ledger"]["whole_run"].update(
        scheduled=REQUESTS + 1, sent=REQUESTS + 1, ok=REQUESTS + 1),
    "a timeout left out": lambda run: (run.server.update(requests=REQUESTS - 1, replies=REQUESTS - 1)),
    "rate 1 % too high": in_report("throughput", "requests_per_s", by=lambda value: value * 101 // 100),
    "a second missing in the series": in_report("series", "rows", by=lambda rows: rows[:-1]),
    "a negative number": in_report("connections", "lost", by=lambda _: -1),
    "a broken number": in_report("connections", "lost", by=lambda _: float("nan")),
    "one byte too few sent": spoil_server("received_bytes", 1),
    "one byte that only the kernel saw": spoil_server("kernel_acked_bytes", 1),
    "an accept that nobody asked for": spoil_server("accepts", 1),
    "more time waited than there was": lambda run: (
        run.report["scenario"].update(mode="closed", connections=1),
        run.report["throughput"].update(window_ns=5 * 10**8, replies=500)),
}


def caught():
    """Names of the mutants that some judge objects to; the sound run must have no objection."""
    if problems := Evidence().problems():
        sys.exit(f"the oracle objects to a sound run: {problems[0]}")
    return [name for name, spoil in MUTANTS.items() if spoiled_problems(spoil)]


def spoiled_problems(spoil):
    run = Evidence()
    spoil(run)
    return run.problems()


# What the closed forms of the study say, in milliseconds for 2 ms of service: mean, p50, p90, p99, p99.9.
TABLE = {("M/D/1", 0.3): (2.429, 2.000, 3.675, 5.782, 8.046), ("M/D/1", 0.5): (3.000, 2.000, 5.031, 8.673, 12.337),
         ("M/D/1", 0.7): (4.333, 3.460, 8.154, 14.971, 21.789), ("M/M/1", 0.3): (2.857, 1.980, 6.579, 13.158, 19.736),
         ("M/M/1", 0.5): (4.000, 2.773, 9.210, 18.421, 27.631), ("M/M/1", 0.7): (6.667, 4.621, 15.351, 30.701, 46.052)}


def formulas():
    """Problems of the oracle's own arithmetic."""
    problems = []
    for (kind, rho), truth in TABLE.items():
        mean, of = (oracle.mm1_mean, oracle.mm1_quantile) if kind == "M/M/1" else (oracle.md1_mean, oracle.md1_quantile)
        seen = (mean(2, rho), *(of(2, rho, q) for q in (0.5, 0.9, 0.99, 0.999)))
        problems += [f"{kind} at {rho}: {a:.4f} is not {b}" for a, b in zip(seen, truth) if abs(a - b) > 0.001]
    # The series against the recursion: a long queue, simulated.
    rng = random.Random(2)
    arrivals, at = [], 0.0
    for _ in range(200_000):
        at += rng.expovariate(0.5)
        arrivals.append(at)
    times = sorted(done - came for came, (_, done) in zip(arrivals, oracle.lindley(arrivals, [1.0] * len(arrivals))))
    for q in (0.6, 0.9, 0.99):
        seen, truth = oracle.quantile(times, q), oracle.md1_quantile(1, 0.5, q)
        if abs(seen / truth - 1) > 0.05:
            problems.append(f"M/D/1 at 0.5, quantile {q}: recursion {seen:.3f}, series {truth:.3f}")
    # The critical value rejects 1 % of what is exponential, and most of what is not quite.
    samples = [[rng.expovariate(1) for _ in range(200)] for _ in range(4_000)]
    share = sum(oracle.anderson_darling_exponential(s) > oracle.AD_CRITICAL_1_PERCENT for s in samples) / len(samples)
    if not 0.005 <= share <= 0.016:
        problems.append(f"Anderson-Darling rejects {share:.2%} of exponential samples at 1 %")
    uniform = sum(oracle.anderson_darling_exponential([rng.uniform(0.2, 1.8) for _ in range(200)])
                  > oracle.AD_CRITICAL_1_PERCENT for _ in range(50))
    if uniform != 50:
        problems.append(f"Anderson-Darling lets {50 - uniform} of 50 samples of even gaps pass")
    stalls = sorted(max(0, 10.0 - k / 1000) if k >= 9000 else 0 for k in range(10_000))
    problems += [f"stall, quantile {q}" for q in (0.5, 0.95, 0.99, 0.999)
                 if abs(oracle.quantile(stalls, q) - oracle.stall_quantile(1, 10, q)) > 0.0011]
    if abs(sum(stalls) / len(stalls) - oracle.stall_mean(1, 10)) > 0.0001:
        problems.append("stall: mean")
    if not oracle.ks_distance([1, 2, 3, 4], [3, 4, 5, 6]) == 0.5:
        problems.append("KS distance")
    return problems


def self_test():
    """Prints what came of it; whether all was well."""
    problems = formulas()
    print(*(problems or ["the oracle's formulas agree with the tables, with simulation and with each other"]), sep="\n")
    seen = caught()
    for name, spoil in MUTANTS.items():
        found = spoiled_problems(spoil)
        print(f"{'caught' if found else 'MISSED':>7}  {name}: {found[0] if found else ''}")
    print(f"{len(seen)} of {len(MUTANTS)} planted mistakes caught")
    return not problems and len(seen) == len(MUTANTS)

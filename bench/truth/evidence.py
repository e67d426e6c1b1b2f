"""What a run left behind: logs and reports, read and held against each other, line by line.

Each judging function returns a list of problems, one line of text each; empty: nothing to object to. None of them
starts anything, so that `mutants.py` can hand them evidence that was tampered with.
"""

import base64
import collections
import csv
import json
import math
import statistics
import struct
import zlib

from truth import oracle

Served = collections.namedtuple("Served", "conn index rx start done tx service fate")
Asked = collections.namedtuple("Asked", "slot due sent received outcome")
Observed = collections.namedtuple("Observed", "conn index request reply")
Pair = collections.namedtuple("Pair", "asked served")


def read_served(path):
    """The log of gtserver, in the order of arrival."""
    with open(path, encoding="ascii") as file:
        next(file)
        return [Served(*map(int, row[:7]), row[7]) for row in csv.reader(file)]


def read_served_by_ours(path):
    """The log of loadgen-server, in the same form. It counts from 1, and leaves out what did not happen."""
    with open(path, encoding="ascii") as file:
        rows = []
        for row in csv.DictReader(file):
            at = {key: int(value or 0) for key, value in row.items()}
            rows.append(Served(at["connection"] - 1, at["request"] - 1, at["rx_ns"], at["start_ns"], at["done_ns"],
                               at["tx_ns"], at["service_ns"], "ok" if at["tx_ns"] else "gone"))
        return rows


def read_asked(path):
    """loadgen's --request-log, in the order of its due times. Columns go by name."""
    with open(path, encoding="ascii") as file:
        rows = csv.reader(file)
        head = next(rows)
        at = [head.index(name) for name in ("slot", "due_ns", "sent_ns", "received_ns", "outcome")]
        return [Asked(*(int(row[i]) for i in at[:4]), row[at[4]]) for row in rows]


def read_report(path):
    """A report; what JSON cannot say (NaN, Infinity) is refused."""
    def refuse(word):
        raise ValueError(f"{path}: {word}")
    with open(path, encoding="utf-8") as file:
        return json.load(file, parse_constant=refuse)


def match(asked, served):
    """Request by request: the k-th on slot s is the k-th on the s-th connection that was accepted (loadgen opens one
    after the other with --max-unproven 1). Returns pairs, and problems."""
    by_conn, problems = collections.defaultdict(list), []
    for row in served:
        by_conn[row.conn].append(row)
    by_slot = collections.defaultdict(list)
    for row in asked:
        if row.sent:
            by_slot[row.slot].append(row)
    pairs = []
    for slot in sorted(set(by_slot) | set(by_conn)):
        mine = sorted(by_slot[slot], key=lambda row: row.sent)
        theirs = sorted(by_conn[slot], key=lambda row: row.index)
        if len(theirs) == len(mine) + 1 and theirs[0].fate == "skipped":
            theirs = theirs[1:]  # the request that proves a connection, where the log leaves it out
        if len(mine) != len(theirs):
            problems.append(f"connection {slot}: {len(mine)} requests in the client's log, {len(theirs)} at the server")
        pairs += map(Pair, mine, theirs)
    return pairs, problems


def read_observed(path):
    """The log of the observer."""
    with open(path, encoding="ascii") as file:
        next(file)
        return [Observed(*map(int, row)) for row in csv.reader(file)]


def match_observed(asked, observed):
    """The same for what the observer saw: (asked, observed), and problems."""
    by_conn, by_slot = collections.defaultdict(list), collections.defaultdict(list)
    for row in observed:
        by_conn[row.conn].append(row)
    for row in sorted(asked, key=lambda row: row.sent):
        if row.sent:
            by_slot[row.slot].append(row)
    pairs, problems = [], []
    for slot in sorted(set(by_slot) | set(by_conn)):
        mine, theirs = by_slot[slot], by_conn[slot]
        if len(theirs) == len(mine) + 1 and not any(row.outcome == "proof" for row in mine):
            theirs = theirs[1:]
        if len(mine) != len(theirs):
            problems.append(f"connection {slot}: {len(mine)} requests in the client's log, {len(theirs)} observed")
        for ask, row in zip(mine, theirs):
            pairs.append((ask, row))
            if not ask.sent <= row.request <= row.reply <= ask.received:
                problems.append(f"connection {slot}: sent {ask.sent}, seen {row.request}, answer seen {row.reply}, "
                                f"received {ask.received}")
    return pairs, problems


def causality(pairs):
    """Nothing happens before its cause: due, sent, arrived, answered, received, in this order, for every request. The
    residual (received - tx) is never negative, the same as latency - (tx - due) >= 0."""
    problems = []
    for number, (ask, serve) in enumerate(pairs):
        steps = [("due", ask.due), ("sent", ask.sent), ("rx", serve.rx)]
        if serve.tx:
            steps.append(("tx", serve.tx))
        if ask.received and ask.outcome in ("ok", "proof"):
            steps.append(("received", ask.received))
        for (before, early), (after, late) in zip(steps, steps[1:]):
            if late < early:
                problems.append(f"request {number} on connection {ask.slot}: {after} {early - late} ns before {before}")
    return problems


# A residual has nothing to do with how long the server took. If it grows with it by more than this share, the client's
# times are not the server's: another unit, another clock, a factor.
SCALE_ERROR_MAX = 0.01


def scale_error(pairs):
    """By how much the residual grows for each nanosecond of true latency: medians of the slowest tenth of all requests
    and of the faster half, so that a few late wake-ups do not decide."""
    rows = sorted((serve.tx - ask.due, ask.received - serve.tx) for ask, serve in pairs
                  if serve.tx and ask.outcome == "ok")
    fast, slow = rows[:len(rows) // 2], rows[len(rows) * 9 // 10:]
    (x1, y1), (x2, y2) = (tuple(statistics.median(column) for column in zip(*part)) for part in (fast, slow))
    return (y2 - y1) / (x2 - x1)


def fates_agree(pairs):
    """What the server did to a request is what the client says of it. A reset or a wrong byte also ends what is behind
    it, which the caller allows for by one request at a time on a connection."""
    known = {"ok": {"ok", "proof"}, "skipped": {"ok", "proof"}, "corrupted": {"mismatch"}, "dropped": {"timeout"},
             "reset": {"reset"}}
    return [f"connection {ask.slot}: the server says {serve.fate}, the client {ask.outcome}"
            for ask, serve in pairs if ask.outcome not in known.get(serve.fate, {ask.outcome})]


def server_is_true(served, queued):
    """The instrument itself: its own log obeys its own rule."""
    rows = [row for row in served if row.fate != "skipped"]
    expected = oracle.lindley([row.rx for row in rows], [row.service for row in rows]) if queued else \
        [(row.rx, row.rx + row.service) for row in rows]
    problems = [f"request {n}: started at {row.start}, done {row.done}, should be {wanted}"
                for n, (row, wanted) in enumerate(zip(rows, expected)) if (row.start, row.done) != wanted]
    return problems + [f"reply {row.done - row.tx} ns early" for row in rows if row.tx and row.tx < row.done]


def constant_schedule(dues, rate):
    """The k-th request is due floor(k * 10^9 / rate) ns after the first."""
    first = dues[0]
    wrong = [k for k, due in enumerate(dues) if due - first != k * 10**9 // rate]
    return [f"request {wrong[0]} is due at {dues[wrong[0]] - first} ns, {len(wrong)} are off schedule"] if wrong else []


# Histograms.

def decode_hdr(text):
    """Buckets (index to count) of an HdrHistogram V2, compressed, of 3 digits from 1."""
    raw = base64.b64decode(text, validate=True)
    cookie, length = struct.unpack_from(">II", raw)
    if cookie & ~0xF0 != 0x1C849304 & ~0xF0 or length != len(raw) - 8:
        raise ValueError("no compressed HdrHistogram V2")
    plain = zlib.decompress(raw[8:])
    cookie, length, offset, digits, lowest, _highest, _ratio = struct.unpack_from(">IIIIQQd", plain)
    if cookie & ~0xF0 != 0x1C849303 & ~0xF0 or (offset, digits, lowest) != (0, 3, 1):
        raise ValueError("not 3 digits from 1")
    at, end, index, buckets = 40, 40 + length, 0, {}
    while at < end:
        word = shift = 0
        while True:
            byte = plain[at]
            at += 1
            word |= (byte if shift == 56 else byte & 0x7F) << shift
            shift += 7
            if shift > 56 or byte < 0x80:
                break
        count = (word >> 1) ^ -(word & 1)
        if count < 0:
            index -= count
        else:
            if count:
                buckets[index] = count
            index += 1
    return buckets


def buckets_of(values):
    return dict(collections.Counter(map(oracle.bucket_of, values)))


def histogram_problems(name, histogram):
    """A histogram agrees with itself: buckets, count, extremes, sum and quantiles."""
    buckets = decode_hdr(histogram["hdr"])
    count, least, most = histogram["count"], histogram["min_ns"], histogram["max_ns"]
    problems = []
    if sum(buckets.values()) != count or not count:
        problems.append(f"{name}: {sum(buckets.values())} in the buckets, count {count}")
        return problems
    first, last = min(buckets), max(buckets)
    if (oracle.bucket_of(least), oracle.bucket_of(most)) != (first, last):
        problems.append(f"{name}: min {least} or max {most} is not in the first or the last bucket")
    low = sum(oracle.bucket_range(index)[0] * n for index, n in buckets.items())
    high = sum(oracle.bucket_range(index)[1] * n for index, n in buckets.items())
    if not low <= histogram["sum_ns"] <= high:
        problems.append(f"{name}: sum {histogram['sum_ns']} is not within {low} to {high}, as the buckets have it")
    if histogram["mean_ns"] != histogram["sum_ns"] // count:
        problems.append(f"{name}: mean {histogram['mean_ns']} is not sum by count")
    before = least
    for text, stated in sorted(histogram["quantiles_ns"].items(), key=lambda item: float(item[0])):
        expected = min(max(hdr_quantile(buckets, count, float(text)), least), most)
        if stated != expected:
            problems.append(f"{name}: p{text} is {stated}, the buckets say {expected}")
        if not before <= stated <= most:
            problems.append(f"{name}: p{text} {stated} is out of order")
        before = stated
    return problems


def hdr_quantile(buckets, count, q):
    """The highest value of the bucket in which the rank lies."""
    # The product as a float may be a hair above a whole number: 0.9 * 10 must be rank 9.
    rank, below = max(1, math.ceil(q * count - 1e-9 * count)), 0
    for index in sorted(buckets):
        below += buckets[index]
        if below >= rank:
            return oracle.bucket_range(index)[1]
    raise ValueError("an empty histogram")


def count_above(histogram, ns):
    """How many values are above; `ns` must not lie where a bucket would be cut in a way that matters."""
    return sum(n for index, n in decode_hdr(histogram["hdr"]).items() if oracle.bucket_range(index)[0] > ns)


def log_is_histogram(histogram, values, name):
    """The report's histogram holds what the log has, bucket for bucket; extremes and sum exactly."""
    if not values:
        return [f"{name}: the log holds nothing"]
    problems = []
    if decode_hdr(histogram["hdr"]) != buckets_of(values):
        problems.append(f"{name}: the buckets are not those of the log's {len(values)} values "
                        f"({histogram['count']} in the report)")
    exact = {"min_ns": min(values), "max_ns": max(values), "sum_ns": sum(values), "count": len(values)}
    return problems + [f"{name}: {key} is {histogram[key]}, the log says {value}"
                       for key, value in exact.items() if histogram[key] != value]


# Reports.

def closes(ledger):
    return (ledger["scheduled"] == ledger["sent"] + ledger["unsent"]
            and ledger["sent"] == ledger["ok"] + sum(ledger["errors"].values()) + ledger["in_flight_at_end"])


def report_problems(report):
    """What must hold for any report of requests and replies, valid or not, faults included (GT-09, GT-17)."""
    ledger, whole, latency = report["ledger"], report["ledger"]["whole_run"], report["latency"]
    problems = [f"the ledger of the {name} does not close" for name, one in (("window", ledger), ("whole run", whole))
                if not closes(one)]
    problems += [f"{key}: more in the window than in the whole run" for key in ("scheduled", "ok")
                 if ledger[key] > whole[key]]
    for name, histogram in latency.items():
        if isinstance(histogram, dict):
            problems += histogram_problems(name, histogram)
    replies, window = report["throughput"]["replies"], report["throughput"]["window_ns"]
    if window and abs(report["throughput"]["requests_per_s"] - replies * 1e9 / window) > 0.5 + 1e-6:
        problems.append(f"{report['throughput']['requests_per_s']} requests/s is not {replies} in {window} ns")
    problems += series_problems(report, whole)
    problems += latency_problems(report)
    problems += [f"{path} is {value}" for path, value in numbers(report)
                 if not path.startswith(".kernel") and (value < 0 or isinstance(value, float))]
    return problems


def series_problems(report, whole):
    columns = dict(zip(report["series"]["columns"], zip(*report["series"]["rows"])))
    expected = {"ok": whole["ok"], "errors": sum(whole["errors"].values()),
                "sent_bytes": report["throughput"]["whole_run_sent_bytes"],
                "received_bytes": report["throughput"]["whole_run_received_bytes"]}
    if "scheduled" in columns:
        expected["scheduled"] = whole["scheduled"]
    return [f"series: {name} adds up to {sum(columns[name])}, the whole run says {value}"
            for name, value in expected.items() if sum(columns.get(name, ())) != value]


def latency_problems(report):
    ledger, latency, scenario = report["ledger"], report["latency"], report["scenario"]
    response, service = latency["response"], latency["service"]
    problems = []
    if response and service and service["max_ns"] > response["max_ns"]:
        problems.append("a service time is longer than any response time")
    if service and service["count"] != ledger["ok"]:
        problems.append(f"{service['count']} service times for {ledger['ok']} valid replies")
    if response and response["count"] != ledger["ok"] + latency["censored"]:
        problems.append(f"{response['count']} response times for {ledger['ok']} valid replies and "
                        f"{latency['censored']} without one")
    opened = report["connections"]["opened"]
    if (latency["connect"] or {"count": 0})["count"] != opened:
        problems.append(f"{opened} connections were opened, connect times say otherwise")
    coverage = little(report)
    if coverage is not None and coverage > 1:
        problems.append(f"response times add up to {coverage:.6f} of connections x window: more than there is")
    return problems


def little(report):
    """Closed loop: the sum of response times by connections x pipeline x window. Each moment of a connection belongs to
    one request, so it cannot exceed 1; what is below 1 was spent on requests due before the window."""
    scenario, response = report["scenario"], report["latency"]["response"]
    if scenario["mode"] != "closed" or not response or not report["throughput"]["window_ns"]:
        return None
    return response["sum_ns"] / (scenario["connections"] * scenario["pipeline"] * report["throughput"]["window_ns"])


def numbers(value, path=""):
    """All numbers of a JSON value, with where they stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from numbers(inner, f"{path}[{n}]")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value


def conservation_problems(report, server):
    """Client and server count the same (GT-09, GT-10). `server` has gtserver's or loadgen-server's words."""
    whole, sent_bytes = report["ledger"]["whole_run"], report["throughput"]["whole_run_sent_bytes"]
    received_bytes = report["throughput"]["whole_run_received_bytes"]
    problems = []
    if not whole["ok"] <= server["replies"] <= server["requests"] <= whole["sent"]:
        problems.append(f"ok {whole['ok']} <= replies {server['replies']} <= requests {server['requests']} <= sent "
                        f"{whole['sent']} does not hold")
    # Attempts that the end of the run cut off may have been accepted all the same.
    opened, unfinished = report["connections"]["opened"], report["connections"]["unfinished"]
    if not opened <= server["accepts"] <= opened + unfinished:
        problems.append(f"{opened} connections opened, {unfinished} unfinished, {server['accepts']} accepted")
    if not whole["errors"] and not report["connections"]["lost"] and not whole["in_flight_at_end"]:
        for what, ours, theirs in (("requests", whole["sent"], server["requests"]), ("replies", whole["ok"],
                                   server["replies"]), ("bytes to the server", sent_bytes, server["received_bytes"]),
                                   ("bytes back", received_bytes, server["sent_bytes"])):
            if ours != theirs:
                problems.append(f"{what}: the client says {ours}, the server {theirs}")
    if "kernel_received_bytes" in server and not server["kernel_retransmissions"]:
        # The kernel counts the peer's FIN as a byte; that of the SYN falls to the side that connected.
        kernel = (server["kernel_received_bytes"] - server["fins"], server["kernel_acked_bytes"])
        if not server["reset"] and not server["gone"] and kernel != (sent_bytes, received_bytes):
            problems.append(f"bytes: the client says {sent_bytes} and {received_bytes}, the kernel {kernel}")
    return problems

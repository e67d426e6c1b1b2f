"""What is true: queues, stalls and arrival processes from their formulas, and the statistics to hold figures against
them. Arithmetic only: no file, no clock, nothing of loadgen's.

Times are in one unit throughout (whichever the caller has); quantiles are shares from 0 to 1.
"""

import bisect
import math
import random
import statistics
from decimal import Decimal, localcontext

# Anderson-Darling against an exponential distribution whose mean is estimated from the same values: upper 1 % point of
# A2 * (1 + 0.6 / n). Stephens, "EDF Statistics for Goodness of Fit and Some Comparisons", JASA 69 (1974), table 1; as
# refined in D'Agostino & Stephens, "Goodness-of-Fit Techniques" (1986), table 4.14. The mean has its own check.
AD_CRITICAL_1_PERCENT = 1.959


def quantile(ordered, q):
    """The smallest of the values that a share q of them does not exceed; `ordered` is sorted."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def lindley(arrivals, services):
    """(start, done) of each request at one server, first come first served (Lindley 1952)."""
    busy_until, out = 0, []
    for arrival, service in zip(arrivals, services):
        start = max(arrival, busy_until)
        busy_until = start + service
        out.append((start, busy_until))
    return out


# M/M/1 and M/D/1: times in the system, first come first served.

def mm1_mean(service, rho):
    return service / (1 - rho)


def mm1_quantile(service, rho, q):
    """The time in the system is exponential."""
    return -mm1_mean(service, rho) * math.log(1 - q)


def md1_mean(service, rho):
    """Pollaczek-Khinchine."""
    return service * (1 + rho / (2 * (1 - rho)))


def md1_waits_at_most(x, rho):
    """P(wait <= x), x in service times: Erlang's series (Crommelin, P.O. Elec. Eng. J. 25 (1932)). Its terms alternate
    and grow like e^(rho x), so it is summed with 60 digits."""
    with localcontext() as context:
        context.prec = 60
        x, rho = Decimal(x), Decimal(rho)
        total, factorial = Decimal(0), 1
        for k in range(int(x) + 1):
            factorial *= max(k, 1)
            power = (-rho * (x - k)) ** k if k else Decimal(1)
            total += power / factorial * (rho * (x - k)).exp()
        return float((1 - rho) * total)


def md1_quantile(service, rho, q):
    if 1 - rho >= q:
        return service
    low, high = 0.0, 1.0
    while md1_waits_at_most(high, rho) < q:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if md1_waits_at_most(middle, rho) < q else (low, middle)
    return service * (1 + high)


def simulated_spread(exponential, service, rho, requests, replicates, seed):
    """Standard deviations of mean, p50, p90 and p99 of so many requests in a row, which depend on each other, so that
    no formula for independent values holds: from the recursion itself, started empty as a run is."""
    rng = random.Random(seed)
    seen = []
    for _ in range(replicates):
        at, busy_until, times = 0.0, 0.0, []
        for _ in range(requests):
            at += rng.expovariate(rho / service)
            busy_until = max(at, busy_until) + (rng.expovariate(1 / service) if exponential else service)
            times.append(busy_until - at)
        times.sort()
        seen.append((statistics.fmean(times), *(quantile(times, q) for q in (0.5, 0.9, 0.99))))
    return [statistics.stdev(column) for column in zip(*seen)]


# A server that stands still for the last L of each period N, under requests at equal gaps; it is fast otherwise.

def stall_mean(length, period):
    return length * length / (2 * period)


def stall_quantile(length, period, q):
    return max(0.0, length - period * (1 - q))


# Arrival processes.

def anderson_darling_exponential(values):
    """A2 * (1 + 0.6 / n) against an exponential with the values' own mean."""
    n, mean = len(values), statistics.fmean(values)
    scaled = [max(value, 1e-12 * mean) / mean for value in sorted(values)]
    # ln F(x) = ln(1 - e^-x), ln(1 - F(x)) = -x
    total = sum((2 * i + 1) * (math.log(-math.expm1(-low)) - high)
                for i, (low, high) in enumerate(zip(scaled, reversed(scaled))))
    return (-n - total / n) * (1 + 0.6 / n)


def dispersion_index(times, width, begin, end):
    """Variance by mean of the number of events in each window of that width; 1 for a Poisson process. And its standard
    error there, from the number of windows."""
    windows = int((end - begin) // width)
    counts = [0] * windows
    for time in times:
        at = int((time - begin) // width)
        if 0 <= at < windows:
            counts[at] += 1
    return statistics.variance(counts) / statistics.fmean(counts), math.sqrt(2 / (windows - 1))


def ks_distance(one, other):
    """The largest difference between two empirical distributions."""
    one, other = sorted(one), sorted(other)
    return max(abs(bisect.bisect_right(one, x) / len(one) - bisect.bisect_right(other, x) / len(other))
               for x in (*one, *other))


# HdrHistogram with 3 significant digits from 1: 2048 buckets of width 1, then 1024 of width 2, 4, 8, ...

def bucket_of(value):
    shift = max(0, value.bit_length() - 11)
    return (shift << 10) + (value >> shift)


def bucket_range(index):
    """The lowest and the highest value of a bucket."""
    shift = max(0, (index >> 10) - 1)
    low = (index - (shift << 10)) << shift
    return low, low + (1 << shift) - 1

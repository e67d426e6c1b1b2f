"""What the benchmarks share: programs pinned to CPUs, figures read from outside, tables spliced into the README.

Nothing here asks a load generator how fast it was. The server's own counter, CPU time and memory from /proc are read
at two moments in the middle of each run, in the same way for every tool.
"""

import contextlib
import datetime
import http.client
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SERVER_CPU, CLIENT_CPU = "0", "1"


def build():
    subprocess.run(["cargo", "build", "--release", "--workspace", "--bins", "--examples"], cwd=ROOT, check=True)
    # From here on paths are relative: commands stand in the reports, and should not say where somebody's clone is.
    os.chdir(ROOT)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release"
    return target / "loadgen", target / "loadgen-server", target / "examples" / "yardstick"


def machine_name():
    """A short name for a results folder: CPUs, kernel, architecture."""
    kernel = ".".join(re.findall(r"\d+", platform.release())[:2])
    return f"{os.cpu_count()}cpu-linux{kernel}-{platform.machine()}"


def results_folder(what):
    """A new folder; an earlier run of the same day is never overwritten."""
    stem = pathlib.Path("results") / f"{datetime.datetime.now(datetime.UTC).date()}-{machine_name()}"
    for n in range(1, 100):
        folder = stem / (what if n == 1 else f"{what}-{n}")
        if not folder.exists():
            folder.mkdir(parents=True)
            return folder
    sys.exit("a hundred runs in one day: move some of them away")


def pinned(cpu, command):
    return ["taskset", "-c", cpu, *map(str, command)]


@contextlib.contextmanager
def started(command):
    """A running program, which is never left behind. It hears Ctrl-C itself where it is of the same terminal, but not
    where the signal was for this script alone, so it is told in any case."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def refuse_unknown_engines(loadgen, pairs):
    """One request with each pair of engines: what loadgen refuses (it says why) should not stop a run half-way."""
    with tempfile.TemporaryDirectory() as folder:
        for client, server in pairs:
            command = [loadgen, "--conns", "1", "--requests", "1", "--engine", client, "--server-engine", server,
                       "--quiet", "--output", pathlib.Path(folder) / "report.json"]
            with started(command) as process:
                if process.wait() != 0:
                    sys.exit(f"loadgen does not run --engine {client} with --server-engine {server}")


def quantity(text, units):
    """A number and its unit, as loadgen takes them (`250ms`, `64KiB`)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    if not found or found[2] not in units:
        sys.exit(f"{text} is no quantity; units: {', '.join(filter(None, units))}")
    return float(found[1]) * units[found[2]]


def seconds(text):
    return quantity(text, {"ms": 0.001, "s": 1, "m": 60})


def size_bytes(text):
    return int(quantity(text, {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}))


def size_text(count):
    """The largest binary unit that leaves a whole number."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} B"


def measure(command, server, settle, window, endless=False):
    """Starts a tool, lets it settle, and reads counters at both ends of a window. `endless`: it is to be stopped then."""
    tool = subprocess.Popen(pinned(CLIENT_CPU, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(settle)
    began, requests, cpu, busy = time.monotonic(), server.requests(), cpu_ns(tool.pid), server.cpu_ns()
    time.sleep(window)
    if tool.poll() is not None:
        sys.exit(f"{command} ended within the window: exit {tool.returncode}")
    # The question is a request itself.
    ended, requests, cpu = time.monotonic(), server.requests() - requests - server.OWN, cpu_ns(tool.pid) - cpu
    busy = server.cpu_ns() - busy
    row = {
        "requests_per_s": round(requests / (ended - began)),
        "client_cpu_ns_per_request": round(cpu / max(requests, 1)),
        "server_busy_percent": round(busy / (ended - began) / 1e7),
        "client_busy_percent": round(cpu / (ended - began) / 1e7),
        "connections": server.connections() - 1,
        "memory_peak_bytes": peak_memory_bytes(tool.pid),
    }
    if endless:
        tool.terminate()
    tool.wait(timeout=60)
    return row


class Nginx:
    """One worker on the server's CPU, which never closes a connection; on the next port the same over TLS."""

    # Requests that asking for the counters adds to them.
    OWN = 1

    def __init__(self, port=18080, tls=False):
        self.address, self.secure = f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"
        self.tls = tls

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        place = pathlib.Path(self.folder.name)
        secure = ""
        if self.tls:
            self.certificate = place / "certificate.pem"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                            "-keyout", place / "key.pem", "-out", self.certificate, "-days", "2", "-subj", "/CN=localhost",
                            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                           check=True, stderr=subprocess.DEVNULL)
            secure = f"""listen {self.secure} ssl backlog=4096;
                    ssl_certificate {self.certificate}; ssl_certificate_key {place}/key.pem;"""
        (place / "nginx.conf").write_text(f"""
            daemon off; worker_processes 1; worker_rlimit_nofile 19900; pid {place}/pid; error_log {place}/error;
            events {{ worker_connections 19800; multi_accept on; }}
            http {{
                access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; gzip off;
                client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fcgi;
                uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
                server {{
                    listen {self.address} backlog=4096;
                    {secure}
                    location / {{ return 200 "{'x' * 64}"; }}
                    location /status {{ stub_status; }}
                }}
            }}""")
        self.process = subprocess.Popen(pinned(SERVER_CPU, ["nginx", "-e", place / "error", "-c", place / "nginx.conf"]))
        # One connection for all questions: a new one would wait in the accept queue behind those of a tool.
        self.asking = http.client.HTTPConnection(self.address, timeout=10)
        for _ in range(100):
            try:
                self.requests()
                return self
            except OSError:
                self.asking.close()
                time.sleep(0.05)
        sys.exit("nginx did not start")

    def requests(self):
        """nginx's own count of requests (its third figure); the question itself is one of them."""
        return int(self.status()[9])

    def connections(self):
        return int(self.status()[2])

    def status(self):
        self.asking.request("GET", "/status")
        return self.asking.getresponse().read().split()

    def cpu_ns(self):
        """CPU time of the worker."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return cpu_ns(children[0])

    def __exit__(self, *_):
        self.asking.close()
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def cpu_ns(pid):
    """CPU time of all threads of a process (/proc/PID/task/*/schedstat, nanoseconds)."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total


def peak_memory_bytes(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def meminfo_bytes(key):
    return int(re.search(rf"^{key}:\s+(\d+) kB", pathlib.Path("/proc/meminfo").read_text(), re.M)[1]) * 1024


def open_descriptors(pid):
    """Since Linux 6.2 the folder's size is their number; before, they have to be listed."""
    folder = f"/proc/{pid}/fd"
    return os.stat(folder).st_size or len(os.listdir(folder))


def spread(values):
    """Median, and the least and the greatest."""
    return statistics.median(values), min(values), max(values)


def ratio(values):
    middle, least, greatest = spread(values)
    return f"{middle:.2f} ({least:.2f} to {greatest:.2f})"


def splice(marker, text, page="README.md"):
    """Replaces what stands between a pair of markers in the README, or another page."""
    readme = ROOT / page
    pattern = re.compile(rf"(<!-- BEGIN: {marker} -->).*?(<!-- END: {marker} -->)", re.S)
    old = readme.read_text()
    if not pattern.search(old):
        sys.exit(f"{page} has no marker {marker}")
    readme.write_text(pattern.sub(lambda m: f"{m[1]}\n{text}\n{m[2]}", old))

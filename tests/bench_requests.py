"""What the gateway, the queue and the on-demand socket add to a request, beside the same engine asked directly."""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from live.common import ENGINE, ROOT, recipectl, remove_all
from live.common import recipe as real_recipe

HOST_FILE = Path("/etc/recipectl/host.yaml")
GATEWAY = 8000
# It answers after as many milliseconds as its path says: a real engine does not answer 32 requests at once.
ECHO = """
import asyncio, sys
ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport; self.held = b""
    def data_received(self, data):
        self.held += data
        while b"\\r\\n\\r\\n" in self.held:
            head, _, rest = self.held.partition(b"\\r\\n\\r\\n")
            lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\\r\\n")[1:] if b": " in line)
            length = int(lines.get(b"content-length", 0))
            if len(rest) < length:
                return
            self.held = rest[length:]
            delay = int(head.partition(b"?")[2].partition(b" ")[0] or 0) / 1000
            asyncio.get_running_loop().call_later(delay, self.transport.write, ANSWER)
async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1]), backlog=1024)
    await server.serve_forever()
asyncio.run(main())
"""


def figure(what: str, own: float, reference: float, beside: str, unit: str = "ms") -> None:
    print(
        f"{what:52} {own:9.2f} {unit}   {beside:26} {reference:9.2f} {unit}   {own - reference:+8.2f}",
        flush=True,
    )


async def _medians_ms(port: int, delays_ms: list[int], requests: int) -> list[float]:
    """The medians of the times of requests, one connection that stays for each delay of the engine."""
    body = json.dumps({"model": "echo", "prompt": "hello " * 40}).encode()
    lines = f"Host: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"

    async def client(delay_ms: int) -> float:
        message = f"POST /v1/completions?{delay_ms} HTTP/1.1\r\n{lines}".encode() + body
        times: list[float] = []
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(requests):
            begin = time.perf_counter()
            writer.write(message)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            times.append(time.perf_counter() - begin)
        writer.close()
        return statistics.median(times) * 1000

    return await asyncio.gather(*(client(delay_ms) for delay_ms in delays_ms))


def latencies() -> None:
    """A request through the gateway, and through a queue."""
    for delays_ms, count in (([0], 900), ([60 + 47 * number // 10 for number in range(32)], 30)):
        ports = {"the gateway": GATEWAY, "a queue": 18421, "an on-demand socket": 18422}
        own: dict[str, list[float]] = {what: [] for what in ports}
        for _ in range(3):
            direct = asyncio.run(_medians_ms(18420, delays_ms, count))
            for what, port in ports.items():
                medians = asyncio.run(_medians_ms(port, delays_ms, count))
                more = [with_it - without for with_it, without in zip(medians, direct, strict=True)]
                own[what].append(statistics.median(more))
        reference = statistics.median(direct)
        for what, more in own.items():
            text = f"through {what}, {len(delays_ms)} connections"
            figure(text, reference + min(more), reference, "straight to the engine")


def _tokens_per_sec(port: int) -> float:
    body = json.dumps(
        {"model": "real", "prompt": "Once upon a time", "max_tokens": 200, "stream": True}
    ).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body)
    begin = time.monotonic()
    with urllib.request.urlopen(request, timeout=300) as answer:
        tokens = sum(line.startswith(b"data: {") for line in answer)
    return tokens / (time.monotonic() - begin)


def _give_a_cpu_to(unit: str) -> None:
    """The first CPU for a unit, the others for everything else: an engine on a GPU leaves them to its clients."""
    own, *others = sorted(os.sched_getaffinity(0))
    pid = subprocess.run(
        ["systemctl", "show", "-P", "MainPID", unit], capture_output=True, text=True, check=True
    )
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        cpus = {own} if task.parts[2] == pid.stdout.strip() else {*others}
        with contextlib.suppress(OSError):  # it has ended
            os.sched_setaffinity(int(task.name), cpus)


def speed() -> None:
    """Tokens per second of a real engine's stream, in turn."""
    _give_a_cpu_to("model-real.service")
    ports = {"straight": 8423, "the gateway": GATEWAY, "a queue": 18423}
    speeds: dict[str, list[float]] = {what: [] for what in ports}
    _tokens_per_sec(8423)
    for attempt in range(12):
        order = [*ports][attempt % 3 :] + [*ports][: attempt % 3]
        for what in order:
            speeds[what].append(_tokens_per_sec(ports[what]))
    medians = {what: statistics.median(several) for what, several in speeds.items()}
    for what in [*ports][1:]:
        text = f"tokens/s through {what} (at least 99 %)"
        figure(text, medians[what], medians["straight"], "straight to the engine", "/s")


def waking() -> None:
    """The first request to a model that sleeps, beside its load."""
    woken, loads = [], []
    for _ in range(4):
        subprocess.run(["systemctl", "stop", "model-asleep.service"], check=True)
        time.sleep(1)
        begin = time.monotonic()
        urllib.request.urlopen("http://127.0.0.1:18424/health", timeout=60).read()
        woken.append((time.monotonic() - begin) * 1000)
        subprocess.run(["systemctl", "stop", "model-asleep.service"], check=True)
        time.sleep(1)
        begin = time.monotonic()
        recipectl("start", "asleep")
        show = [
            "systemctl",
            "show",
            "-P",
            "InactiveExitTimestampMonotonic",
            "-P",
            "ActiveEnterTimestampMonotonic",
        ]
        start, active = map(
            int,
            subprocess.run([*show, "model-asleep.service"], capture_output=True, text=True).stdout.split(),
        )
        loads.append((active - start) / 1000)
    figure("a request wakes a model (at most +100 ms)", min(woken), min(loads), "its start alone")


def _cpu_ms(unit: str) -> float:
    show = ["systemctl", "show", "-P", "CPUUsageNSec", unit]
    return int(subprocess.run(show, capture_output=True, text=True, check=True).stdout) / 1e6


def watching() -> None:
    """The CPU of a question of the watch, and of the engine that answers it."""
    recipectl("start", "watched")
    time.sleep(5)
    seconds = 20
    before = [_cpu_ms(f"model-watched{part}.service") for part in ("-watch", "")]
    time.sleep(seconds)
    used = [
        _cpu_ms(f"model-watched{part}.service") - was
        for part, was in zip(("-watch", ""), before, strict=True)
    ]
    figure(
        "CPU of a question of the watch (at most 40 ms)",
        used[0] / seconds,
        used[1] / seconds,
        "the engine's, of it",
    )
    recipectl("stop", "watched")


def reloading() -> None:
    """A reload of nginx with 1,000 names more, until it serves the last of them."""
    times = []
    for attempt in range(3):
        names = {f"name-{attempt}-{number}": "real" for number in range(1000)}
        HOST_FILE.write_text(json.dumps({"gateway": {"names": names}}))
        begin = time.monotonic()
        applied = recipectl("apply")
        assert "reloaded models-gateway.service" in applied.stdout, applied
        times.append((time.monotonic() - begin) * 1000)
        assert (
            f"name-{attempt}-999"
            in urllib.request.urlopen(f"http://127.0.0.1:{GATEWAY}/v1/models").read().decode()
        )
    begin = time.monotonic()
    recipectl("apply")
    figure(
        "apply with 1,000 new names (at most 1 s)",
        min(times),
        (time.monotonic() - begin) * 1000,
        "apply, nothing new",
    )


def main() -> None:
    """All figures, in a throwaway system with nginx and HAProxy."""
    for server in ("nginx", "haproxy"):
        subprocess.run(["cp", "-a", f"{ROOT}/.build/{server}/usr/.", "/usr"], check=True)
    subprocess.run(["ldconfig"], check=True)
    echo = Path("/opt/bench-echo")
    echo.write_text(f"#!{sys.executable} -IS\n{ECHO}")
    echo.chmod(0o755)
    common = {"binary": str(echo), "model_path": "tiny", "autostart": True, "ready": {"path": "/"}}
    real_recipe("echo", port=18420, **common)
    real_recipe("echo-waits", port=18421, queue=True, served_model_name="q", **common)
    demand = {key: value for key, value in common.items() if key != "autostart"}
    real_recipe("echo-sleeps", port=18422, on_demand={"idle": "10min"}, served_model_name="d", **demand)
    real_recipe("real", port=18423, queue=True, autostart=True, extra_args={"threads": 1})
    real_recipe("asleep", port=18424, on_demand={"idle": "10min"})
    real_recipe("watched", port=18425, watch={"every": "1s"}, extra_args={"metrics": True})
    HOST_FILE.write_text(json.dumps({"gateway": {}}))
    applied = recipectl("apply")
    assert applied.returncode == 0, applied.stderr
    recipectl("wait", "echo", "echo-waits", "real")
    latencies()
    waking()
    watching()
    reloading()
    speed()
    HOST_FILE.unlink()
    remove_all()


if __name__ == "__main__":
    assert (ENGINE / "ok").exists()
    main()

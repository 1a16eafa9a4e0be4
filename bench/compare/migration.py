# SPDX-License-Identifier: MIT
"""One migration of the timing guest between two machines of one kind: one pass of precopy, then
postcopy, by QMP; and its figures.

The same for every kind: it looks at events, replies, the CPU clocks of both processes, and at what
the guest wrote down.
"""
import mmap
import os
import shutil
import tempfile
import time

from compare.guest import Clock, Image, Record, line_fields
from compare.machine import Failure, Wires

CAPABILITIES = ("events", "postcopy-ram", "postcopy-preempt")
NO_LIMIT = 1 << 40
CRAWL = 1 << 20         # bytes a second, while the guest writes what postcopy is to move
PASS_REST_PERCENT = 10  # of memory, with which the first pass counts as done
PASS_POLL_S = 0.01
PRECOPY_DID_IT = "{}: precopy moved everything before postcopy could begin; give more memory"
ENDED_BADLY = ("failed", "failing", "cancelled", "postcopy-paused")
LINES_AFTERWARDS = 8
BUCKETS_LOG2 = 5        # 32 buckets an octave


def warm(size):
    """Makes the host have that much free memory at hand: a hypervisor that takes free memory back
    gives it out again slowly, and whoever migrates first would pay for it."""
    block = b"\1" * (4 << 20)
    with mmap.mmap(-1, size) as memory:
        for _ in range(size // len(block)):
            memory.write(block)


def percentile(ordered, share):
    """Nearest rank."""
    return ordered[max(0, -(-len(ordered) * share // 1000) - 1)] if ordered else None


def histogram(ticks):
    """Log2-linear: [[lowest value of the bucket, count], ...] of those that are not empty."""
    counts = {}
    for value in ticks:
        shift = max(0, value.bit_length() - 1 - BUCKETS_LOG2)
        low = value >> shift << shift
        counts[low] = counts.get(low, 0) + 1
    return sorted(map(list, counts.items()))


class Migration:
    """Use: run once. Ends its processes whatever happens."""

    def __init__(self, kind, setup):
        self.setup = setup
        self.wires = Wires()
        self.folder = tempfile.mkdtemp(prefix="faultline-compare-")
        self.image = Image(setup.plain_image, os.path.join(self.folder, "latency.bin"),
                           setup.memory, setup.working_set, setup.factor, setup.khz)
        setup.image = self.image.path
        setup.rom = self.image.rom(setup.plain_rom, os.path.join(self.folder, "rom.bin"))
        self.source = kind(self.wires, "source", self.folder, setup)
        self.destination = kind(self.wires, "destination", self.folder, setup)
        self.sides = (self.source, self.destination)

    def run(self):
        try:
            self.source.start(incoming=False)
            self.source.wait(lambda: self.source.lines, self.setup.limit_s, "run the guest")
            self.destination.start(incoming=True)
            self.configure()
            self.pump_for(self.setup.settle_s)
            if self.setup.warm:
                warm(self.setup.memory)
            started = self.start()
            passed = self.switch()
            self.complete()
            cpu = [machine.cpu_ns() for machine in self.sides]
            return self.figures(started, passed, cpu)
        finally:
            self.clear()

    def clear(self):
        for machine in self.sides:
            machine.end()
            if self.setup.keep and machine.process:
                shutil.copy(machine.log_path, self.setup.keep)
        self.wires.close()
        shutil.rmtree(self.folder)

    def pump_for(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wires.pump(0.05)

    def configure(self):
        for machine in self.sides:
            machine.execute("migrate-set-capabilities", {"capabilities": [
                {"capability": name, "state": True} for name in CAPABILITIES]})
        # The least that lets QEMU look at its dirty log at the end of a pass: with 0, 7.2 stops the
        # guest and is done. A guest writes more in a pass than moves in a millisecond.
        self.source.execute("migrate-set-parameters", {
            "max-bandwidth": NO_LIMIT, "max-postcopy-bandwidth": self.setup.push,
            "downtime-limit": 1})

    def start(self):
        uri = "tcp:127.0.0.1:0"
        if self.setup.transport == "unix":
            uri = "unix:" + os.path.join(self.folder, "migration")
        self.destination.execute("migrate-incoming", {"uri": uri})
        if self.setup.transport == "tcp":
            uri = self.address()
        self.cpu_before = [machine.cpu_ns() for machine in self.sides]
        started = time.monotonic_ns()
        self.source.execute("migrate", {"uri": uri})
        return started

    def address(self):
        for address in self.destination.execute("query-migrate").get("socket-address", ()):
            if address.get("type") == "inet":
                return f"tcp:{address['host']}:{address['port']}"
        raise Failure(f"{self.destination.name} does not say where it listens")

    def reached(self, is_there):
        """is_there(), or a failure if the migration of any side has ended badly."""
        for side in self.sides:
            for status in ENDED_BADLY:
                if side.event("MIGRATION", status=status):
                    reply = side.execute("query-migrate")
                    raise Failure(f"{side.name}: the migration is {status}: "
                                  f"{reply.get('error-desc', 'no reason given')}; {side.said()}")
            if side.over:
                side.wait(lambda: None, 0, "migrate")
        return is_there()

    def await_event(self, machine, name, **data):
        return machine.wait(
            lambda: self.reached(lambda: machine.event(name, **data)),
            self.setup.limit_s, " ".join(["report", name, *map(str, data.values())]))

    def switch(self):
        """Postcopy after one pass, once the guest has touched as much as it is to.

        Towards the end of the pass precopy is slowed down until then. Otherwise what is left for
        postcopy would depend on how fast an engine's pass is and how much of the source's CPU it
        leaves to the guest, and a fast one would end in precopy before anybody can react.
        """
        reply, stamp = self.follow_pass()
        if self.setup.dirty:
            self.source.execute("migrate-set-parameters", {"max-bandwidth": CRAWL})
            self.wait_touches(self.image.pages * self.setup.dirty // 100)
        self.source.execute("migrate-start-postcopy")
        return stamp, reply["ram"]["transferred"]

    def follow_pass(self):
        """The source's figures when the first pass has ended, or is about to; and when that was.

        The second sync of the dirty log says that it has ended.
        """
        ending = self.setup.memory // 100 * (PASS_REST_PERCENT if self.setup.dirty else 0)
        end = time.monotonic() + self.setup.limit_s
        while time.monotonic() < end:
            self.wires.pump(PASS_POLL_S)
            reply = self.reached(lambda: self.source.execute("query-migrate"))
            if self.source.event("STOP"):
                raise Failure(PRECOPY_DID_IT.format(self.source.name))
            if self.source.event("MIGRATION_PASS", **{"pass": 2}) or (
                    "ram" in reply and reply["ram"]["remaining"] < ending):
                return reply, time.monotonic_ns()
        raise Failure(f"{self.source.name} did not end its first pass within "
                      f"{self.setup.limit_s} s; {self.source.said()}")

    def wait_touches(self, count):
        """Until the guest at the source has touched count more pages."""
        line = len(self.source.lines)

        def touched():
            if self.source.event("STOP"):
                raise Failure(PRECOPY_DID_IT.format(self.source.name))
            said = [fields for fields in map(line_fields, (
                text for _, text in self.source.lines[line:])) if fields]
            return said and said[-1]["touches"] - said[0]["touches"] >= count

        self.source.wait(lambda: self.reached(touched), self.setup.limit_s,
                         f"let the guest touch {count} pages in precopy")

    def complete(self):
        for machine in self.sides:
            self.await_event(machine, "MIGRATION", status="completed")

    def figures(self, started, passed, cpu_after):
        """Everything in ns, bytes and bytes a second.

        An event's own time stamp is the earlier and the better one: on a busy host an event arrives
        late. The time of arrival is what any other program would see.
        """
        realtime_ns = time.time_ns() - time.monotonic_ns()
        stop, stop_said = self.source.event("STOP")
        resume, resume_said = self.destination.event("RESUME")
        active = self.source.event("MIGRATION", status="active")[0]
        ends = [machine.event("MIGRATION", status="completed")[0] for machine in self.sides]
        count = len(self.destination.lines)
        self.destination.wait(lambda: len(self.destination.lines) >= count + LINES_AFTERWARDS,
                              self.setup.limit_s, "run the guest after the migration")
        self.destination.execute("stop")
        replies = [machine.execute("query-migrate") for machine in self.sides]
        clock = Clock(self.destination.lines, self.setup.khz)
        record = Record(self.destination, self.image)
        said = [said_ns(event) - realtime_ns for event in (
            resume_said, self.destination.event("MIGRATION", status="completed")[1])]
        figures = self.latency(record, clock, *said)
        figures.update(
            downtime_ns=resume - stop,
            downtime_said_ns=said_ns(resume_said) - said_ns(stop_said),
            downtime_query_ns=replies[0].get("downtime", 0) * 1000000,
            total_ns=max(ends) - started, total_query_ns=replies[0].get("total-time", 0) * 1000000,
            precopy_bytes_per_s=passed[1] * 10**9 / (passed[0] - active),
            transferred_bytes=replies[0]["ram"]["transferred"],
            requests=replies[0]["ram"]["postcopy-requests"])
        for machine, before, after in zip(self.sides, self.cpu_before, cpu_after):
            figures[f"{machine.side}_cpu_ns"] = after[0] - before[0]
            figures[f"{machine.side}_vcpu_ns"] = after[1] - before[1]
        figures["engine_cpu_ns"] = sum(
            figures[f"{m.side}_cpu_ns"] - figures[f"{m.side}_vcpu_ns"] for m in self.sides)
        figures["query"] = {machine.side: reply for machine, reply in zip(self.sides, replies)}
        return figures

    def latency(self, record, clock, resume, completed):
        def ns(ticks):
            return ticks * 1000000 // self.setup.khz

        slow = sorted(record.slow_between(clock.tsc(resume), clock.tsc(completed)))
        if not slow:
            raise Failure("the guest saw no slow touch in postcopy: nothing to compare")
        return {
            "slow_touches": len(slow), "p50_ns": ns(percentile(slow, 500)),
            "p90_ns": ns(percentile(slow, 900)), "p99_ns": ns(percentile(slow, 990)),
            "p99_9_ns": ns(percentile(slow, 999)), "max_ns": ns(slow[-1]),
            "stalled_ns": ns(sum(slow)), "postcopy_ns": completed - resume,
            "stalled_share": ns(sum(slow)) / (completed - resume),
            "local_touch_ns": ns(record.state.local), "slow_from_ns": ns(record.state.threshold),
            "clock_spread_ns": clock.spread_ns,
            "histogram_ns": [[ns(low), count] for low, count in histogram(slow)]}


def said_ns(event):
    """When the process says an event happened; the clock of the day, the same for both sides."""
    stamp = event["timestamp"]
    return stamp["seconds"] * 10**9 + stamp["microseconds"] * 1000

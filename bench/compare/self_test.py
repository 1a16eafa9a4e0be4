# SPDX-License-Identifier: MIT
"""bench/compare-qemu --self-test: what reads the guest, on memory made here. Right memory must
pass, and memory with one thing wrong must be refused. No process is started.
"""
import os
import struct
import tempfile

from compare import guest, migration, report
from compare.machine import Failure

MEMORY = 64 << 20
KHZ = 2000000


class Memory:
    """A machine at rest whose guest has touched its pages in order."""

    def __init__(self, image, touches, entries):
        self.image = image
        self.bytes = bytearray(MEMORY)
        total = guest.CALIBRATION + touches
        for page in range(image.fill_pages):
            seen = total // image.pages + (page < total % image.pages)
            if page >= image.pages:
                seen = 0
            struct.pack_into("<III", self.bytes, image.base + page * guest.PAGE,
                             image.fill_pages - page + seen, 0, image.base + page * guest.PAGE)
        for i, entry in enumerate(entries):
            position = guest.LOG_ADDRESS + i * guest.ENTRY.size % image.log_bytes
            guest.ENTRY.pack_into(self.bytes, position, *entry)
        guest.STATE_LAYOUT.pack_into(
            self.bytes, guest.IMAGE_ADDRESS + guest.STATE, touches, len(entries),
            sum(entry[1] for entry in entries), max(entry[1] for entry in entries), 100, 300, 1)

    def memory(self, marker, address):
        assert len(marker) == guest.PARAMETER_LAYOUT.size and address > guest.IMAGE_ADDRESS
        return lambda start, length: bytes(self.bytes[start:start + length])


def refused(action):
    try:
        action()
    except Failure:
        return True
    return False


def make_image(folder, working_set):
    plain = os.path.join(folder, "plain")
    with open(plain, "wb") as file:
        file.write(b"\0" * guest.PARAMETERS + guest.MAGIC + b"\0" * 1000)
    return guest.Image(plain, os.path.join(folder, "image"), MEMORY, working_set, 3, KHZ)


def damaged(memory, position):
    memory.bytes[position] ^= 4
    return refused(lambda: guest.Record(memory, memory.image))


def cases():
    with tempfile.TemporaryDirectory() as folder:
        whole, part = make_image(folder, 0), make_image(folder, 8 << 20)
    entries = [(1000 * i + 5000, 300 + i, 0x200000) for i in range(200)]
    record = guest.Record(Memory(whole, 123456, entries), whole)
    yield "right memory passes", record.is_whole and record.entries == entries
    yield "a part as working set passes", guest.Record(Memory(part, 9999, entries), part).is_whole
    page = whole.base + 77 * guest.PAGE
    yield "a lost touch is refused", damaged(Memory(whole, 123456, entries), page)
    yield "another page's data is refused", damaged(Memory(whole, 123456, entries), page + 9)
    untouched = part.base + (part.pages + 5) * guest.PAGE
    yield "a touched page outside is refused", damaged(Memory(part, 9999, entries), untouched)
    log = guest.LOG_ADDRESS + 50 * guest.ENTRY.size
    yield "a wrong time in the log is refused", damaged(Memory(whole, 1, entries), log + 8)
    backwards = entries[:3] + [(1, 300, 0)]
    yield "a clock that goes back is refused", refused(
        lambda: guest.Record(Memory(whole, 1, backwards), whole))
    many = [(1000 * i + 5000, 300, 0) for i in range(whole.log_bytes // guest.ENTRY.size + 10)]
    record = guest.Record(Memory(whole, 5, many), whole)
    yield "an overflown log keeps the latest", record.entries == many[10:]
    yield "an overflown log is refused", refused(lambda: record.slow_between(5000, 90000))
    late = many[-1][0]
    yield "what began outside is left out", record.slow_between(late - 1000, late) == [300]
    yield "one that spans the start is left out", record.slow_between(late - 299, late) == []

    lines = [(10**9 + 500 * i + delay, f"tsc {1000 * i:016x} touches 0 slow 0 stalled 0 longest 0 "
              "local 0") for i, delay in enumerate((900, 20, 300, 70))]
    clock = guest.Clock(lines + [(0, "tsc 00")], KHZ)
    yield "the line with the least delay gives the clock", clock.offset_ns == 10**9 + 20
    yield "host time becomes TSC", clock.tsc(10**9 + 20 + 5000) == 10000
    yield "too few lines are refused", refused(lambda: guest.Clock(lines[:2], KHZ))

    yield "nearest rank", [migration.percentile(list(range(1, 101)), share)
                           for share in (500, 990, 999, 1)] == [50, 99, 100, 1]
    yield "histogram", migration.histogram([5, 5, 64, 65, 66, 1000]) == [
        [5, 2], [64, 2], [66, 1], [992, 1]]
    yield "ratios leave out what is 0", report.ratios([2, 0, 4], [1, 5, 8]) == [0.5, 2]


def run():
    """Returns how many failed."""
    failures = 0
    for name, good in cases():
        print(f"{'ok' if good else 'FAILED'} {name}")
        failures += not good
    return failures

# SPDX-License-Identifier: MIT
"""What bench/guest/latency.asm is given and what it leaves behind: parameters go into its image,
state and log come out of the guest's memory, and its serial lines tie its TSC to the host's clock.
"""
import collections
import fcntl
import os
import struct

from compare.machine import Failure

PAGE = 4096
IMAGE_ADDRESS = 0x7c00
PARAMETERS = 16                     # offset in the image
MAGIC = b"FLLATENC"
PARAMETER_LAYOUT = struct.Struct("<8s8I")
STATE = PARAMETERS + PARAMETER_LAYOUT.size
STATE_LAYOUT = struct.Struct("<3Q4I")
ENTRY = struct.Struct("<QII")       # TSC at the end, ticks it took, address
LOG_ADDRESS = 1 << 20
ROM_IMAGE_MAX = 4096                # what bench/guest/rom.asm copies
HUGE = 2 << 20
CALIBRATION = 4096                  # touches before those that are counted
CHUNK_PAGES = 1024
MEMORY_MAX = 3 << 30                # below a PC's gap
REPORTS_PER_S = 10

KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_GET_TSC_KHZ = 0xae01, 0xae41, 0xaea3

State = collections.namedtuple(
    "State", "touches slow stalled longest local threshold filled")


def tsc_khz():
    """The guest's TSC: what KVM gives a vCPU."""
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    machine = vcpu = -1
    try:
        machine = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
        vcpu = fcntl.ioctl(machine, KVM_CREATE_VCPU, 0)
        return fcntl.ioctl(vcpu, KVM_GET_TSC_KHZ, 0)
    finally:
        for fd in (vcpu, machine, kvm):
            if fd >= 0:
                os.close(fd)


class Image:
    """The boot image with its parameters filled in, written to a file of its own."""

    def __init__(self, plain, path, memory, working_set, factor, khz):
        with open(plain, "rb") as file:
            image = bytearray(file.read())
        if image[PARAMETERS:PARAMETERS + len(MAGIC)] != MAGIC:
            raise Failure(f"{plain} is not the guest of this program: make builds it")
        # Twice as many entries as pages: during postcopy each page is slow once, hardly twice.
        entries = 1 << (2 * (memory // PAGE) - 1).bit_length()
        self.log_bytes = entries * ENTRY.size
        self.base = base = (LOG_ADDRESS + self.log_bytes + HUGE - 1) // HUGE * HUGE
        self.fill_pages = (memory - HUGE - base) // PAGE    # the top is the BIOS's
        self.pages = min(self.fill_pages, working_set // PAGE) if working_set else self.fill_pages
        if self.pages < 1024:
            raise Failure("the working set is smaller than 4 MiB: give more memory")
        PARAMETER_LAYOUT.pack_into(
            image, PARAMETERS, MAGIC, self.fill_pages, self.pages, base,
            (1 << (self.pages - 1).bit_length()) - 1, LOG_ADDRESS, self.log_bytes - 1, factor,
            khz * 1000 // REPORTS_PER_S)
        self.marker = bytes(image[PARAMETERS:STATE])
        self.path = path
        with open(path, "wb") as file:
            file.write(image)

    def rom(self, plain, path):
        """The same image inside of the ROM that starts it, in another file: its path."""
        with open(self.path, "rb") as file:
            image = file.read()
        with open(plain, "rb") as file:
            rom = file.read()
        if len(image) > ROM_IMAGE_MAX or any(rom[:len(image)]):
            raise Failure(f"{plain} has no room for the image: make builds it")
        with open(path, "wb") as file:
            file.write(image + rom[len(image):])
        return path


class Record:
    """State and log of a guest at rest."""

    def __init__(self, machine, image):
        read = machine.memory(image.marker, IMAGE_ADDRESS + PARAMETERS)
        self.state = State._make(STATE_LAYOUT.unpack(
            read(IMAGE_ADDRESS + STATE, STATE_LAYOUT.size)))
        log = read(LOG_ADDRESS, image.log_bytes)
        count = min(self.state.slow, image.log_bytes // ENTRY.size)
        first = (self.state.slow - count) * ENTRY.size % image.log_bytes
        log = (log[first:] + log[:first])[:count * ENTRY.size]
        self.entries = list(ENTRY.iter_unpack(log))
        self.is_whole = count == self.state.slow
        self.check_log()
        self.check_pages(read, image)

    def check_log(self):
        """The log agrees with itself and with the sum beside it."""
        ends = [stamp for stamp, _, _ in self.entries]
        if any(later <= earlier for earlier, later in zip(ends, ends[1:])):
            raise Failure("the guest's TSC went back, or its log is damaged")
        rest = sum(ticks for _, ticks, _ in self.entries) - self.state.stalled
        # It may have been stopped between the two writes of its last entry.
        if self.is_whole and self.entries and rest not in (0, self.entries[-1][1]):
            raise Failure("the guest's log and its sum of stalled ticks disagree: one is damaged")

    def check_pages(self, read, image):
        """Every page holds its address and as many touches as the order gives it."""
        touches = CALIBRATION + self.state.touches
        least, total = touches // image.pages, 0
        for first in range(0, image.fill_pages, CHUNK_PAGES):
            count = min(CHUNK_PAGES, image.fill_pages - first)
            words = memoryview(read(image.base + first * PAGE, count * PAGE)).cast("I")
            for i, (value, address) in enumerate(zip(words[::PAGE // 4], words[2::PAGE // 4])):
                page = first + i
                seen = (value - (image.fill_pages - page)) & 0xffffffff
                total += seen
                due = (least, least + 1) if page < image.pages else (0,)
                if address != image.base + page * PAGE or seen not in due:
                    raise Failure(
                        f"wrong data in the guest: page {page} of {image.fill_pages} holds address "
                        f"{address:#x} and {seen} touches of {least} or one more")
        if total not in (touches, touches + 1):     # the last one not counted yet
            raise Failure(f"wrong data in the guest: its pages hold {total} touches, it counted "
                          f"{touches}")

    def slow_between(self, start, end):
        """Ticks of each slow touch that began in [start, end), in TSC."""
        if not self.is_whole and self.entries[0][0] > start:
            raise Failure("the guest's log has overflown: the machine is too noisy for it")
        return [ticks for stamp, ticks, _ in self.entries if start <= stamp - ticks < end]


class Clock:
    """The guest's TSC in time of the host, from the serial lines of one side.

    A line arrives late by what the way takes, never early: the line that took least says it best.
    """

    def __init__(self, lines, khz):
        self.khz = khz
        said = []
        for stamp, text in lines:
            words = text.split()
            if len(words) == 12 and words[0] == "tsc" and len(words[1]) == 16:
                said.append(stamp - int(words[1], 16) * 1000000 // khz)
        if len(said) < 3:
            raise Failure("the guest's clock is not known: it wrote too few lines")
        self.offset_ns = min(said)
        self.spread_ns = sorted(said)[len(said) // 2] - self.offset_ns

    def tsc(self, host_ns):
        return (host_ns - self.offset_ns) * self.khz // 1000000


def line_fields(text):
    """The fields of one whole serial line, or None."""
    words = text.split()
    if len(words) != 12 or words[0] != "tsc":
        return None
    return {name: int(value, 16) for name, value in zip(words[::2], words[1::2])}

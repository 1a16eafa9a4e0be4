# SPDX-License-Identifier: MIT
"""A machine under comparison: its process, its QMP socket and its guest's serial port.

Two kinds, QEMU and faultline, differ in their command lines only. Everything that arrives is
stamped with the monotonic clock as it is read, by one thread, which sleeps in select() otherwise.
"""
import json
import os
import selectors
import signal
import socket
import subprocess
import time

START_LIMIT_S = 30
REPLY_LIMIT_S = 60
END_LIMIT_S = 10


class Failure(Exception):
    """What went wrong, for the user; every process has a name in it."""


class Wires:
    """The sockets of all machines of one migration: reading any reads all, in order of time."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()

    def add(self, sock, take, gone):
        sock.setblocking(False)
        self.selector.register(sock, selectors.EVENT_READ, (take, gone))

    def pump(self, timeout_s):
        for key, _ in self.selector.select(timeout_s):
            take, gone = key.data
            try:
                data = key.fileobj.recv(1 << 16)
            except BlockingIOError:
                continue
            except ConnectionError:
                data = b""
            stamp = time.monotonic_ns()
            if data:
                take(data, stamp)
            else:
                self.selector.unregister(key.fileobj)
                gone()

    def close(self):
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()


class Machine:
    """One process with a guest. Use: start, execute and the wires' pump, then end."""

    kind = None

    def __init__(self, wires, side, folder, setup):
        self.wires, self.side, self.setup = wires, side, setup
        self.name = f"{self.kind} {side}"
        self.qmp_path = os.path.join(folder, f"{self.kind}-{side}.qmp")
        self.serial_path = os.path.join(folder, f"{self.kind}-{side}.serial")
        self.log_path = os.path.join(folder, f"{self.kind}-{side}.log")
        self.process = None
        self.events = []    # (monotonic ns of arrival, event)
        self.replies = []
        self.lines = []     # (monotonic ns of arrival of its first byte, text)
        self.partial = {"qmp": b"", "serial": b""}
        self.line_stamp = 0
        self.qmp = None
        self.over = False

    def start(self, incoming):
        cpus = self.setup.placement[self.side]
        place = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        with open(self.log_path, "wb") as log:
            # A process group of its own: Ctrl-C comes to this program, which ends them in order.
            self.process = subprocess.Popen(
                self.command(incoming), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, preexec_fn=place, start_new_session=True)
        self.qmp = self.connect(self.qmp_path, self.take_qmp)
        self.connect(self.serial_path, self.take_serial)
        self.wait(lambda: self.replies, START_LIMIT_S, "greet over QMP")
        self.replies.clear()
        self.execute("qmp_capabilities")

    def connect(self, path, take):
        end = time.monotonic() + START_LIMIT_S
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(path)
                self.wires.add(sock, take, self.lost)
                return sock
            except OSError:
                sock.close()
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failure(f"{self.name} did not open {os.path.basename(path)}: {self.said()}")
            time.sleep(0.02)

    def said(self):
        """The last thing the process wrote, for an error text."""
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            lines = log.read().strip().splitlines()
        status = self.process.poll()
        state = "it runs" if status is None else f"it ended with status {status}"
        return f"{state}; it said: {lines[-1] if lines else 'nothing'}"

    def lost(self):
        self.over = True

    def take_qmp(self, data, stamp):
        *whole, self.partial["qmp"] = (self.partial["qmp"] + data).split(b"\n")
        for text in whole:
            if not text.strip():
                continue
            message = json.loads(text)
            if "event" in message:
                self.events.append((stamp, message))
            else:
                self.replies.append(message)

    def take_serial(self, data, stamp):
        if not self.partial["serial"]:
            self.line_stamp = stamp
        *whole, self.partial["serial"] = (self.partial["serial"] + data).split(b"\n")
        for text in whole:
            self.lines.append((self.line_stamp, text.decode("ascii", "replace").strip()))
            self.line_stamp = stamp

    def wait(self, is_there, limit_s, what):
        """Pumps until is_there() is true, and returns that."""
        end = time.monotonic() + limit_s
        while True:
            found = is_there()
            if found:
                return found
            if self.over:
                self.process.poll()
                raise Failure(f"{self.name} went away instead of: {what}; {self.said()}")
            if time.monotonic() > end:
                raise Failure(f"{self.name} did not within {limit_s} s: {what}; {self.said()}")
            self.wires.pump(0.1)

    def execute(self, command, arguments=None):
        request = {"execute": command}
        if arguments is not None:
            request["arguments"] = arguments
        self.qmp.sendall(json.dumps(request).encode() + b"\n")
        self.wait(lambda: self.replies, REPLY_LIMIT_S, f"answer {command}")
        reply = self.replies.pop(0)
        if "error" in reply:
            raise Failure(f"{self.name} refuses {command}: {reply['error'].get('desc')}")
        return reply["return"]

    def event(self, name, **data):
        """When the first event of that name and data came and what it says, or None."""
        for stamp, message in self.events:
            got = message.get("data", {})
            if message["event"] == name and all(got.get(k) == v for k, v in data.items()):
                return stamp, message
        return None

    def cpu_ns(self):
        """CPU time of the process so far: all of it, and what its vCPU threads took."""
        pid = self.process.pid
        whole = time.clock_gettime_ns((~pid << 3) | 2)  # CLOCK_PROCESS_CPUTIME_ID of that process
        vcpu = 0
        for task in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as file:
                    name = file.read()
                if name.startswith(("CPU ", "vcpu ")):
                    with open(f"/proc/{pid}/task/{task}/schedstat", encoding="utf-8") as file:
                        vcpu += int(file.read().split()[0])
            except FileNotFoundError:
                pass            # a thread that has just ended is no vCPU
        return whole, vcpu

    def memory(self, marker, marker_address):
        """A function (address, length) that reads guest memory at rest, found by marker."""
        pid = self.process.pid
        file = open(f"/proc/{pid}/mem", "rb", buffering=0)
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
            spans = [line.split()[0].split("-") for line in maps if " rw" in line]
        for start, end in ((int(a, 16), int(b, 16)) for a, b in spans):
            if end - start > marker_address + len(marker):
                try:
                    file.seek(start + marker_address)
                    if file.read(len(marker)) == marker:
                        return lambda address, length: read_at(file, start + address, length)
                except OSError:
                    continue
        file.close()
        raise Failure(f"{self.name}: the guest's memory is in none of its mappings")

    def end(self):
        """Ends the process, by its pid; harder when it does not listen."""
        if not self.process:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                os.kill(self.process.pid, number)
                try:
                    self.process.wait(END_LIMIT_S)
                except subprocess.TimeoutExpired:
                    continue
        for path in (self.qmp_path, self.serial_path):
            if os.path.exists(path):
                os.unlink(path)


def read_at(file, position, length):
    file.seek(position)
    parts = []
    while length:
        part = file.read(length)
        if not part:
            raise Failure("the guest's memory ends early")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


class Qemu(Machine):
    kind = "QEMU"

    def command(self, incoming):
        boot = ["-bios", self.setup.rom]
        if self.setup.boot == "disk":
            boot = ["-drive", f"file={self.setup.image},format=raw,if=floppy,readonly=on"]
        machine = [
            self.setup.qemu, "-accel", "kvm", "-machine", "pc", "-cpu", self.setup.qemu_cpu,
            "-name", f"compare-{self.side},debug-threads=on", "-m", f"{self.setup.memory >> 20}M",
            "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
            "-chardev", f"socket,id=serial0,path={self.serial_path},server=on,wait=off",
            "-serial", "chardev:serial0",
            "-chardev", f"socket,id=qmp0,path={self.qmp_path},server=on,wait=off",
            "-mon", "chardev=qmp0,mode=control"]
        machine += boot + self.setup.qemu_options
        return machine + (["-incoming", "defer"] if incoming else [])


class Faultline(Machine):
    kind = "faultline"

    def command(self, incoming):
        machine = [
            self.setup.faultline, "run", "--memory", f"{self.setup.memory >> 20}M",
            "--boot", self.setup.image, "--qmp", f"unix:{self.qmp_path}",
            "--serial", f"unix:{self.serial_path}"]
        machine += self.setup.faultline_options
        return machine + (["--incoming", "defer"] if incoming else [])


KINDS = (Qemu, Faultline)

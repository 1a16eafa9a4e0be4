# SPDX-License-Identifier: MIT
"""The comparison's outcome: a Markdown table with ratios, and JSON with everything."""
import json
import os
import platform
import statistics

# Figure, title, unit, how many ns or bytes make one of it.
ROWS = (
    ("p50_ns", "slow touch, p50", "us", 1e3),
    ("p90_ns", "slow touch, p90", "us", 1e3),
    ("p99_ns", "slow touch, p99", "us", 1e3),
    ("p99_9_ns", "slow touch, p99.9", "us", 1e3),
    ("max_ns", "slow touch, longest", "us", 1e3),
    ("slow_touches", "slow touches", "", 1),
    ("stalled_ns", "guest stalled in postcopy", "ms", 1e6),
    ("stalled_share", "guest stalled, share of postcopy", "%", 0.01),
    ("requests", "pages requested", "", 1),
    ("downtime_ns", "downtime, STOP to RESUME as they arrive", "ms", 1e6),
    ("downtime_said_ns", "downtime, STOP to RESUME as stamped", "ms", 1e6),
    ("downtime_query_ns", "downtime, query-migrate", "ms", 1e6),
    ("postcopy_ns", "postcopy, RESUME to completed", "ms", 1e6),
    ("total_ns", "whole migration", "ms", 1e6),
    ("precopy_bytes_per_s", "precopy, first pass", "MB/s", 1e6),
    ("source_cpu_ns", "CPU time of the source", "s", 1e9),
    ("destination_cpu_ns", "CPU time of the destination", "s", 1e9),
    ("engine_cpu_ns", "CPU time of both without vCPUs", "s", 1e9),
)


def number(value):
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def spread(values, unit):
    """The median, and the range where there is one."""
    text = number(statistics.median(values) / unit)
    if len(values) > 1:
        text += f" ({number(min(values) / unit)} to {number(max(values) / unit)})"
    return text


def ratios(peer, own):
    """One a repeat: the two of a repeat ran next to each other."""
    return [b / a for a, b in zip(peer, own) if a > 0]


def compare(results):
    """Figure -> values of both and ratios faultline/QEMU, over the repeats."""
    outcome = {}
    for name, *_ in ROWS:
        values = {kind: [run[name] for run in runs] for kind, runs in results.items()}
        outcome[name] = dict(values)
        if len(values) == 2:
            outcome[name]["faultline/QEMU"] = ratios(values["QEMU"], values["faultline"])
    return outcome


def markdown(options, results):
    kinds = list(results)
    title = (f"{options['memory'] >> 20} MiB of memory, {options['transport']}, push "
             f"{options['push_text']}, {options['placement_text']}, "
             f"{options['repeats']} repeats; median (range)")
    header = ["", *kinds] + (["faultline/QEMU"] if len(kinds) == 2 else [])
    lines = [title, "", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    outcome = compare(results)
    for name, text, unit, factor in ROWS:
        cells = [f"{text}, {unit}" if unit else text]
        cells += [spread(outcome[name][kind], factor) for kind in kinds]
        if len(kinds) == 2:
            values = outcome[name]["faultline/QEMU"]
            cells.append(spread(values, 1) if values else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def first_line(path, default="unknown"):
    try:
        with open(path, encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return default


def host():
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    huge = "/sys/kernel/mm/transparent_hugepage/"
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "load_average": os.getloadavg(),
            "huge_pages": first_line(huge + "enabled"),
            "huge_pages_shmem": first_line(huge + "shmem_enabled"),
            "tcp_congestion_control": first_line("/proc/sys/net/ipv4/tcp_congestion_control")}


def write_json(path, options, programs, results):
    whole = {"benchmark": "compare-qemu", "host": host(), "programs": programs,
             "options": options, "compared": compare(results), "runs": results}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(whole, file, indent=1)
        file.write("\n")

"""What bench/serving prints: tables in Markdown, and a line for each goal."""

import statistics


def median(rounds, key):
    return statistics.median(result[key] for result in rounds)


COLUMNS = [
    ("requests/s", "rate", 1, None),
    ("lowest", None, 1, None),
    ("p50 ms", "p50", 1e3, "{:.2f}"),
    ("p99 ms", "p99", 1e3, "{:.2f}"),
    ("a CPU-second", "per_cpu", 1, None),
    ("generator", None, 1, "{:.0%}"),
    ("MiB loaded", "loaded", 1, "{:.0f}"),
    ("MiB after", "memory", 1, "{:.0f}"),
    ("start s", "ready", 1, "{:.2f}"),
    ("failed", None, 1, "{:.0f}"),
    ("others", None, 1, "{:.0%}"),
]


def number(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def table(title, results, seconds):
    print(f"\n{title}\n\n| server | " + " | ".join(head for head, *_ in COLUMNS) + " |\n|---" + "|---" * len(COLUMNS) + "|")
    for server, rounds in results.items():
        special = {
            "lowest": min(result["rate"] for result in rounds),
            "generator": median(rounds, "generator") / seconds,
            "failed": sum(result["failed"] for result in rounds),
            "others": max(result["others"] for result in rounds),
        }
        values = [(special[head] if key is None else median(rounds, key) * scale, form) for head, key, scale, form in COLUMNS]
        cells = [form.format(value) if form else number(value) for value, form in values]
        print(f"| {server} | " + " | ".join(cells) + " |")


def goal(text, value, wanted, at_least=True):
    """One line for each goal: reached or missed, and by what."""
    good = value >= wanted if at_least else value <= wanted
    print(f"  {'reached' if good else 'MISSED '}  {text}: {value:.2f} (goal {'≥' if at_least else '≤'} {wanted:g})")

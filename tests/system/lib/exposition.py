"""A strict reader of Prometheus' text format 0.0.4, as `promtool check metrics` would have it and a little more: every line is what the
format says, every metric has HELP and TYPE before its samples, all of a family stand together, no sample twice, counters end in _total,
histograms are cumulative and end in +Inf = count.
"""
import re

METRIC = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"')
SAMPLE = re.compile(rf"({METRIC})(?:\{{(.*)\}})? (\S+)$")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|Inf)$|NaN$")


def unescape(value):
    return re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), value)


def labels_of(text):
    found, at = {}, 0
    while at < len(text or ""):
        m = LABEL.match(text, at)
        assert m, f"bad labels: {text[at:]}"
        assert m[1] not in found, f"label {m[1]} twice: {text}"
        found[m[1]] = unescape(m[2])
        at = m.end()
        assert at == len(text) or text[at] == ",", f"bad labels: {text[at:]}"
        at += 1
    return found


def family_of(name, types):
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and types.get(base) == "histogram":
            return base
    return name


def check_histogram(name, samples):
    """samples: [(metric, labels, value)] of one family."""
    series = {}
    for metric, labels, value in samples:
        rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        series.setdefault(rest, {"buckets": []})
        if metric == name + "_bucket":
            series[rest]["buckets"].append((float(labels["le"]), value))
        else:
            series[rest][metric.removeprefix(name + "_")] = value
    for rest, s in series.items():
        bounds = [le for le, _ in s["buckets"]]
        counts = [n for _, n in s["buckets"]]
        assert bounds == sorted(set(bounds)) and bounds[-1] == float("inf"), f"{name}{rest}: buckets at {bounds}"
        assert counts == sorted(counts) and counts[-1] == s["count"] and s["sum"] >= 0, f"{name}{rest}: {s}"


def read(text):
    """{metric: [(labels, value)]}; fails on whatever the format does not allow."""
    assert text.endswith("\n"), "the last line has no end"
    types, helps, families, seen, found, current = {}, set(), {}, set(), {}, None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, words = line[7:].split(" ", 1)
            assert re.fullmatch(METRIC, name) and name not in helps and words, line
            helps.add(name)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name in helps and name not in types and kind in ("counter", "gauge", "histogram"), line
            assert kind != "counter" or name.endswith("_total"), line
            types[name], current = kind, name
        else:
            m = SAMPLE.match(line)
            assert m and NUMBER.match(m[3]), f"no sample: {line}"
            labels, value = labels_of(m[2]), float(m[3])
            assert family_of(m[1], types) == current, f"{m[1]} stands among the samples of {current}"
            key = (m[1], tuple(sorted(labels.items())))
            assert key not in seen, f"twice: {line}"
            seen.add(key)
            families.setdefault(current, []).append((m[1], labels, value))
            found.setdefault(m[1], []).append((labels, value))
    for name, samples in families.items():
        if types[name] == "histogram":
            check_histogram(name, samples)
    return found

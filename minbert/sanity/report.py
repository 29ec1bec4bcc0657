"""What the check found, for a person: a page for one project, a table for a class."""

import json
import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 100
WORDS = {  # status → what a page says
    "passed": "passed", "partly": "passed in part", "wrong": "WRONG", "crashed": "CRASHED", "timed out": "TIMED OUT",
    "not written": "not written yet", "not checked": "not checked", "absent": "not in this project",
}  # fmt: skip
CELLS = {
    "passed": "ok", "partly": "part", "wrong": "WRONG", "crashed": "crash", "timed out": "time",
    "not written": "todo", "not checked": "?", "absent": "-",
}  # fmt: skip
COLOURS = {
    "passed": 32, "wrong": 31, "crashed": 31, "timed out": 31, "not written": 33, "not checked": 33, "partly": 33,
}  # fmt: skip
WRONG = ("wrong", "crashed", "timed out")
INDENT = 12


def coloured(text: str, status: str, colour: bool) -> str:
    code = COLOURS.get(status)
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text


def line(label: str, text: str) -> str:
    """A labelled paragraph, wrapped."""
    lines = textwrap.wrap(text, WIDTH - INDENT, break_long_words=True) or [""]
    return "\n".join([f"  {label:{INDENT - 2}}{lines[0]}", *(" " * INDENT + more for more in lines[1:])])


def place(result: dict[str, Any]) -> str:
    return f"{result['file']}:{result['line']}" if result.get("file") else ""


def numbers(value: Any) -> list[str]:
    """A nested list of numbers as lines, the numbers in columns."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        if isinstance(value[0][0] if value[0] else None, list):
            return [text for inner in value for text in numbers(inner)]
        return [text for row in value for text in numbers(row)]
    if isinstance(value, list):
        words = [f"{v:9.5g}" if isinstance(v, float) else str(v) for v in value]
        lines = textwrap.wrap(" ".join(words), WIDTH - INDENT - 2, break_long_words=False) or [""]
        return lines if len(lines) > 1 else [" ".join(words)]
    return textwrap.wrap(f"{value:.6g}" if isinstance(value, float) else str(value), WIDTH - INDENT) or [""]


def probe_lines(probe: dict[str, Any]) -> list[str]:
    text = f"{probe['name']}. {probe['says']}" if probe["says"] else probe["name"]
    lines = [line("probed", text + (f" Shown: {probe['place']}" if probe["place"] else ""))]
    if "failed" in probe:
        return [*lines, line("failed", probe["failed"])]
    for label in ("expected", "found"):
        first, *others = numbers(probe[label])
        lines += [f"  {label:{INDENT - 2}}{first}", *(" " * INDENT + other for other in others)]
    return lines


def heading(text: str) -> str:
    head = f"── {text} "
    return head + "─" * (WIDTH - len(head))


def details(result: dict[str, Any], colour: bool) -> list[str]:
    """All about one part that is wrong."""
    lines = ["", heading(result["title"])]
    failure = result.get("failure")
    for mistake in result["mistakes"]:
        where = f"{mistake['file']}:{mistake['line']}  " if mistake["file"] else ""
        lines += ["", coloured(mistake["name"], "wrong", colour)]
        lines += [line("look at", (where + mistake["where"]).rstrip()), line("why", mistake["why"])]
        lines += [line("equation", f"{mistake['equation']}   ({mistake['source']})"), *probe_lines(mistake["probe"])]
    if not result["mistakes"]:
        unknown = result["status"] == "wrong"
        text = "it gives other numbers than it should, in a way that is not on our list" if unknown else result["note"]
        lines += ["", coloured(text, result["status"], colour)]
        if place(result):
            lines.append(line("look at", f"{place(result)}  {result.get('where') or ''}".rstrip()))
        if unknown:
            lines += probe_lines(result["probe"])
        if unknown and result["note"]:
            lines.append(line("note", result["note"]))
        if result.get("nearest"):
            lines.append(line("nearest", f"of what is known: {result['nearest']}"))
    if failure and result["status"] == "wrong":
        where = f" ({place(failure)})" if place(failure) else ""
        lines += ["", f"Besides, “{failure['probe']}” failed:", line("failed", told(failure) + where)]
    if result["todo"]:
        lines += ["", line("to write", ", ".join(m["name"] for m in result["todo"]))]
    if result.get("output"):
        shown = result["output"].strip().splitlines()
        lines += ["  your code printed:", *(f"  | {text[: WIDTH - 4]}" for text in shown[:8])]
        lines += [f"  | … {len(shown) - 8} more lines"] * (len(shown) > 8)
    return lines


def told(failure: dict[str, Any]) -> str:
    return f"{failure['error']}: {failure['message']}".removesuffix(": ")


def not_checked(results: Sequence[dict[str, Any]]) -> list[str]:
    """Why something was not checked, and what would let it be: a paragraph a reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for result in results:
        whole = result["status"] == "not checked"
        if whole and result["note"]:
            reasons.setdefault((result["note"], ""), []).append(result["title"])
        for unknown in result["unknown"]:
            probes = "" if whole else f" ({'; '.join(unknown['probes'])})"
            reasons.setdefault((unknown["reason"], unknown["remedy"]), []).append(result["title"] + probes)
    if not reasons:
        return []
    lines = ["", heading("not checked, and why")]
    for (reason, remedy), titles in reasons.items():
        lines += ["", *textwrap.wrap("; ".join(titles), WIDTH), line("because", reason)]
        lines += [line("remedy", remedy)] if remedy else []
    return lines


def what_next(results: Sequence[dict[str, Any]]) -> str:
    """One sentence: the first thing to do."""
    for result in results:
        if result["status"] in WRONG:
            what = result["mistakes"][0]["name"] if result["mistakes"] else result["note"]
            if not result["mistakes"] and result["status"] == "wrong":
                what = f"find what differs in {place(result) or 'it'}"
            return f"put {result['title']} right: {what.rstrip('.')}."
        if result["status"] == "not written":
            first = f"{result['todo'][0]['name']} ({result['title']})" if result["todo"] else result["title"]
            return f"write {first}" + (f", at {place(result)}." if place(result) else ".")
    statuses = {result["status"] for result in results}
    if statuses <= {"absent"}:
        return (
            "nothing here is a part of a BERT project. The check looks for the course's names: BertSelfAttention, "
            "BertLayer, BertModel, AdamW, MultitaskBERT, BertSentimentClassifier, model_eval_multitask."
        )
    if statuses & {"not checked", "partly"}:
        return "nothing is known to be wrong; see above for what could not be checked, and what would let it be."
    return "nothing. All that is there is right."


def page(project: dict[str, Any], colour: bool = False, quiet_absent: bool = True) -> str:
    """The page of one project. quiet_absent: parts that it does not have share one line at the end of the list."""
    results = project["parts"]
    lines = [f"sanity check of {project['path']}", ""]
    width = max(len(r["title"]) for r in results) + 2
    for result in results:
        status = result["status"]
        if status == "absent" and quiet_absent:
            continue
        text = "; ".join(m["name"] for m in result["mistakes"]) or result["note"]
        if status in ("wrong", "not written", "crashed", "timed out") and place(result):
            text = f"{place(result)} {text}".strip()
        if status == "wrong" and not result["mistakes"]:
            text = f"{place(result)} a mistake that is not on our list: see below".strip()
        if status in ("not checked", "partly"):
            text = "see below"
        word = coloured(f"{WORDS[status]:16}", status, colour)
        rest = textwrap.wrap(text, WIDTH - width - 19) or [""]
        lines.append(f"  {result['title']:{width}}{word} {rest[0]}".rstrip())
        lines += [" " * (width + 19) + more for more in rest[1:]]
    absent = [r["title"] for r in results if r["status"] == "absent"]
    notes = [f"not in this project: {', '.join(absent)}"] if absent and quiet_absent else []
    for note in [*notes, *dict.fromkeys(choice for r in results for choice in r.get("judged") or ())]:
        lines += textwrap.wrap(note, WIDTH, initial_indent="  ", subsequent_indent="    ")
    for result in results:
        if result["status"] in WRONG:
            lines += details(result, colour)
    lines += not_checked(results)
    return "\n".join([*lines, "", *textwrap.wrap(f"What is next: {what_next(results)}", WIDTH)])


def table_head(paths: Sequence[str], names: Sequence[str]) -> str:
    """The first line of the table of a class: a column a part."""
    return " " * _first(paths) + "".join(f"{name:{max(len(name), 5) + 1}}" for name in names).rstrip()


def table_row(project: dict[str, Any], paths: Sequence[str], names: Sequence[str], colour: bool = False) -> str:
    """A project's line in the table of a class."""
    shown = project["path"] if len(project["path"]) <= 40 else "…" + project["path"][-39:]
    widths = [max(len(name), 5) + 1 for name in names]
    row = [
        coloured(f"{CELLS[r['status']]:{w}}", r["status"], colour)
        for r, w in zip(project["parts"], widths, strict=False)
    ]
    return (f"{shown:{_first(paths)}}" + ("".join(row) or f"could not be run: {project['error']}")).rstrip()


def _first(paths: Sequence[str]) -> int:
    return min(max(map(len, paths)), 40) + 2


def table_notes(projects: Sequence[dict[str, Any]]) -> str:
    """What stands below the table of a class: what is wrong in each project, and what could not be checked."""
    lines = []
    for project in projects:
        results = [r for r in project["parts"] if r["status"] in (*WRONG, "not checked", "partly")]
        lines += ["", project["path"]] if results else []
        for result in results:
            what = "; ".join(m["name"] for m in result["mistakes"])
            if result["status"] in ("not checked", "partly"):
                reasons = [result["note"], *(unknown["reason"] for unknown in result["unknown"])]
                what = f"{WORDS[result['status']]}, because {'; '.join(filter(None, dict.fromkeys(reasons)))}"
            what = what or ("a mistake that is not on our list" if result["status"] == "wrong" else result["note"])
            lines += textwrap.wrap(
                f"{result['title']}: {what}", WIDTH, initial_indent="  ", subsequent_indent="      "
            )  # fmt: skip
    return "\n".join(lines)


def as_json(projects: Sequence[dict[str, Any]]) -> str:
    """The same for a program: a list with a record for each project, whose parts have all keys."""
    blank = dict.fromkeys(("part", "title", "status", "mistakes", "note", "file", "line", "where", "probe", "differs",
                           "nearest", "failure", "output", "unknown", "todo", "judged"))  # fmt: skip
    records = [
        {"path": p["path"], "error": p.get("error"), "parts": [blank | result for result in p["parts"]]}
        for p in projects
    ]
    return json.dumps(_finite(records), ensure_ascii=False, indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no ∞: they become strings."""
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def exit_status(projects: Sequence[dict[str, Any]]) -> int:
    """0: all that is there is right, or still to be written. 1: something is wrong. 2: something was not checked."""
    statuses = {result["status"] for project in projects for result in project["parts"]}
    if statuses & set(WRONG):
        return 1
    nothing = any(all(r["status"] == "absent" for r in project["parts"]) for project in projects)
    return 2 if statuses & {"not checked", "partly"} or nothing else 0

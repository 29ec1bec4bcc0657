"""The linter's opinion, and the promises that the project makes about its own files."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_ruff_has_no_complaint():
    run = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_the_readmes_commands_name_flags_that_exist():
    """Every `python X.py --flag` of the README is a flag of that script's help."""
    readme = (ROOT / "README.md").read_text("utf-8").replace("\\\n", " ")
    commands = re.findall(r"^(?:.*&& )?python (?:-m )?(\S+)((?: .*)?)$", readme, re.M)
    assert len(commands) >= 5
    helps = {}
    for script, rest in commands:
        if not script.endswith(".py"):
            continue
        if script not in helps:
            run = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True)
            helps[script] = run.stdout
        for flag in re.findall(r"(?<=\s)--[\w-]+", rest.split("#")[0]):
            assert flag in helps[script], f"{script} {flag}"

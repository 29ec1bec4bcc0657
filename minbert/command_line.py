"""From a command line to the values of all flags.

A flag has the value that the command line gives; otherwise, with --resume, the value that the run had; otherwise the
value in the recipe; otherwise its default.
"""

import argparse
import json
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from minbert.errors import UserError, one_line_errors, stop_early
from minbert.flags import MULTITASK, QUICKSTART, SPLITS, flags_of, flags_then, groups
from minbert.parser import Flag, Parser
from minbert.recipe import SCRIPTS, Recipe, letter_of, listing, names, read_recipe

FILES = (*(f"{task}_{split}" for task in MULTITASK for split in SPLITS), *SPLITS)  # flags that name a data file
OUTS = tuple(f"{file}_out" for file in FILES if not file.endswith("train"))  # and a file of predictions
BY_CONTENT = ("data", "pretrained", *FILES)  # --resume may name another place, if the content is the same
# --resume does not take these from run.json; predictions that were skipped could not be asked for otherwise.
OF_THE_CALL = ("out", "resume", "overwrite", "predict", "predict_only", "skip_predictions")
FREE = (*BY_CONTENT, *OF_THE_CALL, *OUTS, "save_every", "local_files_only", "use_gpu")  # may be given anew


def make_parser(script: str, description: str, prog: str | None = None) -> Parser:
    """The parser of one script."""
    parser = Parser(description=description, prog=prog)
    for title, flags in groups(script).items():
        parser.add_flags(title, flags)
    return parser


def show_help(script: str, description: str, prog: str | None = None):
    """Print the help or the recipes and end, if the command line asks for it; a script calls this before PyTorch loads.

    Otherwise Ctrl-C ends the program with one line from now on.
    """
    with one_line_errors():
        if {"-h", "--help"} & set(sys.argv[1:]):
            make_parser(script, description, prog).parse_args(["--help"])
        if "--list_recipes" in sys.argv[1:]:
            parse(script, ["--list_recipes"], description, prog)
    stop_early()


def parse(script: str, argv: Sequence[str] | None, description: str, prog: str | None = None) -> dict[str, Any]:
    """Read the flags of one script: name → value. Wrong flags end the program with a one-line error."""
    parser = make_parser(script, description, prog)
    try:
        given = parser.given(argv)
        if given.get("list_recipes"):
            print(listing())
            sys.exit(0)
        defaults = QUICKSTART if given.get("quickstart") else {}
        if given.get("recipe"):
            defaults = defaults | recipe_values(script, given["recipe"])
        if given.get("resume") and not given.get("overwrite"):  # both together are refused below
            place = {key: defaults[key] for key in ("out",) if key in defaults}
            defaults = defaults | {"overwrite": False} | flags_of_run(script, place | given)
        parser.set_defaults(**defaults)
        values = vars(parser.parse_args(argv))
        if values["recipe"] and not values["resume"]:
            check_recipe(script, values, given)
        check_columns(script, values)
    except UserError as error:
        parser.error(str(error))
    return values


def recipe_values(script: str, name: str) -> dict[str, Any]:
    """The values of a recipe's flags, by name, without the flag of several values. UserError names the wrong line."""
    recipe = read_recipe(name)
    if recipe.script != script:
        raise UserError(f"--recipe {name}: is a recipe for {SCRIPTS[recipe.script]}, not for {SCRIPTS[script]}")
    parser, values = make_parser(script, ""), {}
    for line, words in recipe.lines:
        values |= _given(parser, recipe, line, words)
    for value in recipe.values:
        _given(parser, recipe, recipe.line, [recipe.flag, value])
    if "recipe" in values:
        raise UserError(f"{recipe.path}: a recipe cannot name another one with --recipe")
    return values


def _given(parser: Parser, recipe: Recipe, line: int, words: list[str]) -> dict[str, Any]:
    """The values of the flags in one line of a recipe; a UserError names the line."""

    def refuse(message: str):
        raise UserError(f"{recipe.path}, line {line}: {message}")

    parser.error = refuse
    return parser.given(words)


def maker(weights: str | None) -> Recipe | None:
    """The recipe of the further pre-training that writes to the folder `weights`, or None."""
    recipes = map(read_recipe, names()) if weights and weights.startswith("runs/") else ()
    readings = (recipe for recipe in recipes if recipe.script == "p")
    return next((recipe for recipe in readings if recipe_values("p", recipe.name).get("out") == weights), None)


def check_recipe(script: str, values: Mapping[str, Any], given: Container[str]):
    """UserError where a flag of the recipe has several values and none was chosen, or where its weights are missing.

    given: the names of the values that were given beside the recipe.
    """
    recipe = read_recipe(values["recipe"])
    if recipe.flag:
        (key,) = _given(make_parser(script, ""), recipe, recipe.line, [recipe.flag, recipe.values[0]])
        if key not in given:
            raise UserError(
                f"--recipe {recipe.name} has several values of {flags_of(script)[key].name} "
                f"({', '.join(recipe.values)}): add one, or run all with "
                f"`python -m minbert.experiments --table {recipe.name}`"
            )
    reading = maker(values["pretrained"])
    if reading and not Path(values["pretrained"]).exists():
        raise UserError(
            f"--pretrained {values['pretrained']}: not there yet; "
            f"`python -m minbert.pretraining --recipe {reading.name}` makes it"
        )


def flags_of_run(script: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of the run that --resume goes on with, from its run.json. given: those of the command line.

    UserError where run.json is missing, damaged or another script's, or where a given flag differs and is not in FREE.
    """
    out = given.get("out") or (QUICKSTART["out"] if given.get("quickstart") else None)
    if not out:
        raise UserError("--resume needs --out, the folder of the run")
    descriptions = sorted(Path(out).glob("run.json")) or sorted(Path(out).glob("*/run.json"))
    if not descriptions:
        raise UserError(f"{Path(out) / 'run.json'}: not there, so there is no run to --resume")
    flags = flags_of(script)
    try:
        description = json.loads(descriptions[0].read_text("utf-8"))
        if letter_of(description["script"]) != script:
            raise UserError(f"{descriptions[0]}: the run of another script; --resume it with that")
        then = flags_then(script, description["flags"])
        before = {key: typed(flag, then[key]) for key, flag in flags.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, argparse.ArgumentTypeError) as error:
        raise UserError(f"{descriptions[0]}: cannot be read ({error})") from error
    for key, value in given.items():
        if key not in FREE and before[key] != value:
            had = f"had {before[key]}" if flags[key].type and before[key] is not None else "did not set it"
            raise UserError(f"{flags[key].written(given)}: the run in {out} {had}; --resume keeps the run's flags")
    return {key: value for key, value in before.items() if key not in OF_THE_CALL}


def typed(flag: Flag, value: Any) -> Any:
    """A value from Python or JSON, checked and converted by its flag's type; lists become words with commas.

    Raises ValueError or ArgumentTypeError.
    """
    if value is None or flag.type is None or flag.many:
        return value
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if flag.choices and value not in flag.choices:
        raise ValueError(f"{value!r} is none of {', '.join(flag.choices)}")
    return flag.type(str(value))


def check_columns(script: str, values: Mapping[str, Any]):
    """UserError where a flag is on without one that it needs, or with one that it cannot be combined with."""
    rows = flags_of(script)
    by_name = {flag.name: flag for flag in rows.values()}
    for flag in rows.values():
        if not flag.is_on(values):
            continue
        name, _, value = flag.needs.partition(" ")
        needed = by_name.get(name)
        if needed and not needed.is_on(values):
            raise UserError(f"{flag.written(values)} needs {needed.wanted()}")
        if needed and value and str(values[needed.key]) != value:
            raise UserError(f"{flag.written(values)} needs {flag.needs}, not {needed.written(values)}")
        for other, reason in flag.not_with.items():
            if other == "--use_gpu" and values["resume"]:
                continue  # a run may move to a GPU, where --fast_dropout has no effect
            if other in by_name and by_name[other].is_on(values):
                more = f", {reason}" if reason else ""
                raise UserError(
                    f"{flag.written(values)} cannot be combined with {by_name[other].written(values)}{more}"
                )

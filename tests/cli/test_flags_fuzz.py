"""Command lines at random: the flags are taken, or refused in one line; nothing else happens, and nothing is read."""

import io
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import classifier
import multitask_classifier
from minbert.errors import one_line_errors
from minbert.flags import flags_of
from minbert.pretraining.settings import get_args as pretraining_args

PARSERS = {"m": multitask_classifier.get_args, "c": classifier.get_args, "p": pretraining_args}
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NUMBERS = st.one_of(
    st.integers().map(str), st.floats().map(str),
    st.sampled_from(["0", "1", "2", "8", "0.5", "1e-5", "1e30", "1e39", "1e309", "1e-320", "", " 1", "1_0", "１", "٣"]),
    st.sampled_from(["0x10", "1,2", "1,1,1", "0.9,0.99", "0.8,0.1", "8,8,8", "9" * 5000, "-0", "1/2", "True", "10m"]),
)  # fmt: skip
WORDS = st.one_of(
    st.text(st.characters(exclude_characters="\0"), max_size=12),
    st.sampled_from(["", " ", "sst", "para,sts", "sst,,sts", "sst,sst", "nli", "mlm", "query,value", ",", "\udcff"]),
    st.sampled_from(["--", "-x", "\n", "a\nb", "x" * 5000, "%s", "%(prog)s", "{}", "{0}", "/dev/null", ".", "~", "é"]),
)


def flag_words(script: str) -> st.SearchStrategy[list[str]]:
    """A flag of a script with a value: a good one, a number, or a word; or several; or none."""
    flags = list(flags_of(script).values())

    def written(flag) -> st.SearchStrategy[list[str]]:
        if flag.type is None:
            return st.just([flag.name])
        good = [str(flag.default), flag.example.split(" ")[0]] if flag.example else [str(flag.default)]
        choices = list(flag.choices) if isinstance(flag.choices, tuple) else []
        value = st.one_of(st.sampled_from(good + choices), NUMBERS, WORDS)
        if flag.many:
            return st.lists(value, max_size=3).map(lambda values: [flag.name, *values])
        return st.tuples(value, st.booleans()).map(lambda x: [f"{flag.name}={x[0]}"] if x[1] else [flag.name, x[0]])

    return st.sampled_from(flags).flatmap(written)


def parse(script: str, argv: list[str]) -> SimpleNamespace:
    """The settings or None, and what was written to stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            with one_line_errors():
                args, status = PARSERS[script](argv), 0
        except SystemExit as stop:
            args, status = None, stop.code
            if isinstance(status, str):  # which Python prints
                print(status, file=err)
                status = 2
    return SimpleNamespace(args=args, status=status, out=out.getvalue(), err=err.getvalue())


@pytest.mark.parametrize("script", PARSERS)
@given(data=st.data())
@MANY
def test_a_command_line_at_random_is_taken_or_refused_in_one_line(script, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [word for words in data.draw(st.lists(flag_words(script), max_size=6)) for word in words]
    argv += ["--out", "there"] if script == "p" else []
    result = parse(script, argv)
    if result.args is None:
        assert result.status == 2 or (result.status == 0 and result.out)  # the help, by an abbreviation of --help
        if result.status == 2:
            assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
            assert len(result.err) < 6000 and result.out == ""
    else:
        assert result.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", PARSERS)
@given(data=st.data())
@MANY
def test_a_flag_that_is_taken_has_the_value_that_was_given(script, data):
    """What Python's own int and float read of the word is the value, or the flag is refused."""
    numeric = [flag for flag in flags_of(script).values() if isinstance(flag.default, int | float) and flag.type]
    flag, word = data.draw(st.sampled_from(numeric)), data.draw(NUMBERS)
    result = parse(script, [f"{flag.name}={word}", *(["--out", "there"] if script == "p" else [])])
    if result.args is not None:
        kind = int if isinstance(flag.default, int) else float
        assert getattr(result.args, flag.key) == kind(word)
    else:
        assert result.err.count("\n") == 1 and result.err.startswith("error: ")


def test_the_parsers_are_seen_to_refuse_and_to_take():
    """So that the tests above are not passed by parsers that refuse everything."""
    assert parse("m", ["--epochs", "3"]).args.epochs == 3
    assert parse("m", ["--epochs", "x"]).status == 2

"""Predictions of a run's best model: its prediction files, and answers for one sentence or two."""

import contextlib
import json
import shutil
import sys
from argparse import Namespace
from pathlib import Path

from minbert import processes
from minbert.checkpoint import load_model
from minbert.command_line import OF_THE_CALL
from minbert.data import Dataset, Example
from minbert.engine import find_device
from minbert.errors import UserError
from minbert.evaluation import all_scores, chance, in_words, outputs, overall, write_outputs, write_predictions
from minbert.files import atomic, file_name, sha256
from minbert.flags import flags_of, flags_then
from minbert.folder import RUNS, RunFolder, as_json, check_places, newest_run
from minbert.multitask import MultitaskBert
from minbert.recipe import letter_of
from minbert.run import checkpoints, epochs_done, missing_best
from minbert.state import is_state
from minbert.tokenizer import BertTokenizer

OF_A_PREDICTION = (*OF_THE_CALL, "use_gpu", "precision", "attention", "local_files_only")  # other flags are the run's


def best_model(args: Namespace) -> tuple[MultitaskBert, BertTokenizer]:
    """The model in OUT/best or, if no OUT is named, of the newest run in runs/; args.out becomes its folder.

    For a run that was stopped in its first epoch, it is that of the last whole checkpoint; a line on stderr says so.
    """
    args.out = args.out or newest_run(RUNS) or RUNS
    folder = RunFolder(args.out)
    path, pretraining = folder.best, _is_pretraining(folder)
    if not is_state(path) and epochs_done(folder) and not pretraining:
        raise missing_best(folder)
    if not is_state(path) and not pretraining and (last := _last(folder, args.attention)):
        model, tokenizer = last
    elif not is_state(path):
        inside = ", ".join(sorted(str(other.parent) for other in args.out.glob("*/best")))
        file = next(iter(sorted(args.out.glob("*.pt"))), None)
        what_to_do = "name a run's folder with --out" + (f" ({inside})" if inside else ", or train one first")
        if pretraining:
            what_to_do = f"it is a further pre-training; `--pretrained {args.out}` trains from its weights"
        elif any(args.out.glob("checkpoints/*")):
            what_to_do = f"its first epoch is not done; `--resume --out {args.out}` goes on with it"
        elif file:
            what_to_do = f"--pretrained {file} takes BERT's weights out of that file, to train from"
        raise UserError(f"{path}: no trained model there; {what_to_do}")
    else:
        model, tokenizer = load_model(path, args.attention)
    model.to(find_device(args.use_gpu)).precision = args.precision
    return model, tokenizer


def _is_pretraining(folder: RunFolder) -> bool:
    with contextlib.suppress(UserError, KeyError, ValueError):  # no run.json, or one that is damaged
        return letter_of(folder.read_description()["script"]) == "p"
    return False


def _last(folder: RunFolder, attention: str) -> tuple[MultitaskBert, BertTokenizer] | None:
    """The model of a run's newest whole checkpoint, or None."""
    for path in reversed(checkpoints(folder)):
        try:
            loaded = load_model(path, attention)
        except UserError as error:
            print(error, file=sys.stderr)
            continue
        print(f"{path}: no epoch of this run is done, so this is the model of its last checkpoint; --resume goes on "
              "with the run", file=sys.stderr)  # fmt: skip
        return loaded
    return None


def write_all_predictions(args: Namespace, data: dict[str, dict[str, Dataset]]) -> dict[str, float]:
    """Predict dev and test with the best model, write the prediction files, print and return its dev scores."""
    model, _ = best_model(args)
    scores, written = {}, []
    print("\nbest model, on dev:")
    for name, splits in data.items():
        for split in (split for split in ("dev", "test") if split in splits):
            task, raw = splits[split].task, outputs(model, splits[split])
            predictions = task.predict(raw)
            usual = args.out / "predictions" / args.prediction_name.format(task=name, split=split)
            path = args.outs[name].get(split, usual)
            if processes.rank() == 0:
                write_predictions(path, task, splits[split].examples, predictions)
                if split == "dev":
                    write_outputs(args.out / "outputs" / f"{name}-dev.jsonl", task, splits[split].examples, raw)
                if args.course_folder and path == usual:
                    args.course_folder.mkdir(exist_ok=True)
                    with atomic(args.course_folder / path.name) as temporary:
                        shutil.copyfile(path, temporary)
                    path = args.course_folder / path.name
            written.append(path)
            if split == "dev":
                every = all_scores(task, predictions, splits[split].labels)
                scores[name] = next(iter(every.values()))
                text = ", ".join(f"{title} {value:.3f}" for title, value in every.items())
                print(f"  {task.title:18} {text}   (a constant answer: {chance(task, splits['dev'].labels):.3f})")
    if len(scores) > 1:
        print(f"  {'overall':18} {overall(scores, model.tasks):.3f}")
    for folder in dict.fromkeys(path.parent for path in written):
        names = [path.name for path in written if path.parent == folder]
        print(f"{'predictions':18} {folder / names[0] if len(names) == 1 else f'{folder}/ ({len(names)} files)'}")
    if args.limit:
        print("--limit holds for dev files too, and so for their predictions", file=sys.stderr)
    return scores


def settings_of_run(args: Namespace, model: MultitaskBert) -> Namespace:
    """`args` with the files, the names, the limit and the precision of the run in OUT, for --predict_only.

    The files may be elsewhere by now: a flag names them, or they are in the folder --data, with the same content.
    UserError for a flag that asks for anything else than the run did, such as another test file.
    """
    path = args.out / "run.json"
    try:
        description = json.loads(path.read_text("utf-8"))
        plan, script = description["plan"], letter_of(description["script"])
        flags = flags_then(script, description["flags"])
        before = {task: {s: Path(f) for s, f in files.items()} for task, files in plan["files"].items()}
        digests = {(task, s): description["data"].get(f"{task}/{s}") for task in before for s in before[task]}
        args.outs = {task: {s: Path(f) for s, f in files.items()} for task, files in plan["outs"].items()}
        args.prediction_name, args.limit = plan["prediction_name"], plan["limit"]
        args.course_folder = Path(plan["course_folder"]) if plan.get("course_folder") else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: does not say which files the run had ({error!r}); --predict_only needs it") from error
    if missing := [task for task in model.tasks if task not in before]:
        raise UserError(f"{path}: names no files of {', '.join(missing)}, whose data came from a program; "
                        "--predict_only needs files")  # fmt: skip
    given = args.changed if script == args.script else {k: v for k, v in args.changed.items() if k == "data"}
    of_task = "{1}" if script == "c" else "{0}_{1}"  # the names of the flags of a task's files
    keys = {of_task.format(task, split): (task, split) for task in model.tasks for split in before[task]}
    outs = {f"{key}_out": place for key, place in keys.items() if place[1] != "train"}
    for key, value in args.changed.items():
        if key in outs and key in given:
            task, split = outs[key]
            args.outs[task][split] = Path(value)
        elif key not in (*OF_A_PREDICTION, *(keys.keys() & given.keys()), "data") and as_json(
            flags.get(key)
        ) != as_json(value):
            flag = flags_of(args.script)[key].written(args.changed)
            raise UserError(f"{flag}: --predict_only takes this from the run in {args.out}; leave the flag out")
    args.files = {task: before[task] for task in model.tasks}
    for key, (task, split) in keys.items():
        if split != "train" or key in given:
            flag, digest = flags_of(script)[key].name, digests[task, split]
            args.files[task][split] = _file_now(args, flag, given.get(key), before[task][split], digest, flags.get(key))
    if "precision" not in args.changed:
        args.precision = flags.get("precision", args.precision)
    check_places(args)
    args.files = {task: {s: path for s, path in args.files[task].items() if s != "train"} for task in model.tasks}
    args.rows, args.tasks, args.asked_test = model.tasks, list(model.tasks), []
    args.pairs = model.pairs
    return args


def _file_now(args: Namespace, flag: str, given: str | None, before: Path, digest: str | None, own: str | None) -> Path:
    """Where a file of a run is now that was at `before`, with the sha256 `digest` if it was there.

    flag: names it. given, own: what that flag names now, and what it named in the run. UserError where the content is
    another one.
    """
    if given:
        path = Path(given)
    elif before.exists() and (own or "data" not in args.changed):
        return before
    else:
        path = args.data / file_name(before)
    if not path.exists():
        if flag.endswith("test") and not given:
            return path  # which is said later
        place = f"{path}: not there" + (f", nor is {before}" if before != path and not before.exists() else "")
        raise UserError(f"{place}; --data names the folder of the files that the run read, {flag} this file")
    if path != before and digest != sha256(path) and (digest or given):
        raise UserError(f"{path}: is not the file that the run in {args.out} read; --predict_only takes the files with "
                        f"the same content, from --data or {flag}")  # fmt: skip
    return path


def answer(args: Namespace):
    """Print the model's answers for the one or two sentences of --predict."""
    model, tokenizer = best_model(args)
    texts = tuple(args.predict)
    tasks = [task for task in model.tasks.values() if task.is_pair == (len(texts) == 2)]
    if not tasks:
        kind = "two sentences" if len(texts) == 2 else "one sentence"
        raise UserError(f"{RunFolder(args.out).best}: none of its tasks ({', '.join(model.tasks)}) takes {kind}")
    for task in tasks:
        data = Dataset(task, [Example(None, texts, None)], tokenizer, model.pairs[task.name])
        print(f"{task.title:18} {in_words(task, outputs(model, data)[0])}")

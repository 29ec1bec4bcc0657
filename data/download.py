"""Fetch the course's data files, and check that they are the course's.

    python data/download.py [--to DIR] [--url BASE] [file or group names ...]
    python data/download.py nli        the inference pairs of SNLI and MultiNLI (320 MB), for further pre-training

A file is written to NAME.part, checked, and only then gets its NAME: it lands whole or not at all. A download
that was cut short goes on from where it stopped. The check is git's own id of a file's content, as the
course's repository lists it, so whoever serves the files need not be trusted; a server that sends too much, or too
slowly, is given up. The inference pairs come as two archives, known by their sha256; their pairs are written in the
form of the course's files, and the archives go. A second download into the same folder waits for the first.
"""

import argparse
import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import queue
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

from tqdm import tqdm

URL = "https://raw.githubusercontent.com/gpoesia/minbert-default-final-project/HEAD/data/"
TRIES = 4  # requests for one file before it is given up
PAUSE = 1.0  # seconds before the second of them; 2x before the third, 3x before the fourth
TIMEOUT = 30  # seconds without a byte, or until an answer begins
SLOWEST = 1000  # bytes a second: a server that sends fewer for TIMEOUT seconds is given up
LONGEST = {".csv": 64 << 20, ".zip": 512 << 20}  # bytes: none of the files is so long
CHUNK = 1 << 16  # bytes

GROUPS = {  # group -> file -> git blob id
    "sst": {
        "ids-sst-train.csv": "9cb7333cb1dae49c2bd2a4b56a24882a6e8704b5",
        "ids-sst-dev.csv": "3171aa629a340809d2db4a50df8f6e5ec9420ab0",
        "ids-sst-test-student.csv": "bbd2313758825f86e24416d6aad64cd93370cf7a",
    },
    "cfimdb": {
        "ids-cfimdb-train.csv": "cd57bcbd2f7214ea6dd1783d3e885d324b1f478d",
        "ids-cfimdb-dev.csv": "8a0f5dcf3d40189b96c801a12cd79bf8003e61de",
        "ids-cfimdb-test-student.csv": "1e789c709b3ca0511f027a309b6d8bd21cde41b2",
    },
    "quora": {
        "quora-train.csv": "a3b5546f6a0e65b60a328a5d294d1038f5bed1da",
        "quora-dev.csv": "de7cfa32428fd470b93f778fccc45a619e01336f",
        "quora-test-student.csv": "f257ef00558555afb50819578a58205732b16354",
    },
    "sts": {
        "sts-train.csv": "12b17760e7795fee35aeeabc290d5651de02622a",
        "sts-dev.csv": "9392860e584717976b8d817cc40c9e6ceeec27e0",
        "sts-test-student.csv": "25f0cf8fafdd1f82b9e2bb460c708af34341ce60",
    },
}
BLOB_IDS = {name: blob_id for files in GROUPS.values() for name, blob_id in files.items()}

ARCHIVES = {  # SNLI and MultiNLI: where from, sha256
    "snli_1.0.zip": (
        "https://nlp.stanford.edu/projects/snli/snli_1.0.zip",
        "afb3d70a5af5d8de0d9d81e2637e0fb8c22d1235c2749d83125ca43dab0dbd3e",
    ),
    "multinli_1.0.zip": (
        "https://cims.nyu.edu/~sbowman/multinli/multinli_1.0.zip",
        "049f507b9e36b1fcb756cfd5aeb3b7a0cfcb84bf023793652987f7e7e0957822",
    ),
}
NLI = {  # file -> what it is made of: archive, member
    "nli-train.csv": [
        ("snli_1.0.zip", "snli_1.0/snli_1.0_train.jsonl"),
        ("multinli_1.0.zip", "multinli_1.0/multinli_1.0_train.jsonl"),
    ],
    "nli-dev.csv": [("snli_1.0.zip", "snli_1.0/snli_1.0_dev.jsonl")],
}


class DownloadError(Exception):
    """A file could not be had; the message is one line that says which, why, and what to do."""


class NetworkError(Exception):
    """The server, or the way to it, failed. status: the HTTP status, if there is one. again: another try may help."""

    def __init__(self, message: str, status: int | None = None, again: bool = True):
        super().__init__(message)
        self.status, self.again = status, again and status not in (401, 403, 404, 410)


def git_blob_id(path: str | Path) -> str:
    """What `git hash-object` says of `path`: the hex sha1 of b"blob SIZE\\0" and the bytes."""
    path = Path(path)
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def checksum(path: str | Path, like: str) -> str:
    """The checksum of `path` of the kind that `like` is: a sha256 has 64 digits, a git blob id 40."""
    if len(like) == 40:
        return git_blob_id(path)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------------------------------------- the network


def _open(request: urllib.request.Request) -> HTTPResponse:
    """The server's answer, whose header must be complete within TIMEOUT; urlopen's own limit is for every byte anew."""
    answers: queue.Queue = queue.Queue()

    def work():
        try:
            answers.put(urllib.request.urlopen(request, timeout=TIMEOUT))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        answer = answers.get(timeout=TIMEOUT)
    except queue.Empty:
        raise NetworkError(f"no answer within {TIMEOUT} seconds") from None
    if isinstance(answer, Exception):
        status = getattr(answer, "code", None)
        raise NetworkError(f"HTTP {status}" if status else str(getattr(answer, "reason", answer)), status) from answer
    return answer


def _receive(url: str, part: Path, name: str):
    """One request: write `url` to `part`, or only the rest of it where `part` already has a beginning."""
    have, longest = part.stat().st_size if part.exists() else 0, LONGEST[Path(name).suffix]
    with _open(urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})) as response:
        if response.status != 206:  # the whole file comes, whatever was asked for
            have = 0
        length = response.headers.get("Content-Length") or None
        if length and not length.isdecimal():
            raise NetworkError(f"its Content-Length is {length[:40]!r}")
        total = have + int(length[:20]) if length else None
        if total and total > longest:
            raise NetworkError(f"it announces {length[:20]} bytes, more than the file can have", again=False)
        bar = tqdm(total=total, initial=have, desc=name, unit="B", unit_scale=True, disable=None)
        start, before = time.monotonic(), have
        with bar, part.open("ab" if have else "wb") as file:
            while True:
                try:
                    chunk = response.read1(CHUNK)
                except Exception as error:  # http.client raises ValueError and others for what it does not understand
                    raise NetworkError(str(error) or type(error).__name__) from error
                if not chunk:
                    break
                have += file.write(chunk)
                bar.update(len(chunk))
                seconds = time.monotonic() - start
                if have > longest:
                    file.truncate(0)
                    raise NetworkError(f"it sends more than {longest:,} bytes, which the file cannot have", again=False)
                if seconds > TIMEOUT and have - before < SLOWEST * seconds:
                    raise NetworkError(f"it sends fewer than {SLOWEST} bytes a second")
            file.flush()
            _sync(file.fileno())
    if total is not None and have != total:
        raise NetworkError(f"{have} of {total} bytes came")


def _sync(handle: int):
    """Bring a file to the disk. Some network and FUSE file systems know no fsync, which is no reason to stop."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def _download(url: str, part: Path, name: str):
    """Fill `part` from `url`, trying again, from where it broke off, when the network or the server fails."""
    for attempt in range(1, TRIES + 1):
        try:
            return _receive(url, part, name)
        except NetworkError as error:
            if error.status == 416:  # `part` is as long as the file or longer: nothing can be added to it
                part.unlink(missing_ok=True)
            if attempt == TRIES or not error.again:
                raise DownloadError(
                    f"{name}: cannot fetch {url} ({' '.join(str(error).split())[:200]}); check the connection and run "
                    "this again, or copy the file here yourself"
                ) from error
            time.sleep(PAUSE * attempt)


# ---------------------------------------------------------------------------------------------- a file


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[str]:
    """Keep other downloads out of `folder`, after waiting for one that is there; how the names of parts end inside.

    Where a folder cannot be locked (Windows, some network file systems), parts have the number of this process in their
    names: then two downloads do not write into one file, but a part is of no use to the next one.
    """
    handle, suffix = None, ".part"
    try:
        try:
            import fcntl

            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: another download is under way there; this one waits for its end", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except (ImportError, OSError):
            suffix = f".{os.getpid()}.part"
        try:
            yield suffix
        finally:
            for part in folder.glob(f"*{suffix}") if suffix != ".part" else ():
                part.unlink(missing_ok=True)
    finally:
        if handle is not None:
            os.close(handle)


def fetch(url: str, path: str | Path, expected: str, suffix: str = ".part") -> str:
    """Make `path` the file at `url` whose git blob id, or sha256, is `expected`; say what was done.

    suffix: how the name of the unfinished file ends, see `alone`. Returns "already there" or "downloaded"; another file
    of that name is kept as NAME.old. Raises DownloadError where the file cannot be had, OSError where it cannot be
    written.
    """
    path = Path(path)
    if path.exists() and checksum(path, expected) == expected:
        return "already there"
    part = path.with_name(path.name + suffix)
    if part.is_symlink():  # to a file of somebody's, which would be written over
        part.unlink()
    for _ in range(2):  # a wrong file may come of a stale beginning: once more, from nothing
        _download(url, part, path.name)
        actual = checksum(part, expected)
        if actual == expected:
            return "downloaded" + _rename(part, path)
        part.unlink()
    raise DownloadError(
        f"{path.name}: expected {'git blob id' if len(expected) == 40 else 'sha256'} {expected} but {url} gives "
        f"{actual}; nothing of it was kept; it "
        "was changed there or on the way: try another network or --url, or copy the file here yourself"
    )


def make_nli(folder: Path, base: str | None, suffix: str = ".part"):
    """Write the files of `NLI` into `folder`, from archives that are fetched (from `base`, if given) and then removed.

    Nothing is unpacked: the members are read where they are, by name.
    """
    if all((folder / name).exists() for name in NLI):
        print(f"{', '.join(NLI)}: already there (remove them to have them made again)")
        return
    for name, (url, expected) in ARCHIVES.items():
        fetch(f"{base}/{name}" if base else url, folder / name, expected, suffix)
    for name, members in NLI.items():
        part, count, archive = folder / f"{name}{suffix}", 0, ""
        try:
            with part.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter="\t", lineterminator="\n")
                writer.writerow(["", "id", "premise", "hypothesis", "label"])
                for archive, member in members:
                    with zipfile.ZipFile(folder / archive) as zip, zip.open(member) as lines:
                        for line in io.TextIOWrapper(lines, encoding="utf-8"):
                            row = json.loads(line)
                            pair = [" ".join(row[column].split()) for column in ("sentence1", "sentence2")]
                            writer.writerow([count, row["pairID"], *pair, row["gold_label"]])
                            count += 1
                file.flush()
                _sync(file.fileno())
        except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
            raise DownloadError(f"{folder / archive}: holds no pairs as SNLI's do ({error}); remove it") from error
        kept = _rename(part, folder / name)
        print(f"{name}: {count:,} rows from {', '.join(archive for archive, _ in members)}, checked{kept}", flush=True)
    for name in ARCHIVES:
        (folder / name).unlink(missing_ok=True)


def _rename(part: Path, path: Path) -> str:
    """Let `part` be `path`; another file of that name is kept as NAME.old, and the result says so."""
    if not path.exists():
        os.replace(part, path)
        return ""
    old, number = path.with_name(f"{path.name}.old"), 2  # another content: somebody may want it back
    while old.exists():
        old, number = path.with_name(f"{path.name}.old{number}"), number + 1
    os.replace(path, old)
    os.replace(part, path)
    return f" (what had its name is {old.name})"


def main(argv: list[str] | None = None) -> int:
    """Fetch the files named on the command line; the exit status."""
    parser = argparse.ArgumentParser(description="Fetch and check the course's data files.")
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help=f"a file, or a group: {', '.join(GROUPS)} or nli (default: all but nli)")  # fmt: skip
    parser.add_argument("--to", type=Path, default=Path(__file__).resolve().parent, metavar="DIR",
                        help="where the files go (default: the folder of this script)")  # fmt: skip
    parser.add_argument("--url", metavar="BASE",
                        help=f"where the files come from (default: {URL}; of nli: its authors' pages)")  # fmt: skip
    args = parser.parse_args(argv)
    if args.url and not args.url.startswith(("https://", "http://")):
        parser.error(f"--url {args.url}: it must begin with https:// or http://")
    names: list[str] = []
    for name in args.names or GROUPS:
        if name not in GROUPS and name not in BLOB_IDS and name != "nli":
            parser.error(f"{name} is neither a file nor a group ({', '.join(GROUPS)}, nli)")
        names += GROUPS.get(name, [name])

    try:
        args.to.mkdir(parents=True, exist_ok=True)
        with alone(args.to) as suffix:
            for name in dict.fromkeys(names):
                if name == "nli":
                    make_nli(args.to, args.url and args.url.rstrip("/"), suffix)
                    continue
                url = (args.url or URL).rstrip("/") + "/" + name
                print(f"{name}: {fetch(url, args.to / name, BLOB_IDS[name], suffix)}, checked", flush=True)
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: cannot write to {error.filename or args.to}: {error.strerror or error}; make room there, or "
              "choose another folder with --to", file=sys.stderr)  # fmt: skip
    except KeyboardInterrupt:
        print("stopped by Ctrl-C; run this again to go on from here", file=sys.stderr)
        return 130
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())

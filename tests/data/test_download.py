"""data/download.py against a local server that resumes, refuses to, breaks off, and lies."""

import functools
import hashlib
import http.server
import io
import json
import threading
import zipfile

import pytest

from minbert.data import read_examples
from minbert.tasks import TASKS
from tests.data.conftest import BODY, NAME, SCRIPT, blob_id


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve `server.body` at every path, with the faults `server` has, and note the Range headers."""

    def do_GET(self):
        server, body = self.server, self.server.bodies.get(self.path, self.server.body)
        wanted = self.headers["Range"]
        server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.resumes else 0
        if server.statuses:
            status = server.statuses.pop()
        elif start >= len(body):
            status = 416
        else:
            status = 206 if wanted and server.resumes else 200
        self.send_response(status)
        if status >= 400:
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = server.cuts.pop() if server.cuts else len(body)
        self.wfile.write(body[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """A server on a free port; its `statuses` and `cuts` are taken from the end, one a request."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.body, server.resumes, server.ranges, server.statuses, server.cuts = BODY, True, [], [], []
    server.bodies = {}  # of single paths
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run(download, server_url, folder, capsys):
    """The script's exit status, and the lines it wrote to stdout and to stderr."""
    status = download.main(["--to", str(folder), "--url", server_url, NAME])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def test_the_blob_id_is_gits(download, tmp_path):  # the ids are `git hash-object`'s
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert download.git_blob_id(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"
    (tmp_path / "empty").touch()
    assert download.git_blob_id(tmp_path / "empty") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_fetches_into_a_new_folder_and_then_leaves_it_alone(download, server, tmp_path, capsys):
    folder = tmp_path / "new" / "data"
    assert run(download, server.url, folder, capsys) == (0, [f"{NAME}: downloaded, checked"], [])
    assert (folder / NAME).read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert run(download, server.url + "/", folder, capsys) == (0, [f"{NAME}: already there, checked"], [])
    assert server.ranges == [None]  # one request in all, for the whole file


def test_keeps_another_file_of_the_same_name_aside(download, server, tmp_path, capsys):
    (tmp_path / NAME).write_bytes(b"mine")
    status, out, err = run(download, server.url, tmp_path, capsys)
    assert (status, err) == (0, []) and out == [f"{NAME}: downloaded (what had its name is {NAME}.old), checked"]
    assert (tmp_path / NAME).read_bytes() == BODY
    assert (tmp_path / f"{NAME}.old").read_bytes() == b"mine"


@pytest.mark.parametrize("resumes", [True, False])
def test_goes_on_from_a_part(download, server, tmp_path, resumes):
    server.resumes = resumes  # a server that does not sends the whole file, with status 200
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:1000])
    assert download.fetch(f"{server.url}/{NAME}", tmp_path / NAME, blob_id(BODY)) == "downloaded"
    assert server.ranges == ["bytes=1000-"]
    assert (tmp_path / NAME).read_bytes() == BODY


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_starts_again_when_nothing_can_be_added_to_the_part(download, server, tmp_path, extra):
    (tmp_path / f"{NAME}.part").write_bytes(BODY + extra)
    download.fetch(f"{server.url}/{NAME}", tmp_path / NAME, blob_id(BODY))
    assert server.ranges == [f"bytes={len(BODY + extra)}-", None]  # the first was answered 416
    assert (tmp_path / NAME).read_bytes() == BODY


def test_starts_again_when_the_part_was_of_another_file(download, server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1000)
    download.fetch(f"{server.url}/{NAME}", tmp_path / NAME, blob_id(BODY))
    assert server.ranges == ["bytes=1000-", None]
    assert (tmp_path / NAME).read_bytes() == BODY


def test_tries_again_after_a_cut_and_an_overloaded_server(download, server, tmp_path):
    server.cuts = [len(BODY), 200_000, 70_000]
    server.statuses = [206, 503, 206, 200]
    download.fetch(f"{server.url}/{NAME}", tmp_path / NAME, blob_id(BODY))
    assert server.ranges == [None, "bytes=70000-", "bytes=200000-", "bytes=200000-"]
    assert (tmp_path / NAME).read_bytes() == BODY


def test_gives_up_after_some_tries_and_keeps_the_part(download, server, tmp_path, capsys):
    server.cuts = [400, 300, 200, 100]
    status, out, (line,) = run(download, server.url, tmp_path, capsys)
    assert (status, out, len(server.ranges)) == (1, [], 4)
    assert f"400 of {len(BODY)} bytes" in line
    assert (tmp_path / f"{NAME}.part").read_bytes() == BODY[:400]
    assert not (tmp_path / NAME).exists()


def test_wrong_content_is_not_kept(download, server, tmp_path, capsys):
    server.body = BODY[:-1] + b"!"
    (tmp_path / NAME).write_bytes(b"mine")
    status, out, (line,) = run(download, server.url, tmp_path, capsys)
    assert (status, out, len(server.ranges)) == (1, [], 2)
    assert line.startswith(f"error: {NAME}: ")
    assert blob_id(BODY) in line and blob_id(server.body) in line and "try" in line
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(NAME, b"mine")]


def test_a_missing_page_is_asked_for_once(download, server, tmp_path, capsys):
    server.statuses = [404]
    status, _, (line,) = run(download, server.url, tmp_path, capsys)
    assert (status, len(server.ranges)) == (1, 1)
    assert "HTTP 404" in line


def test_no_server_is_one_line(download, server, tmp_path, capsys):
    server.shutdown()
    server.server_close()
    status, out, (line,) = run(download, server.url, tmp_path, capsys)
    assert (status, out) == (1, [])
    assert NAME in line and "refused" in line and "check the connection" in line


def test_a_folder_that_cannot_be_written_is_one_line(download, server, tmp_path, capsys):
    (tmp_path / "file").touch()
    status, out, (line,) = run(download, server.url, tmp_path / "file" / "data", capsys)
    assert (status, out, server.ranges) == (1, [], [])
    assert line.startswith("error: cannot write") and "Not a directory" in line


def test_a_full_disk_is_one_line(download, server, tmp_path, capsys):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        status, out, (line,) = run(download, server.url, tmp_path, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, out) == (1, [])
    assert line.startswith("error: cannot write") and "File too large" in line
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("arguments", [["sts-dev"], ["--url", "file:///tmp"]])
def test_a_mistaken_command_line_is_refused(download, arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        download.main(arguments)
    assert exit_.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


def test_by_default_all_files_go_beside_the_script(download, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(download, "fetch", lambda *call: asked.append(call[:3]) or "faked")
    assert download.main([]) == 0
    assert len(asked) == len({path for _, path, _ in asked}) == 12
    for url, path, expected in asked:
        assert path.parent == SCRIPT.parent
        assert url == f"{download.URL}{path.name}"
        assert len(expected) == 40
    asked.clear()
    download.main(["sts", NAME, "quora-dev.csv"])
    assert [path.name for _, path, _ in asked] == [
        "sts-train.csv", "sts-dev.csv", "sts-test-student.csv", "quora-dev.csv",
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- inference pairs


def archive(members: dict[str, list[tuple[str, str, str]]]) -> bytes:
    """A zip of SNLI's form, and beside it a member that would leave the folder if anybody unpacked it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zip:
        zip.writestr("../../escaped.txt", "gotcha")
        for member, rows in members.items():
            lines = [{"sentence1": a, "sentence2": b, "gold_label": label, "pairID": f"{member}#{i}", "extra": [1]}
                     for i, (a, b, label) in enumerate(rows)]  # fmt: skip
            zip.writestr(member, "".join(json.dumps(line) + "\n" for line in lines))
    return content.getvalue()


PAIRS = [("A man sleeps.", "He rests.", "entailment"), ('He said "so" ,\ttwice', "Who?", "neutral"), ("A.", "B.", "-")]


@pytest.fixture
def nli(download, server, monkeypatch):
    """The server holds two small archives, and the script knows their sha256."""
    bodies = {
        "snli_1.0.zip": archive({"snli_1.0/snli_1.0_train.jsonl": PAIRS, "snli_1.0/snli_1.0_dev.jsonl": PAIRS[:1]}),
        "multinli_1.0.zip": archive({"multinli_1.0/multinli_1.0_train.jsonl": [("C.", "D.", "contradiction")]}),
    }
    for name, body in bodies.items():
        server.bodies[f"/{name}"] = body
        monkeypatch.setitem(download.ARCHIVES, name, (f"{server.url}/{name}", hashlib.sha256(body).hexdigest()))
    return download


def test_inference_pairs_are_made_into_files_that_the_reader_reads(nli, server, tmp_path, capsys):
    folder = tmp_path / "a" / "b"
    server.cuts = [100]  # the first answer breaks off, and the rest is asked for
    assert nli.main(["nli", "--to", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "nli-train.csv: 4 rows" in out and "nli-dev.csv: 1 rows" in out
    assert sorted(path.name for path in folder.iterdir()) == ["nli-dev.csv", "nli-train.csv"]
    assert not list(tmp_path.rglob("escaped.txt"))
    examples = read_examples(folder / "nli-train.csv", TASKS["nli"])
    assert [(e.texts, e.label) for e in examples] == [
        (("A man sleeps.", "He rests."), 0.0),
        (('He said "so" , twice', "Who?"), 1.0),
        (("C.", "D."), 2.0),
    ]
    assert "left out 1 row on whose label" in capsys.readouterr().err
    asked = len(server.ranges)
    assert nli.main(["nli", "--to", str(folder)]) == 0 and len(server.ranges) == asked
    assert "already there" in capsys.readouterr().out


def test_an_archive_that_is_another_is_not_kept(nli, server, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(nli.ARCHIVES, "snli_1.0.zip", (f"{server.url}/snli_1.0.zip", "0" * 64))
    assert nli.main(["nli", "--to", str(tmp_path)]) == 1
    assert "snli_1.0.zip: expected sha256 000" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(  # with ids, since an archive has the time in it, and each worker must name the tests alike
    "content",
    [b"no zip", archive({}), archive({"snli_1.0/snli_1.0_train.jsonl": [(1, 2, 3)]})],
    ids=["no zip", "no pairs", "no sentences"],
)
def test_an_archive_without_pairs_is_one_line(nli, server, tmp_path, capsys, monkeypatch, content):
    server.bodies["/snli_1.0.zip"] = content
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(nli.ARCHIVES, "snli_1.0.zip", (f"{server.url}/snli_1.0.zip", digest))
    assert nli.main(["nli", "--to", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "snli_1.0.zip" in err and not (tmp_path / "nli-train.csv").exists()


def test_inference_pairs_are_fetched_only_when_asked_for(download):
    assert "nli" not in download.GROUPS


def test_pairs_of_your_own_are_kept_aside(nli, tmp_path):
    (tmp_path / "nli-train.csv").write_text("mine")
    assert nli.main(["nli", "--to", str(tmp_path)]) == 0
    assert (tmp_path / "nli-train.csv.old").read_text() == "mine"

"""data/download.py against servers that lie, and against itself: no hang, no wrong file, one line."""

import contextlib
import errno
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.conftest import BODY, NAME, SCRIPT


class Handler(socketserver.BaseRequestHandler):
    """Reads a request, and lets `server.reply` answer it on the bare socket."""

    def handle(self):
        request = b""
        while b"\r\n\r\n" not in request:
            request += self.request.recv(4096) or b"\r\n\r\n"
        self.server.requests.append(request.decode("latin-1"))
        with contextlib.suppress(OSError):  # the client went away
            self.server.reply(self.request, request.decode("latin-1"))


@pytest.fixture
def server():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close, server.requests = True, False, []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def download(download, monkeypatch):
    """The script with less patience than a user has."""
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    return download


def answer(headers: str = "", body: bytes = BODY, status: str = "200 OK", length: object = None) -> Callable:
    """A reply with these headers. length: what Content-Length claims, None for the truth, "" for no such header."""
    claim = "" if length == "" else f"Content-Length: {len(body) if length is None else length}\r\n"
    head = f"HTTP/1.1 {status}\r\n{claim}{headers}Connection: close\r\n\r\n".encode("latin-1")
    return lambda socket, request: socket.sendall(head + body)


def redirect(place: str) -> Callable:
    return answer(f"Location: {place}\r\n", b"", "302 Found")


def drip(socket, request):
    """Sends a byte now and then, for ever."""
    socket.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    for i in range(1000):
        socket.sendall(BODY[i : i + 1])
        time.sleep(0.05)


def drip_headers(socket, request):
    socket.sendall(b"HTTP/1.1 200 OK\r\n")
    for i in range(1000):
        socket.sendall(b"X-%d: y\r\n" % i)
        time.sleep(0.05)


def no_end(socket, request):
    socket.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        socket.sendall(b"x" * (1 << 20))


LIES = {
    "cut short, without a length": answer(body=BODY[:1000], length=""),
    "a length that is too small": answer(length=1000),
    "a length that is too large": answer(length=len(BODY) + 1000),
    "a length that is a word": answer(length="abc"),
    "a negative length": answer(length=-5),
    "a length without end": answer(length=10**30),
    "a length of 5,000 digits": answer(length="9" * 5000),
    "ten times the size": answer(body=BODY * 10),
    "no HTTP at all": lambda socket, request: socket.sendall(b"HELLO\r\n\r\n"),
    "nothing": lambda socket, request: None,
    "a status that there is not": answer(status="999 X", body=b""),
    "a redirect to a file": redirect("file:///etc/passwd"),
    "a redirect to a broken address": redirect("http://[bad"),
    "a redirect to a port that cannot be": redirect("http://127.0.0.1:99999/"),
    "a redirect to a port that is a word": redirect("http://127.0.0.1:abc/"),
    "a redirect to a name with a space": redirect("http://a b/"),
    "a redirect to a name that is too long": redirect(f"http://{'a' * 70}.com/"),
    "a redirect to a name without a beginning": redirect("http://.x/"),
    "a redirect in letters that are not ASCII": redirect("http://127.0.0.1:1/\xe9"),
    "a redirect to nowhere": answer(status="302 Found", body=b""),
    "a chunk of a size that is no number": answer(
        "Transfer-Encoding: chunked\r\n", b"ZZ\r\nabc\r\n0\r\n\r\n", length=""
    ),
    "a chunk of a negative size": answer("Transfer-Encoding: chunked\r\n", b"-5\r\nabc\r\n0\r\n\r\n", length=""),
    "a chunk that is cut": answer("Transfer-Encoding: chunked\r\n", b"5\r\nab", length=""),
    "200 headers": answer("".join(f"X-{i}: y\r\n" for i in range(200))),
    "a header of 100 KB": answer(f"X: {'y' * 100_000}\r\n"),
    "the end of its range, for ever": answer(status="416 X", body=b""),
    "a byte now and then": drip,
    "headers without end": drip_headers,
    "a body without end": no_end,
}


def run(download, server, folder: Path, capsys) -> tuple[int, list[str], list[str]]:
    """The script's exit status, and the lines it wrote to stdout and to stderr."""
    status = download.main(["--to", str(folder), "--url", server.url, NAME])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_is_one_line_in_bounded_time(download, server, tmp_path, capsys, lie, monkeypatch):
    monkeypatch.setitem(download.LONGEST, ".csv", 4 << 20)
    server.reply, start = LIES[lie], time.monotonic()
    status, out, err = run(download, server, tmp_path, capsys)
    assert (status, out, len(err)) == (1, [], 1) and err[0].startswith(f"error: {NAME}: "), err
    assert time.monotonic() - start < 10 and len(err[0]) < 600
    assert not (tmp_path / NAME).exists()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 5 << 20


def test_an_honest_server_is_believed(download, server, tmp_path, capsys):
    server.reply = answer()
    assert run(download, server, tmp_path, capsys) == (0, [f"{NAME}: downloaded, checked"], [])
    assert (tmp_path / NAME).read_bytes() == BODY


def test_a_server_that_stops_lying_is_believed_again(download, server, tmp_path, capsys):
    """It breaks off, then sends another part than the one that was asked for, then the whole file."""
    replies = [answer(body=BODY[:5000], length=len(BODY)), answer(status="206 Partial Content", body=BODY[:100])]
    server.reply = lambda *call: (replies.pop(0) if replies else answer())(*call)
    assert run(download, server, tmp_path, capsys)[0] == 0
    assert (tmp_path / NAME).read_bytes() == BODY


# ---------------------------------------------------------------------------------------------- what is there already


def test_a_part_that_is_a_link_does_not_write_over_what_it_names(download, server, tmp_path, capsys):
    server.reply = answer()
    (tmp_path / "mine").write_text("precious")
    (tmp_path / f"{NAME}.part").symlink_to(tmp_path / "mine")
    assert run(download, server, tmp_path, capsys)[0] == 0
    assert (tmp_path / "mine").read_text() == "precious" and (tmp_path / NAME).read_bytes() == BODY


def test_what_was_put_aside_before_is_not_written_over(download, server, tmp_path, capsys):
    server.reply = answer()
    (tmp_path / NAME).write_text("second")
    (tmp_path / f"{NAME}.old").write_text("first")
    _, (line,), _ = run(download, server, tmp_path, capsys)
    assert f"{NAME}.old2" in line
    assert [(tmp_path / f"{NAME}.old{n}").read_text() for n in ("", "2")] == ["first", "second"]


@pytest.mark.parametrize("name", [NAME, f"{NAME}.part"])
def test_a_folder_of_that_name_is_one_line(download, server, tmp_path, capsys, name):
    server.reply = answer()
    (tmp_path / name).mkdir()
    status, _, (line,) = run(download, server, tmp_path, capsys)
    assert status == 1 and line.startswith("error: cannot write to ") and name in line


# ---------------------------------------------------------------------------------------------- file systems


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_fsync_is_no_error(download, server, tmp_path, capsys, monkeypatch, number):
    def fsync(handle):
        raise OSError(number, os.strerror(number))

    server.reply = answer()
    monkeypatch.setattr(os, "fsync", fsync)
    assert run(download, server, tmp_path, capsys)[0] == 0


def test_a_disk_that_is_found_full_by_fsync_is_an_error(download, server, tmp_path, capsys, monkeypatch):
    def fsync(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.reply = answer()
    monkeypatch.setattr(os, "fsync", fsync)
    status, _, (line,) = run(download, server, tmp_path, capsys)
    assert status == 1 and "No space left" in line


# ---------------------------------------------------------------------------------------------- two at once


def start(download, server, folder: Path, before: str = "") -> subprocess.Popen:
    """The script in a process of its own. before: a line of Python that is run first."""
    program = (
        f"import sys, os; sys.path.insert(0, {str(SCRIPT.parent)!r}); import download; {before}\n"
        f"download.BLOB_IDS[{NAME!r}] = {download.BLOB_IDS[NAME]!r}; sys.exit(download.main())"
    )
    command = [sys.executable, "-c", program, "--to", str(folder), "--url", server.url, NAME]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def slowly(socket, request):
    """The honest answer, in a second; a part that is asked for is answered with that part."""
    first = int(request.partition("bytes=")[2].partition("-")[0] or 0)
    status = "206 Partial Content" if first else "200 OK"
    socket.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(BODY) - first}\r\n\r\n".encode())
    for i in range(first, len(BODY), len(BODY) // 40):
        socket.sendall(BODY[i : i + len(BODY) // 40])
        time.sleep(0.05)


NO_LOCKS = "import fcntl; fcntl.flock = lambda *a: os.open('/nonexistent', 0)"  # OSError, as some file systems answer


@pytest.mark.parametrize("locks", [True, False])
def test_two_downloads_at_once_both_end_with_the_right_file(download, server, tmp_path, locks):
    both_are_there = threading.Event()

    def reply(socket, request):
        socket.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY[:1000])
        both_are_there.wait(60)
        socket.sendall(BODY[1000:])

    server.reply = reply
    first = start(download, server, tmp_path, "" if locks else NO_LOCKS)
    while not list(tmp_path.glob("*.part")):
        time.sleep(0.01)
    second = start(download, server, tmp_path, "" if locks else NO_LOCKS)
    if locks:
        assert "waits" in second.stderr.readline()
    while not locks and len(list(tmp_path.glob("*.part"))) < 2:
        assert first.poll() is None and second.poll() is None, "both write into one file"
        time.sleep(0.01)
    both_are_there.set()
    results = [(*process.communicate(timeout=60), process.returncode) for process in (first, second)]
    assert [status for _, _, status in results] == [0, 0], results
    assert (tmp_path / NAME).read_bytes() == BODY
    assert {path.name for path in tmp_path.iterdir()} <= {NAME, f"{NAME}.old"}
    if locks:
        assert len(server.requests) == 1 and "already there" in results[1][0]


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_download_that_is_stopped_goes_on_from_there(download, server, tmp_path, number, status):
    server.reply = slowly
    process, part = start(download, server, tmp_path), tmp_path / f"{NAME}.part"
    while not (part.exists() and part.stat().st_size):
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in err
    process = start(download, server, tmp_path)
    assert process.communicate(timeout=60)[0] == f"{NAME}: downloaded, checked\n"
    assert "Range: bytes=" in server.requests[-1] and (tmp_path / NAME).read_bytes() == BODY

"""minbert/files.py where an output is a symbolic link, a pipe or a device, which no file may replace."""

import os
import stat
from argparse import Namespace

import pytest

from minbert.errors import UserError
from minbert.files import atomic
from minbert.folder import check_places


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/file")
    for text in ("one", "two"):  # at first the link names nothing
        with atomic(tmp_path / "link") as temporary:
            temporary.write_text(text)
        assert os.readlink(tmp_path / "link") == "far/file" and (tmp_path / "far" / "file").read_text() == text
    assert os.listdir(tmp_path / "far") == ["file"]


def test_a_pipe_gets_the_content_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with atomic(tmp_path / "pipe") as temporary:
        temporary.write_text("one")
    assert os.read(reader, 100) == b"one" and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(ValueError), atomic(tmp_path / "pipe") as temporary:
        temporary.write_text("half of the t")
        raise ValueError
    assert os.read(reader, 100) == b"" and os.listdir(tmp_path) == ["pipe"]
    os.close(reader)


def test_a_pipe_can_be_named_for_the_predictions_and_a_place_behind_a_link_is_checked(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file/x")
    (tmp_path / "file").write_text("")

    def check(name: str, splits=("dev", "test")):
        outs = {"sst": dict.fromkeys(splits, tmp_path / name)}
        names = {"script": "b", "prediction_name": "{task}-{split}.csv", "course_folder": None}
        check_places(Namespace(files={}, outs=outs, out=tmp_path / "out", pretrained="x", overwrite=False, **names))

    check("pipe")
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "pipe"]
    with pytest.raises(UserError, match="another flag names the same file"):
        check("other")
    with pytest.raises(UserError, match=r"--sst_dev_out .*: nothing can be written there"):
        check("link", ["dev"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_stays(tmp_path):
    try:
        os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # the same device as /dev/null
        (tmp_path / "null").write_text("x")
    except PermissionError:
        pytest.skip("no devices can be made or used here")
    with atomic(tmp_path / "null") as temporary:
        temporary.write_text("one")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode) and os.listdir(tmp_path) == ["null"]


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no /dev/stdout")
def test_standard_output_in_a_file_keeps_what_was_printed(tmp_path):
    with open(tmp_path / "log", "w") as log:
        child = os.fork()
        if child == 0:
            os.dup2(log.fileno(), 1)
            os.write(1, b"before\n")
            with atomic("/dev/stdout") as temporary:
                temporary.write_text("rows\n")
            os.write(1, b"after\n")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "log").read_text() == "before\nrows\nafter\n"

"""Somebody's files: which are a project, which belong to it, and which of several is the one in use."""

import pytest

from minbert.errors import UserError
from minbert.sanity.layout import Imports, Layout
from tests.sanity.making import PROJECTS, ROOT, written

MODEL = "class BertModel:\n    pass\n"
RUN = "if __name__ == '__main__':\n    BertModel()\n"


def test_a_project_is_found_in_a_folder_one_down_and_around_a_file(project, tmp_path):
    folder = project()
    for path in (folder, tmp_path, folder / "optimizer.py"):
        assert Layout.find(path) == Layout(folder, folder, folder)


def test_a_package_is_imported_by_its_name():
    for path in (ROOT, ROOT / "minbert"):
        layout = Layout.find(path)
        assert (layout.root, layout.home) == (ROOT, ROOT / "minbert")
        assert Imports(layout).dotted(ROOT / "minbert" / "bert.py") == (ROOT, "minbert.bert")


def test_a_project_may_lie_deep_but_must_be_the_only_one(project, tmp_path):
    project(name="class/anna/hw/minbert")
    assert Layout.find(tmp_path / "class" / "anna").home.name == "minbert"
    project(name="class/bela/hw/minbert")
    with pytest.raises(UserError, match=r"holds several projects \(anna/hw/minbert, bela/hw/minbert\); give one"):
        Layout.find(tmp_path / "class")


def test_what_is_no_project_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no code")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "notes.txt"):
        with pytest.raises(UserError, match=str(path)):
            Layout.find(path)
    (tmp_path / "all.ipynb").write_text("{}")
    with pytest.raises(UserError, match="nbconvert"):
        Layout.find(tmp_path)


def test_big_files_weights_and_environments_are_not_copied(project, tmp_path):
    folder = project()
    for name in (".git/config.py", "venv/lib/x.py", "data/sst.txt", "weights/model.py"):
        written(folder, {name: "x = 1"})
    (folder / "big.txt").write_bytes(b"0" * 1_500_000)
    written(folder, {"data/read.py": "x = 1"})  # a package may be called so
    copy = Layout.find(folder).copy(tmp_path / "copy")
    found = {str(p.relative_to(copy.root)) for p in copy.root.rglob("*") if p.is_file()}
    assert found == {"data/read.py", *(p.name for p in (PROJECTS / "course").iterdir() if p.is_file())}


def test_a_notebook_s_own_lines_become_comments_and_line_numbers_stay(tmp_path):
    text = "!pip install torch\nif True:\n    %matplotlib inline\nx = 5 % 3\n"
    copy = Layout.find(written(tmp_path / "a", {"bert.py": text})).copy(tmp_path / "copy")
    assert (copy.root / "bert.py").read_text() == (
        "pass  # !pip install torch\nif True:\n    pass  # %matplotlib inline\nx = 5 % 3\n"
    )
    written(tmp_path / "b", {"bert.py": "def f(:\n!pip install torch\n"})  # this is not what is wrong with it
    copy = Layout.find(tmp_path / "b").copy(tmp_path / "other")
    assert (copy.root / "bert.py").read_text() == "def f(:\n!pip install torch\n"


# ------------------------------------------------------------------------------------------------ which is in use

IMPORTED = {  # files → the file of the BertModel that is meant
    "the one beside an old copy": (
        {"bert.py": MODEL, "bert_old.py": MODEL, "multitask_classifier.py": "from bert import BertModel\n"}, "bert.py",
    ),
    "the copy, if that is what the script imports": (
        {"bert.py": MODEL, "bert_v2.py": MODEL, "multitask_classifier.py": "from bert_v2 import BertModel\n"},
        "bert_v2.py",
    ),
    "by way of a package's __init__": (
        {"bert.py": MODEL, "nets/__init__.py": "from .model import BertModel\n", "nets/model.py": MODEL,
         "train.py": f"from nets import BertModel\n{RUN}"}, "nets/model.py",
    ),
    "under another name": (
        {"bert.py": MODEL, "mine.py": "class Bert:\n    pass\n",
         "classifier.py": "from mine import Bert as BertModel\n"}, "mine.py",
    ),
    "in a folder of old files": (
        {"backup/bert.py": MODEL, "code/bert.py": MODEL, "code/classifier.py": "from bert import BertModel\n"},
        "code/bert.py",
    ),
    "below src": (
        {"src/nets/bert.py": MODEL, "src/nets/__init__.py": "from .bert import BertModel\n"}, "src/nets/bert.py",
    ),
    "not the one of a test": ({"bert.py": MODEL, "test_bert.py": MODEL}, "bert.py"),
    "the one of the latest script": (
        {"bert.py": MODEL, "bert_new.py": MODEL, "train_latest.py": f"from bert_new import BertModel\n{RUN}"},
        "bert_new.py",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", IMPORTED)
def test_the_file_that_the_scripts_import_is_the_one_in_use(case, tmp_path):
    files, expected = IMPORTED[case]
    layout = Layout.find(written(tmp_path, files))
    assert str(Imports(layout).defining("BertModel", "bert")[0][0].relative_to(tmp_path)) == expected


@pytest.mark.parametrize(
    "name, is_test",
    [("test_bert", True), ("optimizer_test", True), ("tests", True), ("test2", True), ("unittests", True),
     ("bert_test_old", True), ("train_latest", False), ("contest", False), ("greatest_model", False)],
)  # fmt: skip
def test_a_test_is_told_by_the_word_in_its_name(name, is_test, tmp_path):
    layout = Layout.find(written(tmp_path, {"bert.py": MODEL, f"{name}.py": f"from bert import BertModel\n{RUN}"}))
    assert (tmp_path / f"{name}.py" not in Imports(layout).entries) == is_test


NAMES = {  # files → file and the dotted name by which Python finds it
    "a script's neighbour": ({"bert.py": "", "run.py": "import bert\n"}, "bert.py", "bert"),
    "a package below src, run from above": (
        {"src/nets/bert.py": "from .parts import x\n", "src/nets/parts.py": "x = 1\n",
         "run.py": "from src.nets import bert\n"}, "src/nets/parts.py", "src.nets.parts",
    ),
    "a package below src, run from inside": (
        {"src/nets/bert.py": "", "src/run.py": "from nets.bert import x\n"}, "src/nets/bert.py", "nets.bert",
    ),
    "relative imports and nobody else": (
        {"top.py": "", "mine/bert.py": "from .parts import x\n", "mine/parts.py": "x = 1\n"},
        "mine/parts.py", "mine.parts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_a_file_is_imported_by_the_name_that_others_use(case, tmp_path):
    files, file, expected = NAMES[case]
    assert Imports(Layout.find(written(tmp_path, files))).dotted(tmp_path / file)[1] == expected


def test_of_a_name_that_a_file_defines_twice_the_last_counts(tmp_path):
    written(tmp_path, {"bert.py": "class BertModel:\n    pass\n\n\nclass BertModel:\n    pass\n"})
    assert Layout.find(tmp_path).locate(["BertModel"]) == ("BertModel", "bert.py", 5)

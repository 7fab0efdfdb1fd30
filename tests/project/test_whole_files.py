"""A file that somebody reads while it is written, or after a kill, is the old one or the new one."""

import ast

import pytest

from longact_trl.settings import paths
from longact_trl.settings.paths import PACKAGE, new_folder, output_folder
from longact_trl.settings.whole_files import whole_file, write_json, write_whole


WRITERS = {"write_text", "write_bytes", "savefig", "save_file"}
LAST_OF_A_CHECKPOINT = "trainer_state.json"
"""A checkpoint without it is none, so what lies in one may be written in place."""
IN_PLACE = {"training/mask_file.py": LAST_OF_A_CHECKPOINT, "training/resuming.py": LAST_OF_A_CHECKPOINT}
IN_PLACE |= {"pictures/heatmaps.py": "into memory"}


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_fails_on_the_way_leaves_the_old_file(tmp_path):
    file = tmp_path / "of" / "folders" / "file.json"
    write_json(file, {"step": 1, "where": tmp_path})
    assert file.read_text() == f'{{\n  "step": 1,\n  "where": "{tmp_path}"\n}}\n'
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "x" * 100_000 + "\ud800")
    with pytest.raises(KeyboardInterrupt), whole_file(file) as scratch:
        scratch.write_bytes(b"half")
        assert scratch.suffix == ".json" and scratch.parent == file.parent
        raise KeyboardInterrupt
    assert '"step": 1' in file.read_text() and names_in(file.parent) == [file.name]
    write_whole(file, "中")
    assert file.read_text(encoding="utf-8") == "中" and names_in(file.parent) == [file.name]


def test_two_that_write_the_same_file_at_once_do_not_meet(tmp_path):
    file = tmp_path / "study.json"
    with whole_file(file) as slow, whole_file(file) as fast:
        slow.write_text("slow")
        fast.write_text("fast")
    assert file.read_text() == "slow" and names_in(tmp_path) == ["study.json"]


def test_what_is_started_together_takes_folders_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    look, taken = paths.free_folder, []

    def overtaken(output_dir):  # another process makes the folder that this one has just found free
        folder = look(output_dir)
        if len(taken) < 2:
            folder.mkdir(parents=True)
            taken.append(folder)
        return folder

    monkeypatch.setattr(paths, "free_folder", overtaken)
    with output_folder(None, "inspect", "models/tiny") as folder:
        assert folder.as_posix() == "runs/inspect/tiny-3" and folder.is_dir() and folder not in taken


def test_a_folder_in_which_nothing_was_written_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="a mistake"), output_folder(None, "inspect", "tiny") as folder:
        assert folder.is_dir()
        raise ValueError("a mistake")
    assert names_in(tmp_path) == []
    (tmp_path / "runs").mkdir()  # the user's
    with pytest.raises(SystemExit), output_folder(None, "inspect", "tiny"):
        raise SystemExit(2)
    assert names_in(tmp_path) == ["runs"] and names_in(tmp_path / "runs") == []
    with new_folder("runs/quickstart") as folder:
        (folder / "log.txt").touch()
    with output_folder(folder, "inspect", "tiny") as given:
        assert given == folder
    assert names_in(tmp_path / "runs") == ["quickstart"]


def test_nothing_is_written_in_place():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).as_posix() in IN_PLACE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            whole = "scratch" in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            assert name not in WRITERS or whole, f"{path}, line {node.lineno}: whole_file, write_whole or write_json"


def test_texts_are_read_in_the_encoding_in_which_they_are_written():
    """And not in that of the user's locale."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", None) in ("read_text", "write_text"):
                assert node.args or node.keywords, f"{path}, line {node.lineno}: encoding"

"""A file that somebody reads while it is written, or after a kill, is the old one or the new one."""

import ast

import pytest

from longact_trl.settings.paths import PACKAGE
from longact_trl.settings.whole_files import write_json, write_whole


WRITERS = {"write_text", "write_bytes"}


def test_what_fails_on_the_way_leaves_the_old_file(tmp_path):
    file = tmp_path / "of" / "folders" / "file.json"
    write_json(file, {"step": 1, "where": tmp_path})
    assert file.read_text() == f'{{\n  "step": 1,\n  "where": "{tmp_path}"\n}}\n'
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "x" * 100_000 + "\ud800")
    assert '"step": 1' in file.read_text()
    write_whole(file, "中")
    assert file.read_text(encoding="utf-8") == "中" and [path.name for path in file.parent.iterdir()] == [file.name]


def test_nothing_is_written_in_place():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            written = isinstance(node, ast.Attribute) and node.attr in WRITERS
            assert not written, f"{path}, line {node.lineno}: write_whole, or write_json"

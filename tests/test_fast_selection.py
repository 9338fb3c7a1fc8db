"""`scripts/test --fast` leaves out what `medium.txt` lists, and still has tests of every room."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
MEDIUM = set(TESTS.joinpath("medium.txt").read_text().split())


def _quick(file: Path) -> list[str]:
    """The file's tests that are not on the list."""
    name = file.relative_to(TESTS.parent).as_posix()
    functions = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    tests = [each for each in functions if each.startswith("test_")]
    return [] if name in MEDIUM else [each for each in tests if f"{name}::{each}" not in MEDIUM]


def test_every_room_has_quick_tests():
    rooms = {file.parent for file in TESTS.glob("**/test_*.py")} - {TESTS / "docs"}  # whole examples
    without = [room for room in rooms if not any(_quick(file) for file in room.glob("**/test_*.py"))]
    assert not without

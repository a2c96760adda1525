"""The pure rooms are pure, and the check that says so sees what it should."""

import pytest

from tests.tidy.purity import impurities
from tests.tidy.sources import PURE_ROOMS, modules_under, snippet


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_a_pure_room_reads_no_clock_no_chance_and_no_world(room: str) -> None:
    """A pure room neither reads the world nor depends on the order of a set."""
    found = modules_under(room)
    assert found, "the room has moved; tests/tidy/sources.py must follow"
    assert [finding for module in found for finding in impurities(module)] == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("from datetime import datetime\nx = datetime.now()", id="clock"),
        pytest.param("import datetime as d\nx = d.datetime.utcnow()", id="clock-behind-an-alias"),
        pytest.param("import time\nx = time.monotonic()", id="monotonic"),
        pytest.param("from uuid import uuid4\nx = uuid4()", id="uuid"),
        pytest.param("import numpy as np\nx = np.random.default_rng()", id="numpy-chance"),
        pytest.param("import os\nx = os.environ", id="environment"),
        pytest.param("open('x')", id="open"),
        pytest.param("print(1)", id="print"),
        pytest.param("x = hash('a')", id="hash"),
        pytest.param("exec(text)", id="exec"),
        pytest.param("x = sorted(y, key=id)", id="id-as-a-function"),
        pytest.param("async def f(): ...", id="coroutine"),
        pytest.param("def f():\n    global x", id="global"),
        pytest.param("for x in {1, 2}: ...", id="for-over-a-set"),
        pytest.param("x = [y for y in set(z)]", id="list-of-a-set"),
        pytest.param("x = {y: 1 for y in set(z)}", id="dict-of-a-set"),
        pytest.param("x = list(frozenset(z))", id="copy-of-a-set"),
        pytest.param("x = next(iter(a.keys() - b.keys()))", id="difference-of-keys"),
        pytest.param("def f(z):\n    names = set(z)\n    for x in names: ...", id="named-set"),
        pytest.param("def f():\n    names: set[str] = read()\n    return tuple(names)", id="annotated-set"),
        pytest.param("x = ', '.join({'a', 'b'})", id="join"),
        pytest.param("def f(z):\n    names = set(z)\n    return names.pop()", id="pop"),
        pytest.param("x = (*{1, 2},)", id="unpacking"),
    ],
)
def test_an_impurity_is_found(text: str) -> None:
    """Each way to be impure that the check knows is reported once or more."""
    assert impurities(snippet(text)) != []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("from datetime import datetime, UTC\nx = datetime.fromtimestamp(0.0, UTC)", id="given-time"),
        pytest.param("for x in sorted({2, 1}): ...", id="sorted"),
        pytest.param("x = sum(y for y in set(z))", id="sum"),
        pytest.param("x = sorted(y for y in set(z))", id="sorted-generator"),
        pytest.param("x = {y for y in set(z)}", id="set-of-a-set"),
        pytest.param("x = 1 in {1, 2}", id="membership"),
        pytest.param("x = y - z", id="numbers"),
        pytest.param("for x in {1, 2}:  # unordered -- only counts them\n    ...", id="excused"),
        pytest.param("class A:\n    def __hash__(self): ...", id="own-hash"),
        pytest.param("def f(time): return time.start", id="an-argument-called-time"),
    ],
)
def test_pure_code_passes(text: str) -> None:
    """What is deterministic is not reported."""
    assert impurities(snippet(text)) == []

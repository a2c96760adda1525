"""Pictures of small clusters, drawn out by hand."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from grove_server.placement import Cluster, NodeState, PodShape
from grove_server.placement.picture import CellState, map_of
from grove_server.placement.picture_svg import svg_of
from grove_server.placement.picture_text import text_of
from tests.placement_cases import RACK, TOPOLOGY, gpu_node, gpus

SVG = "{http://www.w3.org/2000/svg}"

GOLDEN = """\
zone z / block b0
  r0         █▆  r1         ░x
zone z / block b1
  r2         ▁·
zone (no label) / block (no label)
  (no label) ░

17.3 of 48 GPUs used; 7 nodes: 2 empty, 2 partly used, 1 full, 1 closed, 1 without GPUs
one node each: ░ empty, ▁ to ▇ partly used, █ full, x cordoned or not ready, · without GPUs"""


def small() -> Cluster:
    """Return seven nodes, one of each kind that a picture tells apart."""
    cluster = Cluster(
        [
            gpu_node("n0", zone="z", block="b0", rack="r0"),
            gpu_node("n1", zone="z", block="b0", rack="r0"),
            gpu_node("n2", zone="z", block="b0", rack="r1"),
            replace(gpu_node("n3", zone="z", block="b0", rack="r1"), unschedulable=True),
            gpu_node("n4", zone="z", block="b1", rack="r2"),
            gpu_node("n5", zone="z", block="b1", rack="r2", gpu_count=0),
            gpu_node("n6"),
        ]
    )
    cluster.bind_pod("n0", gpus(8))
    cluster.bind_pod("n1", gpus(6))
    cluster.bind_pod("n3", gpus(3))
    cluster.bind_pod("n4", PodShape(gpu_milli=300))
    return cluster


def test_every_state_of_a_node_has_its_mark() -> None:
    """Full, partly used, empty, cordoned, without GPUs, and a node without labels each stand where they belong."""
    assert text_of(map_of(small(), TOPOLOGY)) == GOLDEN


def test_colours_are_added_to_the_same_marks() -> None:
    """Without its escape sequences the coloured picture is the plain one."""
    found = map_of(small(), TOPOLOGY)
    coloured = text_of(found, has_colours=True)
    assert "\x1b[34m█\x1b[0m" in coloured
    for code in ("31", "32", "33", "34"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured.replace("\x1b[0m", "") == text_of(found)


@pytest.mark.parametrize("width", [1, 40, 61, 5_000])
def test_lines_keep_to_the_width(width: int) -> None:
    """No line of cells is longer than the width within its bounds, and no cell is lost."""
    found = map_of(Cluster(gpu_node(f"n{i:03}", rack=f"r{i // 30}") for i in range(200)), (RACK,))
    *drawn, _, _, _ = text_of(found, width=width).splitlines()
    assert all(len(line) <= max(40, width) for line in drawn)
    assert sum(line.count("░") for line in drawn) == 200


def test_a_large_cluster_is_drawn_by_domain() -> None:
    """With more nodes than cells a cell is a rack, and its figures are those of its nodes."""
    cluster = Cluster(gpu_node(f"n{i}", zone="z", block="b", rack=f"r{i % 3}") for i in range(9))
    cluster.bind_pod("n4", gpus(8))
    found = map_of(cluster, TOPOLOGY, cells_max=4)
    cells = [cell for block in found.blocks for cell in block.cells]
    assert found.cell_level == RACK
    assert [(cell.name, cell.node_count, cell.used_milli, cell.state) for cell in cells] == [
        ("r0", 3, 0, CellState.EMPTY),
        ("r1", 3, 8_000, CellState.PARTLY),
        ("r2", 3, 0, CellState.EMPTY),
    ]
    assert found.node_count == 9


def test_a_cluster_without_gpus_is_drawn_by_cpu() -> None:
    """Where nothing has GPUs the measure is cpu."""
    cluster = Cluster([NodeState(name="n", allocatable={"cpu": 4_000, "pods": 10})])
    cluster.bind_pod("n", PodShape(requests=(("cpu", 1_000),)))
    found = map_of(cluster, ())
    assert found.measure == "cpu"
    assert "1 of 4 cores used" in text_of(found)


def test_an_empty_cluster_has_a_picture() -> None:
    """No nodes are no error."""
    assert "0 nodes: none" in text_of(map_of(Cluster(), TOPOLOGY))
    assert ET.fromstring(svg_of(map_of(Cluster(), TOPOLOGY))).tag == f"{SVG}svg"  # noqa: S314 -- our own text


def test_the_svg_is_whole_and_says_what_it_shows() -> None:
    """It is well-formed, has a title, a description, and one titled rectangle per node, with names escaped."""
    cluster = small()
    cluster.upsert_node(gpu_node("n7", zone="<script>alert(1)</script>", block="b&", rack='r"'))
    text = svg_of(map_of(cluster, TOPOLOGY), title="A & B")
    root = ET.fromstring(text)  # noqa: S314 -- our own text
    assert root.attrib["role"] == "img"
    assert root.find(f"{SVG}title") is not None
    assert (root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc")) == (
        "A & B",
        map_of(cluster, TOPOLOGY).sentence(),
    )
    told = [rect.findtext(f"{SVG}title") or "" for rect in root.iter(f"{SVG}rect")]
    assert sorted(text for text in told if text.startswith("n"))[:3] == [
        "n0: 8 of 8 GPUs",
        "n1: 6 of 8 GPUs",
        "n2: 0 of 8 GPUs",
    ]
    assert len(told) == 8 + 8  # The legend has eight.
    assert "<script>" not in text
    assert "prefers-color-scheme:dark" in text


@pytest.mark.parametrize("cells_max", [0, 20_001])
def test_the_number_of_cells_has_bounds(cells_max: int) -> None:
    """A picture of no cells, or of more than the bound, is refused."""
    with pytest.raises(ValueError, match="1 to 20000 cells"):
        map_of(Cluster(), (), cells_max=cells_max)

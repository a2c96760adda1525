"""Manifests as text: all documents of a call are one change, and every mistake is reported."""

import grpc
import pytest

from grove.v1 import cluster_topology_binding_pb2 as binding_pb
from grove.v1 import manifest_pb2 as pb
from grove.v1 import pod_clique_set_pb2 as set_pb
from tests.rpc.harness import TIMEOUT_S, Harness, refused

SET = """\
apiVersion: grove.io/v1alpha1
kind: PodCliqueSet
metadata: {name: NAME}
spec:
  replicas: 1
  template:
    cliques:
      - name: pod
        spec: {roleName: pod, replicas: 1, podSpec: {containers: [{name: main, image: i}]}}
"""
BINDING = """\
apiVersion: grove.io/v1alpha1
kind: ClusterTopologyBinding
metadata: {name: cluster}
spec:
  levels:
    - {domain: rack, key: example.com/rack}
    - {domain: host, key: kubernetes.io/hostname}
"""


def manifest(name: str) -> str:
    """Return a set called *name* as YAML."""
    return SET.replace("NAME", name)


async def count(rpc: Harness) -> int:
    """Return how many sets there are."""
    request = set_pb.PodCliqueSetServiceListRequest(all_namespaces=True)
    return len((await rpc.sets.List(request, timeout=TIMEOUT_S)).items)


async def test_documents_are_applied_together(rpc: Harness) -> None:
    """Several documents give one result each, in their order, and the same again changes nothing."""
    text = "---\n".join((manifest("one"), BINDING, manifest("two")))
    response = await rpc.apply_text(text)
    assert [(each.document, each.kind, each.name, each.action) for each in response.results] == [
        (1, "PodCliqueSet", "one", "created"),
        (2, "ClusterTopologyBinding", "cluster", "created"),
        (3, "PodCliqueSet", "two", "created"),
    ]
    assert {each.action for each in (await rpc.apply_text(text)).results} == {"unchanged"}


async def test_a_set_may_use_a_binding_of_the_same_call(rpc: Harness) -> None:
    """A binding further down in the text counts for the sets above it."""
    using = manifest("one") + "    topologyConstraint: {topologyName: cluster, pack: {required: rack}}\n"
    response = await rpc.apply_text(f"{using}---\n{BINDING}")
    assert [each.action for each in response.results] == ["created", "created"]


async def test_one_wrong_document_stops_all_and_all_mistakes_are_reported(rpc: Harness) -> None:
    """Of two documents one is wrong: nothing is applied; the mistakes name document and field."""
    wrong = (
        manifest("two").replace("replicas: 1, podSpec", "replicas: -3, podSpec").replace("image: i", "image: i, x: 1")
    )
    unknown = manifest("three").replace("spec:\n  replicas", "spec:\n  copies: 2\n  replicas")
    refusal = await refused(rpc.apply_text("---\n".join((manifest("one"), wrong, unknown, "kind: [\n"))))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MANIFEST")
    assert "document[2].spec.template.cliques[0].spec.replicas" in refusal.fields
    assert "document[3].spec.copies" in refusal.fields
    assert "document[4]" in refusal.fields
    assert await count(rpc) == 0


async def test_the_same_object_twice_in_a_call_is_refused(rpc: Harness) -> None:
    """Two documents for one object contradict each other."""
    refusal = await refused(rpc.apply_text(f"{manifest('one')}---\n{manifest('one')}"))
    assert refusal.fields == ["document[2].metadata.name"]
    assert await count(rpc) == 0


async def test_two_sets_of_one_call_may_not_collide(rpc: Harness) -> None:
    """Sets of one call are checked against each other, too."""
    first = manifest("a").replace("name: pod\n", "name: 0-b-1-x\n")
    second = manifest("a-0-0-b").replace("name: pod\n", "name: x\n")
    refusal = await refused(rpc.apply_text(f"{first}---\n{second}"))
    assert any(field.startswith("document[2]") for field in refusal.fields)


@pytest.mark.parametrize("kind", ["PodClique", "PodGang", "Pod", "Event", "Deployment"])
async def test_kinds_that_nobody_writes_are_refused(rpc: Harness, kind: str) -> None:
    """Children of sets, nodes and unknown kinds cannot be applied, and the answer says why."""
    refusal = await refused(rpc.apply_text(f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: x}}\n"))
    assert refusal.fields == ["document[1].kind"]


async def test_another_api_version_is_refused_with_the_right_one(rpc: Harness) -> None:
    """A known kind of another version is told apart from an unknown kind."""
    refusal = await refused(rpc.apply_text(manifest("one").replace("v1alpha1", "v2")))
    assert refusal.fields == ["document[1].apiVersion"]
    assert "grove.io/v1alpha1" in refusal.message


@pytest.mark.parametrize("text", ["", "---\n---\n", "# nothing\n"])
async def test_a_text_without_documents_is_refused(rpc: Harness, text: str) -> None:
    """Nothing to apply is a mistake of the caller."""
    assert (await refused(rpc.apply_text(text))).fields == ["manifest"]


async def test_a_manifest_of_five_megabytes_is_refused_in_words(rpc: Harness) -> None:
    """A request over the limit is refused with its size and the limit."""
    refusal = await refused(rpc.apply_text(manifest("one") + "#" * (5 << 20)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert "5.0 MiB" in refusal.message
    assert "4 MiB" in refusal.message


async def test_what_is_far_too_large_is_refused_by_the_transport(rpc: Harness) -> None:
    """A message beyond what the transport takes never reaches the server."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rpc.apply_text("#" * (20 << 20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_yaml_bomb_is_refused(rpc: Harness) -> None:
    """Aliases that multiply do not make the server expand them."""
    layers = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]" for i in range(9)]
    refusal = await refused(rpc.apply_text("\n".join(layers)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_clients_could_not_read_is_refused(rpc: Harness) -> None:
    """A pod spec that is nested deeper than a message may be never gets into the store."""
    deep = "{a: " * 40 + "1" + "}" * 40
    text = manifest("one").replace("containers", f"securityContext: {deep}, containers")
    refusal = await refused(rpc.apply_text(text))
    path = "document[1].spec.template.cliques[0].spec.podSpec.securityContext"
    assert refusal.fields == [path + ".a" * 7]
    assert "24 deep" in refusal.message
    assert await count(rpc) == 0


async def test_a_list_is_its_items(rpc: Harness) -> None:
    """The items of a v1 List are applied, and mistakes name the item."""
    items = "".join(f"- {line}\n" if not i else f"  {line}\n" for i, line in enumerate(manifest("one").splitlines()))
    response = await rpc.apply_text(f"apiVersion: v1\nkind: List\nitems:\n{items}")
    assert [each.action for each in response.results] == ["created"]
    wrong = items.replace("replicas: 1, podSpec", "replicas: -1, podSpec")
    refusal = await refused(rpc.apply_text(f"apiVersion: v1\nkind: List\nitems:\n{wrong}"))
    assert refusal.fields == ["document[1].items[0].spec.template.cliques[0].spec.replicas"]


async def test_a_dry_run_stores_nothing(rpc: Harness) -> None:
    """ValidateOnly checks everything and changes nothing."""
    response = await rpc.apply_text(manifest("one"), validate_only=True)
    assert response.results[0].action == "created"
    assert response.results[0].resource_version == ""
    assert await count(rpc) == 0


async def test_the_default_namespace_is_for_those_that_name_none(rpc: Harness) -> None:
    """A manifest without a namespace goes where the caller says."""
    named = manifest("two").replace("{name: two}", "{name: two, namespace: own}")
    response = await rpc.apply_text(f"{manifest('one')}---\n{named}", default_namespace="team")
    assert [each.namespace for each in response.results] == ["team", "own"]


async def test_delete_by_manifest(rpc: Harness) -> None:
    """What the documents name is deleted in one change; missing ones are named, or skipped on request."""
    await rpc.apply_text(f"{manifest('one')}---\n{BINDING}")
    text = f"{manifest('one')}---\n{BINDING}---\n{manifest('gone')}"
    refusal = await refused(rpc.manifests.Delete(pb.ManifestServiceDeleteRequest(manifest=text)))
    assert refusal.reason == "NOT_FOUND"
    assert "gone" in refusal.message
    request = pb.ManifestServiceDeleteRequest(manifest=text, ignore_not_found=True)
    response = await rpc.manifests.Delete(request, timeout=TIMEOUT_S)
    assert [(each.name, each.action) for each in response.results] == [
        ("one", "deleted"),
        ("cluster", "deleted"),
        ("gone", "notfound"),
    ]
    gone = await refused(rpc.bindings.Get(binding_pb.ClusterTopologyBindingServiceGetRequest(name="cluster")))
    assert gone.reason == "NOT_FOUND"
    marked = await rpc.sets.Get(set_pb.PodCliqueSetServiceGetRequest(name="one"), timeout=TIMEOUT_S)
    assert marked.metadata.deletion_timestamp


async def test_a_document_wrong_in_part_hides_nothing(rpc: Harness) -> None:
    """What cannot be read in one document hides neither its broken rules nor those of the others."""
    first = manifest("one").replace("replicas: 1, podSpec", "minAvailable: 9, replicas: 1, other")
    second = manifest("two").split("  replicas:", maxsplit=1)[0] + "  replicas: -1\n"
    refusal = await refused(rpc.manifests.Apply(pb.ManifestServiceApplyRequest(manifest=f"{first}---\n{second}")))
    assert refusal.fields == [
        "document[1].spec.template.cliques[0].spec.minAvailable",
        "document[1].spec.template.cliques[0].spec.other",
        "document[1].spec.template.cliques[0].spec.podSpec",
        "document[2].spec.replicas",
        "document[2].spec.template",
    ]


async def test_a_set_wrong_in_part_may_use_a_binding_of_the_same_call(rpc: Harness) -> None:
    """A typing mistake in a set does not turn the binding that comes with it into an unknown one."""
    using = manifest("one") + "    topologyConstraint: {topologyName: cluster, pack: {required: rack}}\n    typo: 1\n"
    refusal = await refused(rpc.manifests.Apply(pb.ManifestServiceApplyRequest(manifest=f"{using}---\n{BINDING}")))
    assert refusal.fields == ["document[1].spec.template.typo"]

"""Sets through gRPC: what is answered, what is stored, and what is refused."""

import asyncio

import grpc
import pytest

from grove.v1 import pod_clique_set_pb2 as pb
from grove_server.resources.workload import PodCliqueSet
from tests.rpc.harness import TIMEOUT_S, Harness, refused, sample_set

APPLY = "/grove.v1.PodCliqueSetService/Apply"


async def get(rpc: Harness, name: str = "demo") -> pb.PodCliqueSet:
    """Return the set called *name*."""
    return await rpc.sets.Get(pb.PodCliqueSetServiceGetRequest(name=name), timeout=TIMEOUT_S)


async def test_apply_creates_then_configures_then_changes_nothing(rpc: Harness) -> None:
    """Apply answers created, configured and unchanged, with the resource as stored."""
    first = await rpc.apply()
    assert first.action == "created"
    assert first.pod_clique_set.metadata.uid == "uid-1"
    assert first.pod_clique_set.metadata.creation_timestamp == "2027-01-15T08:00:00.250Z"
    second = await rpc.apply(image="image:2")
    assert second.action == "configured"
    assert second.pod_clique_set.metadata.generation == 2
    third = await rpc.apply(image="image:2")
    assert third.action == "unchanged"
    assert third.pod_clique_set == second.pod_clique_set == await get(rpc)


async def test_whole_numbers_of_a_pod_spec_stay_whole(rpc: Harness) -> None:
    """What came as 45 in a Struct is stored as the integer 45."""
    await rpc.apply()
    stored = rpc.store.read().get(PodCliqueSet, "default", "demo")
    assert stored is not None
    grace = stored.spec.template.cliques[0].spec.pod_spec["terminationGracePeriodSeconds"]
    assert grace == 45
    assert isinstance(grace, int)


async def test_what_is_got_can_be_applied_again(rpc: Harness) -> None:
    """Applying the printed form of a set changes nothing."""
    await rpc.apply()
    request = pb.PodCliqueSetServiceApplyRequest(pod_clique_set=await get(rpc))
    assert (await rpc.sets.Apply(request, timeout=TIMEOUT_S)).action == "unchanged"


async def test_a_dry_run_says_the_same_and_stores_nothing(rpc: Harness) -> None:
    """ValidateOnly answers as if it had been done."""
    request = pb.PodCliqueSetServiceApplyRequest(pod_clique_set=sample_set(), validate_only=True)
    response = await rpc.sets.Apply(request, timeout=TIMEOUT_S)
    assert response.action == "created"
    assert response.pod_clique_set.metadata.resource_version == ""
    assert (await refused(get(rpc))).reason == "NOT_FOUND"


async def test_omitted_replicas_come_with_a_warning(rpc: Harness) -> None:
    """A set created without replicas gets 0 of them and a warning."""
    response = await rpc.apply(replicas=None)
    assert response.pod_clique_set.spec.replicas == 0
    assert any("replicas" in warning for warning in response.warnings)


async def test_create_meets_an_existing_set(rpc: Harness) -> None:
    """Create refuses a name that is taken, naming it."""
    request = pb.PodCliqueSetServiceCreateRequest(pod_clique_set=sample_set())
    await rpc.sets.Create(request, timeout=TIMEOUT_S)
    refusal = await refused(rpc.sets.Create(request, timeout=TIMEOUT_S))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    assert refusal.details["google.rpc.ResourceInfo"].resource_name == "default/demo"


async def test_update_replaces_what_was_read(rpc: Harness) -> None:
    """Update demands the version that was read, and refuses one that is no longer current."""
    await rpc.apply()
    read = await get(rpc)
    read.spec.template.cliques[0].spec.pod_spec["terminationGracePeriodSeconds"] = 60
    request = pb.PodCliqueSetServiceUpdateRequest(pod_clique_set=read)
    updated = await rpc.sets.Update(request, timeout=TIMEOUT_S)
    assert updated.pod_clique_set.metadata.generation == 2
    refusal = await refused(rpc.sets.Update(request, timeout=TIMEOUT_S))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
    assert refusal.metadata["current_resource_version"] == updated.pod_clique_set.metadata.resource_version
    read.metadata.resource_version = ""
    refusal = await refused(rpc.sets.Update(pb.PodCliqueSetServiceUpdateRequest(pod_clique_set=read)))
    assert refusal.fields == ["podCliqueSet.metadata.resourceVersion"]


async def test_update_of_nothing_is_not_found(rpc: Harness) -> None:
    """Update creates nothing."""
    wanted = sample_set()
    wanted.metadata.resource_version = "7"
    refusal = await refused(rpc.sets.Update(pb.PodCliqueSetServiceUpdateRequest(pod_clique_set=wanted)))
    assert refusal.reason == "NOT_FOUND"


async def test_apply_with_a_stale_version_is_refused(rpc: Harness) -> None:
    """A resourceVersion in an applied manifest is a precondition."""
    first = (await rpc.apply()).pod_clique_set
    await rpc.apply(image="image:2")
    refusal = await refused(rpc.sets.Apply(pb.PodCliqueSetServiceApplyRequest(pod_clique_set=first)))
    assert refusal.reason == "VERSION_CONFLICT"


async def test_apply_with_a_version_of_nothing_is_refused(rpc: Harness) -> None:
    """Where nothing is stored no version can match, and the message says so."""
    wanted = sample_set()
    wanted.metadata.resource_version = "7"
    refusal = await refused(rpc.sets.Apply(pb.PodCliqueSetServiceApplyRequest(pod_clique_set=wanted)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
    assert "does not exist" in refusal.message


async def test_concurrent_applies_all_succeed(rpc: Harness) -> None:
    """Applies that do not name a version never see a race: each is decided anew on what the others left."""
    responses = await asyncio.gather(*(rpc.apply(image=f"image:{number}") for number in range(10)))
    assert {response.action for response in responses} <= {"created", "configured"}
    assert [response.action for response in responses].count("created") == 1
    assert (await get(rpc)).metadata.generation == 10


async def test_of_concurrent_creates_one_wins(rpc: Harness) -> None:
    """Create is atomic."""

    async def create() -> str:
        request = pb.PodCliqueSetServiceCreateRequest(pod_clique_set=sample_set())
        try:
            await rpc.sets.Create(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    assert sorted(await asyncio.gather(*(create() for _ in range(5)))) == ["ALREADY_EXISTS"] * 4 + ["OK"]


async def test_sets_whose_children_would_collide_do_not_both_get_in(rpc: Harness) -> None:
    """Two sets created at the same time see each other's names before either is stored."""

    async def apply(name: str, clique: str) -> str:
        try:
            await rpc.apply(name, cliques=(clique,))
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    outcomes = await asyncio.gather(apply("a", "0-b-1-x"), apply("a-0-0-b", "x"))
    assert sorted(outcomes) in (["INVALID_ARGUMENT", "OK"], ["INVALID_ARGUMENT", "INVALID_ARGUMENT"])


async def test_delete_marks_the_set_and_changes_are_refused_from_then_on(rpc: Harness) -> None:
    """A set being deleted stays visible with its time of deletion, takes no changes, and may be deleted again."""
    await rpc.apply()
    request = pb.PodCliqueSetServiceDeleteRequest(names=["demo"])
    await rpc.sets.Delete(request, timeout=TIMEOUT_S)
    marked = await get(rpc)
    assert marked.metadata.deletion_timestamp == "2027-01-15T08:00:00.250Z"
    for call in (
        rpc.apply(image="image:2"),
        rpc.sets.Scale(pb.PodCliqueSetServiceScaleRequest(name="demo", replicas=2)),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BEING_DELETED")
    await rpc.sets.Delete(request, timeout=TIMEOUT_S)
    assert await get(rpc) == marked


async def test_deleting_several_is_one_change_or_none(rpc: Harness) -> None:
    """A missing name keeps all others as they are, and all missing ones are named."""
    await rpc.apply("one")
    names = ["one", "two", "three"]
    refusal = await refused(rpc.sets.Delete(pb.PodCliqueSetServiceDeleteRequest(names=names)))
    assert refusal.reason == "NOT_FOUND"
    assert "two" in refusal.message
    assert "three" in refusal.message
    assert (await get(rpc, "one")).metadata.deletion_timestamp == ""


async def test_delete_with_a_stale_version_is_refused(rpc: Harness) -> None:
    """The version of a delete is a precondition."""
    await rpc.apply()
    request = pb.PodCliqueSetServiceDeleteRequest(names=["demo"], resource_version="99")
    assert (await refused(rpc.sets.Delete(request))).reason == "VERSION_CONFLICT"


@pytest.mark.parametrize(
    "names", [pytest.param([], id="none"), pytest.param(["a", "a"], id="twice"), pytest.param(["a"] * 1001, id="many")]
)
async def test_names_of_a_delete_are_bounded_and_different(rpc: Harness, names: list[str]) -> None:
    """No names, a name twice and too many names are refused."""
    refusal = await refused(rpc.sets.Delete(pb.PodCliqueSetServiceDeleteRequest(names=names)))
    assert refusal.fields == ["names"]


async def test_scale_of_a_set_records_who_asked(rpc: Harness) -> None:
    """Scaling writes spec.replicas and the owner, and a later apply of the same manifest leaves the size alone."""
    await rpc.apply()
    request = pb.PodCliqueSetServiceScaleRequest(name="demo", replicas=3, requested_by="autoscaler")
    response = await rpc.sets.Scale(request, timeout=TIMEOUT_S)
    assert (response.previous, response.replicas, response.scale_owner) == (1, 3, "autoscaler")
    assert response.resource.spec.replicas == 3
    assert (await rpc.apply()).pod_clique_set.spec.replicas == 3


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        pytest.param(pb.PodCliqueSetServiceScaleRequest(name="demo"), "replicas", id="no size"),
        pytest.param(pb.PodCliqueSetServiceScaleRequest(name="demo", replicas=-1), "replicas", id="negative"),
        pytest.param(pb.PodCliqueSetServiceScaleRequest(name="demo", replicas=30_000), "replicas", id="too many"),
        pytest.param(pb.PodCliqueSetServiceScaleRequest(replicas=1), "name", id="no name"),
        pytest.param(
            pb.PodCliqueSetServiceScaleRequest(name="demo", replicas=1, requested_by="me"), "requestedBy", id="owner"
        ),
    ],
)
async def test_scale_refuses_sizes_that_make_no_sense(
    rpc: Harness, request_: pb.PodCliqueSetServiceScaleRequest, field: str
) -> None:
    """A size must be there and within the limits; who asks must be known."""
    await rpc.apply()
    refusal = await refused(rpc.sets.Scale(request_))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == [field]


async def test_all_violations_come_at_once_with_their_paths(rpc: Harness) -> None:
    """A manifest with several mistakes is refused with all of them."""
    wrong = sample_set("Not_A_Name", cliques=("same", "same"))
    wrong.spec.template.cliques[0].spec.min_available = 5
    refusal = await refused(rpc.sets.Apply(pb.PodCliqueSetServiceApplyRequest(pod_clique_set=wrong)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MANIFEST")
    assert "metadata.name" in refusal.fields
    assert "spec.template.cliques[0].spec.minAvailable" in refusal.fields
    assert "spec.template.cliques[1].name" in refusal.fields


async def test_many_violations_fit_into_the_answer(rpc: Harness) -> None:
    """However much is wrong, the answer stays within what clients accept."""
    wrong = sample_set(cliques=[f"Wrong_{number}_{'x' * 50}" for number in range(60)])
    refusal = await refused(rpc.sets.Apply(pb.PodCliqueSetServiceApplyRequest(pod_clique_set=wrong)))
    assert refusal.reason == "INVALID_MANIFEST"
    assert 0 < len(refusal.fields) <= 20
    assert len(refusal.raw) <= 5_000


async def test_fields_of_a_newer_contract_are_refused(rpc: Harness) -> None:
    """A field the server does not know is an error, since it would be dropped silently."""
    known = pb.PodCliqueSetServiceApplyRequest(pod_clique_set=sample_set()).SerializeToString()
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = rpc.channel.unary_unary(APPLY)
    refusal = await refused(call(known + b"\xfa\x3f\x03new"))
    assert (refusal.reason, refusal.code) == ("INVALID_REQUEST", grpc.StatusCode.INVALID_ARGUMENT)


async def test_a_message_that_is_none_is_refused(rpc: Harness) -> None:
    """Bytes that are no message of the method are the caller's fault, not an internal error."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = rpc.channel.unary_unary(APPLY)
    refusal = await refused(call(b"\xff\xff\xff"))
    assert (refusal.reason, refusal.code) == ("INVALID_REQUEST", grpc.StatusCode.INVALID_ARGUMENT)


async def test_a_request_without_a_set_is_refused(rpc: Harness) -> None:
    """The manifest is required."""
    refusal = await refused(rpc.sets.Apply(pb.PodCliqueSetServiceApplyRequest()))
    assert refusal.fields == ["podCliqueSet"]

"""Serverless, pods, bring-your-own-cloud: what an index asked for is kept, shown and bounded.

None of it decides how the index is served, so what is at stake is that clients of every version
read back what they sent, and that nothing without a bound is stored.
"""

from typing import Any

import pytest

from tests.api.gateway import CLASSIC, NEWEST, Running

DENSE = {"fields": {"_values": {"type": "dense_vector", "dimension": 3}}}
MANAGED = {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}
DEDICATED = {
    "mode": "Dedicated",
    "dedicated": {"node_type": "b1", "scaling": "Manual", "manual": {"shards": 2, "replicas": 3}},
}
CURRENT = {"status": {"state": "Ready", "current_shards": 2, "current_replicas": 3}}
POD = {
    "environment": "us-east1-gcp",
    "pod_type": "p2.x4",
    "replicas": 2,
    "shards": 3,
    "pods": 6,
    "metadata_config": {"indexed": ["genre"]},
}


async def classic(gateway: Running, spec: Any, status: int = 201, **more: Any) -> Any:
    body = {"name": "movies", "dimension": 3, "spec": spec, **more}
    answer = await gateway.ask("POST", "/indexes", json=body, headers=CLASSIC)
    assert answer.status_code == status, answer.text
    return answer.json()


async def typed(gateway: Running, status: int = 201, **more: Any) -> Any:
    body = {"name": "movies", "schema": DENSE, **more}
    answer = await gateway.ask("POST", "/indexes", json=body, headers=NEWEST)
    assert answer.status_code == status, answer.text
    return answer.json()


async def shown(gateway: Running, version: dict[str, str]) -> Any:
    return (await gateway.ask("GET", "/indexes/movies", headers=version)).json()


async def change(gateway: Running, version: dict[str, str], status: int = 202, **body: Any) -> Any:
    answer = await gateway.ask("PATCH", "/indexes/movies", json=body, headers=version)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_pod_index_is_served_like_any_other_and_says_what_it_asked_for(
    gateway: Running,
) -> None:
    made = await classic(gateway, {"pod": POD})
    assert made["spec"] == {"pod": POD}
    assert made["status"] == {"ready": True, "state": "Ready"}
    newest = await shown(gateway, NEWEST)
    assert newest["deployment"] == {
        "deployment_type": "pod",
        "environment": "us-east1-gcp",
        "pod_type": "p2.x4",
        "replicas": 2,
        "shards": 3,
    }
    assert "read_capacity" not in newest
    assert "private_host" not in newest
    wrote = await gateway.ask(
        "POST",
        "/vectors/upsert",
        host=made["host"],
        json={"vectors": [{"id": "a", "values": [1, 2, 3]}]},
    )
    assert wrote.json() == {"upsertedCount": 1}


async def test_pods_are_scaled_on_paper(gateway: Running) -> None:
    await classic(gateway, {"pod": {"environment": "e", "pod_type": "s1"}})
    changed = await change(gateway, CLASSIC, spec={"pod": {"replicas": 4, "pod_type": "s1.x2"}})
    assert changed["spec"]["pod"] == {
        "environment": "e",
        "pod_type": "s1.x2",
        "replicas": 4,
        "shards": 1,
        "pods": 4,
    }
    changed = await change(gateway, NEWEST, deployment={"replicas": 1})
    assert (changed["deployment"]["replicas"], changed["deployment"]["pod_type"]) == (1, "s1.x2")
    for body in ({"replicas": 0}, {"replicas": 1001}, {"pod_type": "p9.x1"}, {"pod_type": ""}):
        await change(gateway, CLASSIC, 400, spec={"pod": body})
        await change(gateway, NEWEST, 400, deployment=body)
    await change(gateway, CLASSIC, 422, spec={"pod": {"replicas": "two"}})
    await change(gateway, CLASSIC, 400, spec={"serverless": {"read_capacity": DEDICATED}})
    assert (await shown(gateway, CLASSIC))["spec"]["pod"]["replicas"] == 1


async def test_only_pods_have_replicas_to_change(gateway: Running) -> None:
    await typed(gateway, deployment=MANAGED)
    await change(gateway, CLASSIC, 400, spec={"pod": {"replicas": 2}})
    await change(gateway, NEWEST, 400, deployment={"pod_type": "p1.x1"})


@pytest.mark.parametrize("kind", ["serverless", "byoc"])
async def test_read_capacity_is_kept_shown_with_its_status_and_changed_in_parts(
    gateway: Running, kind: str
) -> None:
    where = {"cloud": "aws", "region": "moon-1"} if kind == "serverless" else {"environment": "e-1"}
    schema = {"fields": {"genre": {"filterable": True}}}
    made = await classic(gateway, {kind: {**where, "read_capacity": DEDICATED, "schema": schema}})
    assert made["spec"] == {
        kind: {**where, "read_capacity": {**DEDICATED, **CURRENT}, "schema": schema}
    }
    assert (await shown(gateway, NEWEST))["read_capacity"] == {**DEDICATED, **CURRENT}
    part = {"mode": "Dedicated", "dedicated": {"manual": {"replicas": 0}}}
    changed = await change(gateway, CLASSIC, spec={kind: {"read_capacity": part}})
    assert changed["spec"][kind]["read_capacity"]["dedicated"] == {
        "node_type": "b1",
        "scaling": "Manual",
        "manual": {"shards": 2, "replicas": 0},
    }
    changed = await change(gateway, NEWEST, read_capacity={"mode": "OnDemand"})
    assert changed["read_capacity"] == {"mode": "OnDemand", "status": {"state": "Ready"}}
    await change(gateway, NEWEST, 422, read_capacity=part)


async def test_a_typed_deployment_is_read_back_as_it_was_sent(gateway: Running) -> None:
    for deployment, spec in [
        (
            {**MANAGED, "environment": "aped-1"},
            {"serverless": {"cloud": "aws", "region": "us-east-1"}},
        ),
        (
            {"deployment_type": "byoc", "environment": "byoc-aws-1"},
            {"byoc": {"environment": "byoc-aws-1"}},
        ),
        (
            {
                "deployment_type": "pod",
                "environment": "e",
                "pod_type": "p1.x8",
                "replicas": 2,
                "shards": 1,
            },
            {
                "pod": {
                    "environment": "e",
                    "pod_type": "p1.x8",
                    "replicas": 2,
                    "shards": 1,
                    "pods": 2,
                }
            },
        ),
    ]:
        assert (await typed(gateway, deployment=deployment))["deployment"] == deployment
        assert (await shown(gateway, CLASSIC))["spec"] == spec
        assert (await gateway.ask("DELETE", "/indexes/movies")).status_code == 202


LONG = "x" * 129


WRONG_SPECS: list[tuple[Any, int]] = [
    ({"serverless": {"cloud": "", "region": "r"}}, 400),
    ({"serverless": {"cloud": "c", "region": LONG}}, 400),
    ({"serverless": {"cloud": "c\0", "region": "r"}}, 400),
    ({"serverless": {"cloud": "c"}}, 422),
    ({"serverless": {"cloud": 1, "region": "r"}}, 422),
    ({"byoc": {"environment": LONG}}, 400),
    ({"byoc": {}}, 422),
    ({"pod": {"pod_type": "p1.x1"}}, 422),
    ({"pod": {"environment": LONG}}, 400),
    ({"pod": {"environment": "e", "pod_type": "p1.x3"}}, 400),
    ({"pod": {"environment": "e", "replicas": 0}}, 400),
    ({"pod": {"environment": "e", "shards": 1001}}, 400),
    ({"pod": {"environment": "e", "replicas": 2, "pods": 3}}, 400),
    ({"pod": {"environment": "e", "replicas": 1.5}}, 422),
    ({"pod": {"environment": "e", "replicas": True}}, 422),
    ({"pod": {"environment": "e", "metadata_config": {"indexed": "genre"}}}, 422),
    ({"pod": {"environment": "e", "metadata_config": {"indexed": ["x" * 513]}}}, 400),
    ({"pod": {"environment": "e", "metadata_config": {"indexed": ["f"] * 1001}}}, 400),
    ({"byoc": {"environment": "e", "schema": {"fields": {"": {"filterable": True}}}}}, 400),
    ({"byoc": {"environment": "e", "read_capacity": {"mode": "Sometimes"}}}, 422),
    ({"byoc": {"environment": "e", "read_capacity": {"mode": "Dedicated"}}}, 422),
    (
        {
            "byoc": {
                "environment": "e",
                "read_capacity": {"mode": "Dedicated", "dedicated": {"node_type": "b1"}},
            }
        },
        422,
    ),
]


async def test_a_wrong_spec_is_refused_and_nothing_is_kept(gateway: Running) -> None:
    for spec, status in WRONG_SPECS:
        refused = await classic(gateway, spec, status)
        assert len(refused["error"]["message"]) < 300
        assert (await shown(gateway, CLASSIC))["status"] == 404


WRONG_DEPLOYMENTS: list[tuple[Any, int]] = [
    ({"cloud": "aws", "region": "r"}, 422),
    ({"deployment_type": "cellar"}, 422),
    ({**MANAGED, "region": LONG}, 400),
    ({"deployment_type": "byoc", "environment": ""}, 400),
    ({"deployment_type": "pod", "environment": "e", "replicas": 0}, 400),
    ({"deployment_type": "pod", "environment": "e", "pod_type": "big"}, 400),
]


async def test_a_wrong_deployment_is_refused(gateway: Running) -> None:
    for deployment, status in WRONG_DEPLOYMENTS:
        await typed(gateway, status, deployment=deployment)


async def test_pods_have_no_read_capacity(gateway: Running) -> None:
    pod = {"deployment_type": "pod", "environment": "e"}
    await typed(gateway, 400, deployment=pod, read_capacity={"mode": "OnDemand"})

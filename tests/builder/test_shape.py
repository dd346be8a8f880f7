"""What people are shown of a namespace's files: sizes, what is not folded, what is due, and lag."""

from dataclasses import replace

from builder.builder import IndexBuilder
from builder.compaction.shape import CLUSTER_BYTES, histogram, histogram_text, shape_of
from builder.policy import plan
from core.operations import DeleteIds
from infra.telemetry import Metrics
from storage.manifest import Manifest
from tests.builder.test_compact import filled
from tests.builder.world import SMALL, World, upsert


def test_sizes_are_counted_up_to_their_bound() -> None:
    sizes = [0, CLUSTER_BYTES[0], CLUSTER_BYTES[0] + 1, 1 << 22, 1 << 30]
    counts = histogram(sizes)
    assert counts == (2, 1, 0, 0, 0, 1, 0, 0, 1)
    shown = "2 up to 256 KiB, 1 up to 512 KiB, 1 up to 4 MiB, 1 above 8 MiB"
    assert histogram_text(counts) == shown
    assert histogram_text(histogram([])) == ""


async def newest(world: World) -> Manifest:
    manifest = await world.manifest()
    assert manifest is not None
    return manifest


async def test_debt_is_what_waits_and_nothing_at_rest(world: World) -> None:
    """Deltas over the bound and dead rows are due; once compaction rests nothing is."""
    race = await filled(world, clustered=True)
    await race.builder.compact()
    resting = await newest(world)
    shape = shape_of(resting, SMALL)
    assert plan(resting, SMALL) is None
    assert shape.debt_bytes == 0
    assert shape.cluster_count == sum(not file.is_delta for file in resting.files)
    for start in range(0, 60, 10):
        await world.write(upsert(*(f"r{n}" for n in range(start, start + 10)), seed=5.0))
        await race.flush()
    await world.write(DeleteIds(("r99",)))
    await race.flush()
    worn = await newest(world)
    shape = shape_of(worn, SMALL)
    assert plan(worn, SMALL) is not None
    assert shape.debt_bytes == shape.unfolded_bytes + shape.dead_bytes
    assert shape.dead_rows >= 61
    assert shape.deltas >= 6
    assert 0.3 < shape.unfolded_share <= 1.0


async def test_a_manifest_says_what_its_namespace_has_cost(world: World) -> None:
    """Bytes taken from the log and bytes of files written, over flushes, compactions, restarts."""
    parts = replace(world.parts(), metrics=Metrics())
    builder = IndexBuilder(parts, world.settings)
    world.builders.append(builder)
    await builder.assign(0)
    for start in range(0, 100, 20):
        await world.write(upsert(*(f"r{n}" for n in range(start, start + 20))))
        await world.feed_all(builder)
        await builder.flush()
    await builder.compact()
    manifest = await newest(world)
    assert manifest.ingested_bytes == sum(len(r.value or b"") for r in world.log.records)
    text = parts.metrics.text().decode()
    counted = [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("firndb_builder_written_bytes_total{")
    ]
    assert manifest.written_bytes == sum(counted) > manifest.byte_count


async def test_metrics_show_lag_debt_and_sizes(world: World) -> None:
    race = await filled(world, clustered=True)
    parts = replace(world.parts(), metrics=Metrics())
    await race.builder.revoke([0], lost=False)
    builder = IndexBuilder(parts, world.settings)
    world.builders.append(builder)
    await builder.assign(0)
    checkpoint = builder.committable(0)
    await world.write(upsert("late"))
    await world.feed_all(builder)
    await builder._watch.look(builder._owned.values())
    value = parts.metrics.text().decode()
    end = await world.log.end_offset(0)
    assert f'firndb_builder_lag_log_records{{partition="0"}} {end - checkpoint}.0' in value
    await builder.flush()
    await builder._watch.look(builder._owned.values())
    manifest = await newest(world)
    shape = shape_of(manifest, SMALL)
    assert parts.metrics.value("firndb_builder_deltas") == shape.deltas
    assert parts.metrics.value("firndb_builder_debt_bytes") == shape.debt_bytes
    value = parts.metrics.text().decode()
    assert f'firndb_builder_clusters{{le="+Inf"}} {shape.cluster_count}.0' in value
    assert 'firndb_builder_lag_log_records{partition="0"} 0.0' in value
    await builder.revoke([0], lost=False)
    await builder._watch.look([])
    assert parts.metrics.value("firndb_builder_deltas") == 0

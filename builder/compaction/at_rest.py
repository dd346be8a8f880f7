"""Compacting what is built aside, where nobody else commits, until nothing is left to do."""

import asyncio

from builder.chain import Target, Workshop
from builder.compaction.compact import commit_rewrite, execute
from builder.policy import CompactionLimits, plan
from core.errors import Unavailable
from storage.manifest import Manifest


async def compact_to_rest(
    shop: Workshop, target: Target, manifest: Manifest, limits: CompactionLimits
) -> Manifest:
    """The newest manifest, which no job follows. `Unavailable`, errors as of a
    compaction."""
    while True:
        job = await asyncio.to_thread(plan, manifest, limits)
        if job is None:
            return manifest
        rewrite = await execute(shop, target.schema, manifest, job, limits)
        following = await commit_rewrite(shop, target, manifest, rewrite)
        if following is None:  # another process believes this work to be its own
            raise Unavailable(f"namespace {manifest.namespace!r} is compacted elsewhere as well")
        manifest = following

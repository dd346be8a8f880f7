"""What changes without anybody's doing, or is costly to say: lag, debt and shapes, now and then."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import accumulate

from builder.compaction.shape import CLUSTER_BYTES, Shape, shape_of
from builder.metrics import BuilderMetrics
from builder.namespace import NamespaceKey
from builder.partition import OwnedPartition
from builder.parts import BuilderParts
from builder.policy import CompactionLimits
from core.errors import FirnError

logger = logging.getLogger(__name__)

WATCH_S = 5.0
# Of those that were worked on last; some 200 bytes each.
SHAPES_MAX = 10_000


class Watch:
    """For one event loop. Looks at manifests that the builder has in memory."""

    def __init__(
        self, parts: BuilderParts, limits: CompactionLimits, metrics: BuilderMetrics
    ) -> None:
        self._parts = parts
        self._limits = limits
        self._metrics = metrics
        # By partition and name: the version that was looked at.
        self._shapes: OrderedDict[tuple[int, NamespaceKey], tuple[int, Shape]] = OrderedDict()

    async def run(self, owned: Callable[[], Iterable[OwnedPartition]]) -> None:
        """Until it is cancelled."""
        while True:
            await self.look(list(owned()))
            await asyncio.sleep(WATCH_S)

    async def look(self, owned: Iterable[OwnedPartition]) -> None:
        parts = list(owned)
        for part in parts:
            try:
                end = await self._parts.log.end_offset(part.number)
            except FirnError as error:
                logger.info("the lag of partition %d is not known: %s", part.number, error)
            else:
                lag = max(0, end - part.state.checkpoint)
                self._metrics.lag.labels(str(part.number)).set(lag)
            await self._take_shapes(part)
        numbers = {part.number for part in parts}
        for key in [key for key in self._shapes if key[0] not in numbers]:
            del self._shapes[key]
        self._show()

    async def _take_shapes(self, part: OwnedPartition) -> None:
        for name, work in list(part.works.items()):
            key, manifest = (part.number, name), work.manifest
            known, _ = self._shapes.get(key, (0, None))
            if manifest is not None and manifest.version != known:
                shape = await asyncio.to_thread(shape_of, manifest, self._limits)
                self._shapes[key] = (manifest.version, shape)
                self._shapes.move_to_end(key)
        while len(self._shapes) > SHAPES_MAX:
            self._shapes.popitem(last=False)

    def _show(self) -> None:
        metrics = self._metrics
        shapes = [shape for _, shape in self._shapes.values()]
        metrics.debt_bytes.set(sum(shape.debt_bytes for shape in shapes))
        metrics.unfolded_bytes.set(sum(shape.unfolded_bytes for shape in shapes))
        metrics.deltas.set(sum(shape.deltas for shape in shapes))
        metrics.deltas_most.set(max((shape.deltas for shape in shapes), default=0))
        bounds = [*map(str, CLUSTER_BYTES), "+Inf"]
        counts = [sum(shape.clusters[place] for shape in shapes) for place in range(len(bounds))]
        for bound, count in zip(bounds, accumulate(counts), strict=True):
            metrics.clusters.labels(bound).set(count)

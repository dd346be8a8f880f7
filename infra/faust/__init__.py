"""The Faust driver: feeds a `LogConsumer` from Kafka. Handlers know nothing of Faust."""

from infra.faust.driver import run_faust_consumer
from infra.faust.errors import ConsumerStuck
from infra.faust.settings import FaustSettings

__all__ = ["ConsumerStuck", "FaustSettings", "run_faust_consumer"]

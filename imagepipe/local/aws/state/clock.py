"""The time of the cloud, which can be set forward."""

from __future__ import annotations

from datetime import datetime, timedelta

from imagepipe.clock import Clock, iso
from imagepipe.local.aws.state.database import Database
from imagepipe.local.aws.state.records import ANYWHERE, Setting


class CloudClock:
    """Another clock's time plus an offset, which is kept on disk."""

    def __init__(self, clock: Clock, database: Database) -> None:
        self._clock = clock
        self._database = database

    def now(self) -> datetime:
        """Return the time in whole milliseconds, as EC2 does."""
        moment = self._clock.now() + self._offset()
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def advance(self, seconds: float) -> str:
        """Set the clock forward, and return the new time."""
        offset = self._offset() + timedelta(seconds=seconds)
        with self._database.change():
            self._database.put(Setting(id="clock", account="", region=ANYWHERE, value=str(offset.total_seconds())))
        return iso(self.now())

    def _offset(self) -> timedelta:
        setting = self._database.settings.get("clock")
        return timedelta(seconds=float(setting.value)) if setting else timedelta()

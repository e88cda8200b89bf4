"""The gateway: one WSGI application that is EC2, S3 and the services around them, for all regions.

A request goes through HANDLERS, from the top down, until one of them answers or refuses it. An answer is sent only
once its effects are on disk, and an error is answered in the protocol of the service that was called.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from email.utils import format_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from imagepipe.clock import Clock
from imagepipe.local.aws import handlers
from imagepipe.local.aws.authentication.accounts import Accounts
from imagepipe.local.aws.authentication.signature import Request, Secret
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import Environ, RequestContext
from imagepipe.local.aws.ec2 import recovery
from imagepipe.local.aws.ec2.instances import jobs
from imagepipe.local.aws.faults.faults import Faults
from imagepipe.local.aws.faults.injection import ConnectionCut
from imagepipe.local.aws.moto.adapter import Moto
from imagepipe.local.aws.moto.bundles import Bundles
from imagepipe.local.aws.moto.s3_transfers import Transfers
from imagepipe.local.aws.moto.vpcs import Network
from imagepipe.local.aws.protocol import bodies, http, query
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.paths import CLOSE, OWN_PATHS, SEVER
from imagepipe.local.aws.protocol.query import Answer
from imagepipe.local.aws.state.clock import CloudClock
from imagepipe.local.aws.state.database import RECORDS, Database
from imagepipe.local.aws.state.job_queues import JobQueues
from imagepipe.local.disks.base_image import BaseImage
from imagepipe.local.disks.files import Disks
from imagepipe.local.machines.driver import Driver

log = logging.getLogger(__name__)

HANDLERS: tuple[Callable[[Backend, RequestContext], Answer | None], ...] = (
    handlers.refuse_strangers,
    handlers.answer_health,
    handlers.identify,
    handlers.read_body,
    handlers.answer_admin,
    handlers.parse,
    handlers.authorize,
    handlers.inject_faults,
    handlers.dispatch,
)


class Gateway:
    """EC2 and S3 for one store, for many threads. A process can have only one, because moto's state is global."""

    def __init__(
        self,
        *,
        state: Path,
        disks: Disks,
        driver: Driver,
        base: BaseImage,
        clock: Clock,
        credentials: Mapping[str, Secret],
        faults: Faults | None = None,
    ) -> None:
        """`credentials` maps the ids of the store's first access keys to their secrets."""
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clock = clock
        database = Database(state / RECORDS)
        moto = Moto(database, state / "objects")
        self.backend = Backend(
            database=database,
            disks=disks,
            driver=driver,
            base=base,
            clock=CloudClock(clock, database),
            accounts=Accounts(database, credentials),
            faults=faults or Faults(),
            job_queues=JobQueues(clock),
            moto=moto,
            network=Network(moto),
            bundles=Bundles(moto, state),
            transfers=Transfers(moto),
        )
        driver.on_exit(self._machine_exited)

    def recover(self) -> None:
        """Adopt or end the machines of the previous process, and finish its work. Call before serving."""
        recovery.recover(self.backend)
        _ = self.backend.bundles.certificate  # makes the certificate, before anybody needs it for a bundle

    def instances(self) -> int:
        """Count the instances that are neither stopped nor terminated."""
        return sum(row.state not in ("stopped", "terminated") for row in self.backend.database.instances)

    def close(self) -> None:
        """Wait for the running jobs. The next `recover` resumes the others."""
        self.backend.job_queues.close()
        self.backend.database.close()

    def __call__(
        self, environ: Environ, start_response: Callable[[str, list[tuple[str, str]]], Any]
    ) -> Iterable[bytes]:
        request = http.request(environ)
        skew = self._skew(request)
        context = RequestContext(request, environ, str(uuid.uuid4()), self._clock.now() + skew, skew)
        answer = self._answer(context)
        _finish_body(context)
        start_response(f"{answer.status} {_phrase(answer.status)}", self._headers(context, answer))
        return answer.content or ([] if request.method == "HEAD" else [answer.body])

    def _skew(self, request: Request) -> timedelta:
        """Return the clock skew that a fault sets for this request."""
        if request.path.startswith(OWN_PATHS):
            return timedelta()
        fault = self.backend.faults.take("skew", "*", {})
        return timedelta(seconds=fault.seconds if fault else 0)

    def _answer(self, context: RequestContext) -> Answer:
        """Send the request through the handlers; turn what they raise into an answer."""
        try:
            for handle in HANDLERS:
                if answer := handle(self.backend, context):
                    return answer
            raise AssertionError("the last handler always answers")
        except AwsError as error:
            return query.error_answer(error, context.request_id, context.dialect)
        except ConnectionCut:
            if SEVER in context.environ:
                context.environ[SEVER]()
            return Answer(502, (), b"")
        except Exception as problem:  # noqa: BLE001 - unhandled it would be an HTML page, which clients cannot read
            failure = http.store_full_error(problem) or _internal_error(context)
            return query.error_answer(failure, context.request_id, context.dialect)

    def _headers(self, context: RequestContext, answer: Answer) -> list[tuple[str, str]]:
        is_head = context.request.method == "HEAD"
        headers = [(name, value) for name, value in answer.headers if name.lower() not in DROPPED[is_head]]
        if not is_head:
            length = answer.content.length if answer.content else len(answer.body)
            headers.append(("Content-Length", str(length)))
        headers.append(("x-amzn-RequestId", context.request_id))
        if context.skew:
            headers.append(("Date", format_datetime(self._clock.now() + context.skew, usegmt=True)))
        return headers

    def _machine_exited(self, machine_id: str) -> None:
        self.backend.submit(machine_id, jobs.exited, machine_id)


DROPPED = {
    False: frozenset({"content-length", "transfer-encoding", "connection"}),
    True: frozenset({"transfer-encoding", "connection"}),
}
"""Headers of moto's answers that are not sent, by whether the request is a HEAD. The answer to a HEAD has no body, so
it keeps moto's Content-Length, which is that of a GET."""


def _finish_body(context: RequestContext) -> None:
    """Read the rest of the request's body, or have the connection closed after the answer."""
    is_read = "transfer-encoding" not in context.request.headers and bodies.discard_rest(context.environ["wsgi.input"])
    if not is_read and CLOSE in context.environ:
        context.environ[CLOSE]()


def _internal_error(context: RequestContext) -> AwsError:
    """Log the exception that is being handled, and make the error of the answer."""
    log.exception("request %s failed: %s %s", context.request_id, context.request.method, context.request.path)
    return AwsError("InternalError", f"An internal error has occurred (request {context.request_id})", status=500)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"

"""The gateway: one WSGI application that is EC2, and what moto keeps, for all regions.

A request is refused if a browser could have sent it, its signature says who asks, of which service and where; an
action of EC2's that the gateway owns is done against the database, everything else is moto's. Nothing leaves that
is not on disk, and nothing that goes wrong leaves as HTML.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from email.utils import format_datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from imagepipe.clock import Clock
from imagepipe.local.aws import admin
from imagepipe.local.aws.authentication import signature
from imagepipe.local.aws.authentication.accounts import Accounts
from imagepipe.local.aws.authentication.signature import Identity, Request, Secret
from imagepipe.local.aws.authorization import policies
from imagepipe.local.aws.authorization.ec2 import of_ec2
from imagepipe.local.aws.authorization.other_services import of_others, of_s3
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import recovery
from imagepipe.local.aws.ec2.actions import MOTO, OWN
from imagepipe.local.aws.ec2.instances import jobs
from imagepipe.local.aws.faults.faults import Fault, Faults
from imagepipe.local.aws.moto import s3, s3_transfers
from imagepipe.local.aws.moto.adapter import Moto
from imagepipe.local.aws.moto.bundles import Bundles
from imagepipe.local.aws.moto.vpcs import Network
from imagepipe.local.aws.protocol import bodies, http, query
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.paths import HAS_TOKEN, OWN_PATHS
from imagepipe.local.aws.protocol.query import Answer, Call
from imagepipe.local.aws.services import ssm, sts
from imagepipe.local.aws.state.database import Database
from imagepipe.local.disks.base_image import BaseImage
from imagepipe.local.disks.files import Disks
from imagepipe.local.machines.driver import Driver

log = logging.getLogger(__name__)

SEVER = "imagepipe.sever"
"""In the WSGI environment: a function that closes the connection without an answer. The server puts it there."""
CLOSE = "imagepipe.close"
"""In the WSGI environment: a function that has the connection closed once the answer is sent."""


class Gateway:
    """EC2 and S3 for one store. Served by many threads; one in a process, as moto's state is the process's."""

    def __init__(
        self,
        *,
        state: Path,
        disks: Disks,
        driver: Driver,
        base: BaseImage,
        clock: Clock,
        credentials: Mapping[str, tuple[str, str] | Secret],
        faults: Iterable[Fault] = (),
        seed: int = 0,
        delays: Mapping[str, float] | None = None,
    ) -> None:
        """`credentials` gives the secret key and the account of each access key id, as a `Secret` does.

        `delays`, in seconds, for tests: how long a `run`, `stop`, `terminate`, `volume`, `snapshot`, `image`
        or `copy` takes at least. `seed` is that of the faults' dice.
        """
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clock = clock
        self._database = Database(state / "gateway.sqlite")
        self._moto = Moto(self._database, state / "objects")
        self._transfers = s3_transfers.Transfers(self._moto)
        self.backend = Backend(
            database=self._database,
            disks=disks,
            driver=driver,
            network=Network(self._moto),
            moto=self._moto,
            accounts=Accounts(self._database, {key: Secret(*secret) for key, secret in credentials.items()}),
            base=base,
            clock=clock,
            faults=Faults(faults, seed=seed),
            bundles=Bundles(self._moto, state),
            delays=delays or {},
        )
        driver.on_exit(self._machine_exited)

    def recover(self) -> None:
        """Adopt or reap the machines of the process before, and finish what it had begun. Call before serving."""
        recovery.recover(self.backend)
        _ = self.backend.bundles.certificate  # before anybody wants to bundle for it

    def instances(self) -> int:
        """How many instances are neither stopped nor terminated."""
        return sum(row.state not in ("stopped", "terminated") for row in self._database.instances)

    def close(self) -> None:
        """Let the work in hand end. What is not done is taken up by the next `recover`."""
        self.backend.job_queues.close()
        self._database.close()

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]
    ) -> Iterable[bytes]:
        request_id = str(uuid.uuid4())
        request = http.request(environ)
        scope = signature.scope(request)
        dialect = "json" if "x-amz-target" in request.headers else scope.service if scope else "s3"
        skew = self._skew(request)
        try:
            answer = self._answer(request, environ, request_id, skew)
        except AwsError as refused:
            answer = query.refusal(refused, request_id, dialect)
        except _Cut:
            if SEVER in environ:
                environ[SEVER]()
            answer = Answer(502, (), b"")
        except Exception as problem:  # noqa: BLE001 - unhandled it would be an HTML page, which clients cannot read
            answer = query.refusal(http.no_room(problem) or _unknown(request, request_id), request_id, dialect)
        is_read = "transfer-encoding" not in request.headers and bodies.read_away(environ["wsgi.input"])
        if not is_read and CLOSE in environ:
            environ[CLOSE]()
        length = answer.content.length if answer.content else len(answer.body)
        headers = [
            (name, value) for name, value in answer.headers if name.lower() not in DROPPED[request.method == "HEAD"]
        ]
        if request.method != "HEAD":
            headers.append(("Content-Length", str(length)))
        headers.append(("x-amzn-RequestId", request_id))
        if skew:
            headers.append(("Date", format_datetime(self._clock.now() + skew, usegmt=True)))
        start_response(f"{answer.status} {_phrase(answer.status)}", headers)
        return answer.content or ([] if request.method == "HEAD" else [answer.body])

    def _skew(self, request: Request) -> timedelta:
        """How far the cloud's clock is off for this request."""
        if request.path.startswith(OWN_PATHS):
            return timedelta()
        fault = self.backend.faults.take("skew", "*", {})
        return timedelta(seconds=fault.seconds if fault else 0)

    def _answer(self, request: Request, environ: dict[str, Any], request_id: str, skew: timedelta) -> Answer:
        http.refuse_strangers(request, has_token=environ.get(HAS_TOKEN))
        if request.path == admin.HEALTH:
            return admin.health()
        now, secret = self._clock.now() + skew, self.backend.accounts.secret
        if not signature.check_caller(request, secret, now):
            request = http.with_body(request, environ)
        identity = signature.identify(request, secret, now, self.backend.clock.now())
        asked = s3.asked(request) if identity.service == "s3" else None
        if asked is not None and asked.operation in s3_transfers.UPLOADS:
            return self._s3(identity, request, environ, asked)
        request = http.with_body(request, environ)
        signature.check_payload(request)
        if request.path.startswith(OWN_PATHS):
            policies.refuse_admin(self.backend, identity)
            return admin.answer(self.backend, identity, request)
        if identity.service == "ec2":
            return self._ec2(identity, request, environ, request_id)
        if asked is not None:
            return self._s3(identity, request, environ, asked)
        action = _action_elsewhere(request)
        self.backend.calls.add(identity.service, action)
        policies.check(self.backend, identity, of_others(self.backend, identity, action, request))
        return self._guarded(identity, action, {}, lambda: self._other(identity, request, environ, action, request_id))

    def _s3(self, identity: Identity, request: Request, environ: dict[str, Any], asked: s3.Asked) -> Answer:
        self.backend.calls.add("s3", asked.operation)
        if not asked.operation:
            text = "The specified method is not allowed against this resource."
            raise AwsError("MethodNotAllowed", text, status=405)
        policies.check(self.backend, identity, of_s3(identity, request, asked))

        def act() -> Answer:
            received = None
            if asked.operation in s3_transfers.UPLOADS:
                # Read already where the request did not state its digest: its signature could not be checked before.
                source = io.BytesIO(request.body) if request.body else environ["wsgi.input"]
                received = self._transfers.receive(request, source, http.length(request))
            md5 = received.md5 if received else hashlib.md5(request.body, usedforsecurity=False).digest()

            def moto(environ: dict[str, Any]) -> Answer:
                answer = self._transfers.answer(identity, request, environ, asked, received)
                return _sound(answer, asked.operation, request)

            try:
                with self._moto.lock("s3"):
                    return s3.answer(identity, request, asked, environ, md5, moto)
            finally:
                if received is not None:
                    self._transfers.release(received)

        return self._guarded(identity, f"s3:{asked.operation}", asked.params(), act)

    def _other(
        self, identity: Identity, request: Request, environ: dict[str, Any], action: str, request_id: str
    ) -> Answer:
        """Another service's action: the few that are done here, and all that moto does."""

        def moto(request: Request) -> Answer:
            return self._moto_answer(identity, request, environ, action)

        own = None
        if identity.service == "sts":
            values = query.form(request.query, request.body)
            own = sts.answer(self.backend, identity, action, values, request_id)
        elif identity.service == "ssm":
            own = ssm.answer(self.backend, identity, action, request, moto)
        return own or moto(request)

    def _ec2(self, identity: Identity, request: Request, environ: dict[str, Any], request_id: str) -> Answer:
        values = query.form(request.query, request.body)
        action = values.get("Action", "")
        if not query.is_action(action):
            raise AwsError("InvalidAction", f"The action {action or '(none)'} is not valid for this web service.")
        self.backend.calls.add("ec2", action)
        self.backend.settle(identity.account, identity.region)
        if action in OWN:
            params = query.params(action, values)
            call = Call(action, identity.account, identity.region, params, request_id)
            policies.check(self.backend, identity, of_ec2(self.backend, call))
            return self._guarded(identity, action, params, lambda: self._own(call))
        if action not in MOTO:
            raise AwsError("UnsupportedOperation", f"The local cloud does not have the action {action}")
        call = Call(action, identity.account, identity.region, {}, request_id)
        policies.check(self.backend, identity, of_ec2(self.backend, call))

        def pass_on() -> Answer:
            with self._database.lock:
                _check_network_unused(self.backend, identity, action, values)
            return self._moto_answer(identity, request, environ, action)

        return self._guarded(identity, action, values, pass_on)

    def _guarded(self, identity: Identity, action: str, params: Mapping[str, Any], act: Callable[[], Answer]) -> Answer:
        """Do it, with the faults that are set around it."""
        faults = self.backend.faults
        slow = faults.take("delay", action, params)
        if slow is not None:
            time.sleep(slow.seconds)
        if faults.expire(identity.access_key_id, action, params):
            raise signature.expired(identity.service)
        faults.refuse(action, params)
        if faults.take("cut-before", action, params):
            raise _Cut
        cuts_after = faults.take("cut-after", action, params) is not None
        late = faults.take("delay-after", action, params)
        answer = act()
        if late is not None:
            time.sleep(late.seconds)
        if cuts_after:
            raise _Cut
        return answer

    def _own(self, call: Call) -> Answer:
        faults = self.backend.faults
        with self._database.change():
            faults.fresh.refuse(call)
            answer = OWN[call.action](self.backend, call)
            if call.params.get("DryRun"):
                raise AwsError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412)
        if call.action.startswith("Describe"):
            answer = faults.fresh.without(answer)
        elif hidden := faults.take("hide", call.action, call.params):
            faults.fresh.hide(answer, seconds=hidden.seconds, calls=hidden.calls)
        return query.result(call.action, answer, call.request_id)

    def _moto_answer(self, identity: Identity, request: Request, environ: dict[str, Any], action: str) -> Answer:
        return _sound(self._moto.answer(identity, request, environ, action), action, request)

    def _machine_exited(self, machine_id: str) -> None:
        self.backend.job_queues.submit(machine_id, partial(jobs.exited, self.backend, machine_id))


HTML = re.compile(rb"\s*<(!doctype )?html", re.IGNORECASE)


def _sound(answer: Answer, action: str, request: Request) -> Answer:
    """moto's answer, where it is one that clients can read. Raises AwsError."""
    if answer.status >= 500 or (answer.status >= 400 and HTML.match(answer.body)):
        log.error("moto answered %s with %s: %r", action or request.path, answer.status, answer.body[:500])
        raise AwsError("InternalError", f"The local cloud cannot do {action or request.method} like this", status=500)
    return answer


class _Cut(Exception):
    """The connection is to end without an answer."""


DROPPED = {
    False: frozenset({"content-length", "transfer-encoding", "connection"}),
    True: frozenset({"transfer-encoding", "connection"}),
}
"""By whether it is a HEAD: its Content-Length is that of the body that a GET would have."""


def _unknown(request: Request, request_id: str) -> AwsError:
    """The answer to what went wrong here; called where the error is being handled."""
    log.exception("request %s failed: %s %s", request_id, request.method, request.path)
    return AwsError("InternalError", f"An internal error has occurred (request {request_id})", status=500)


def _action_elsewhere(request: Request) -> str:
    """The action of a request for another service than EC2 and S3."""
    target = request.headers.get("x-amz-target", "")
    if target:
        return target.rpartition(".")[2]
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return query.form(request.query, request.body).get("Action", "")
    return ""


def _check_network_unused(backend: Backend, identity: Identity, action: str, values: Mapping[str, str]) -> None:
    """moto knows nothing of our instances and groups: what they are in is not deleted."""
    database = backend.database
    living = [row for row in database.instances.owned(identity.account, identity.region) if row.state != "terminated"]
    if action == "DeleteSubnet":
        name = values.get("SubnetId", "")
        used = any(row.subnet_id == name for row in living)
    elif action == "DeleteVpc":
        name = values.get("VpcId", "")
        groups = [row for row in database.groups.owned(identity.account, identity.region) if row.vpc_id == name]
        used = any(row.vpc_id == name for row in living) or any(row.name != "default" for row in groups)
    else:
        return
    if used:
        raise AwsError("DependencyViolation", f"The {name} has dependencies and cannot be deleted.")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
